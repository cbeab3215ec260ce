"""A leak that was planted: a test clip that is a training clip under another name."""

from pathlib import Path

import numpy as np
import pytest

from longreel.experiments.bench import plan_runs, run_suite
from longreel.experiments.draws import Draws
from longreel.experiments.leaks import find_copies
from longreel.experiments.render import as_markdown
from longreel.experiments.suites import read_suite
from longreel.experiments.table import make_table
from longreel.manifest import read_manifest
from longreel.store import ClipFeatures, FeatureStore, Origin, ShardWriter, Spec

SUITE = """
groups = "5"
[settings]
epochs = 1
[[rows]]
name = "one"
"""


@pytest.fixture
def leaky(tmp_path) -> Path:
    """Eight videos; `copy.mp4` of test is `2.mp4` of train, `other.mp4` is a span of it that nobody trains on."""
    names = [*(f"{number}.mp4" for number in range(6)), "copy.mp4", "other.mp4"]
    splits = ["train"] * 4 + ["val", "test", "test", "test"]
    lines = [f"{name},{'ab'[place % 2]},{split},{'1' if name == 'other.mp4' else ''}"
             for place, (name, split) in enumerate(zip(names, splits, strict=True))]  # fmt: skip
    (tmp_path / "clips.csv").write_text("\n".join(["path,label,split,start", *lines]) + "\n")
    (tmp_path / "a.store").mkdir()
    drawn = np.random.default_rng(0)
    with ShardWriter(tmp_path / "a.store", Spec("toy", "0", 4, "all", "none", "auto")) as writer:
        for clip in read_manifest(tmp_path / "clips.csv").clips:
            number = 2 if clip.path in ("copy.mp4", "other.mp4") else int(clip.path[0])
            rows = drawn.standard_normal((3, 4)).astype(np.float16)
            origin = Origin("pyav", 1.0, 1, 1, f"{number + 1:02}" * 32, clip.start, clip.end)
            writer.add(clip.clip_id, ClipFeatures(rows, np.arange(3.0)), origin)
    return tmp_path


def test_the_copy_is_found_and_the_other_span_is_none(leaky):
    manifest = read_manifest(leaky / "clips.csv")
    assert find_copies(FeatureStore(leaky / "a.store"), manifest) == [("2.mp4", "copy.mp4")]


def test_features_without_a_video_are_no_copies_of_one_another(made):
    assert find_copies(FeatureStore(made.store), read_manifest(made.manifest)) == []


def test_a_planted_leak_stands_under_the_table(leaky):
    (leaky / "one.toml").write_text(SUITE)
    suite, draws = read_suite(str(leaky / "one.toml")), Draws("test", (), 10)
    runs = plan_runs(suite, leaky / "clips.csv", {"a": leaky / "a.store"}, range(1), leaky / "out")
    table = make_table(suite, run_suite(runs, draws, 1), draws)
    assert table["leaks"] == {"a": 1}
    assert "LEAK: 1 clips of val and test are the same videos as training clips of a." in as_markdown(table)
