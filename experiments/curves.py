"""Learning curves: what val said of each epoch, and which one was chosen."""

import json
from collections.abc import Sequence
from pathlib import Path

from ..errors import LongreelError
from .compare import name_rows
from .figures import LOOK, as_svg, plain
from .runs import read_config, read_document

HEIGHT = 3.2  #: inches of a panel.


def draw_curves(folders: Sequence[Path]) -> bytes:
    """The figure on val and the loss by epoch, a line a run, as SVG; a dot marks the epoch that was chosen.

    Runs that differ in their seed alone have one colour. Nothing is scored: no split is opened.

    Args:
        folders: Finished runs.

    Raises:
        RunMismatch: When one of them is no finished run.
        LongreelError: When one was not trained, so that there is nothing to draw.
    """
    import matplotlib
    from matplotlib.figure import Figure

    configs = [read_config(folder) for folder in folders]
    histories = [_read_history(folder) for folder in folders]
    chosen = [read_document(folder / "result.json")["epoch"] for folder in folders]
    figures = sorted({key for history in histories for row in history for key in row if key.startswith("val_")})
    rows = name_rows(configs)
    with matplotlib.rc_context(LOOK):
        names = [*figures, "loss"]
        figure = Figure(figsize=(6.4, HEIGHT * len(names) + 0.22 * len(rows)), layout="constrained")
        panels = figure.subplots(len(names), sharex=True, squeeze=False)[:, 0]
        for number, (label, members) in enumerate(rows.items()):
            for member in members:
                for axes, key in zip(panels, names, strict=True):
                    points = [(row["epoch"], row[key]) for row in histories[member] if key in row]
                    if points:
                        text = plain(label) if member == members[0] else None
                        axes.plot(*zip(*points, strict=True), color=f"C{number}", linewidth=1.1, label=text)
                        axes.plot(*_at(points, chosen[member]), "o", color=f"C{number}", markersize=5)
        for axes, key in zip(panels, names, strict=True):
            axes.set_ylabel(plain(key.replace("val_", "val ")))
            axes.spines[["top", "right"]].set_visible(False)
        panels[-1].set_xlabel("epoch; the dot is the one that was chosen")
        figure.legend(*panels[-1].get_legend_handles_labels(), loc="outside upper left", frameon=False)
        return as_svg(figure)


def _at(points: Sequence[tuple[int, float]], epoch: int) -> tuple[list[int], list[float]]:
    """The point of an epoch, where there is one."""
    found = [point for point in points if point[0] == epoch]
    return [each for each, _ in found], [value for _, value in found]


def _read_history(folder: Path) -> list[dict]:
    if "fused" in read_config(folder):
        raise LongreelError(f"{folder}: is fused of others, so it has no curve. Name its parts.")
    path = folder / "history.json"
    try:
        history = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise LongreelError(f"{path}: cannot be read ({error}). Restore it, or leave the run out.") from None
    if not history:
        raise LongreelError(f"{folder}: was not trained, so it has no curve. Leave it out.")
    return history
