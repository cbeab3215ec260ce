"""Davies-Bouldin and discrepancies against scikit-learn's kernels, plain loops and closed forms."""

import math

import numpy as np
import pytest
from sklearn.metrics.pairwise import linear_kernel, polynomial_kernel, rbf_kernel

from longreel.generate import datasets
from longreel.generate.datasets import compare_sets, davies_bouldin, discrepancy, rbf_mean

KERNELS = {
    "linear": linear_kernel,
    "rbf": lambda x, y: rbf_kernel(x, y, gamma=1.0),
    "poly": lambda x, y: polynomial_kernel(x, y, degree=2, gamma=1.0, coef0=0),
}


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def draw(count: int, seed: int, shift: float = 0.0, dim: int = 8) -> np.ndarray:
    return unit(np.random.default_rng(seed).standard_normal((count, dim)) + shift)


@pytest.mark.parametrize("name", KERNELS)
def test_discrepancies_are_the_means_of_scikit_learns_kernel_matrices(name):
    left, right = draw(37, 0), draw(53, 1, 0.4)
    kernel = KERNELS[name]
    naive = kernel(left, left).mean() + kernel(right, right).mean() - 2 * kernel(left, right).mean()
    assert discrepancy(left, right)[name] == pytest.approx(naive, abs=2e-6)
    assert naive > 1e-3


@pytest.mark.parametrize("block", [1, 7, 53, 4096])
def test_the_mean_of_a_kernel_does_not_depend_on_its_blocks(block):
    left, right = draw(37, 0, dim=3), 2 * draw(53, 1, dim=3)  # of any length
    naive = [math.exp(-(math.dist(x, y) ** 2)) for x in left.tolist() for y in right.tolist()]
    assert rbf_mean(left, right, block) == pytest.approx(sum(naive) / len(naive), rel=1e-5)


@pytest.mark.parametrize("c", [-0.5, 0.0, 0.55, 1.0])
def test_two_single_clips_have_the_closed_form_of_their_cosine(c):
    left, right = np.array([[1.0, 0.0]]), np.array([[c, math.sqrt(1 - c * c)]])
    found = discrepancy(left, right)
    assert found["linear"] == pytest.approx(2 - 2 * c, abs=1e-6)
    assert found["rbf"] == pytest.approx(2 - 2 * math.exp(-2 * (1 - c)), abs=1e-6)
    assert found["poly"] == pytest.approx(2 - 2 * c * c, abs=1e-6)


@pytest.mark.parametrize("c", [0.4, 0.55, 0.7])
def test_where_all_cosines_are_near_c_the_kernels_stand_in_the_ratios_of_c(c):
    """Of the published table's rows these ratios give one c each, twice: that is how its kernels were found."""
    drawn = np.random.default_rng(0)
    common, noise = np.zeros(512), drawn.standard_normal((4000, 512))
    common[0], noise[:, 0] = 1.0, 0.0
    centres = np.stack([common, common])
    centres[1, 1:3] = 0.03
    both = [
        unit(math.sqrt(c) * unit(centre[None]) + math.sqrt(1 - c) * unit(part))
        for centre, part in zip(centres, np.split(noise, 2), strict=True)
    ]
    # A clip beside itself has cosine 1: taken out of the means, as if there were very many clips.
    n = 2000
    across = {name: kernel(both[0], both[1]).mean() for name, kernel in KERNELS.items()}
    within = {
        name: sum((kernel(rows, rows).sum() - n * kernel(rows[:1], rows[:1])[0, 0]) / (n * (n - 1)) for rows in both)
        for name, kernel in KERNELS.items()
    }
    exact = {name: within[name] - 2 * across[name] for name in KERNELS}
    assert exact["rbf"] / exact["linear"] == pytest.approx(2 * math.exp(-2 * (1 - c)), rel=0.05)
    assert exact["poly"] / exact["linear"] == pytest.approx(2 * c, rel=0.05)
    found = discrepancy(*both)
    for name, kernel in KERNELS.items():  # ours has them in: more by what they add
        own = 2 * (kernel(both[0][:1], both[0][:1])[0, 0] - within[name] / 2) / n
        assert found[name] == pytest.approx(exact[name] + own, abs=1e-5)


def test_halves_of_one_set_are_nearer_than_real_and_generated_and_shrink_with_n():
    real, generated = draw(400, 0), draw(150, 1, 1.0)
    found = compare_sets(real, generated, seed=0)
    assert found["real_generated"]["n"] == [400, 150]
    assert found["halves"]["n"] == found["same_n"]["n"] == [150, 150]
    for name in KERNELS:
        assert 0 < found["halves"][name] < 0.2 * found["same_n"][name]
    fewer = compare_sets(real[:100], generated, seed=0)
    assert fewer["halves"]["n"] == [50, 50]
    assert fewer["halves"]["linear"] > 2 * found["halves"]["linear"]


def test_two_draws_of_one_distribution_are_no_further_apart_than_halves_of_as_many():
    found = compare_sets(draw(600, 0, dim=99), draw(300, 1, dim=99), seed=0)
    for name in KERNELS:
        assert found["same_n"][name] == pytest.approx(found["halves"][name], rel=0.2)


def test_the_same_seed_gives_the_same_figures_and_too_few_clips_give_none():
    real, generated = draw(40, 0), draw(10, 1)
    assert compare_sets(real, generated, 3) == compare_sets(real, generated, 3) != compare_sets(real, generated, 4)
    assert compare_sets(real[:1], generated, 0)["halves"] is None
    assert compare_sets(real[:0], generated, 0) == {"real_generated": None, "halves": None, "same_n": None}


def test_of_very_many_clips_some_are_drawn(monkeypatch):
    monkeypatch.setattr(datasets, "AT_MOST", 50)
    found = compare_sets(draw(80, 0), draw(60, 1), seed=0)
    assert found["real_generated"]["n"] == [50, 50]
    assert found["halves"]["n"] == [25, 25]


def naive_davies_bouldin(rows: np.ndarray, labels: list[str]) -> float:
    """By the paper: for each class the worst of (scatter + scatter) / distance of the means, on average."""
    names = sorted(set(labels))
    groups = [[row for row, label in zip(rows.tolist(), labels, strict=True) if label == name] for name in names]
    means = [[sum(column) / len(group) for column in zip(*group, strict=True)] for group in groups]
    scatter = [
        sum(math.dist(row, mean) for row in group) / len(group) for group, mean in zip(groups, means, strict=True)
    ]
    places = range(len(names))
    worst = [max((scatter[i] + scatter[j]) / math.dist(means[i], means[j]) for j in places if j != i) for i in places]
    return sum(worst) / len(worst)


def test_davies_bouldin_is_the_papers_and_is_higher_where_classes_mix():
    labels = [f"c{number % 4}" for number in range(60)]
    centres = 3 * np.random.default_rng(5).standard_normal((4, 6))
    noise = np.random.default_rng(6).standard_normal((60, 6))
    at = np.array([int(label[1]) for label in labels])
    apart, mixed = (unit(centres[at] + wide * noise) for wide in (0.5, 3.0))
    for rows in (apart, mixed):
        assert davies_bouldin(rows, labels) == pytest.approx(naive_davies_bouldin(rows, labels), rel=1e-6)
    assert (davies_bouldin(mixed, labels) or 0) > 2 * (davies_bouldin(apart, labels) or 9)


def test_davies_bouldin_needs_two_classes_and_a_class_of_two():
    assert davies_bouldin(draw(3, 0), ["a", "a", "a"]) is None
    assert davies_bouldin(draw(2, 0), ["a", "b"]) is None
    assert davies_bouldin(draw(0, 0), []) is None
    assert davies_bouldin(draw(3, 0), ["a", "b", "b"]) is not None
