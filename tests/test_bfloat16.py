"""Every head with every mixer, products in bfloat16: it trains, and its losses and gradients are near float32's."""

import pytest
import torch
from torch import Tensor

from longreel.balance import Batch, Known, build_stage
from longreel.balance.methods import Stage
from longreel.balance.mixing import mean_over_labels
from longreel.experiments.arithmetic import products_in
from longreel.heads import HEADS, build_head

MIXERS = ["none", "mixup", "mixup:at=clips", "framestack", "framestack:released=true", "move", "lmr"]
TRAINED = [name for name in HEADS if name != "knn"]
COUNTS = torch.tensor([90.0, 70.0, 50.0, 30.0, 10.0])


def losses_of(head: str, mixer: str, precision: str) -> tuple[Tensor, dict[str, Tensor]]:
    """Losses of two steps on clips of the same draws, and the gradients of the second; weights stay as they are."""
    torch.manual_seed(0)
    made = build_head(head, 8, 5, torch.full((8,), 3.0), torch.full((8,), 2.0)).train()
    for module in made.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    parts = build_stage(Stage("bce", mixer=mixer))
    targets = torch.eye(5)[torch.arange(16) % 5]
    batch = Batch(3 + 2 * torch.randn(16, 7, 8), torch.ones(16, 7, dtype=torch.bool), targets)
    known = Known(COUNTS, torch.linspace(0.1, 0.9, 5), torch.Generator().manual_seed(1), {})
    losses = []
    for _ in range(2):
        made.zero_grad()
        with products_in(precision, torch.device("cpu")):
            logits, wanted = parts.mixer(made, batch, known)
        losses.append(parts.loss(logits.float(), wanted, COUNTS))
        losses[-1].mean().backward()
    found = {name: each.grad for name, each in made.named_parameters() if each.grad is not None}
    return torch.stack(losses).detach(), found


@pytest.mark.parametrize("mixer", MIXERS)
@pytest.mark.parametrize("head", TRAINED)
def test_losses_and_gradients_are_near_those_of_float32(head, mixer):
    wanted, exact = losses_of(head, mixer, "float32")
    found, near = losses_of(head, mixer, "bfloat16")
    torch.testing.assert_close(found, wanted, rtol=0.03, atol=0.01)
    assert near.keys() == exact.keys()
    one, other = (torch.cat([grads[name].flatten() for name in exact]) for grads in (exact, near))
    assert torch.cosine_similarity(one, other, dim=0) > 0.999


@pytest.mark.parametrize("head", TRAINED)
def test_pooled_clips_are_in_float32(head):
    made = build_head(head, 8, 5, torch.zeros(8), torch.ones(8)).eval()
    with products_in("bfloat16", torch.device("cpu")):
        assert made.aggregate(torch.randn(3, 4, 8), torch.ones(3, 4, dtype=torch.bool)).dtype == torch.float32


def test_figures_of_classes_keep_all_digits():
    counts, targets = torch.tensor([1001.0, 37.0, 3.0]), torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 1, 1]])
    with products_in("bfloat16", torch.device("cpu")):
        assert mean_over_labels(counts, targets).tolist() == [1001.0, 519.0, 20.0]
