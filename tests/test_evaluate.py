"""Evaluation: figures against scikit-learn's, failed clips, and a test split that is opened once and counted."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from sklearn.metrics import average_precision_score

from longreel.errors import LongreelError, RunMismatch, StoreMismatch
from longreel.experiments.evaluate import evaluate_run, load_scored
from longreel.experiments.optimisation import FitSettings
from longreel.experiments.runs import read_scores
from longreel.experiments.settings import TrainSettings
from longreel.experiments.train import train_run
from longreel.store import FeatureStore

CLASSES = ("boat", "car", "dog", "yak")
GROUPS = {">10": [0], "6-10": [1, 2], "<=5": [3]}  # of 12, 8, 6 and 3 training clips
FAILED = ("test/yak0.mp4", "test/boat1.mp4")


pytestmark = pytest.mark.usefixtures("one_thread")


def train(made, folder: Path, **fit) -> Path:
    settings = FitSettings(**{"epochs": 3, "batch_size": 8, "learning_rate": 1e-3} | fit)
    train_run(folder, TrainSettings(made.store, made.manifest, groups="5,10", fit=settings))
    return folder


@pytest.fixture
def made(tmp_path, write_small_store):
    return write_small_store(tmp_path / "data", noise=0.7)


@pytest.fixture
def run(made, tmp_path):
    return train(made, tmp_path / "run")


def targets_of(made, split: str) -> tuple[list[str], np.ndarray]:
    """Ids and labels ``(N, C)`` of a split, from the rows that were written."""
    rows = [row for row in made.rows if row["split"] == split]
    return [row["path"] for row in rows], np.array(
        [[name in row["label"].split(";") for name in CLASSES] for row in rows]
    )


def figures(scores: np.ndarray, targets: np.ndarray, group: list[int]) -> dict[str, Any]:
    """Every figure of some classes by plain loops and scikit-learn; failed clips are rows of ``-inf``."""
    failed = np.isneginf(scores).sum(axis=1) == scores.shape[1]
    hits = [
        {k: not out and bool(true[np.argsort(-row)[:k]].any()) for k in (1, 5)}
        for row, true, out in zip(scores, targets, failed, strict=True)
    ]
    mine = [place for place in range(len(targets)) if targets[place, group].any()]
    finite = np.where(np.isneginf(scores), scores[~failed].min() - 1, scores)
    return {
        "acc1": np.mean([hits[place][1] for place in mine]),
        "acc5": np.mean([hits[place][5] for place in mine]),
        "class_average": np.mean([np.mean([hits[i][1] for i in np.flatnonzero(targets[:, c])]) for c in group]),
        "map": np.mean([average_precision_score(targets[:, c], finite[:, c]) for c in group]),
        "classes": len(group),
        "clips": len(mine),
        "empty_classes": 0,
    }


@pytest.mark.parametrize("split", ["val", "test"])
@pytest.mark.parametrize("failed", [(), FAILED], ids=["whole", "failed clips"])
def test_the_figures_equal_those_of_an_independent_computation(split, failed, tmp_path, write_small_store):
    made = write_small_store(tmp_path / "data", noise=0.7, failed=failed)
    document = evaluate_run(train(made, tmp_path / "run"), split)
    ids, targets = targets_of(made, split)
    scores, kept = read_scores(tmp_path / "run" / f"scores-{split}.safetensors")
    by_id = dict(zip(kept, scores, strict=True))
    scores = np.stack([by_id[clip_id] for clip_id in ids])
    assert document["overall"] == pytest.approx(figures(scores, targets, [0, 1, 2, 3]))
    assert document["groups"].keys() == GROUPS.keys()
    for name, group in GROUPS.items():
        assert document["groups"][name] == pytest.approx(figures(scores, targets, group)), name
    for index, name in enumerate(CLASSES):
        expected = figures(scores, targets, [index])
        assert document["classes"][name]["ap"] == pytest.approx(expected["map"])
        assert document["classes"][name]["accuracy"] == pytest.approx(expected["class_average"])
        assert document["classes"][name]["clips"] == expected["clips"]
        assert document["classes"][name]["train_clips"] == [12, 8, 6, 3][index]
    assert 0.3 < document["overall"]["acc1"] < 1.0  # a toy task that is neither hopeless nor trivial


def test_the_kept_scores_are_those_of_the_saved_head(made, run):
    evaluate_run(run)
    head = load_file(run / "head.safetensors")
    scores, ids = read_scores(run / "scores-test.safetensors")
    assert set(ids) == set(targets_of(made, "test")[0])
    for clip_id, found in zip(ids, scores, strict=True):
        rows = (made.features[clip_id].astype(np.float64) - head["mean"]) / head["deviation"]
        hidden = np.maximum(rows @ head["head.hidden.weight"].T + head["head.hidden.bias"], 0)
        logits = hidden @ head["head.project.weight"].T + head["head.project.bias"]
        np.testing.assert_allclose(found, logits.mean(axis=0), rtol=1e-4, atol=1e-4)


def test_the_document_says_what_was_evaluated_and_how(run):
    document = evaluate_run(run)
    result = json.loads((run / "result.json").read_text())
    expected = {
        "run": "run",
        "split": "test",
        "head": "nonlinear",
        "balance": "ce",
        "seed": 0,
        "epoch": result["epoch"],
        "selection": "best val map",
        "groups_rule": "bounds on training clips: 5, 10",
        "watermark": None,
        "departures": [],
        "clips": 17,
        "failed": 0,
        "looks": 1,
        "empty_class": "left-out",
    }
    assert {key: document[key] for key in expected} == expected
    assert set(document) == {*expected, "overall", "groups", "classes", "calibration"}
    assert json.loads(json.dumps(document, allow_nan=False)) == document
    assert json.loads((run / "evaluation-test.json").read_text()) == document


def test_failed_clips_are_scored_lowest_and_counted_and_never_dropped(made, run, tmp_path, write_small_store):
    other = write_small_store(tmp_path / "other", noise=0.7, failed=FAILED)
    document = evaluate_run(train(other, tmp_path / "with failed"))
    scores, ids = read_scores(tmp_path / "with failed" / "scores-test.safetensors")
    evaluate_run(run)
    whole = dict(zip(*reversed(read_scores(run / "scores-test.safetensors")), strict=True))
    assert (document["failed"], document["clips"], document["overall"]["clips"]) == (2, 17, 17)
    assert sorted(ids) == sorted(whole)
    for clip_id, found in zip(ids, scores, strict=True):
        if clip_id in FAILED:
            assert np.isneginf(found).all()
        else:
            np.testing.assert_allclose(found, whole[clip_id], rtol=1e-4, atol=1e-5)


def test_a_test_split_of_which_every_clip_failed_scores_nothing(made, tmp_path, write_small_store):
    other = write_small_store(tmp_path / "other", failed=targets_of(made, "test")[0])
    document = evaluate_run(train(other, tmp_path / "run"))
    assert document["failed"] == document["clips"] == 17
    assert document["overall"]["acc1"] == document["overall"]["class_average"] == 0.0


def test_a_class_without_test_clips_is_null_and_said(made, tmp_path, write_small_store):
    rows = [row for row in made.rows if row["split"] != "test" or row["label"] != "yak"]
    other = write_small_store(tmp_path / "other", rows=rows)
    document = evaluate_run(train(other, tmp_path / "run"))
    assert document["classes"]["yak"] == {"train_clips": 3, "clips": 0, "accuracy": None, "ap": None}
    assert document["groups"]["<=5"]["map"] is None
    assert document["overall"]["empty_classes"] == 1


def test_a_second_call_gives_the_kept_document_without_the_store(made, run):
    first = evaluate_run(run)
    shutil.rmtree(made.store)
    assert evaluate_run(run) == first
    assert len((run / "looks.jsonl").read_text().splitlines()) == 1


def test_every_opening_of_a_split_is_counted(run):
    assert evaluate_run(run, "val")["looks"] == 1
    for looks in (1, 2, 3):
        document = evaluate_run(run)
        assert document["looks"] == looks
        (run / "evaluation-test.json").unlink()
    lines = [json.loads(line) for line in (run / "looks.jsonl").read_text().splitlines()]
    assert [line["split"] for line in lines] == ["val", "test", "test", "test"]


def test_an_opening_that_ends_before_the_document_is_kept_counts_too(run, monkeypatch):
    from longreel.experiments import evaluate

    with monkeypatch.context() as patch:
        patch.setattr(evaluate, "write_scores", lambda *_: pytest.fail("broken off"))
        with pytest.raises(pytest.fail.Exception):
            evaluate_run(run)
    assert evaluate_run(run)["looks"] == 2


def test_an_evaluation_that_was_refused_before_the_split_was_opened_is_no_look(made, run):
    made.store.rename(made.store.with_name("away"))
    with pytest.raises(StoreMismatch):
        evaluate_run(run)
    made.store.with_name("away").rename(made.store)
    assert evaluate_run(run)["looks"] == 1


@pytest.mark.parametrize("failed", [(), ("val/boat0.mp4",)], ids=["whole", "a failed clip"])
def test_evaluating_val_leaves_the_files_of_the_training_as_they_were(failed, tmp_path, write_small_store):
    run = train(write_small_store(tmp_path / "data", failed=failed), tmp_path / "run")
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.name != ".lock"}
    evaluate_run(run, "val")
    assert {name: (run / name).read_bytes() for name in before} == before


def test_val_can_be_evaluated_without_opening_test(run, monkeypatch):
    asked: set[str] = set()
    read = FeatureStore.read
    monkeypatch.setattr(FeatureStore, "read", lambda store, ids: asked.update(ids) or read(store, ids))
    document = evaluate_run(run, "val")
    assert {clip_id.split("/")[0] for clip_id in asked} == {"val"}
    result = json.loads((run / "result.json").read_text())
    assert document["overall"]["map"] == pytest.approx(result["val"])
    assert document["clips"] == 14


def test_a_changed_manifest_is_refused(made, run, tmp_path, write_small_store):
    rows = [{**row, "label": "car"} if row["path"] == "test/dog0.mp4" else row for row in made.rows]
    changed = write_small_store(tmp_path / "other", rows=rows)
    shutil.copy(changed.manifest, made.manifest)
    with pytest.raises(RunMismatch, match=r"clips.csv has changed since the training"):
        evaluate_run(run)
    assert not (run / "evaluation-test.json").exists()


def test_another_kind_of_store_in_its_place_is_refused(made, run, write_small_store):
    shutil.rmtree(made.store)
    write_small_store(made.store.parent, noise=0.7, backbone="other")
    with pytest.raises(RunMismatch, match="is not the store it was trained on"):
        evaluate_run(run)


def test_a_store_whose_training_clips_were_extracted_anew_is_refused(made, run, write_small_store):
    write_small_store(made.store.parent, noise=2.0)  # newer shards with other features
    with pytest.raises(RunMismatch, match="store"):
        evaluate_run(run)


def test_a_store_to_which_only_test_clips_were_added_is_the_same(tmp_path, write_small_store, made):
    bare = write_small_store(tmp_path / "bare", noise=0.7, left_out=targets_of(made, "test")[0])
    run = train(bare, tmp_path / "run")
    with pytest.raises(StoreMismatch, match="lacks 17 of the 17 test clips"):
        evaluate_run(run)
    write_small_store(tmp_path / "bare", noise=0.7)
    assert evaluate_run(run)["failed"] == 0


def test_an_unfinished_run_is_refused(made, tmp_path):
    def interrupt(row: dict) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_run(tmp_path / "run", TrainSettings(made.store, made.manifest), on_epoch=interrupt)
    with pytest.raises(RunMismatch, match="its training has not finished"):
        evaluate_run(tmp_path / "run")


def test_the_training_split_and_a_split_without_clips_are_refused(tmp_path, write_small_store):
    run = train(write_small_store(tmp_path / "data", splits=("train", "test")), tmp_path / "run")
    with pytest.raises(LongreelError, match="no split to evaluate on called 'train'"):
        evaluate_run(run, "train")
    with pytest.raises(LongreelError, match="has no val clips"):
        evaluate_run(run, "val")


def test_scores_labels_and_ids_stay_together_when_the_rows_of_the_manifest_are_sorted(
    made, run, tmp_path, write_small_store
):
    evaluate_run(run)
    scores, targets, ids = load_scored(run, "test")
    rows = sorted(made.rows, key=lambda row: row["path"])
    shutil.copy(write_small_store(tmp_path / "other", rows=rows).manifest, made.manifest)
    after = load_scored(run, "test")
    expected = {clip_id: (row.tolist(), true.tolist()) for clip_id, row, true in zip(ids, scores, targets, strict=True)}
    assert {clip_id: (row.tolist(), true.tolist()) for row, true, clip_id in zip(*after, strict=True)} == expected


def test_a_head_that_was_trained_on_one_seed_is_not_that_of_another(made, tmp_path):
    documents = [evaluate_run(train(made, tmp_path / f"{seed}", seed=seed)) for seed in (0, 1)]
    assert [document["seed"] for document in documents] == [0, 1]
    assert documents[0]["classes"] != documents[1]["classes"]
