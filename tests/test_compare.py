"""Comparisons: which runs make a row, what the rows are called, and when a table is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from longreel.errors import RunMismatch
from longreel.experiments.compare import compare_runs
from longreel.experiments.evaluate import evaluate_run, load_scored
from longreel.experiments.optimisation import FitSettings
from longreel.experiments.settings import TrainSettings
from longreel.experiments.statistics import paired_difference
from longreel.experiments.train import train_run

DRAWS = 20


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def made(tmp_path_factory, write_small_store):
    return write_small_store(tmp_path_factory.mktemp("data"), noise=1.5)


def train(made, folder: Path, *, balance: str = "ce", groups: str = "5,10", **fit) -> Path:
    settings = FitSettings(**{"epochs": 2, "batch_size": 8, "learning_rate": 1e-3} | fit)
    train_run(folder, TrainSettings(made.store, made.manifest, balance=balance, groups=groups, fit=settings))
    return folder


@pytest.fixture(scope="module")
def runs(made, tmp_path_factory) -> dict[str, Path]:
    """Seeds 0 and 1 of ce, 0 to 2 of balanced softmax, evaluated."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("runs")
    names = {"ce": (0, 1), "balanced-softmax": (0, 1, 2)}
    return {
        f"{balance}-{seed}": train(made, folder / f"{balance}-{seed}", balance=balance, seed=seed)
        for balance, seeds in names.items()
        for seed in seeds
    }


def pick(runs: dict[str, Path], *names: str) -> list[Path]:
    return [runs[name] for name in names]


def compare(folders: list[Path], **options) -> dict:
    return compare_runs(folders, draws=DRAWS, **options)


def test_runs_that_differ_in_their_seed_alone_make_one_row(runs):
    document = compare(pick(runs, "balanced-softmax-1", "ce-1", "ce-0", "balanced-softmax-0"))
    assert [row["name"] for row in document["rows"]] == ["nonlinear balanced-softmax", "nonlinear ce"]
    assert [row["seeds"] for row in document["rows"]] == [[0, 1], [0, 1]]
    assert document["rows"][1]["runs"] == [str(runs["ce-0"]), str(runs["ce-1"])]
    assert (document["split"], document["clips"], document["warning"]) == ("test", 17, None)
    assert document["groups_rule"] == "bounds on training clips: 5, 10"
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_a_figure_is_the_mean_over_the_seeds_of_the_plain_metric(runs):
    document = compare(pick(runs, "ce-0", "ce-1"))
    documents = [evaluate_run(folder) for folder in pick(runs, "ce-0", "ce-1")]
    found = document["rows"][0]["figures"]
    assert list(found) == document["metrics"]
    expected = {name: [one["overall"][name] for one in documents] for name in ("acc1", "class_average", "map")}
    expected |= {
        f"{group}.class_average": [one["groups"][group]["class_average"] for one in documents]
        for group in (">10", "6-10", "<=5")
    }
    assert {name: figure["value"] for name, figure in found.items()} == pytest.approx(
        {name: np.mean(values) for name, values in expected.items()}
    )
    for figure in found.values():
        assert figure["low"] - 1e-12 <= figure["value"] <= figure["high"] + 1e-12  # but for rounding
    assert found["map"]["low"] < found["map"]["high"]


def test_a_row_is_set_against_the_first_where_the_seeds_agree(runs):
    order = ("ce-1", "ce-0", "balanced-softmax-0", "balanced-softmax-1")
    first, second = compare(pick(runs, *order))["rows"]
    assert "difference" not in first
    for name, figure in second["difference"].items():
        assert figure["value"] == pytest.approx(second["figures"][name]["value"] - first["figures"][name]["value"])
    scored = [[load_scored(runs[f"{name}-{seed}"], "test") for seed in (0, 1)] for name in ("balanced-softmax", "ce")]
    metrics = {"map": lambda evaluation: evaluation.overall.map}
    mine, theirs = ([scores for scores, _, _ in row] for row in scored)
    expected = paired_difference(mine, theirs, scored[0][0][1], None, metrics, draws=DRAWS)["map"]
    assert second["difference"]["map"] == vars(expected)


def test_there_is_no_difference_where_the_seeds_do_not_agree(runs):
    document = compare(pick(runs, "ce-0", "ce-1", "balanced-softmax-0", "balanced-softmax-2"))
    assert document["rows"][1]["difference"] is None
    document = compare(pick(runs, "ce-0", "balanced-softmax-0", "balanced-softmax-1"))
    assert document["rows"][1]["difference"] is None


def test_a_name_has_what_differs_beside_head_and_method(made, runs, tmp_path):
    folders = [
        train(made, tmp_path / str(rate), learning_rate=rate, frames=frames)
        for rate, frames in ((0.01, 2), (0.1, None))
    ]
    document = compare([runs["ce-0"], *folders])
    assert [row["name"] for row in document["rows"]] == [
        "nonlinear ce, learning_rate 0.001, frames None",
        "nonlinear ce, learning_rate 0.01, frames 2",
        "nonlinear ce, learning_rate 0.1, frames None",
    ]


def test_how_often_a_checkpoint_was_written_and_the_threads_make_no_rows_of_their_own(made, runs, tmp_path):
    torch.set_num_threads(2)
    other = train(made, tmp_path / "other", seed=1, checkpoint_seconds=77)
    assert [row["seeds"] for row in compare([runs["ce-0"], other])["rows"]] == [[0, 1]]


def test_runs_on_other_stores_are_other_rows_though_the_stores_have_one_name(tmp_path, write_small_store):
    folders = []
    for number, noise in enumerate((1.5, 0.5)):
        made = write_small_store(tmp_path / f"{number}" / "data", noise=noise)
        folders.append(train(made, tmp_path / f"run{number}", seed=number))
    rows = compare(folders)["rows"]
    assert [row["seeds"] for row in rows] == [[0], [1]]
    assert rows[0]["name"] != rows[1]["name"]


def test_runs_on_a_store_before_and_after_it_was_extracted_anew_are_two_rows(tmp_path, write_small_store):
    made = write_small_store(tmp_path / "data", noise=1.5)
    before = train(made, tmp_path / "before", seed=0)
    evaluate_run(before)
    write_small_store(tmp_path / "data", noise=0.5)
    after = train(made, tmp_path / "after", seed=1)
    assert [row["seeds"] for row in compare([before, after])["rows"]] == [[0], [1]]


def test_one_run_named_twice_is_refused(runs):
    with pytest.raises(RunMismatch, match=r"nonlinear ce: two runs have the same seed 0. Name each run once"):
        compare(pick(runs, "ce-0", "balanced-softmax-0", "ce-0"))


def without_a_test_clip(rows: list[dict]) -> list[dict]:
    return [row for row in rows if row["path"] != "test/dog0.mp4"]


def with_another_test_label(rows: list[dict]) -> list[dict]:
    return [{**row, "label": "car"} if row["path"] == "test/dog0.mp4" else row for row in rows]


def with_another_class(rows: list[dict]) -> list[dict]:
    return [{**row, "label": row["label"].replace("yak", "zebra")} for row in rows]


def with_more_classes(rows: list[dict]) -> list[dict]:
    return [{**row, "label": "ape"} if row["path"] == "train/boat0.mp4" else row for row in rows]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (without_a_test_clip, "clips"),
        (with_another_test_label, "labels"),
        (with_another_class, "classes"),
        (with_more_classes, "classes"),
    ],
)
def test_runs_on_unlike_splits_are_refused_unless_forced_and_then_marked(
    change: Callable, what, made, runs, tmp_path, write_small_store
):
    other = write_small_store(tmp_path / "other", noise=1.5, rows=change(made.rows))
    folder = train(other, tmp_path / "run", balance="bce")
    with pytest.raises(RunMismatch, match=f"have different {what}.*--force"):
        compare([runs["ce-0"], folder])
    document = compare([runs["ce-0"], folder], force=True)
    assert f"have different {what}" in document["warning"]
    assert [row["name"].split(",")[0] for row in document["rows"]] == ["nonlinear ce", "nonlinear bce"]
    assert all("difference" not in row for row in document["rows"])
    for row, run in zip(document["rows"], (runs["ce-0"], folder), strict=True):
        assert row["figures"]["map"]["value"] == pytest.approx(evaluate_run(run)["overall"]["map"])


@pytest.mark.parametrize("rule", ["videolt", "3,10"])
def test_runs_with_other_groups_are_refused_unless_forced(rule, made, runs, tmp_path):
    folder = train(made, tmp_path / "run", balance="bce", groups=rule)
    with pytest.raises(RunMismatch, match="have different groups"):
        compare([runs["ce-0"], folder])
    document = compare([runs["ce-0"], folder], force=True)
    assert "have different groups" in document["warning"]
    assert document["rows"][1]["figures"]["map"]["value"] == pytest.approx(evaluate_run(folder)["overall"]["map"])
    assert "[0" not in document["rows"][1]["name"]  # no lists of class indices


def test_the_same_clips_in_another_order_are_the_same_clips(made, runs, tmp_path, write_small_store):
    other = write_small_store(tmp_path / "other", noise=1.5, rows=made.rows[::-1])
    folder = train(other, tmp_path / "run", balance="bce")
    first, second = compare([runs["ce-0"], folder])["rows"]
    ours = evaluate_run(folder)["overall"]["map"] - evaluate_run(runs["ce-0"])["overall"]["map"]
    assert second["difference"]["map"]["value"] == pytest.approx(ours)
    assert first["seeds"] == second["seeds"] == [0]


def test_a_manifest_that_was_sorted_after_the_evaluation_changes_no_figure(tmp_path, write_small_store):
    made = write_small_store(tmp_path / "data", noise=0.5)
    run = train(made, tmp_path / "run", epochs=5)
    before = compare([run])["rows"]
    rows = sorted(made.rows, key=lambda row: row["path"])
    shutil.copy(write_small_store(tmp_path / "other", rows=rows).manifest, made.manifest)
    assert compare([run])["rows"] == before


def test_a_comparison_on_val_leaves_test_closed(made, tmp_path):
    folders = [train(made, tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    document = compare(folders, split="val")
    assert (document["split"], document["clips"]) == ("val", 14)
    for folder in folders:
        assert not (folder / "evaluation-test.json").exists()
        assert '"test"' not in (folder / "looks.jsonl").read_text()


def test_looks_and_failed_clips_are_those_of_the_runs(tmp_path, write_small_store):
    made = write_small_store(tmp_path / "data", failed=["test/yak0.mp4"])
    folders = [train(made, tmp_path / str(seed), seed=seed) for seed in (0, 1)]
    evaluate_run(folders[1])
    (folders[1] / "evaluation-test.json").unlink()
    row = compare(folders)["rows"][0]
    assert (row["looks"], row["failed"], row["selection"]) == (2, 1, "best val map")
    assert row["figures"]["acc1"]["value"] == pytest.approx(
        np.mean([evaluate_run(folder)["overall"]["acc1"] for folder in folders])
    )


def test_an_unfinished_run_is_refused(made, runs, tmp_path):
    def interrupt(row: dict) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_run(tmp_path / "run", TrainSettings(made.store, made.manifest), on_epoch=interrupt)
    with pytest.raises(RunMismatch, match="has not finished"):
        compare([runs["ce-0"], tmp_path / "run"])
