"""Intervals against closed forms and simulated truths; p values against counts by hand."""

import itertools
import math
from functools import partial

import numpy as np
import pytest
from scipy import stats

from longreel.experiments.metrics import Evaluation
from longreel.experiments.statistics import (
    Interval,
    hierarchical_bootstrap,
    holm,
    paired_difference,
    resample_clips,
    seed_spread,
    seed_values,
    sign_flip_p,
)


def read_acc1(evaluation: Evaluation) -> float:
    return evaluation.overall.acc1


def read_map(evaluation: Evaluation) -> float:
    return evaluation.overall.map


ACC1 = {"acc1": read_acc1}


def one_label(counts: list[int]) -> np.ndarray:
    return np.eye(len(counts), dtype=bool)[np.repeat(np.arange(len(counts)), counts)]


def scores_with_hits(targets: np.ndarray, hit: np.ndarray) -> np.ndarray:
    """Scores whose highest is a true label exactly where ``hit`` says so."""
    return np.where(hit[:, None], targets, ~targets).astype(float)


def noisy_runs(targets: np.ndarray, seeds: int, generator: np.random.Generator, by_seed: float, by_clip: float):
    """Runs whose signal varies by seed, over clip noise that all of them share and a little of their own."""
    shared = by_clip * generator.standard_normal(targets.shape)
    signal = 1 + by_seed * generator.standard_normal((seeds, 1, 1))
    return [*(signal * targets + shared + 0.3 * generator.standard_normal((seeds, *targets.shape)))]


def test_an_interval_of_hit_rates_is_that_of_the_stratified_binomial():
    targets = one_label([400, 200, 100])
    rates = [0.9, 0.5, 0.2]
    hit = np.concatenate([np.arange(n) < n * rate for n, rate in zip([400, 200, 100], rates, strict=True)])
    found = hierarchical_bootstrap([scores_with_hits(targets, hit)], targets, None, ACC1, draws=4000)["acc1"]
    assert found.value == pytest.approx(480 / 700)
    deviation = math.sqrt(400 * 0.09 + 200 * 0.25 + 100 * 0.16) / 700
    assert found.low == pytest.approx(found.value - 1.96 * deviation, abs=0.1 * deviation)
    assert found.high == pytest.approx(found.value + 1.96 * deviation, abs=0.1 * deviation)


def test_seeds_that_differ_as_a_whole_give_the_t_interval_of_their_mean():
    sizes = [23, 15, 9, 19, 13, 21]
    targets = one_label(sizes)
    solved = np.cumsum(sizes)[:5]  # whole classes, so that the clips drawn make no difference
    runs = [scores_with_hits(targets, np.arange(100) < n) for n in solved]
    found = hierarchical_bootstrap(runs, targets, None, ACC1, draws=10_000)["acc1"]
    values = solved / 100
    low, high = stats.t.interval(0.95, df=4, loc=values.mean(), scale=stats.sem(values))
    assert found.value == pytest.approx(values.mean())
    assert found.high - found.low == pytest.approx(high - low, rel=0.04)  # one degree of freedom more: 7 % less
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.05 * (high - low))


def test_the_value_is_the_mean_over_seeds_of_the_plain_metric_and_lies_inside():
    targets = one_label([20, 6, 3])
    runs = noisy_runs(targets, 3, np.random.default_rng(0), 0.1, 1.0)
    metrics = {"acc1": read_acc1, "map": read_map}
    plain = seed_values(runs, targets, None, metrics)
    found = hierarchical_bootstrap(runs, targets, None, metrics, draws=200)
    assert plain["acc1"].shape == (3,)
    np.testing.assert_allclose(plain["acc1"], [(run.argmax(1) == targets.argmax(1)).mean() for run in runs])
    for name in metrics:
        assert found[name].value == pytest.approx(plain[name].mean(), abs=1e-12)
        assert found[name].low < found[name].value < found[name].high


def test_intervals_depend_on_the_seed_and_on_nothing_else_asked_for():
    targets = one_label([12, 9])
    runs = noisy_runs(targets, 2, np.random.default_rng(0), 0.1, 1.0)
    alone = hierarchical_bootstrap(runs, targets, None, ACC1, draws=50)
    among = hierarchical_bootstrap(runs, targets, {"a": [1]}, {"map": read_map, **ACC1}, draws=50)
    assert among["acc1"] == alone["acc1"]
    assert hierarchical_bootstrap(runs, targets, None, ACC1, draws=50, seed=1)["acc1"] != alone["acc1"]


def test_a_lower_level_gives_a_narrower_interval():
    targets = one_label([30, 30])
    runs = noisy_runs(targets, 4, np.random.default_rng(0), 0.2, 1.0)
    wide, narrow = (
        hierarchical_bootstrap(runs, targets, None, ACC1, draws=300, level=level)["acc1"] for level in (0.95, 0.5)
    )
    assert wide.low < narrow.low < narrow.high < wide.high


def test_the_interval_covers_a_known_hit_rate_as_often_as_it_says():
    # Two classes, signal 1, unit noise on both scores: a hit where N(1, 2) > 0.
    truth, targets = stats.norm.cdf(1 / math.sqrt(2)), one_label([40, 40])
    generator, covered = np.random.default_rng(0), 0
    for trial in range(300):
        run = targets + generator.standard_normal(targets.shape)
        found = hierarchical_bootstrap([run], targets, None, ACC1, draws=150, seed=trial)["acc1"]
        covered += found.low <= truth <= found.high
    assert stats.binom.ppf(0.001, 300, 0.92) <= covered <= stats.binom.ppf(0.999, 300, 0.97)


@pytest.mark.parametrize(("by_seed", "by_clip"), [(0.5, 0.3), (0.1, 1.0)], ids=["seeds differ", "clips differ"])
def test_equal_methods_are_rarely_called_different(by_seed, by_clip):
    targets, generator, wrong = one_label([20, 12, 8]), np.random.default_rng(1), 0
    for trial in range(120):
        runs = noisy_runs(targets, 8, generator, by_seed, by_clip)
        found = paired_difference(runs[:4], runs[4:], targets, None, ACC1, draws=100, seed=trial)["acc1"]
        wrong += not found.low <= 0 <= found.high
    assert wrong <= stats.binom.ppf(0.999, 120, 0.05)


def test_a_planted_difference_is_found_and_has_its_sign():
    targets, generator = one_label([40, 30, 20]), np.random.default_rng(2)
    worse = noisy_runs(targets, 6, generator, 0.05, 0.7)
    better = [run + 0.8 * targets for run in worse]
    found = paired_difference(better, worse, targets, None, ACC1, draws=200)["acc1"]
    assert 0 < found.low < found.value < found.high
    values = [seed_values(runs, targets, None, ACC1)["acc1"] for runs in (better, worse)]
    assert found.value == pytest.approx((values[0] - values[1]).mean(), abs=1e-12)
    mirrored = paired_difference(worse, better, targets, None, ACC1, draws=200)["acc1"]
    assert (mirrored.low, mirrored.high) == pytest.approx((-found.high, -found.low), abs=1e-12)


def test_what_two_methods_share_cancels_in_their_difference():
    targets = one_label([10, 10, 10])
    generator = np.random.default_rng(3)
    runs = noisy_runs(targets, 3, generator, 0.5, 1.0)
    assert paired_difference(runs, runs, targets, None, ACC1, draws=50)["acc1"] == Interval(0.0, 0.0, 0.0)
    # B misses class 2 throughout, A hits it throughout, else they are equal: 1/3 in each draw of each seed.
    hit = generator.random((3, 30)) < 0.5
    with_it = [scores_with_hits(targets, row | targets[:, 2]) for row in hit]
    without = [scores_with_hits(targets, row & ~targets[:, 2]) for row in hit]
    found = paired_difference(with_it, without, targets, None, ACC1, draws=50)["acc1"]
    assert (found.value, found.low, found.high) == pytest.approx((1 / 3, 1 / 3, 1 / 3), abs=1e-12)


def test_draws_that_give_nan_are_left_out():
    targets = one_label([6, 6])
    run = scores_with_hits(targets, np.arange(12) % 2 == 0)

    def above(evaluation: Evaluation, limit: float) -> float:
        return evaluation.overall.acc1 if evaluation.overall.acc1 >= limit else float("nan")

    metrics = {"some": partial(above, limit=0.5), "all": partial(above, limit=2.0)}
    found = hierarchical_bootstrap([run], targets, None, metrics, draws=300)
    # Twelve hits of chance 1/2, those below 6 left out: the lowest draw is the value, the mean lies above it.
    drawn = [k / 12 for k in range(6, 13)]
    mean = np.average(drawn, weights=[math.comb(12, k) for k in range(6, 13)])
    assert found["some"].value == 0.5
    assert found["some"].low == pytest.approx(0.5 + 0.5 - mean, abs=0.01)
    assert all(math.isnan(end) for end in (found["all"].value, found["all"].low, found["all"].high))


def test_each_draw_keeps_the_number_of_clips_of_every_rarest_label():
    targets = np.zeros((60, 4), bool)
    targets[:40, 0] = True
    targets[30:50, 1] = True  # ten clips carry both; label 1 is the rarer
    targets[50:53, 2] = True
    strata = [slice(0, 30), slice(30, 50), slice(50, 53), slice(53, 60)]  # the last seven have no label
    counts = resample_clips(targets, 500, np.random.default_rng(0))
    assert counts.shape == (500, 60)
    for stratum in strata:
        size = stratum.stop - stratum.start
        assert (counts[:, stratum].sum(axis=1) == size).all()
        # Multinomial: each clip's count has mean 1 and variance 1 - 1/size.
        np.testing.assert_allclose(counts[:, stratum].mean(axis=0), 1, atol=5 / math.sqrt(500))
        assert counts[:, stratum].var(axis=0).mean() == pytest.approx(1 - 1 / size, rel=0.1)


def test_sign_flip_p_by_hand():
    assert sign_flip_p([1.0, 2.0, 3.0]) == 2 / 8  # only +++ and --- reach 6
    assert sign_flip_p([1.0, 2.0, -3.0]) == 1.0  # a sum of 0 is reached by all
    assert sign_flip_p([1.0, 2.0, -1.0]) == 6 / 8  # sums 4 2 2 0 and their mirror images; seen: 2
    assert sign_flip_p([0.0, 0.0, 0.0]) == 1.0
    assert sign_flip_p([0.5] * 6) == 2 / 64


@pytest.mark.parametrize("n", [2, 5, 6, 10, 16])
def test_the_smallest_sign_flip_p_is_two_over_the_number_of_patterns(n):
    assert sign_flip_p(0.1 + np.arange(n) / 7) == 2.0 ** (1 - n)


def test_sign_flip_p_equals_the_count_over_all_patterns():
    values = np.random.default_rng(4).normal(0.4, 1, size=7)
    sums = [abs(np.dot(signs, values)) for signs in itertools.product([1, -1], repeat=7)]
    assert sign_flip_p(values) == np.mean([total >= abs(values.sum()) - 1e-9 for total in sums])
    oracle = stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=10_000)
    assert sign_flip_p(values) == pytest.approx(oracle.pvalue)


def test_equal_sums_count_as_equal_whatever_their_rounding():
    assert sign_flip_p([0.1, 0.2, 0.3]) == sign_flip_p([1.0, 2.0, 3.0])
    assert sign_flip_p([0.1, 0.2, -0.3]) == 1.0


def test_many_seeds_are_tested_by_seeded_random_patterns():
    values = np.random.default_rng(5).normal(0.3, 1, size=40)
    p = sign_flip_p(values)
    assert p == sign_flip_p(values)
    assert p == pytest.approx(stats.ttest_1samp(values, 0)[1], abs=0.02)
    assert sign_flip_p(np.ones(40)) == 1 / 20_001  # never zero


def test_sign_flip_p_of_equal_methods_is_under_a_level_no_more_often_than_that():
    generator = np.random.default_rng(6)
    found = np.array([sign_flip_p(generator.standard_normal(8)) for _ in range(1500)])
    for level in (0.05, 0.2):
        assert (
            stats.binom.ppf(0.001, 1500, level * 0.9) <= (found <= level).sum() <= stats.binom.ppf(0.999, 1500, level)
        )


@pytest.mark.parametrize("values", [[], [0.3], [0.3, math.nan]])
def test_sign_flip_p_needs_two_differences(values):
    assert math.isnan(sign_flip_p(values))


def test_holm_by_hand():
    # Sorted 0.005 0.01 0.03 0.04 times 4 3 2 1: 0.02 0.03 0.06 0.04, and no step goes down.
    np.testing.assert_allclose(holm([0.01, 0.04, 0.03, 0.005]), [0.03, 0.06, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.6, 0.7]), [1, 1])
    np.testing.assert_allclose(holm([0.03]), [0.03])
    assert holm([]).shape == (0,)


def test_holm_leaves_out_what_was_not_tested():
    np.testing.assert_allclose(holm([0.01, math.nan, 0.03]), [0.02, math.nan, 0.03])


def test_holm_refuses_what_is_no_p_value():
    with pytest.raises(ValueError, match="between 0 and 1"):
        holm([0.2, 1.2])


def test_seed_spread_is_the_mean_and_the_sample_deviation():
    assert seed_spread([2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]) == pytest.approx((5, math.sqrt(32 / 7)))
    mean, deviation = seed_spread([0.4])
    assert mean == 0.4
    assert math.isnan(deviation)
    with pytest.raises(ValueError, match="at least one seed"):
        seed_spread([])


def test_bootstraps_of_nothing_are_refused():
    targets = one_label([3, 3])
    run = targets.astype(float)
    with pytest.raises(ValueError, match="at least one seed"):
        hierarchical_bootstrap([], targets, None, ACC1)
    with pytest.raises(ValueError, match="one draw"):
        hierarchical_bootstrap([run], targets, None, ACC1, draws=0)
    with pytest.raises(ValueError, match="between 0 and 1"):
        hierarchical_bootstrap([run], targets, None, ACC1, draws=5, level=95)
    with pytest.raises(ValueError, match="2 of one method, 1 of the other"):
        paired_difference([run, run], [run], targets, None, ACC1)
