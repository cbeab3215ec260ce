"""Calibration against plain loops, scikit-learn, and cases worked out by hand; and what of it an evaluation keeps."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss
from small_runs import settings_of

from longreel.balance import LOSSES, METHODS
from longreel.console import print_evaluation
from longreel.experiments.calibration import Link, calibrate, link_of, make_probabilities, plain_calibration
from longreel.experiments.compare import compare_runs
from longreel.experiments.evaluate import evaluate_run, load_scored
from longreel.experiments.runs import read_config
from longreel.experiments.train import train_run
from longreel.parts import build_part

INF = math.inf
SOFTMAX, SIGMOID = Link("softmax"), Link("sigmoid")
GROUPS = {"head": [0, 1], "tail": [3, 2, 4], "none": []}


# In plain Python


def chances(row: list[float], link: str) -> list[float]:
    if all(logit == -INF for logit in row):
        return [0.0] * len(row)
    if link == "sigmoid":
        return [1 / (1 + math.exp(-logit)) for logit in row]
    total = sum(math.exp(logit) for logit in row)
    return [math.exp(logit) / total for logit in row]


def error(pairs: list[tuple[float, bool]]) -> float:
    """The expected calibration error of probabilities and whether they came true."""
    total = 0.0
    for number in range(15):
        low, high = number / 15, (number + 1) / 15
        inside = [(p, right) for p, right in pairs if low < p <= high or (number == 0 and p == 0)]
        if inside:
            confidence = sum(p for p, _ in inside) / len(inside)
            accuracy = sum(right for _, right in inside) / len(inside)
            total += len(inside) / len(pairs) * abs(confidence - accuracy)
    return total


def by_clip(logits, targets, group: list[int], link: str) -> dict:
    """Single-label figures of the clips with a label in the group."""
    mine = [n for n in range(len(logits)) if any(targets[n][c] for c in group)]
    tops, squares = [], []
    for n in mine:
        row = chances(list(logits[n]), link)
        tops.append((max(row), max(row) > 0 and bool(targets[n][row.index(max(row))])))
        squares.append(sum((p - y) ** 2 for p, y in zip(row, targets[n], strict=True)))
    if not mine:
        return {"ece": None, "brier": None, "positives": 0}
    return {"ece": error(tops), "brier": sum(squares) / len(mine), "positives": len(mine)}


def by_pair(logits, targets, group: list[int], link: str) -> dict:
    """Multi-label figures of every clip and every class of the group."""
    rows = [chances(list(row), link) for row in logits]
    pairs = [(rows[n][c], bool(targets[n][c])) for n in range(len(rows)) for c in group]
    if not pairs:
        return {"ece": None, "brier": None, "positives": 0}
    brier = sum((p - y) ** 2 for p, y in pairs) / len(pairs)
    return {"ece": error(pairs), "brier": brier, "positives": sum(y for _, y in pairs)}


def drawn(clips: int, labels: int, failed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits ``(clips, 5)`` and up to so many labels a clip; the last clips failed."""
    generator = np.random.default_rng(clips + labels)
    targets = np.zeros((clips, 5), bool)
    for _ in range(labels):
        targets[np.arange(clips), generator.integers(5, size=clips)] = True
    logits = 2 * generator.standard_normal((clips, 5)) + targets
    logits[clips - failed :] = -INF
    return logits, targets


def plain(logits, targets, groups=GROUPS, link=SOFTMAX, multi_label=False) -> dict:
    return plain_calibration(calibrate(logits, targets, groups, link, multi_label=multi_label))


def assert_figures(found: dict, oracle, logits, targets, link: str) -> None:
    for name, group in {"overall": [0, 1, 2, 3, 4], **GROUPS}.items():
        figures = found["overall"] if name == "overall" else found["groups"][name]
        assert figures == pytest.approx(oracle(logits, targets, group, link), abs=1e-12), name


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
@pytest.mark.parametrize("failed", [0, 7])
@pytest.mark.parametrize("clips", [60, 4500])  # more than one block
def test_figures_of_one_label_a_clip_are_those_of_plain_loops(link, failed, clips):
    logits, targets = drawn(clips, 1, failed)
    found = plain(logits, targets, link=Link(link))
    assert (found["probabilities"], found["of"], found["bins"], found["failed"]) == (link, "top class", 15, failed)
    assert_figures(found, by_clip, logits, targets, link)


@pytest.mark.parametrize("link", ["softmax", "sigmoid"])
@pytest.mark.parametrize("failed", [0, 7])
@pytest.mark.parametrize("clips", [60, 4500])
def test_figures_of_several_labels_a_clip_are_those_of_plain_loops_over_pairs(link, failed, clips):
    logits, targets = drawn(clips, 2, failed)
    found = plain(logits, targets, link=Link(link), multi_label=True)
    assert (found["probabilities"], found["of"], found["failed"]) == (link, "each class", failed)
    assert_figures(found, by_pair, logits, targets, link)


def test_the_brier_score_of_pairs_is_the_mean_of_scikit_learns_over_the_classes():
    logits, targets = drawn(200, 2)
    found = plain(logits, targets, link=SIGMOID, multi_label=True)["overall"]["brier"]
    theirs = [brier_score_loss(targets[:, c], 1 / (1 + np.exp(-logits[:, c]))) for c in range(5)]
    assert found == pytest.approx(np.mean(theirs), abs=1e-12)


def test_the_brier_score_of_clips_is_scikit_learns_of_all_classes():
    logits, targets = drawn(200, 1)
    theirs = brier_score_loss(targets.argmax(axis=1), make_probabilities(logits, SOFTMAX), labels=range(5))
    assert plain(logits, targets)["overall"]["brier"] == pytest.approx(theirs, abs=1e-12)


# By hand


def test_who_is_right_as_often_as_it_says_has_no_calibration_error():
    """Ten clips at 0.8, eight of them right, and ten at 0.6, six of them right."""
    logits = np.log(np.repeat([[0.8, 0.2], [0.6, 0.4]], 10, axis=0))
    targets = np.eye(2, dtype=bool)[[0] * 8 + [1] * 2 + [0] * 6 + [1] * 4]
    found = plain(logits, targets, {})["overall"]
    assert found["ece"] == pytest.approx(0, abs=1e-12)
    assert found["brier"] == pytest.approx((8 * 0.08 + 2 * 1.28 + 6 * 0.32 + 4 * 0.72) / 20)
    assert found["positives"] == 20


def test_who_says_nine_tenths_and_is_right_half_of_the_time_errs_by_four_tenths():
    logits = np.log(np.array([[0.9, 0.1], [0.9, 0.1]]))
    found = plain(logits, np.eye(2, dtype=bool), {"first": [0], "second": [1]})
    assert found["overall"]["ece"] == pytest.approx(0.4)
    assert found["overall"]["brier"] == pytest.approx((2 * 0.01 + 2 * 0.81) / 2)
    assert [found["groups"][name]["ece"] for name in ("first", "second")] == pytest.approx([0.1, 0.9])


def test_errors_of_different_bins_do_not_cancel_and_those_of_one_bin_do():
    def error_of(*odds: float) -> float:
        logits = np.array([[math.log(p / (1 - p)), -50.0] for p in odds])
        targets = np.array([[True, False], [False, False]])
        return plain(logits, targets, {"a": [0]}, SIGMOID, multi_label=True)["groups"]["a"]["ece"]

    assert error_of(0.51, 0.49) == pytest.approx(0)  # both between 7/15 and 8/15, one of two true
    assert error_of(0.6, 0.4) == pytest.approx(0.4)


def test_a_pair_is_believed_by_its_sigmoid():
    """One class at 0.25, one of four clips has it; another class that is never there, and never believed."""
    logits = np.column_stack([np.full(4, math.log(1 / 3)), np.full(4, -INF)])
    targets = np.array([[True, False], [False, False], [False, False], [False, False]])
    found = plain(logits, targets, {"there": [0], "never": [1]}, SIGMOID, multi_label=True)
    assert found["groups"]["there"] == pytest.approx({"ece": 0, "brier": 0.25 * 0.75, "positives": 1}, abs=1e-12)
    assert found["groups"]["never"] == {"ece": 0, "brier": 0, "positives": 0}
    assert found["overall"] == pytest.approx({"ece": 0, "brier": 0.09375, "positives": 1}, abs=1e-12)


@pytest.mark.parametrize("link", [SOFTMAX, SIGMOID], ids=lambda link: link.name)
def test_a_clip_that_failed_is_believed_nowhere_and_counted(link):
    whole = np.log(np.array([[0.7, 0.3]]))
    targets = np.array([[True, False], [True, False]])
    alone, both = plain(whole, targets[:1], {}, link), plain(np.vstack([whole, [-INF, -INF]]), targets, {}, link)
    assert (alone["failed"], both["failed"], both["overall"]["positives"]) == (0, 1, 2)
    assert both["overall"]["brier"] == pytest.approx((alone["overall"]["brier"] + 1) / 2)
    assert both["overall"]["ece"] == pytest.approx(alone["overall"]["ece"] / 2)


def test_a_tie_for_the_top_is_right_by_half_and_the_order_of_the_clips_changes_nothing():
    assert plain(np.zeros((1, 2)), np.array([[True, False]]), {})["overall"]["ece"] == 0
    for labels in (1, 2):
        logits, targets = drawn(300, labels, 4)
        order = np.random.default_rng(0).permutation(300)
        left, right = (plain(logits[o], targets[o], multi_label=labels == 2) for o in (order, slice(None)))
        assert left["overall"] == pytest.approx(right["overall"], abs=1e-12)


def test_no_clips_and_infinite_logits_give_no_crash():
    empty = plain(np.zeros((0, 2)), np.zeros((0, 2), bool), {})["overall"]
    assert empty == {"ece": None, "brier": None, "positives": 0}
    np.testing.assert_array_equal(make_probabilities([[INF, 0.0], [INF, INF]], SOFTMAX), [[1, 0], [0.5, 0.5]])
    with pytest.raises(ValueError, match="1 of 1 clips have NaN scores"):
        plain([[math.nan, 0.0]], [[True, False]], {})


# Which probabilities

#: a loss without what it does about the long tail, where all classes have as many clips.
PLAIN = {
    "ce": ["ce"],
    "bce": ["bce"],
    "focal": ["focal:gamma=0"],
    "class-balanced": ["class-balanced", "class-balanced:form=ce", "class-balanced:released=true"],
    "action-aware": ["action-aware"],
    "ldam": ["ldam:margin=0", "ldam:margin=0,form=ce", "ldam:margin=0,form=ce,scale=7"],
    "eql": ["eql:threshold=0"],
    "softmax-eql": ["softmax-eql:threshold=0"],
    "balanced-softmax": ["balanced-softmax"],
    "logit-adjusted": ["logit-adjusted:tau=0.5"],
}


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_the_cross_entropy_of_its_probabilities_where_no_class_is_rare(name):
    logits, targets = drawn(20, 1)
    for text in PLAIN[name]:
        link = link_of({"stages": [{"loss": "ce"}, {"loss": text}]})
        assert link is not None
        p = make_probabilities(logits / link.scale, link)
        found = build_part("loss", LOSSES, text)(
            torch.from_numpy(logits / link.scale),
            torch.from_numpy(targets).double(),
            torch.full((5,), 10.0, dtype=torch.float64),
        )
        binary = -np.log(np.where(targets, p, 1 - p)).mean(axis=1)
        expected = binary if link.name == "sigmoid" else -np.log(p[targets])
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-9, atol=1e-9, err_msg=text)


@pytest.mark.parametrize("name", METHODS)
def test_all_stages_of_a_method_have_the_same_probabilities(name):
    stages = [{"loss": stage.loss} for stage in METHODS[name].stages]
    assert len({link_of({"stages": [stage]}) for stage in stages}) == 1


def test_an_imported_checkpoint_has_sigmoids_and_a_loss_of_a_users_own_nothing_yet(monkeypatch):
    monkeypatch.setitem(LOSSES, "mine", LOSSES["ce"])
    assert link_of(None) == SIGMOID
    assert link_of({"stages": [{"loss": "mine"}]}) is None


# In an evaluation


@pytest.fixture
def run(made, tmp_path, one_thread) -> Path:
    train_run(tmp_path / "run", settings_of(made))
    return tmp_path / "run"


def test_an_evaluation_keeps_the_calibration_of_its_scores_by_group(made, run):
    document = evaluate_run(run)
    scores, targets, _ = load_scored(run, "test")
    found = document["calibration"]
    assert json.loads((run / "evaluation-test.json").read_text())["calibration"] == found
    assert (found["probabilities"], found["of"], found["failed"]) == ("softmax", "each class", 0)
    assert found["overall"] == pytest.approx(by_pair(scores, targets, [0, 1, 2, 3], "softmax"), abs=1e-6)
    assert list(found["groups"]) == list(document["groups"])
    for name, group in read_config(run)["groups"]["members"].items():
        assert found["groups"][name] == pytest.approx(by_pair(scores, targets, group, "softmax"), abs=1e-6), name


def test_data_with_one_label_a_clip_is_measured_by_its_top_class(made, tmp_path, write_small_store, one_thread):
    rows = [{**row, "label": row["label"].split(";")[0]} for row in made.rows]
    single = write_small_store(tmp_path / "single", rows=rows, failed=("test/yak0.mp4",))
    train_run(tmp_path / "run", settings_of(single, balance="bce"))
    found = evaluate_run(tmp_path / "run")["calibration"]
    scores, targets, _ = load_scored(tmp_path / "run", "test")
    assert (found["probabilities"], found["of"], found["failed"]) == ("sigmoid", "top class", 1)
    assert found["overall"] == pytest.approx(by_clip(scores, targets, [0, 1, 2, 3], "sigmoid"), abs=1e-6)


def test_a_head_that_is_not_trained_has_no_probabilities(made, tmp_path, capsys, one_thread):
    train_run(tmp_path / "run", dataclasses.replace(settings_of(made), head="knn"))
    document = evaluate_run(tmp_path / "run")
    assert document["calibration"] is None
    print_evaluation(document)
    assert "calibration" not in capsys.readouterr().out


def test_the_printed_figures_have_a_line_of_calibration_with_its_labels(run, capsys):
    document = evaluate_run(run)
    print_evaluation(document)
    found = document["calibration"]["overall"]
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("calibration:"))
    assert f"ECE {found['ece']:.3g}, Brier {found['brier']:.3g} (each class, by softmax, 15 bins, 18 labels)" in line


def test_an_evaluation_that_an_earlier_version_kept_is_still_read(run, capsys):
    kept = run / "evaluation-test.json"
    document = evaluate_run(run)
    old = {key: value for key, value in document.items() if key not in ("calibration", "empty_class")}
    kept.write_text(json.dumps(old))
    assert evaluate_run(run) == old
    print_evaluation(evaluate_run(run))
    assert "calibration" not in capsys.readouterr().out
    assert compare_runs([run], draws=5)["rows"][0]["figures"]["map"]["value"] == pytest.approx(old["overall"]["map"])
    assert evaluate_run(run, empty_class="zero") == old | {"empty_class": "zero"}
