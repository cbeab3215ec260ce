"""The classifiers of two-part heads against plain loops."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from longreel.errors import LongreelError
from longreel.heads import build_head
from longreel.heads.classifiers import CosineClassifier, TwoLayerClassifier

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def queries() -> Tensor:
    return torch.randn(7, 6, generator=torch.Generator().manual_seed(1))


def apply_naively(layer: torch.nn.Linear, row: list[float]) -> list[float]:
    """A linear layer as a loop over its outputs."""
    weight, bias = (parameter.tolist() for parameter in layer.parameters())
    return [sum(w * x for w, x in zip(line, row, strict=True)) + b for line, b in zip(weight, bias, strict=True)]


@pytest.mark.parametrize("learned", [True, False])
def test_the_cosine_classifier_scores_by_direction_alone(learned, queries):
    torch.manual_seed(0)
    layer = CosineClassifier(6, 4, scale=7.0, learned=learned)
    weights = layer.weight.detach()
    naive = [[7 * float(F.cosine_similarity(clip, weight, dim=0)) for weight in weights] for clip in queries]
    torch.testing.assert_close(layer(queries), torch.tensor(naive))
    torch.testing.assert_close(layer(3 * queries), layer(queries))
    assert {name for name, _ in layer.named_parameters()} == ({"weight", "scale"} if learned else {"weight"})
    assert set(layer.state_dict()) == {"weight", "scale", "bias"}
    assert torch.equal(layer.bias, torch.zeros(4))


def test_resetting_the_cosine_classifier_begins_anew():
    layer = CosineClassifier(6, 4)
    weight = layer.weight.detach().clone()
    with torch.no_grad():
        layer.scale.add_(5.0)
        layer.bias.add_(1.0)
    layer.reset_parameters()
    assert float(layer.scale.detach()) == 10.0
    assert torch.equal(layer.bias, torch.zeros(4))
    assert not torch.equal(layer.weight, weight)


def test_the_two_layer_classifier_is_videolts_on_a_pooled_vector(queries):
    torch.manual_seed(0)
    layer = TwoLayerClassifier(6, 4, hidden=9).eval()
    hidden = [[max(0.0, unit) for unit in apply_naively(layer.hidden, clip)] for clip in queries.tolist()]
    naive = [apply_naively(layer.project, row) for row in hidden]
    torch.testing.assert_close(layer(queries), torch.tensor(naive))


def test_dropout_acts_on_the_hidden_units(queries):
    torch.manual_seed(0)
    layer = TwoLayerClassifier(6, 4, hidden=9, dropout=0.25).train()
    torch.manual_seed(3)
    found = layer(queries)
    torch.manual_seed(3)
    kept = layer.dropout(torch.ones(7, 9))  # the same draws
    torch.testing.assert_close(found, layer.project(layer.hidden(queries).relu() * kept))


def test_the_early_average_is_two_layers_on_the_mean_and_not_the_late_one():
    torch.manual_seed(0)
    plain = torch.zeros(6), torch.ones(6)
    early, late = (build_head(text, 6, 4, *plain).eval() for text in ("nonlinear-early", "nonlinear"))
    renamed = {name.replace("head.", "head.classifier."): tensor for name, tensor in late.state_dict().items()}
    early.load_state_dict(renamed)
    frames = torch.randn(3, 5, 6)
    torch.testing.assert_close(early(frames), late(frames.mean(dim=1, keepdim=True)))
    assert not torch.allclose(early(frames), late(frames))


@pytest.mark.parametrize("scale", ["0", "-1", "nan", "inf"])
def test_a_scale_that_turns_or_hides_what_is_alike_is_refused(scale):
    with pytest.raises(LongreelError, match=r"cosine: scale=.* must be a number above 0"):
        build_head(f"cosine:scale={scale}", 6, 4, torch.zeros(6), torch.ones(6))
    assert float(CosineClassifier(6, 4, scale=3).scale.detach()) == 3.0  # a whole number does


@pytest.mark.parametrize("text", ["nonlinear:hidden=0", "nonlinear-early:hidden=0", "nonlinear:dropout=1"])
def test_options_that_cannot_be_are_refused(text):
    with pytest.raises(LongreelError, match=r"must be (1 or more|at least 0 and below 1)"):
        build_head(text, 6, 4, torch.zeros(6), torch.ones(6))
