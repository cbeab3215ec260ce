"""Adjustments against their closed forms, on an ordinary linear layer."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from longreel.balance.adjustments import ADJUSTMENTS
from longreel.errors import LongreelError
from longreel.parts import build_part, options_of

GUIDE = (Path(__file__).parent.parent / "docs" / "losses.md").read_text()
COUNTS = torch.tensor([100.0, 20.0, 7.0, 1.0])
CLIPS = torch.randn(6, 5, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def output() -> nn.Linear:
    torch.manual_seed(0)
    layer = nn.Linear(5, 4)
    with torch.no_grad():
        layer.weight.mul_(torch.tensor([[3.0], [2.0], [1.0], [0.5]]))
    return layer


def adjust(text: str, output: nn.Linear, counts: Tensor = COUNTS) -> None:
    build_part("adjustment", ADJUSTMENTS, text)(output, counts)


@pytest.mark.parametrize(("text", "tau"), [("logit-adjustment", 1.0), ("logit-adjustment:tau=1.7", 1.7)])
def test_logit_adjustment_takes_the_scaled_log_prior_from_the_logits(text, tau, output):
    before = output(CLIPS)
    adjust(text, output)
    prior = COUNTS / 128
    torch.testing.assert_close(output(CLIPS), before - tau * prior.log())


def test_logit_adjustment_makes_an_even_posterior_the_inverse_prior(output):
    with torch.no_grad():
        output.weight.zero_()
        output.bias.copy_((COUNTS / 128).log())  # knows nothing but how often each class comes
    adjust("logit-adjustment", output)
    torch.testing.assert_close(output(CLIPS).softmax(dim=1), torch.full((6, 4), 0.25))


def test_tau_norm_gives_every_class_weights_of_length_one(output):
    directions = torch.stack([row / row.square().sum().sqrt() for row in output.weight.detach()])
    adjust("tau-norm", output)
    torch.testing.assert_close(output.weight, directions)
    assert torch.equal(output.bias, torch.zeros(4))


@pytest.mark.parametrize("bias", ["drop", "scale", "keep"])
def test_tau_norm_divides_by_the_length_to_the_power_tau(bias, output):
    weight, old = output.weight.detach().clone(), output.bias.detach().clone()
    adjust(f"tau-norm:tau=0.7,bias={bias}", output)
    naive, biases = [], []
    for row, shift in zip(weight.tolist(), old.tolist(), strict=True):
        length = sum(value * value for value in row) ** 0.5
        naive.append([value / length**0.7 for value in row])
        biases.append({"drop": 0.0, "scale": shift / length**0.7, "keep": shift}[bias])
    torch.testing.assert_close(output.weight, torch.tensor(naive))
    torch.testing.assert_close(output.bias, torch.tensor(biases))


def test_tau_norm_leaves_a_class_without_weights_at_zero(output):
    with torch.no_grad():
        output.weight[2] = 0
    adjust("tau-norm", output)
    assert output.weight.isfinite().all()
    assert (output.weight[2] == 0).all()


@pytest.mark.parametrize("name", ADJUSTMENTS)
def test_every_adjustment_with_tau_zero_changes_nothing(name, output):
    before = {key: value.clone() for key, value in output.state_dict().items()}
    adjust(f"{name}:tau=0", output, torch.tensor([100.0, 20.0, 7.0, 0.0]))
    assert all(torch.equal(value, before[key]) for key, value in output.state_dict().items())


@pytest.mark.parametrize("name", ADJUSTMENTS)
def test_every_adjustment_keeps_each_class_s_order_of_clips_and_changes_which_class_wins(name, output):
    clips = torch.randn(500, 5, generator=torch.Generator().manual_seed(2))
    before = output(clips)
    adjust(name, output)
    after = output(clips)
    # the clips of a class stay in order, up to rounding
    assert (after.gather(0, before.argsort(dim=0)).diff(dim=0) > -1e-5).all()
    assert (after.argmax(dim=1) != before.argmax(dim=1)).float().mean() > 0.05


@pytest.mark.parametrize("name", ADJUSTMENTS)
def test_every_adjustment_leaves_the_layer_trainable(name, output):
    parameters = [id(parameter) for parameter in output.parameters()]
    adjust(name, output)
    assert [id(parameter) for parameter in output.parameters()] == parameters
    output(CLIPS).sum().backward()
    assert all(parameter.requires_grad and parameter.grad is not None for parameter in output.parameters())


@pytest.mark.parametrize("name", ADJUSTMENTS)
def test_every_adjustment_works_in_double_precision(name, output):
    output.double()
    adjust(name, output)
    assert output.weight.dtype == output.bias.dtype == torch.float64


def test_logit_adjustment_refuses_a_class_without_training_clips(output):
    with pytest.raises(LongreelError, match="logit-adjustment needs real training clips of every class"):
        adjust("logit-adjustment", output, torch.tensor([100.0, 20.0, 7.0, 0.0]))


def test_only_what_the_prior_moves_needs_a_prior():
    needs = {text: build_part("adjustment", ADJUSTMENTS, text).needs_prior for text in [*ADJUSTMENTS]}
    assert needs == {"tau-norm": False, "logit-adjustment": True}
    assert not build_part("adjustment", ADJUSTMENTS, "logit-adjustment:tau=0").needs_prior


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("tau-norm:tau=-1", "tau-norm: tau=-1 must be at least 0"),
        ("tau-norm:bias=dropp", "no bias of tau-norm called 'dropp'. Did you mean 'drop'"),
        ("logit-adjustment:tau=nan", "logit-adjustment: tau=nan must be a finite number"),
    ],
)
def test_an_option_that_cannot_be_used_is_refused_with_what_can(text, says):
    with pytest.raises(LongreelError) as caught:
        build_part("adjustment", ADJUSTMENTS, text)
    assert says in str(caught.value)


@pytest.mark.parametrize("name", ADJUSTMENTS)
def test_every_adjustment_has_its_options_and_defaults_in_the_guide(name):
    row = next(line for line in GUIDE.splitlines() if line.startswith(f"| `{name}` |"))
    for option, default in options_of(ADJUSTMENTS[name]).items():
        assert f"`{option}={default if isinstance(default, str) else f'{default:g}'}`" in row
