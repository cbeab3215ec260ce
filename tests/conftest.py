import ctypes
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from small_decoding import workers_of

IN_OPEN = 0x20  # <sys/inotify.h>


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The labelled data that lies beside the checkout, or beside the clone that a checkout was unpacked in."""
    for folder in Path(__file__).resolve().parents[1:]:
        if (folder / "shared" / "data" / "videos").is_dir():
            return folder / "shared" / "data"
    pytest.skip("needs the labelled data in ../shared/data")


@pytest.fixture(scope="session")
def make_video() -> Callable[..., Path]:
    """Write a real video: ``make_video(path, frames, fps=25, codec="libx264", format="mp4", options={}, ticks=None)``.

    ``ticks`` are the frames' times in milliseconds, for a variable frame rate.
    """

    def make(
        path: Path,
        frames: Sequence[NDArray[np.uint8]],
        fps: int = 25,
        codec: str = "libx264",
        format: str = "mp4",
        options: Mapping[str, str] | None = None,
        ticks: Sequence[int] | None = None,
    ) -> Path:
        with av.open(str(path), "w", format=format) as container:
            stream = container.add_stream(codec, rate=fps, options=dict(options or {}))
            assert isinstance(stream, av.VideoStream)
            stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv420p"
            if ticks is not None:
                stream.codec_context.time_base = Fraction(1, 1000)
            for index, pixels in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                if ticks is not None:
                    frame.pts, frame.time_base = ticks[index], Fraction(1, 1000)
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path

    return make


@pytest.fixture(scope="session")
def moving_frames() -> Callable[[int], list[NDArray[np.uint8]]]:
    """``moving_frames(n)``: small frames of which no two are alike."""

    def draw(count: int) -> list[NDArray[np.uint8]]:
        y, x = np.mgrid[:48, :64]
        return [
            np.stack([(4 * x + 3 * i) % 256, (5 * y + 7 * i) % 256, np.full_like(x, 4 * i % 256)], -1).astype(np.uint8)
            for i in range(count)
        ]

    return draw


@pytest.fixture(scope="session")
def short_clip(tmp_path_factory, make_video, moving_frames) -> Path:
    return make_video(tmp_path_factory.mktemp("v") / "short.mp4", moving_frames(40))


@pytest.fixture(scope="session")
def long_clip(tmp_path_factory, make_video, moving_frames) -> Path:
    """A clip of more frames than fit in the queue, so that its worker still runs when its first frames are here."""
    # Of a high rate, since a clip's duration is added to its deadline.
    frames = moving_frames(100) * 12
    return make_video(tmp_path_factory.mktemp("v") / "long.mp4", frames, fps=1000, options={"preset": "ultrafast"})


@pytest.fixture
def no_worker_left() -> Iterator[None]:
    """Every decode process of the test has ended with it."""
    if not Path("/proc/self/task").is_dir():
        pytest.skip("needs Linux's /proc")
    yield
    assert workers_of(os.getpid()) == []


@pytest.fixture
def watch_opens() -> Iterator[Callable[[Path], Callable[[], bool]]]:
    """``opened = watch_opens(path)``: ``opened()`` says whether anything has opened the file since. Linux only."""
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "inotify_init1"):
        pytest.skip("needs Linux's inotify")
    descriptors = []

    def watch(path: Path) -> Callable[[], bool]:
        descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert libc.inotify_add_watch(descriptor, os.fsencode(path), IN_OPEN) >= 0
        descriptors.append(descriptor)

        def opened() -> bool:
            try:
                return bool(os.read(descriptor, 4096))
            except BlockingIOError:
                return False

        return opened

    yield watch
    for descriptor in descriptors:
        os.close(descriptor)


# A small synthetic store, for the tests of training, evaluation and comparison.


@dataclass(frozen=True)
class SmallStore:
    """A manifest and its store; `rows` are the manifest's, `features` what was stored for each clip."""

    manifest: Path
    store: Path
    rows: tuple[dict[str, str], ...]
    features: dict[str, NDArray[np.float16]]


@pytest.fixture(scope="session")
def write_small_store() -> Callable[..., SmallStore]:
    """Write a manifest and its store: ``write_small_store(folder, left_out=(), failed=(), splits=..., noise=1.0)``.

    There are four classes with 12, 8, 6 and 3 real training clips, one clip of each split has two of them. ``rows``
    replaces the manifest's rows; the features of a clip depend on its path alone. A second call adds newer features.
    """

    def write(
        folder: Path,
        *,
        left_out: Sequence[str] = (),
        failed: Sequence[str] = (),
        splits: Sequence[str] = ("train", "val", "test"),
        noise: float = 1.0,
        backbone: str = "toy",
        rows: Sequence[Mapping[str, str]] | None = None,
    ) -> SmallStore:
        from longreel.store import ClipFeatures, Failure, Origin, ShardWriter, Spec, append_failure

        chosen = [dict(row) for row in rows or _small_rows() if row["split"] in splits]
        store, manifest = folder / "toy.store", folder / "clips.csv"
        store.mkdir(parents=True, exist_ok=True)
        manifest.write_text("\n".join(",".join(cells) for cells in [chosen[0], *(row.values() for row in chosen)]))
        features = {row["path"]: _small_features(row["path"], noise) for row in chosen}
        with ShardWriter(store, Spec(backbone, "0", 6, "all", "none", "auto")) as writer:
            for clip_id, clip in features.items():
                if clip_id not in {*left_out, *failed}:
                    seconds = np.arange(len(clip), dtype=np.float64)
                    writer.add(clip_id, ClipFeatures(clip, seconds), Origin("pyav", 1.0, 1, 1, "00" * 32))
        for clip_id in failed:
            append_failure(store, "1of1", Failure(clip_id, clip_id, "cannot be decoded"))
        return SmallStore(manifest, store, tuple(chosen), features)

    return write


@pytest.fixture
def made(tmp_path: Path, write_small_store: Callable[..., SmallStore]) -> SmallStore:
    """A small store of this test's own."""
    return write_small_store(tmp_path / "data")


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Few numbers are trained fastest, and always to the same bits, by one thread."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _small_rows() -> list[dict[str, str]]:
    """The rows in an order that mixes classes and splits."""
    sizes = {"boat": (12, 4, 5), "car": (8, 4, 5), "dog": (5, 3, 4), "yak": (3, 3, 3)}
    rows = [
        {"path": f"{split}/{label}{number}.mp4", "label": label, "split": split}
        for label, counts in sizes.items()
        for split, count in zip(("train", "val", "test"), counts, strict=True)
        for number in range(count)
    ]
    for row in rows:
        if row["path"].endswith("boat1.mp4"):
            row["label"] = "boat;dog"
    return [rows[place] for place in np.random.default_rng(0).permutation(len(rows))]


def _small_features(clip_id: str, noise: float) -> NDArray[np.float16]:
    """``(T, 6)``: the direction of the class in the path, an offset that standardising takes away, and noise."""
    generator = np.random.default_rng(list(clip_id.encode()))
    centre = np.full(6, 5.0)
    centre[["boat", "car", "dog", "yak"].index(Path(clip_id).stem.rstrip("0123456789"))] += 1.0
    shape = (int(generator.integers(2, 7)), 6)
    return (centre + noise * generator.standard_normal(shape)).astype(np.float16)
