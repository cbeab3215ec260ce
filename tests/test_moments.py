"""Moments of rows that come in parts, against numpy's of all rows at once."""

import numpy as np
import pytest
import torch

from longreel.experiments.moments import measure


def parted(rows: np.ndarray, ends: list[int]) -> list[torch.Tensor]:
    return [torch.from_numpy(part) for part in np.split(rows, ends)]


@pytest.mark.parametrize("at_once", [1, 999, 10_000])
def test_moments_are_those_of_numpy_and_a_constant_column_has_deviation_one(at_once, monkeypatch):
    monkeypatch.setattr("longreel.experiments.moments.VALUES", 3 * at_once)
    rows = np.random.default_rng(0).normal(200.0, 0.5, size=(5000, 3)).astype(np.float16)
    rows[:, 1] = 0.1
    mean, deviation = measure([torch.from_numpy(rows)], rows.shape[1], {"all": None})["all"]
    wide = rows.astype(np.float64)
    np.testing.assert_allclose(mean.numpy(), wide.mean(axis=0), rtol=1e-7)
    np.testing.assert_allclose(deviation[[0, 2]].numpy(), wide.std(axis=0)[[0, 2]], rtol=1e-6)
    assert deviation[1] == 1.0
    assert mean.dtype == deviation.dtype == torch.float32


@pytest.mark.parametrize("at_once", [1, 2, 3, 300])
def test_kinds_are_measured_by_their_own_rows_in_one_go(at_once, monkeypatch):
    monkeypatch.setattr("longreel.experiments.moments.VALUES", 3 * at_once)
    rows = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float16)
    mine = torch.tensor([False] * 5 + [True] * 3 + [False] * 4)
    found = measure(parted(rows, [4, 4, 9]), 3, {"mine": mine, "others": ~mine, "all": None})
    wide = rows.astype(np.float64)
    for kind, own in (("mine", wide[5:8]), ("others", np.delete(wide, slice(5, 8), axis=0)), ("all", wide)):
        mean, deviation = found[kind]
        np.testing.assert_allclose(mean.numpy(), own.mean(axis=0), rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(deviation.numpy(), own.std(axis=0), rtol=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_no_bit_depends_on_how_rows_are_parted(seed, monkeypatch):
    monkeypatch.setattr("longreel.experiments.moments.VALUES", 4 * 7)
    drawn = np.random.default_rng(seed)
    rows = drawn.normal(size=(100, 4)).astype(np.float16)
    ends = sorted(drawn.integers(0, 101, size=9).tolist())  # some parts are empty, some longer than a block
    whole, found = (measure(parted(rows, cuts), 4, {"all": None})["all"] for cuts in ([], ends))
    assert all(torch.equal(a, b) for a, b in zip(whole, found, strict=True))


def test_rows_are_left_as_they_are():
    rows = torch.arange(12, dtype=torch.float32).view(4, 3)
    measure([rows], 3, {"all": None})
    assert torch.equal(rows, torch.arange(12, dtype=torch.float32).view(4, 3))


def test_parts_are_taken_to_the_end_though_no_kind_is_asked_for():
    taken = []

    def parts():
        for number in range(3):
            yield torch.zeros(2, 3)
            taken.append(number)

    assert measure(parts(), 3, {}) == {}
    assert taken == [0, 1, 2]


@pytest.mark.parametrize("at_once", [999, 10_000])
@pytest.mark.parametrize("place", [0, 1, 999, 2500])
def test_a_column_that_jumps_costs_no_digits(place, at_once, monkeypatch):
    monkeypatch.setattr("longreel.experiments.moments.VALUES", 2 * at_once)
    rows = np.random.default_rng(0).normal(0.0, 1e-3, size=(5000, 2)).astype(np.float32)
    rows[place:, 1] += 1000.0  # within a block, at its end, or all along
    rows[place, 0] = 1000.0
    mean, deviation = measure([torch.from_numpy(rows)], 2, {"all": None})["all"]
    wide = rows.astype(np.float64)
    np.testing.assert_allclose(mean.numpy(), wide.mean(axis=0), rtol=5e-6)
    np.testing.assert_allclose(deviation.numpy(), wide.std(axis=0), rtol=1e-5)


def test_of_no_rows_the_deviation_is_one():
    for parts in ([], [torch.zeros(0, 3)]):
        mean, deviation = measure(parts, 3, {"all": None})["all"]
        assert (mean.tolist(), deviation.tolist()) == ([0, 0, 0], [1, 1, 1])
