"""The test split has no way into a training."""

import pytest
from small_runs import contents, settings_of

from longreel.errors import StoreMismatch
from longreel.experiments.evaluate import evaluate_run
from longreel.experiments.runs import read_config
from longreel.experiments.train import train_run
from longreel.store import FeatureStore

pytestmark = pytest.mark.usefixtures("one_thread")


def test_training_gives_the_same_bits_when_the_test_clips_are_not_in_the_store(made, tmp_path, write_small_store):
    bare = write_small_store(tmp_path / "bare", left_out=[row["path"] for row in made.rows if row["split"] == "test"])
    train_run(tmp_path / "a", settings_of(made))
    train_run(tmp_path / "b", settings_of(bare))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert read_config(tmp_path / "a")["store_digest"] == read_config(tmp_path / "b")["store_digest"]
    with pytest.raises(StoreMismatch, match="lacks 17 of the 17 test clips"):
        evaluate_run(tmp_path / "b")


def test_training_does_not_notice_damaged_test_features(made, tmp_path):
    train_run(tmp_path / "a", settings_of(made))
    shard = next(made.store.glob("*.h5"))
    content = bytearray(shard.read_bytes())
    for row in made.rows:
        if row["split"] == "test":
            features = made.features[row["path"]].tobytes()
            place = content.find(features)
            content[place : place + len(features)] = b"\xff" * len(features)  # NaN in every entry
    shard.write_bytes(content)
    train_run(tmp_path / "b", settings_of(made))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_training_asks_the_store_for_no_test_clip(made, tmp_path, monkeypatch):
    asked: set[str] = set()
    read = FeatureStore.read
    monkeypatch.setattr(FeatureStore, "read", lambda store, ids: asked.update(ids) or read(store, ids))
    monkeypatch.setattr(FeatureStore, "__getitem__", lambda store, clip_id: pytest.fail(f"read {clip_id}"))
    train_run(tmp_path / "run", settings_of(made))
    assert asked == {row["path"] for row in made.rows if row["split"] != "test"}


def test_training_gives_the_same_bits_whatever_the_test_labels_are(made, tmp_path, write_small_store):
    rows = [{**row, "label": "yak"} if row["split"] == "test" else row for row in made.rows]
    other = write_small_store(tmp_path / "other")
    write_small_store(tmp_path / "relabelled", rows=rows)
    other.manifest.write_bytes((tmp_path / "relabelled" / "clips.csv").read_bytes())
    train_run(tmp_path / "a", settings_of(made))
    train_run(tmp_path / "b", settings_of(other))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
