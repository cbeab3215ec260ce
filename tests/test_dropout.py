"""Dropout: how many numbers it keeps, what becomes of them, and where the draws come from."""

import math

import pytest
import torch

from longreel.heads.dropout import Dropout

SHAPE = (1000, 333)  # not a multiple of four


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_each_number_is_dropped_with_its_chance_and_the_others_grow_to_make_up_for_it(p):
    torch.manual_seed(0)
    found = Dropout(p)(torch.ones(SHAPE))
    values, counts = found.unique(return_counts=True)
    assert values.tolist() == pytest.approx([0.0, 1 / (1 - p)], rel=1e-4)
    size = math.prod(SHAPE)
    assert abs(int(counts[0]) - p * size) < 5 * math.sqrt(size * p * (1 - p))


def test_neighbours_are_dropped_independently():
    torch.manual_seed(0)
    kept = (Dropout(0.5)(torch.ones(SHAPE)) > 0).flatten().float() - 0.5
    for distance in range(1, 9):  # four numbers share a draw
        assert abs(float((kept[distance:] * kept[:-distance]).mean())) < 5 * 0.25 / math.sqrt(len(kept))


def test_the_gradient_takes_the_same_way():
    torch.manual_seed(0)
    rows = torch.randn(SHAPE, requires_grad=True)
    found = Dropout(0.3)(rows)
    found.sum().backward()
    assert rows.grad is not None
    torch.testing.assert_close(rows.grad * rows, found)


def test_a_seed_gives_the_same_draws_and_the_next_call_others():
    layer, rows = Dropout(0.5), torch.ones(SHAPE)
    torch.manual_seed(3)
    first, second = layer(rows), layer(rows)
    torch.manual_seed(3)
    assert torch.equal(layer(rows), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_in_evaluation_and_without_a_chance_nothing_changes(dtype):
    rows = torch.randn(SHAPE).to(dtype)
    assert torch.equal(Dropout(0.5).eval()(rows), rows)
    assert torch.equal(Dropout(0.0)(rows), rows)
    assert Dropout(0.5)(rows).dtype is dtype
