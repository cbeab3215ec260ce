"""Classes without a clip in the split: left out and counted, or 0 where a table of others is to be met."""

import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, recall_score
from small_runs import settings_of
from typer.testing import CliRunner

from longreel.cli import app
from longreel.console import print_evaluation
from longreel.errors import LongreelError
from longreel.experiments.evaluate import evaluate_run, load_scored
from longreel.experiments.metrics import as_json, count_empty_as_zero, evaluate_scores
from longreel.experiments.runs import read_config
from longreel.experiments.train import train_run

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def run(made, tmp_path, write_small_store):
    """A run whose test split has no clip of one of the four classes."""
    rows = [row for row in made.rows if row["split"] != "test" or row["label"] != "yak"]
    train_run(tmp_path / "run", settings_of(write_small_store(tmp_path / "other", rows=rows)))
    return tmp_path / "run"


@pytest.mark.filterwarnings("ignore:No positive class found", "ignore:Recall is ill-defined")
def test_zero_gives_the_macro_averages_of_scikit_learn():
    generator = np.random.default_rng(0)
    labels = generator.integers(5, size=90)
    scores, targets = generator.standard_normal((90, 8)), np.eye(8, dtype=bool)[labels]
    found = count_empty_as_zero(as_json(evaluate_scores(scores, targets))["overall"])  # type: ignore[arg-type]
    recall = recall_score(labels, scores.argmax(axis=1), labels=range(8), average="macro")
    assert found["class_average"] == pytest.approx(recall, abs=1e-12)
    assert found["map"] == pytest.approx(average_precision_score(targets, scores, average="macro"), abs=1e-12)


def test_a_perfect_classifier_scores_the_share_of_classes_that_have_a_clip():
    targets = np.eye(5, dtype=bool)[[0, 1, 2, 3]]
    document = as_json(evaluate_scores(targets.astype(float), targets, {"empty": [4], "full": [0, 1], "none": []}))
    found = count_empty_as_zero(document["overall"])  # type: ignore[arg-type]
    assert (found["map"], found["class_average"], found["acc1"], found["empty_classes"]) == (0.8, 0.8, 1.0, 1)
    groups = {name: count_empty_as_zero(summary) for name, summary in document["groups"].items()}  # type: ignore
    assert {name: group["map"] for name, group in groups.items()} == {"empty": 0.0, "full": 1.0, "none": None}
    assert {name: group["acc1"] for name, group in groups.items()} == {"empty": None, "full": 1.0, "none": None}


def test_zero_is_worked_out_from_the_kept_evaluation_which_stays_as_it_is(run):
    before = evaluate_run(run)
    kept = (run / "evaluation-test.json").read_bytes()
    document = evaluate_run(run, empty_class="zero")
    assert (run / "evaluation-test.json").read_bytes() == kept
    assert evaluate_run(run) == before
    assert len((run / "looks.jsonl").read_text().splitlines()) == 1
    assert (before["empty_class"], document["empty_class"]) == ("left-out", "zero")
    assert {key for key in before if before[key] != document[key]} == {"overall", "groups", "classes", "empty_class"}
    assert json.loads(json.dumps(document, allow_nan=False)) == document


@pytest.mark.filterwarnings("ignore:No positive class found")
def test_the_first_call_may_ask_for_zero_and_what_is_kept_has_them_left_out(run):
    document = evaluate_run(run, empty_class="zero")
    scores, targets, _ = load_scored(run, "test")
    assert document["overall"]["map"] == pytest.approx(average_precision_score(targets, scores, average="macro"))
    for name, members in read_config(run)["groups"]["members"].items():
        expected = np.mean([average_precision_score(targets[:, c], scores[:, c]) for c in members])
        assert document["groups"][name]["map"] == pytest.approx(expected), name
    assert document["classes"]["yak"] == {"train_clips": 3, "clips": 0, "accuracy": 0.0, "ap": 0.0}
    assert document["overall"]["map"] == pytest.approx(np.mean([one["ap"] for one in document["classes"].values()]))
    assert evaluate_run(run)["classes"]["yak"]["ap"] is None


@pytest.mark.parametrize(
    ("empty_class", "words"), [("left-out", "are left out of class average and mAP"), ("zero", "count 0 in class")]
)
def test_the_printed_figures_say_which_was_done(empty_class, words, run, capsys):
    print_evaluation(evaluate_run(run, empty_class=empty_class))
    assert f"1 classes have no clip in this split and {words}" in capsys.readouterr().out


def test_the_command_takes_the_choice(run):
    done = CliRunner().invoke(app, ["evaluate", str(run), "--empty-class", "zero", "--json"])
    assert json.loads(done.stdout) == evaluate_run(run, empty_class="zero")


def test_where_every_class_has_a_clip_both_are_the_same(made, tmp_path):
    train_run(tmp_path / "run", settings_of(made))
    assert evaluate_run(tmp_path / "run", empty_class="zero") == evaluate_run(tmp_path / "run") | {
        "empty_class": "zero"
    }


def test_another_way_is_refused_before_the_split_is_opened(run):
    with pytest.raises(LongreelError, match=r"no way to count an empty class called 'nil'. There are: left-out, zero"):
        evaluate_run(run, empty_class="nil")
    assert not (run / "looks.jsonl").exists()
