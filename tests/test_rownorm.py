"""Batch normalisation where a batch has a single row, which has no variance of its own."""

from typing import Any

import pytest
import torch

from longreel.heads.netvlad import netvlad_gated

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_batch_of_one_clip_can_be_trained_on():
    head: Any = netvlad_gated(6, 4, clusters=3, hidden=7).train()
    head(torch.randn(1, 5, 6)).sum().backward()
    norm = head.aggregator.normalise
    assert torch.equal(norm.running_mean, torch.zeros(7))
    assert head(torch.randn(1, 5, 6)).isfinite().all()


@pytest.mark.parametrize("views", [0, 2])
def test_a_batch_of_one_clip_of_one_frame_is_trained_on_alike_with_padding_and_without(views):
    found = []
    for frames in (1, 5):
        torch.manual_seed(0)
        head: Any = netvlad_gated(6, 4, clusters=3, hidden=7).double().train()
        rows = torch.full((1, frames, 6), 1e3, dtype=torch.float64)
        rows[:, 0] = torch.arange(6.0)
        mask = torch.arange(frames)[None] < 1
        pooled = head.aggregate(rows, mask.expand(2, 1, frames) if views else mask)
        (pooled + 1).square().sum().backward()
        found.append(
            [pooled.detach(), *head.state_dict().values(), *(each.grad for each in head.aggregator.parameters())]
        )
    for alone, padded in zip(*found, strict=True):
        torch.testing.assert_close(alone, padded)
    assert torch.equal(head.aggregator.codebook.normalise.running_var, torch.ones(6).double())
