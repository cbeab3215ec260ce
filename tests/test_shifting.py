"""The temporal shift: rows are those of loops over frames and channels, whatever the length of the clip."""

import json

import numpy as np
import pytest
import torch
from small_models import SIDE, SMALL
from small_shifting import clip_of, rows_of_folder, save_shifted, shift_by_loops

from longreel.errors import LongreelError, StoreMismatch
from longreel.extract import Sampling, embed, extract_clips, load_backbone
from longreel.extract.backbones.shifting import shift
from longreel.extract.forward import ClipRows, Forward
from longreel.manifest import read_manifest
from longreel.store import FeatureStore

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three blocks shift."""
    return save_shifted(tmp_path_factory.mktemp("m") / "tiny")


@pytest.fixture
def backbone(folder):
    return load_backbone(str(folder), device="cpu")


@pytest.mark.parametrize("division", [2, 3, 8])
@pytest.mark.parametrize("frames", [1, 2, 5])
def test_the_shift_is_that_of_loops_over_frames_and_channels(frames, division):
    hidden = torch.randn(frames, 17, 3, 2, generator=torch.Generator().manual_seed(0))
    nothing = torch.zeros(1, 17, 3, 2)
    assert torch.equal(shift(torch.cat([nothing, hidden, nothing]), division), shift_by_loops(hidden, division))


@pytest.mark.parametrize("frames", [1, 2, 7, 8, 9, 20])
def test_rows_are_those_of_the_models_own_forward_with_a_shift_by_loops(folder, backbone, frames):
    clip = clip_of(frames)
    rows, naive = embed(backbone, clip), rows_of_folder(folder, clip)
    assert rows.shape == (frames, 40)
    np.testing.assert_allclose(rows, naive, rtol=1e-5, atol=1e-5 * np.abs(naive).max())


@pytest.mark.parametrize(
    ("depths", "kind", "division", "step", "reach"),
    [
        ((2, 1), "basic", 8, 1, 3),
        ((2, 1), "bottleneck", 4, 1, 3),
        ((1, 1, 22), "bottleneck", 8, 1, 24),
        ((2, 3, 23), "bottleneck", 8, 2, 15),  # as the released ResNet-101: 1 + 2 + 12 of the blocks
    ],
)
def test_the_blocks_that_shift_are_those_of_the_released_code(tmp_path, depths, kind, division, step, reach):
    folder = save_shifted(tmp_path / "tiny", depths, kind, division)
    backbone = load_backbone(str(folder), device="cpu")
    assert backbone.reach == reach
    naive = rows_of_folder(folder, clip_of(6), division, step)
    np.testing.assert_allclose(embed(backbone, clip_of(6)), naive, rtol=1e-5, atol=1e-5 * np.abs(naive).max())


def test_a_row_depends_on_the_frames_within_its_reach_and_on_no_others(backbone):
    assert backbone.reach == 3
    clip = clip_of(12)
    before = embed(backbone, clip)
    clip[5] = 255 - clip[5]
    changed = (embed(backbone, clip) != before).any(axis=1)
    assert np.flatnonzero(changed).tolist() == [2, 3, 4, 5, 6, 7, 8]


def test_without_its_key_the_folder_is_a_plain_image_model_of_other_rows(folder, tmp_path):
    plain = save_shifted(tmp_path / "plain")
    config = json.loads((plain / "config.json").read_text())
    del config["temporal_shift"]
    (plain / "config.json").write_text(json.dumps(config))
    backbones = [load_backbone(str(each), device="cpu") for each in (plain, folder)]
    assert backbones[0].reach is None
    assert backbones[0].weights != backbones[1].weights
    rows = [embed(each, clip_of(4)) for each in backbones]
    assert np.abs(rows[0] - rows[1]).max() > 0.01


@pytest.mark.parametrize("shift", [1, 0, -8, 2.5, "eighth", True])
def test_a_shift_that_is_no_part_of_the_channels_is_refused(tmp_path, shift):
    folder = save_shifted(tmp_path / "tiny")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"temporal_shift": shift}))
    with pytest.raises(LongreelError, match=r"temporal_shift .* of a resnet is not understood"):
        load_backbone(str(folder))


def test_a_shift_in_another_kind_of_model_is_refused(tmp_path):
    folder = SMALL["vit"].save(tmp_path / "tiny")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"temporal_shift": 8}))
    with pytest.raises(LongreelError, match="temporal_shift 8 of a vit is not understood"):
        load_backbone(str(folder))


@pytest.mark.parametrize("window", [3, 4, 7, 11])
def test_a_clip_longer_than_what_is_seen_at_a_time_has_the_same_bits(backbone, window):
    clip = clip_of(30)
    assert backbone.window == 160
    whole = embed(backbone, clip)
    backbone.window = window
    np.testing.assert_array_equal(embed(backbone, clip), whole)


def test_clips_of_one_run_do_not_see_one_another(backbone):
    clips = [clip_of(frames)[:: (-1) ** frames] for frames in (9, 1, 14, 5)]
    alone = [embed(backbone, clip) for clip in clips]
    backbone.window = 4
    together = [ClipRows() for _ in clips]
    with Forward(backbone, 2) as forward:
        for begin in range(0, 14, 4):
            for rows, clip in zip(together, clips, strict=True):
                if begin < len(clip):
                    forward.add(rows, clip[begin : begin + 4])
        forward.finish()
    for rows, expected in zip(together, alone, strict=True):
        assert rows.complete
        np.testing.assert_array_equal(rows.stacked(), expected)


def test_half_the_precision_gives_almost_the_same_rows(folder, backbone):
    whole = embed(backbone, clip_of(6))
    half = embed(load_backbone(str(folder), precision="bfloat16", device="cpu"), clip_of(6))
    assert half.dtype == np.float32
    assert not np.array_equal(half, whole)
    cosine = (whole * half).sum(1) / np.linalg.norm(whole, axis=1) / np.linalg.norm(half, axis=1)
    assert cosine.min() > 0.999


def test_an_extraction_gives_a_row_and_a_time_for_every_sampled_frame(folder, tmp_path, make_video, moving_frames):
    drawn = moving_frames(48)
    make_video(tmp_path / "long.mp4", drawn, fps=12)
    make_video(tmp_path / "short.mp4", drawn[:3], fps=12)
    (tmp_path / "clips.csv").write_text("path,label,split\nlong.mp4,x,train\nshort.mp4,y,train\n")
    backbone = load_backbone(str(folder), device="cpu")
    backbone.window = 10  # so that the long clip is seen in three parts
    clips = read_manifest(tmp_path / "clips.csv")
    assert extract_clips(clips, tmp_path / "store", backbone, sampling=Sampling(fps=6)).written == 2
    with FeatureStore(tmp_path / "store") as store:
        long, short = store["long.mp4"], store["short.mp4"]
    np.testing.assert_allclose(long.seconds, np.arange(24) / 6, atol=1e-6)
    np.testing.assert_allclose(short.seconds, [0, 1 / 6], atol=1e-6)
    frames = np.stack([backbone.preprocessing.apply(frame) for frame in drawn[::2]])
    assert frames.shape == (24, SIDE, SIDE, 3)
    theirs = rows_of_folder(folder, frames)  # from the pixels that were encoded: the codec changes them a little
    cosine = (theirs * long.features).sum(1) / np.linalg.norm(theirs, axis=1) / np.linalg.norm(long.features, axis=1)
    assert cosine.min() > 0.99
    other = (theirs * long.features[::-1]).sum(1) / np.linalg.norm(theirs, axis=1)
    assert (other / np.linalg.norm(long.features[::-1], axis=1)).min() < 0.95  # rows of other moments are told apart
    assert extract_clips(clips, tmp_path / "default", load_backbone(str(folder), device="cpu")).written == 2
    with FeatureStore(tmp_path / "default") as store:
        assert store.spec.sampling == "8 frames"
        assert len(store["long.mp4"].seconds) == 8
    with pytest.raises(LongreelError, match="frames in a row; it cannot take keyframes alone"):
        extract_clips(clips, tmp_path / "keys", backbone, sampling=Sampling(fps=1, keyframes=True))
    with pytest.raises(StoreMismatch, match="sampling is '6 fps', not '3 fps'"):
        extract_clips(clips, tmp_path / "store", backbone, sampling=Sampling(fps=3))
