"""Settings of a training, schedules, and what a protocol makes of them."""

import math
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from longreel.balance import choose_method
from longreel.errors import LongreelError
from longreel.experiments.optimisation import FitSettings, rate_at
from longreel.experiments.settings import make_settings

STORE, MANIFEST = Path("a.store"), Path("a.csv")


class Operations(TorchDispatchMode):
    """What PyTorch is asked to compute."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        self.names.append(operation._schema.name)
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize(("optimiser", "operation"), [("adamw", "aten::_fused_adamw_"), ("adam", "aten::_fused_adam_")])
def test_a_step_of_all_weights_is_one_operation(optimiser, operation):
    weights = [torch.ones(3, requires_grad=True) for _ in range(4)]
    made = FitSettings(optimiser=optimiser).make_optimiser(weights)
    torch.stack(weights).sum().backward()
    with Operations() as asked:
        made.step()
    assert asked.names.count(operation) == 1
    assert len([name for name in asked.names if "add" in name or "mul" in name or "sqrt" in name]) <= 1  # counts steps


@pytest.mark.parametrize("epoch", [0.0, 2.5, 9.9])
def test_schedules_are_what_they_say(epoch):
    assert rate_at("constant", epoch, 0, 10) == 1.0
    assert rate_at("cosine", epoch, 0, 10) == pytest.approx((1 + math.cos(epoch / 10 * math.pi)) / 2)
    assert rate_at("cosine", epoch + 5, 5, 15) == rate_at("cosine", epoch, 0, 10)
    assert rate_at("steps:2,9", epoch + 5, 5, 15) == rate_at("steps:2,9", epoch, 0, 10)
    assert rate_at("steps:2,9", epoch, 0, 10) == pytest.approx({0.0: 1.0, 2.5: 0.1, 9.9: 0.01}[epoch])


@pytest.mark.parametrize(
    "schedule", ["cosin", "steps", "steps:", "steps:a", "step:30", "steps:30;60", "steps:-5", "steps:0,5"]
)
def test_a_schedule_that_there_is_not_is_refused(schedule):
    with pytest.raises(LongreelError, match=r"is not known\. Give cosine, constant, or steps"):
        FitSettings(schedule=schedule)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"optimiser": "adamww"}, "no optimiser called 'adamww'. Did you mean 'adamw'"),
        ({"select": "mapp"}, "no selection metric called 'mapp'. Did you mean 'map'"),
        ({"clip_norm": 0.0}, "this clip norm"),
        ({"test_frames": 0}, "this number of test frames"),
        ({"batch_size": 10**20}, "this batch size"),
        ({"learning_rate": float("nan")}, "this learning rate"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(options, text):
    with pytest.raises(LongreelError, match=text):
        FitSettings(**options)


def test_a_protocol_gives_the_published_rules():
    found = make_settings(STORE, MANIFEST, {}, protocol="videolt")
    assert (found.balance, found.groups, found.standardise) == ("bce", "videolt", False)
    fit = found.fit
    assert (fit.optimiser, fit.learning_rate, fit.weight_decay, fit.schedule) == ("adam", 1e-4, 0.0, "steps:30,60")
    assert (fit.epochs, fit.batch_size, fit.frames, fit.test_frames, fit.clip_norm) == (100, 128, 60, 150, 20.0)
    assert found.departures == ()


def test_what_departs_from_a_protocol_is_noted_and_what_it_compares_is_not():
    given = {"epochs": 5, "balance": "move", "head": "aggregated", "seed": 7, "groups": "20,100", "learning_rate": None}
    found = make_settings(STORE, MANIFEST, given, protocol="videolt")
    assert (found.fit.epochs, found.balance, found.head, found.fit.seed) == (5, "move", "aggregated", 7)
    assert found.departures == ("epochs 5 (100)", "groups 20,100 (videolt)")
    assert make_settings(STORE, MANIFEST, given).departures == ()


@pytest.mark.parametrize(
    ("usual", "given", "protocol", "precision"),
    [
        ("float32", {}, None, "float32"),
        ("bfloat16", {}, None, "bfloat16"),
        ("bfloat16", {"precision": "float32"}, None, "float32"),
        ("float32", {"precision": "bfloat16"}, None, "bfloat16"),
        ("bfloat16", {}, "videolt", "float32"),
    ],
)
def test_the_precision_is_what_is_given_or_the_protocols_or_the_usual_one(usual, given, protocol, precision):
    found = make_settings(STORE, MANIFEST, given, protocol=protocol, precision=usual)
    assert found.fit.precision == precision
    assert found.departures == ()


def test_a_setting_that_there_is_not_is_refused():
    with pytest.raises(LongreelError, match=r"no setting called .epoch.\. Did you mean .epochs."):
        make_settings(STORE, MANIFEST, {"epoch": 3})
    with pytest.raises(LongreelError, match="videolt"):
        make_settings(STORE, MANIFEST, {}, protocol="videoltt")


@pytest.mark.parametrize(
    ("asked", "head"),
    [
        ("aggregated:clusters=8", "aggregated:clusters=8,vlad=gated,order=psa-vlad,released=true"),
        ("aggregated:order=vlad-psa", "aggregated:order=vlad-psa,vlad=gated,released=true"),
        ("netvlad:clusters=8", "netvlad-gated:clusters=8"),
        ("netvlad-gated", "netvlad-gated"),
        ("psa", "psa"),
    ],
)
def test_the_released_code_has_heads_of_its_own(asked, head):
    assert make_settings(STORE, MANIFEST, {"head": asked, "compat": "released"}).head == head
    assert make_settings(STORE, MANIFEST, {"head": asked}).head == asked
    with pytest.raises(LongreelError, match=r"no compat called 'relased'"):
        make_settings(STORE, MANIFEST, {"compat": "relased"})


def test_the_released_code_is_followed_in_every_part_that_knows_the_difference():
    found = choose_method("ldam-drw", [9, 5], mixer="framestack:eta=0.3", released=True)
    assert [stage.loss for stage in found.stages] == ["ldam:released=true", "ldam:weights=class-balanced,released=true"]
    assert {stage.mixer for stage in found.stages} == {"framestack:eta=0.3,released=true"}
    assert {stage.sampler for stage in found.stages} == {"instance"}
    assert (
        choose_method("move", [9, 5], mixer="move:released=false", released=True).stages[0].mixer
        == "move:released=false"
    )
