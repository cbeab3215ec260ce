"""Heads that average rows share the means of a batch: in the bits that each has without, and taken once."""

from collections import Counter
from dataclasses import replace

import pytest
import torch
from small_runs import contents, settings_of

from longreel.experiments import drawn, training
from longreel.experiments.drawn import Drawn
from longreel.experiments.train import Member, Trained, train_run, train_together
from longreel.heads import build_head, views

pytestmark = pytest.mark.usefixtures("one_thread")

AVERAGING = ["linear", "nonlinear-early:hidden=8", "cosine"]
WAYS = {"balance": ["ce", "framestack", "move", "lmr", "crt"], "mixer": ["mixup", "mixup:at=clips"]}


@pytest.fixture
def pooled(monkeypatch) -> Counter[int]:
    """How often batches of so many rows a clip were averaged."""
    counted, plain = Counter(), views.mean_of_views

    def mean_of_views(rows, mask):
        counted[rows.shape[1]] += 1
        return plain(rows, mask)

    monkeypatch.setattr(views, "mean_of_views", mean_of_views)
    return counted


@pytest.mark.parametrize("head", AVERAGING)
def test_a_head_pools_the_same_bits_from_the_means(head):
    mean, deviation = torch.randn(6), torch.rand(6) + 0.1
    made = build_head(head, 6, 4, mean, deviation).eval()
    rows, mask = torch.randn(5, 7, 6) * 100, torch.arange(7) < torch.tensor([7, 1, 3, 6, 2])[:, None]
    batch = Drawn(rows, mask)
    assert batch.for_head(made)[0].shape == (5, 1, 6)
    assert torch.equal(made(*batch.for_head(made)), made(rows, mask))


@pytest.mark.parametrize("head", ["nonlinear", "netvlad:clusters=2", "psa:heads=2"])
def test_other_heads_are_given_the_rows(head):
    made = build_head(head, 6, 4, torch.zeros(6), torch.ones(6))
    batch = Drawn(torch.randn(2, 3, 6), torch.ones(2, 3, dtype=torch.bool))
    assert batch.for_head(made) == (batch.rows, batch.mask)


@pytest.mark.parametrize("frames", [None, 3])
@pytest.mark.parametrize(("key", "name"), [(key, name) for key, names in WAYS.items() for name in names])
def test_a_training_ends_in_the_bits_that_it_has_without(key, name, frames, made, tmp_path, monkeypatch):
    plain = settings_of(made, frames=frames, precision="bfloat16")
    settings = replace(plain, head="nonlinear-early", **{key: name})
    train_run(tmp_path / "means", settings)
    for module in (drawn, training):
        monkeypatch.setattr(module, "averages", lambda head: False)
    train_run(tmp_path / "rows", settings)
    assert contents(tmp_path / "means") == contents(tmp_path / "rows")


def test_the_means_are_taken_once_for_all_trainings(made, tmp_path, pooled):
    ways = [replace(settings_of(made, learning_rate=rate, frames=3), head="linear") for rate in (1e-3, 1e-2, 1e-1)]
    train_run(tmp_path / "alone", ways[0])
    alone = pooled[3]
    pooled.clear()
    together = train_together([Member(tmp_path / str(number), each) for number, each in enumerate(ways)])
    assert all(isinstance(each, Trained) for each in together)
    assert pooled[3] == alone > 0


def test_clips_that_are_mixed_are_averaged_as_they_were_mixed(made, tmp_path, pooled):
    seen = {}
    for name in ("none", "mixup"):
        pooled.clear()
        train_run(tmp_path / name, replace(settings_of(made, frames=3), head="linear", mixer=name))
        seen[name] = pooled.copy()
    steps = seen["none"][3]
    assert seen["mixup"][3] == steps > 0
    assert seen["none"][1] - seen["mixup"][1] == steps  # only clips that are not mixed, and val, are their means
