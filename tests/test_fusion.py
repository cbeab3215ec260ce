"""Fused runs: weights against a general optimiser, probabilities against NumPy, figures against scores by hand."""

import json
import shutil

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, softmax
from small_runs import settings_of

from longreel.errors import LongreelError, RunMismatch
from longreel.experiments.bench import check_plan, plan_runs, run_suite
from longreel.experiments.calibration import Link
from longreel.experiments.compare import compare_runs
from longreel.experiments.draws import Draws
from longreel.experiments.evaluate import evaluate_run, load_scored
from longreel.experiments.fusion import fuse_runs
from longreel.experiments.mixtures import fit_weights, mix_scores, read_weights
from longreel.experiments.suites import read_suite
from longreel.experiments.table import make_table
from longreel.experiments.train import train_run

pytestmark = pytest.mark.usefixtures("one_thread")
SOFTMAX, SIGMOID = Link("softmax"), Link("sigmoid")


@pytest.mark.parametrize(
    ("text", "found"), [(None, [1 / 3] * 3), ("2:1:1", [0.5, 0.25, 0.25]), ("0:3:1", [0.0, 0.75, 0.25]), ("val", None)]
)
def test_weights_add_up_to_one(text, found):
    assert read_weights(text, 3) == found


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1:1", "weights 1:1 are 2 for 3 runs"),
        ("1:x:1", "'1:x:1' are no numbers. Give one a run, such as 2:1, or val"),
        ("1:-1:1", "must be 0 or more"),
        ("0:0:0", "not all 0"),
        ("1:inf:1", "finite"),
        ("1:nan:1", "must be 0 or more"),
    ],
)
def test_what_are_no_weights_is_refused(text, message):
    with pytest.raises(LongreelError, match=message):
        read_weights(text, 3)


@pytest.mark.parametrize("seed", range(5))
def test_fitted_weights_are_those_of_a_general_optimiser(seed):
    drawn = np.random.default_rng(seed)
    probabilities = softmax(2 * drawn.standard_normal((3, 200, 5)), axis=2)
    targets = np.eye(5)[drawn.integers(0, 5, 200)] > 0
    probabilities[0][targets] = probabilities[0][targets] ** 0.3  # one run knows more than the others

    def unlikely(weights) -> float:
        return -np.log(np.einsum("r,rnc->nc", weights, probabilities)[targets]).mean()

    bounds, one = [(0, 1)] * 3, {"type": "eq", "fun": lambda weights: weights.sum() - 1}
    best = minimize(unlikely, [1 / 3] * 3, bounds=bounds, constraints=[one], options={"ftol": 1e-12})
    found = fit_weights(probabilities, targets)
    assert sum(found) == pytest.approx(1)
    assert unlikely(np.array(found)) <= best.fun + 1e-7
    np.testing.assert_allclose(found, best.x, atol=5e-3)


def test_where_nothing_can_be_said_weights_stay_equal():
    assert fit_weights(np.zeros((2, 3, 4)), np.ones((3, 4), dtype=bool)) == [0.5, 0.5]


def test_the_mixture_has_the_mean_of_the_probabilities():
    drawn = np.random.default_rng(0)
    one, other = drawn.standard_normal((2, 6, 4)).astype(np.float32)
    mixed = mix_scores([one, other], [0.75, 0.25], [SOFTMAX, Link("softmax", 30.0)])
    np.testing.assert_allclose(
        softmax(mixed, axis=1),
        0.75 * softmax(one, axis=1) + 0.25 * softmax(30 * other.astype(np.float64), axis=1),
        atol=1e-6,
    )
    mixed = mix_scores([one, other], [0.75, 0.25], [SIGMOID, SIGMOID])
    np.testing.assert_allclose(expit(mixed), 0.75 * expit(one) + 0.25 * expit(other), atol=1e-6)
    scaled = mix_scores([other, one], [0.5, 0.5], [Link("softmax", 30.0), SOFTMAX])
    mean = (softmax(30 * other.astype(np.float64), axis=1) + softmax(one, axis=1)) / 2
    np.testing.assert_allclose(softmax(30 * scaled.astype(np.float64), axis=1), mean, atol=1e-5)


def test_a_clip_that_one_run_could_not_read_has_the_others_word_and_one_that_none_could_fails():
    one, other = (
        np.array([[-np.inf, -np.inf], [-np.inf, -np.inf], [3.0, 1.0]]),
        np.array([[1.0, 2.0], [-np.inf] * 2, [0.0, 0.0]]),
    )
    for link in (SOFTMAX, SIGMOID):
        mixed = mix_scores([one, other], [0.5, 0.5], [link, link])
        assert mixed[0].argmax() == 1
        assert np.isfinite(mixed[[0, 2]]).all()
        assert np.isneginf(mixed[1]).all()


@pytest.fixture
def pair(made, tmp_path):
    """Two runs of one manifest."""
    for name, balance, seed in (("one", "ce", 0), ("other", "balanced-softmax", 1)):
        train_run(tmp_path / name, settings_of(made, balance=balance, seed=seed))
    return tmp_path / "one", tmp_path / "other"


def test_a_fused_run_is_evaluated_by_the_scores_of_its_parts(pair, tmp_path):
    assert fuse_runs(tmp_path / "fused", pair, "3:1") == [0.75, 0.25]
    figures = evaluate_run(tmp_path / "fused", "test")
    (one, targets, ids), (other, _, _) = (load_scored(part, "test") for part in pair)
    mean = 0.75 * softmax(one, axis=1) + 0.25 * softmax(other, axis=1)
    found, same, names = load_scored(tmp_path / "fused", "test")
    np.testing.assert_allclose(softmax(found, axis=1), mean, atol=1e-6)
    assert names == ids
    assert np.array_equal(targets, same)
    right = sum(targets[clip, mean[clip].argmax()] for clip in range(len(targets)))
    assert figures["overall"]["acc1"] * len(targets) == pytest.approx(float(right))
    assert (figures["looks"], figures["seed"], figures["head"]) == (1, 0, "nonlinear")
    assert figures["balance"] == "ce + balanced-softmax"
    assert figures["calibration"]["overall"]["ece"] >= 0
    again = {path: path.read_bytes() for path in (tmp_path / "fused").iterdir() if path.name != ".lock"}
    fuse_runs(tmp_path / "fused", pair, "3:1")
    assert evaluate_run(tmp_path / "fused", "test") == figures
    assert {path: path.read_bytes() for path in again} == again
    assert [row["name"] for row in compare_runs([*pair, tmp_path / "fused"])["rows"]][-1].startswith(
        "nonlinear ce + bal"
    )


def test_fused_runs_of_other_seeds_make_one_row(made, pair, tmp_path):
    train_run(tmp_path / "three", settings_of(made, seed=2))
    fuse_runs(tmp_path / "a", pair)
    fuse_runs(tmp_path / "b", (tmp_path / "three", pair[1]))
    (row,) = compare_runs([tmp_path / "a", tmp_path / "b"])["rows"]
    assert row["seeds"] == [0, 2]
    train_run(tmp_path / "longer", settings_of(made, seed=3, epochs=6))
    fuse_runs(tmp_path / "c", (tmp_path / "longer", pair[1]))
    rows = compare_runs([tmp_path / "a", tmp_path / "c"])["rows"]
    assert [row["seeds"] for row in rows] == [[0], [3]]


def test_weights_found_on_val_are_no_less_likely_there_than_equal_ones(pair, tmp_path):
    weights = fuse_runs(tmp_path / "fitted", pair, "val")
    assert sum(weights) == pytest.approx(1)
    scored = [load_scored(part, "val") for part in pair]
    targets = scored[0][1]

    def likely(weights) -> float:
        each = [weight * softmax(scores, axis=1) for weight, (scores, *_) in zip(weights, scored, strict=True)]
        return float(np.log(np.sum(each, axis=0)[targets]).mean())

    assert likely(weights) >= likely([0.5, 0.5]) - 1e-9
    assert not (tmp_path / "one" / "scores-test.safetensors").exists()


def test_what_cannot_be_fused_is_refused(made, pair, tmp_path, write_small_store):
    one = pair[0]
    with pytest.raises(LongreelError, match="name two runs or more to fuse, each once"):
        fuse_runs(tmp_path / "f", [one, one])
    fuse_runs(tmp_path / "f", pair)
    with pytest.raises(RunMismatch, match="f: has no probabilities of its own"):
        fuse_runs(tmp_path / "g", [one, tmp_path / "f"])
    with pytest.raises(RunMismatch, match="holds another run: fused"):
        fuse_runs(tmp_path / "f", pair, "2:1")
    train_run(tmp_path / "bce", settings_of(made, balance="bce"))
    with pytest.raises(RunMismatch, match="differ in kind of probabilities"):
        fuse_runs(tmp_path / "g", [one, tmp_path / "bce"])
    elsewhere = write_small_store(tmp_path / "elsewhere", splits=("train", "test"))
    train_run(tmp_path / "elsewhere" / "run", settings_of(elsewhere))
    with pytest.raises(RunMismatch, match=r"differ in manifest_digest\. Fuse runs of one manifest alone"):
        fuse_runs(tmp_path / "g", [one, tmp_path / "elsewhere" / "run"])
    twice = shutil.copytree(tmp_path / "elsewhere" / "run", tmp_path / "elsewhere" / "again")
    with pytest.raises(RunMismatch, match="has no val split to find weights on"):
        fuse_runs(tmp_path / "g", [tmp_path / "elsewhere" / "run", twice], "val")
    assert not (tmp_path / "g").exists()


def test_a_part_that_was_trained_anew_is_not_taken(made, pair, tmp_path):
    fuse_runs(tmp_path / "fused", pair)
    shutil.rmtree(pair[0])
    train_run(pair[0], settings_of(made, seed=5))
    with pytest.raises(RunMismatch, match=r"one: is not the run that .*fused was made of"):
        evaluate_run(tmp_path / "fused")


SUITE = """
title = "Fused"
baseline = "one"
columns = ["acc1", "map"]
[settings]
epochs = 2
batch_size = 8
[[rows]]
name = "one"
[[rows]]
name = "other"
balance = "balanced-softmax"
[[rows]]
name = "elsewhere"
stores = ["b"]
head = "linear"
[[rows]]
name = "both"
fuse = ["one", "other"]
weights = "2:1"
"""


def test_a_suite_has_rows_that_are_fused_and_rows_of_one_store(made, tmp_path):
    (tmp_path / "suite.toml").write_text(SUITE)
    suite, drawn = read_suite(str(tmp_path / "suite.toml")), Draws("test", ("acc1", "map"), 20)
    runs = plan_runs(
        suite, made.manifest, {"a": made.store, "b": made.store}, range(2), tmp_path / "out", groups="5,10"
    )
    assert len(runs) == 2 * (2 + 2 + 1 + 2)
    outcomes = run_suite(runs, drawn, 2)
    assert [outcome.fault for outcome in outcomes] == [None] * len(runs)
    table = make_table(suite, outcomes, drawn)
    assert [(row["name"], row["store"]) for row in table["rows"]] == [
        *((name, "a") for name in ("one", "other", "both")),
        *((name, "b") for name in ("one", "other", "elsewhere", "both")),
    ]
    fused = next(row for row in table["rows"] if row["name"] == "both")
    expected = []
    for seed in range(2):
        parts = [run.folder for run in runs if run.store == "a" and run.seed == seed and run.row in ("one", "other")]
        (one, targets, _), (other, _, _) = (load_scored(part, "test") for part in parts)
        top = (2 / 3 * softmax(one, axis=1) + 1 / 3 * softmax(other, axis=1)).argmax(axis=1)
        expected.append(targets[np.arange(len(top)), top].mean())
    assert fused["figures"]["acc1"]["mean"] == pytest.approx(np.mean(expected))
    assert fused["seeds"] == [0, 1]
    assert fused["difference"]["acc1"]["p"] is not None
    spent = {row["name"]: row["training_seconds"] for row in table["rows"] if row["store"] == "a"}
    assert spent["both"] == pytest.approx(spent["one"] + spent["other"])
    trained = [row["training_seconds"] for row in table["rows"] if row["name"] != "both"]
    assert table["training_seconds"] == pytest.approx(2 * sum(trained))
    again = run_suite(runs, drawn, 2)
    assert json.dumps(make_table(suite, again, drawn)) == json.dumps(table)


def test_weights_on_val_are_refused_before_the_work_where_there_is_none(tmp_path, write_small_store):
    made = write_small_store(tmp_path / "data", splits=("train", "test"))
    (tmp_path / "suite.toml").write_text(SUITE.replace('"2:1"', '"val"'))
    suite = read_suite(str(tmp_path / "suite.toml"))
    runs = plan_runs(suite, made.manifest, {"b": made.store}, [0], tmp_path / "out", groups="5,10")
    with pytest.raises(LongreelError, match="row 'both': finds its weights on val"):
        check_plan(suite, runs, "test")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('fuse = ["one", "other"]', 'fuse = ["one", "otter"]', r"row 'both': no row that is trained called 'otter'"),
        ('fuse = ["one", "other"]', 'fuse = ["one"]', "row 'both' must be fused of two or more rows"),
        ('fuse = ["one", "other"]', 'fuse = ["one", "one"]', "each named once"),
        (
            'fuse = ["one", "other"]',
            'fuse = ["one", "elsewhere"]',
            "is for other stores than its part 'elsewhere'",
        ),
        ('weights = "2:1"', 'weights = "2:1:1"', "weights 2:1:1 are 3 for 2 runs"),
        ('weights = "2:1"', "epochs = 3", "row 'both' is fused of others, so epochs has no part in it"),
        ('head = "linear"', 'weights = "2:1"', "row 'elsewhere' has weights of nothing"),
    ],
)
def test_a_fused_row_that_cannot_be_is_refused(old, new, message, tmp_path):
    (tmp_path / "suite.toml").write_text(SUITE.replace(old, new))
    with pytest.raises(LongreelError, match=message):
        read_suite(str(tmp_path / "suite.toml"))


def test_a_row_for_a_store_that_is_not_given_is_refused(made, tmp_path):
    (tmp_path / "suite.toml").write_text(SUITE)
    with pytest.raises(LongreelError, match="no store called 'b'"):
        plan_runs(read_suite(str(tmp_path / "suite.toml")), made.manifest, {"a": made.store}, [0], tmp_path)
