"""The figures of a sweep as SVG; the same trials give the same bytes."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .figures import GREY, INK, LOOK, as_svg, plain
from .spaces import Choices, Parameter, Space
from .trials import Trial

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = "viridis_r"  #: the best are the darkest.
SPREAD = 0.05  #: of the lines through one choice, as a share of the axis.
LONGEST = 26  #: letters of a choice.
MOST_TICKS = 9


def draw_importance(shares: Mapping[str, float], objective: str) -> bytes:
    """Bars, the largest on top.

    Args:
        shares: Key -> its share of the variance, which add up to 1.
        objective: What varies.
    """
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(LOOK):
        figure = Figure(figsize=(6.4, 1.2 + 0.34 * len(shares)), layout="constrained")
        axes = figure.subplots()
        names = list(shares)[::-1]
        bars = axes.barh([plain(name) for name in names], [shares[name] for name in names], color="#3b6fa0")
        axes.bar_label(bars, [f"{100 * shares[name]:.0f} %" for name in names], padding=4, color=INK)
        axes.set_xlim(0, 1.1 * max(shares.values()))
        axes.xaxis.set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.spines[["top", "right", "bottom"]].set_visible(False)
        axes.set_title(f"Share of the variance of val {plain(objective)} (fANOVA)", loc="left", fontsize=10)
        return as_svg(figure)


def draw_parallel(space: Space, trials: Sequence[Trial], objective: str) -> bytes:
    """A line a trial through its values, to its figure and coloured by it; those without one are grey.

    Args:
        space: Its keys are the axes, from end to end of what was searched.
        trials: One of them at least is complete.
        objective: The last axis.
    """
    import matplotlib
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    done = sorted((trial for trial in trials if trial.state == "complete"), key=_figure_of)
    low, high = _figure_of(done[0]), _figure_of(done[-1])
    if low == high:
        low, high = low - 0.01, high + 0.01
    with matplotlib.rc_context(LOOK):
        figure = Figure(figsize=(2.2 + 1.5 * len(space.parameters), 4.4), layout="constrained")
        axes = figure.subplots()
        for trial in trials:
            if trial.state != "complete":
                axes.plot(_heights(space, trial, 0.0), color=GREY, linewidth=0.8, alpha=0.6)
        for rank, trial in enumerate(done):
            height = (_figure_of(trial) - low) / (high - low)
            heights = [*_heights(space, trial, (rank + 0.5) / len(done) - 0.5), height]
            best = rank == len(done) - 1
            axes.plot(heights, color=colormaps[COLOURS](height), linewidth=2.8 if best else 1.2, solid_capstyle="round")
        for place, (key, parameter) in enumerate(space.parameters.items()):
            _draw_axis(axes, place, plain(key).replace(".", ".\n"), _ticks(parameter))
        _draw_figures(axes, len(space.parameters), f"val\n{plain(objective)}", (low, high))
        axes.set(xlim=(-0.3, len(space.parameters) + 0.35), ylim=(-0.04, 1.04))
        axes.axis("off")
        grey = "; grey: pruned or failed" if len(done) < len(trials) else ""
        axes.set_title(
            f"thick: trial {done[-1].number}, the best{grey}", loc="left", fontsize=8, color="#606060", y=-0.1
        )
        return as_svg(figure)


def _figure_of(trial: Trial) -> float:
    assert trial.value is not None, "only complete trials are asked"
    return trial.value


def _heights(space: Space, trial: Trial, rank: float) -> list[float]:
    """Where a trial's line meets the axes of the space; those through one choice lie side by side, by their rank."""
    heights = []
    for key, parameter in space.parameters.items():
        if isinstance(parameter, Choices):
            heights.append(_place_choice(parameter, parameter.values.index(trial.values[key])) + SPREAD * rank)
        else:
            heights.append(float(_scale(parameter, np.array([float(trial.values[key])]))[0]))
    return heights


def _place_choice(parameter: Choices, place: int) -> float:
    return SPREAD / 2 + (1 - SPREAD) * place / (len(parameter.values) - 1)


def _scale(parameter: Parameter, values: np.ndarray) -> np.ndarray:
    """Numbers of a range as heights between 0 and 1."""
    assert not isinstance(parameter, Choices)
    low, high = parameter.low, parameter.high
    if parameter.log:
        return np.log(values / low) / np.log(high / low)
    return (values - low) / (high - low)


def _draw_axis(axes: "Axes", place: int, title: str, ticks: Sequence[tuple[float, str]]) -> None:
    axes.plot([place, place], [0, 1], color=INK, linewidth=1.0, zorder=5)
    axes.text(place, 1.06, title, ha="center", va="bottom", color=INK, fontweight="bold")
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.0}
    for height, label in ticks:
        axes.plot([place - 0.02, place], [height, height], color=INK, linewidth=1.0, zorder=5)
        axes.text(place - 0.04, height, label, ha="right", va="center", fontsize=8, color=INK, zorder=6, bbox=box)


def _draw_figures(axes: "Axes", place: int, title: str, ends: tuple[float, float]) -> None:
    """The last axis: the figures, and what colour each has."""
    from matplotlib.ticker import MaxNLocator

    shades = np.linspace(0, 1, 128)[:, None]
    axes.imshow(shades, cmap=COLOURS, origin="lower", aspect="auto", extent=(place, place + 0.06, 0, 1), zorder=5)
    axes.text(place, 1.06, title, ha="center", va="bottom", color=INK, fontweight="bold")
    low, high = ends
    for figure in MaxNLocator(6).tick_values(low, high):
        if low <= figure <= high:
            height = (figure - low) / (high - low)
            axes.text(place + 0.09, height, f"{figure:.4g}", ha="left", va="center", fontsize=8, color=INK)


def _ticks(parameter: Parameter) -> list[tuple[float, str]]:
    """Heights on the axis, and what is written there."""
    if isinstance(parameter, Choices):
        return [(_place_choice(parameter, place), _shorten(str(each))) for place, each in enumerate(parameter.values)]
    from matplotlib.ticker import LogLocator, MaxNLocator

    low, high = float(parameter.low), float(parameter.high)
    points = parameter.points
    if points is not None and len(points) <= MOST_TICKS:
        found = [float(point) for point in points]
    else:
        found = (LogLocator() if parameter.log else MaxNLocator(5, integer=parameter.whole)).tick_values(low, high)
    slack = 1e-9 * (high - low)
    inside = [each for each in found if low - slack <= each <= high + slack]
    if len(inside) < 2:
        inside = [low, high]
    return list(zip(_scale(parameter, np.array(inside)).tolist(), map(_short_number, inside), strict=True))


def _short_number(number: float) -> str:
    """``1e-5``, not ``1e-05``."""
    text = f"{number:.0e}" if 0 < number < 1e-3 and f"{number:.0e}" == f"{number:.3e}".replace(".000", "") else ""
    return (text or f"{number:.4g}").replace("e-0", "e-")


def _shorten(text: str) -> str:
    return plain(text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…")
