"""The forward pass over several clips: whose row is whose, what shape a batch has, and how many are under way."""

import threading
import time
import weakref
from dataclasses import dataclass, field

import numpy as np
import pytest

from longreel.extract import Sampling, embed
from longreel.extract.forward import ClipRows, Forward
from longreel.extract.preprocessing import Preprocessing


@dataclass
class Means:
    """A backbone whose row is its window's mean, and which notes how it is called."""

    batch: int = 4
    window: int = 2
    reach: int | None = None
    seconds: float = 0.0
    name: str = "means"
    weights: str = "none"
    embedding: str = "descriptor"
    precision: str = "float32"
    device: str = "cpu"
    dim: int = 1
    sampling: Sampling = field(default_factory=lambda: Sampling(fps=1))
    preprocessing: Preprocessing = field(default_factory=lambda: Preprocessing(3, 5))
    normalisation: str = "none"
    shapes: set = field(default_factory=set)
    begun: int = 0

    def __call__(self, windows: np.ndarray, /) -> np.ndarray:
        self.shapes.add(windows.shape)
        self.begun += 1
        time.sleep(self.seconds)
        if (windows == 255).any():
            raise RuntimeError("too bright")
        return windows.mean(axis=(1, 2, 3, 4), dtype=np.float32)[:, None]


def clip(*values: int) -> np.ndarray:
    return np.stack([np.full((3, 5, 3), value, dtype=np.uint8) for value in values])


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("batch", [1, 3, 4, 50])
def test_each_clip_gets_its_own_rows_in_order_from_batches_of_one_shape(threads, batch):
    backbone, clips = Means(batch=batch), [ClipRows() for _ in range(7)]
    with Forward(backbone, threads) as forward:
        for chunk in range(3):
            for number, rows in enumerate(clips):
                forward.add(rows, clip(*[10 * number + chunk] * 2 * (number + 1)))
        forward.finish()
    for number, rows in enumerate(clips):
        assert rows.complete
        expected = [10 * number + chunk for chunk in range(3) for _ in range(number + 1)]
        assert rows.stacked()[:, 0].tolist() == expected
    assert backbone.shapes == {(batch, 2, 3, 5, 3)}


def test_a_short_last_window_repeats_its_last_frame():
    assert embed(Means(), clip(10, 20, 30, 70, 90))[:, 0].tolist() == [15, 50, 90]


@dataclass
class Tokens(Means):
    """Its rows are views of all that it computed, as those of a class token are."""

    computed: list[weakref.ref] = field(default_factory=list)

    def __call__(self, windows: np.ndarray, /) -> np.ndarray:
        tokens = np.zeros((len(windows), 197, 1), dtype=np.float32)
        self.computed.append(weakref.ref(tokens))
        return tokens[:, 0]


def test_rows_keep_nothing_else_of_their_batch():
    backbone, rows = Tokens(batch=1), ClipRows()
    with Forward(backbone, 1) as forward:
        forward.add(rows, clip(*range(10)))
        forward.finish()
    assert rows.stacked().shape == (5, 1)
    assert [reference() for reference in backbone.computed] == [None] * 5


def test_a_clip_is_not_complete_before_its_last_row_is_there():
    rows = ClipRows()
    with Forward(Means(batch=2), 1) as forward:
        forward.add(rows, clip(1, 1, 2, 2, 3, 3))  # three windows; the third waits for company
        assert not rows.complete
        forward.finish()
    assert rows.complete


def test_no_more_batches_are_begun_than_the_threads_need_however_many_frames_come():
    backbone = Means(batch=1, window=1, seconds=0.05)
    with Forward(backbone, 2) as forward:
        forward.add(ClipRows(), clip(*range(40)))
        assert len(forward._running) <= 4
        forward.finish()
    assert backbone.begun == 40


def test_an_error_of_the_backbone_comes_out_and_leaves_no_thread():
    before = threading.active_count()
    with pytest.raises(RuntimeError, match="too bright"):
        embed(Means(batch=1), clip(255, 255))
    assert threading.active_count() == before


@pytest.mark.parametrize("frames", [clip(1)[:0], clip(1).astype(np.float32), clip(1)[:, :2]])
def test_other_frames_are_refused(frames):
    with pytest.raises(ValueError, match=r"means takes \(T >= 1, 3, 5, 3\) uint8"):
        embed(Means(), frames)


@pytest.mark.usefixtures("one_thread")
def test_torch_has_the_threads_it_had_before():
    import torch

    torch.set_num_threads(2)
    with Forward(Means(), 2):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)
