"""Of every family: rows are the model's own, and depend on their own window alone."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from small_models import SIDE, SMALL, photo
from transformers import AutoModel

from longreel.extract import embed
from longreel.extract.backbones import load_backbone


@pytest.fixture
def threads():
    """Puts torch's number of threads back."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def windows(small, count):
    frames = [photo(SIDE, SIDE, seed) for seed in range(count * small.frames)]
    return np.stack(frames).reshape(count, small.frames, SIDE, SIDE, 3)


def own_rows(folder, small, feature, count):
    model = AutoModel.from_pretrained(folder).eval()
    with torch.inference_mode():
        return np.stack([feature(model, window).flatten().numpy() for window in small.pixels(windows(small, count))])


@pytest.mark.parametrize("small", SMALL.values(), ids=SMALL)
def test_rows_are_those_of_the_models_own_forward_on_each_window_alone(tmp_path, small):
    folder = small.save(tmp_path / "tiny")
    backbone = load_backbone(str(folder), device="cpu")
    assert (backbone.name, backbone.dim, backbone.window) == ("tiny", small.dim, small.frames)
    assert (backbone.embedding, backbone.precision, backbone.device) == ("pooled", "float32", "cpu")
    assert backbone.sampling.frames == (16 if small.frames == 1 else small.frames)
    rows = embed(backbone, windows(small, 11).reshape(-1, SIDE, SIDE, 3))
    theirs = own_rows(folder, small, small.row, 11)
    assert rows.dtype == np.float32
    assert theirs.std(axis=0).max() > 1e-3  # the windows are told apart at all
    np.testing.assert_allclose(rows, theirs, rtol=2e-4, atol=2e-5)


TWO_SIDED = {name: small for name, small in SMALL.items() if small.projected}


@pytest.mark.parametrize("small", TWO_SIDED.values(), ids=TWO_SIDED)
def test_projected_rows_are_those_of_the_space_shared_with_text(tmp_path, small):
    folder = small.save(tmp_path / "tiny")
    backbone = load_backbone(str(folder), embedding="projected", device="cpu")
    rows = embed(backbone, windows(small, 5).reshape(-1, SIDE, SIDE, 3))
    np.testing.assert_allclose(rows, own_rows(folder, small, small.projected, 5), rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("small", SMALL.values(), ids=SMALL)
def test_a_row_is_the_same_bits_wherever_it_stands_and_whatever_stands_beside_it(tmp_path, small, count, threads):
    backbone = load_backbone(str(small.save(tmp_path / "tiny")), device="cpu")
    threads(count)
    clips = windows(small, backbone.batch)
    rows = backbone(clips)
    order = np.random.default_rng(0).permutation(backbone.batch)
    np.testing.assert_array_equal(backbone(clips[order]), rows[order])
    for place in range(backbone.batch):
        alone = np.zeros_like(clips)
        alone[-1 - place] = clips[place]
        np.testing.assert_array_equal(backbone(alone)[-1 - place], rows[place])


@pytest.mark.parametrize("small", SMALL.values(), ids=SMALL)
def test_several_threads_at_once_get_the_same_bits(tmp_path, small):
    backbone = load_backbone(str(small.save(tmp_path / "tiny")), device="cpu")
    batches = [np.roll(windows(small, backbone.batch), shift, axis=1) for shift in range(6)]
    one_by_one = [backbone(batch) for batch in batches]
    with ThreadPoolExecutor(3) as pool:
        np.testing.assert_array_equal(list(pool.map(backbone, batches)), one_by_one)


@pytest.mark.parametrize("small", SMALL.values(), ids=SMALL)
def test_half_the_precision_gives_almost_the_same_rows(tmp_path, small):
    folder = str(small.save(tmp_path / "tiny"))
    frames = windows(small, 4).reshape(-1, SIDE, SIDE, 3)
    whole, half = (
        embed(load_backbone(folder, precision=kind, device="cpu"), frames) for kind in ("float32", "bfloat16")
    )
    assert half.dtype == np.float32
    assert not np.array_equal(half, whole)
    cosine = (whole * half).sum(1) / np.linalg.norm(whole, axis=1) / np.linalg.norm(half, axis=1)
    assert cosine.min() > 0.999
