"""The harness put to the test: equal methods, a planted effect, labels that mean nothing."""

import csv
import itertools

import numpy as np
import pytest
from scipy import stats
from small_runs import settings_of

from longreel.experiments.evaluate import evaluate_run, load_scored
from longreel.experiments.precision import average_precisions
from longreel.experiments.statistics import interval_of, metric_draws, sign_flip_p
from longreel.experiments.train import train_run

pytestmark = pytest.mark.usefixtures("one_thread")

SEEDS, DRAWS, COMPARISONS, P_VALUES = 36, 200, 200, 2000
METRICS = {"class_average": lambda found: found.overall.class_average, "map": lambda found: found.overall.map}


@pytest.fixture(scope="module")
def scored(write_small_store, tmp_path_factory):
    """Test scores of one method under 36 seeds, and the targets."""
    import torch

    torch.set_num_threads(1)
    made = write_small_store(tmp_path_factory.mktemp("data"), noise=4.0)
    folder, scores = tmp_path_factory.mktemp("runs"), []
    for seed in range(SEEDS):
        train_run(folder / str(seed), settings_of(made, seed=seed, epochs=2))
        evaluate_run(folder / str(seed))
        scores.append(load_scored(folder / str(seed), "test"))
    return [found for found, _, _ in scores], scores[0][1]


def tables_of(scores, targets) -> np.ndarray:
    """``(S, M, 1 + W)``"""
    return metric_draws(scores, targets, None, METRICS, DRAWS, 0).swapaxes(0, 1)


@pytest.fixture(scope="module")
def tables(scored) -> np.ndarray:
    return tables_of(*scored)


def compare(mine: np.ndarray, theirs: np.ndarray, count: int, drawn: np.random.Generator):
    """Intervals and p values of as many seeds of each, no seed in both."""
    picks = drawn.permutation(SEEDS)[: 2 * count]
    difference = mine[picks[:count]] - theirs[picks[count:]]  # (S, M, 1 + W)
    for metric in range(len(METRICS)):
        interval = interval_of(difference[:, metric], 0, 0.95)
        yield interval, sign_flip_p(difference[:, metric, 0])


@pytest.mark.parametrize("count", [3, 5, 8])
def test_intervals_find_a_method_different_from_itself_no_more_often_than_promised(tables, count):
    drawn = np.random.default_rng(count)
    wrong = [
        [not interval.low <= 0 <= interval.high for interval, _ in compare(tables, tables, count, drawn)]
        for _ in range(COMPARISONS)
    ]
    assert (np.sum(wrong, axis=0) <= stats.binom.ppf(0.999, COMPARISONS, 0.05)).all()  # of each metric


@pytest.mark.parametrize("count", [6, 8, 12])  # fewer seeds than 6 cannot give a p below 0.05
def test_p_values_find_a_method_different_from_itself_as_often_as_promised(tables, count):
    """By mAP: class averages of so few clips are often equal, which makes p larger."""
    figures, drawn = tables[:, list(METRICS).index("map"), 0], np.random.default_rng(count)
    picks = np.stack([drawn.permutation(figures)[: 2 * count] for _ in range(P_VALUES)])
    found = [sign_flip_p(row[:count] - row[count:]) for row in picks]
    possible = 2.0 ** (1 - count) * np.arange(1, 2**count)  # p comes in steps
    chance = possible[possible < 0.05].max()
    low, high = stats.binom.interval(0.998, P_VALUES, chance)
    assert low <= sum(p < 0.05 for p in found) <= high


def test_an_effect_that_was_planted_is_found(scored):
    """The true classes of most clips get a better score in every run of one method."""
    scores, targets = scored
    helped = np.random.default_rng(0).random(len(targets)) < 0.8
    better = [found + 2.0 * found.std() * (targets & helped[:, None]) for found in scores]
    mine, theirs, drawn = tables_of(better, targets), tables_of(scores, targets), np.random.default_rng(1)
    found = list(itertools.chain(*(compare(mine, theirs, 8, drawn) for _ in range(50))))
    assert sum(interval.low > 0 for interval, _ in found) >= 0.9 * len(found)
    assert sum(p < 0.05 for _, p in found) >= 0.9 * len(found)


def test_labels_that_mean_nothing_are_learnt_to_nothing(write_small_store, tmp_path):
    """Training labels dealt out anew: mAP on test lies where permuted test labels put it."""
    made = write_small_store(tmp_path / "data", noise=1.0)
    train = [row for row in made.rows if row["split"] == "train"]
    dealt = np.random.default_rng(3).permutation([row["label"] for row in train]).tolist()
    labels = {row["path"]: label for row, label in zip(train, dealt, strict=True)}
    with open(made.manifest, "w", newline="") as file:
        writer = csv.DictWriter(file, ["path", "label", "split"])
        writer.writeheader()
        writer.writerows(row | {"label": labels.get(row["path"], row["label"])} for row in made.rows)
    train_run(tmp_path / "run", settings_of(made, epochs=20, learning_rate=0.01))
    found = evaluate_run(tmp_path / "run")["overall"]["map"]
    scores, targets, _ = load_scored(tmp_path / "run", "test")
    drawn = np.random.default_rng(4)
    chance = [np.nanmean(average_precisions(scores, drawn.permutation(targets))) for _ in range(500)]
    low, high = np.quantile(chance, [0.005, 0.995])
    assert low <= found <= high
    assert high < 0.75  # labels that do mean something get more than that
