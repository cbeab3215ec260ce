"""Trials of a sweep without a training: what is drawn, what is pruned, and what is said and shown of them."""

from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from longreel.experiments.spaces import Choices, Range, Space, Values
from longreel.experiments.sweep_figures import draw_importance, draw_parallel
from longreel.experiments.sweep_report import measure_importance, rank_trials
from longreel.experiments.trials import Judge, Trial, distributions_of, draw


def test_a_grid_tries_everything_once_in_an_order_of_its_seed():
    space = Space(Path("s"), {}, {"balance": Choices(("ce", "bce")), "epochs": Range(1, 3, step=1)})
    orders = []
    for seed in range(2):
        drawn = [draw("grid", space, seed, [None] * number) for number in range(6)]  # type: ignore[list-item]
        assert {tuple(values.values()) for values in drawn} == {(b, e) for b in ("ce", "bce") for e in (1, 2, 3)}
        orders.append(drawn)
    assert orders[0] != orders[1]


def _finished(space: Space, values: Values, value: float):
    import optuna

    return optuna.trial.create_trial(params=dict(values), distributions=distributions_of(space), value=value)


def test_drawn_values_lie_in_the_space_and_follow_from_seed_and_number_alone():
    space = Space(
        Path("s"),
        {},
        {
            "learning_rate": Range(1e-5, 1e-2, log=True),
            "head.hidden": Range(8, 64, step=8),
            "head.dropout": Range(0.0, 0.5, step=0.1),
            "balance": Choices(("ce", "bce")),
        },
    )
    before, rates = [], []
    for number in range(60):
        values = draw("random", space, 3, before)
        assert values == draw("random", space, 3, [None] * number)  # type: ignore[list-item]
        assert isinstance(values["learning_rate"], float)
        assert 1e-5 <= values["learning_rate"] <= 1e-2
        assert values["head.hidden"] in range(8, 65, 8)
        assert values["head.dropout"] in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)
        assert values["balance"] in ("ce", "bce")
        before.append(_finished(space, values, 0.0))
        rates.append(np.log10(values["learning_rate"]))
    assert abs(np.mean(rates) + 3.5) < 0.4  # even on the logarithm
    assert draw("random", space, 4, []) != draw("random", space, 3, [])


def test_tpe_draws_near_what_was_good():
    space = Space(Path("s"), {}, {"learning_rate": Range(1e-5, 1e-1, log=True), "balance": Choices(("ce", "bce"))})

    def miss(values) -> float:
        return abs(np.log10(values["learning_rate"]) + 2.0) + (values["balance"] == "ce")

    missed = {}
    for sampler in ("tpe", "random"):
        before = []
        for _ in range(40):
            values = draw(sampler, space, 0, before)
            before.append(_finished(space, values, -miss(values)))
        missed[sampler] = np.mean([miss(trial.params) for trial in before[20:]])
    assert missed["tpe"] < 0.5 * missed["random"]


def test_hyperband_keeps_a_third_at_a_rung():
    """Of two epochs there is one rung, behind the first; who is in the best third so far goes on."""
    import optuna

    before, kept = [], []
    values = np.random.default_rng(0).permutation(60) / 60
    for number, value in enumerate(values):
        judge = Judge("hyperband", number, before, epochs=2)
        pruned = judge.sees(1, float(value))
        rivals = sorted([*values[:number], value])
        place = max(len(rivals) // 3 - 1, 0)
        assert pruned == (value < rivals[-(place + 1)])
        kept.append(not pruned)
        state = optuna.trial.TrialState.PRUNED if pruned else optuna.trial.TrialState.COMPLETE
        before.append(
            optuna.trial.create_trial(
                state=state, value=float(value), user_attrs={"facts": {"rungs": judge.rungs}},
                intermediate_values={1: float(value)},
            )
        )  # fmt: skip
    assert 0.2 < np.mean(kept[20:]) < 0.5


def _tried(count: int, value) -> tuple[Space, list[Trial]]:
    space = Space(
        Path("s"),
        {},
        {
            "learning_rate": Range(1e-5, 1e-1, log=True),
            "head.dropout": Range(0.0, 0.5),
            "balance": Choices(("a", "$x^")),
        },
    )
    values = [draw("random", space, 0, [None] * number) for number in range(count)]  # type: ignore[list-item]
    return space, [Trial(number, "complete", each, value(each), 1) for number, each in enumerate(values)]


def test_importance_goes_to_what_moves_the_figure():
    space, trials = _tried(30, lambda values: values["head.dropout"] ** 2)
    shares, why = measure_importance(space, trials)
    assert why is None
    assert next(iter(shares)) == "head.dropout"
    assert shares["head.dropout"] > 0.9
    assert sum(shares.values()) == pytest.approx(1.0)
    assert measure_importance(space, trials) == (shares, None)


@pytest.mark.parametrize(("count", "value", "why"), [(3, float, "3 trials have ended"), (9, 0.5, "the same figure")])
def test_where_importances_say_nothing_the_reason_is_given(count, value, why):
    space, trials = _tried(count, lambda values: values["head.dropout"] if value is float else value)
    shares, reason = measure_importance(space, trials)
    assert shares == {}
    assert why in str(reason)
    single = replace(space, parameters={"head.dropout": space.parameters["head.dropout"]})
    assert measure_importance(single, trials) == ({}, "only one key was searched")


def _lines(svg: bytes) -> int:
    return sum(each.get("id", "").startswith("line2d") for each in ElementTree.fromstring(svg).iter())


def test_figures_are_the_same_bytes_again_and_have_a_line_for_each_trial():
    space, trials = _tried(12, lambda values: values["head.dropout"])
    trials[3] = replace(trials[3], state="pruned")
    trials[4] = replace(trials[4], state="failed", value=None)
    drawn = draw_parallel(space, trials, "tail.map")
    assert drawn == draw_parallel(space, trials, "tail.map")
    assert b"<dc:date>" not in drawn
    assert _lines(drawn) - _lines(draw_parallel(space, trials[:10], "tail.map")) == 2
    bars = draw_importance({"learning_rate": 0.75, "loss.$x^": 0.25}, "map")
    assert bars == draw_importance({"learning_rate": 0.75, "loss.$x^": 0.25}, "map")
    ElementTree.fromstring(bars)


def test_the_best_come_first_and_the_same_values_once():
    values = [{"epochs": 1}, {"epochs": 2}, {"epochs": 1}, {"epochs": 3}, {"epochs": 4}]
    figures = [0.2, 0.5, 0.2, 0.5, None]
    trials = [Trial(n, "complete", each, figure) for n, (each, figure) in enumerate(zip(values, figures, strict=True))]
    trials.append(Trial(5, "pruned", {"epochs": 9}, 0.9))
    assert [trial.number for trial in rank_trials(trials)] == [1, 3, 0]
