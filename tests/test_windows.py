"""A real extraction with a video model: which frames make a row, when it is, and what the store says of it."""

import json
import subprocess
import sys

import h5py
import numpy as np
import pytest
from small_models import SIDE, SMALL

from longreel.errors import StoreMismatch
from longreel.extract import Sampling, embed, extract_clips, load_backbone
from longreel.manifest import read_manifest
from longreel.store import FeatureStore, shard_paths


@pytest.fixture
def folder(tmp_path, make_video, moving_frames):
    """A tiny VideoMAE of four frames, and two videos: of two seconds, and of a quarter of one."""
    SMALL["videomae"].save(tmp_path / "tiny")
    make_video(tmp_path / "long.mp4", moving_frames(24), fps=12)
    make_video(tmp_path / "short.mp4", moving_frames(3), fps=12)
    (tmp_path / "clips.csv").write_text("path,label,split\nlong.mp4,x,train\nshort.mp4,y,train\n")
    return tmp_path


def extract(folder, store, sampling=None, **choices):
    backbone = load_backbone(str(folder / "tiny"), device="cpu", **choices)
    report = extract_clips(read_manifest(folder / "clips.csv"), folder / store, backbone, sampling=sampling)
    assert report.written == 2
    return FeatureStore(folder / store)


def test_without_a_word_a_clip_is_one_window_of_the_model(folder):
    with extract(folder, "store") as store:
        assert store.spec.sampling == "4 frames"
        np.testing.assert_allclose(store["long.mp4"].seconds, [3 / 12])  # the middle of the first of four quarters
        assert store["long.mp4"].features.shape == (1, 24)
        assert len(store["short.mp4"].seconds) == 1  # three frames, the last one repeated


def test_a_row_is_a_window_and_begins_at_its_first_frame(folder, moving_frames):
    with extract(folder, "store", Sampling(fps=6)) as store:
        long, short = store["long.mp4"], store["short.mp4"]
    np.testing.assert_allclose(long.seconds, [0, 4 / 6, 8 / 6], atol=1e-6)
    np.testing.assert_allclose(short.seconds, [0.0])
    backbone = load_backbone(str(folder / "tiny"), device="cpu")
    frames = np.stack([backbone.preprocessing.apply(frame) for frame in moving_frames(24)[::2]])
    assert frames.shape == (12, SIDE, SIDE, 3)
    theirs = embed(backbone, frames)  # from the pixels that were encoded: the codec changes them a little
    cosine = (theirs * long.features).sum(1) / np.linalg.norm(theirs, axis=1) / np.linalg.norm(long.features, axis=1)
    assert cosine.min() > 0.99


def test_the_spec_has_embedding_and_precision_and_the_provenance_device_and_batch(folder):
    with extract(folder, "store") as store:
        assert (store.spec.embedding, store.spec.precision) == ("pooled", "float32")
    with h5py.File(shard_paths(folder / "store")[0]) as file:
        provenance = json.loads(bytes(np.asarray(file.attrs["provenance"]).item()))
    assert (provenance["device"], provenance["batch"]) == ("cpu", 1)
    with pytest.raises(StoreMismatch, match="precision is 'float32', not 'bfloat16'"):
        extract(folder, "store", precision="bfloat16")


def test_the_command_line_passes_its_choices_on(folder):
    choices = "--backbone tiny --embedding pooled --precision bfloat16 --device cpu --frames 8 --json"
    command = [sys.executable, "-P", "-m", "longreel.cli", "extract", "clips.csv", "store", *choices.split()]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    with FeatureStore(folder / "store") as store:
        assert (store.spec.embedding, store.spec.precision, store.spec.sampling) == ("pooled", "bfloat16", "8 frames")
        assert store["long.mp4"].features.shape == (2, 24)


def test_the_other_clips_of_a_run_change_no_row(folder):
    with extract(folder, "one", Sampling(fps=6)) as one:
        (folder / "clips.csv").write_text("path,label,split\nshort.mp4,y,train\nlong.mp4,x,train\n")
        with extract(folder, "two", Sampling(fps=6)) as two:
            for clip in ("long.mp4", "short.mp4"):
                np.testing.assert_array_equal(one[clip].features, two[clip].features)
