"""Figures against the number of clips that classes are filled to, and what generating them costs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..balance import count_training_clips
from ..generate.plan import SECONDS_PER_CLIP, read_fill
from ..manifest import Manifest
from .figures import INK, LOOK, as_svg, plain
from .render import column_name


@dataclass(frozen=True)
class Filling:
    """What one row of a curve learns from."""

    fill: int  #: clips up to which classes are filled.
    generated: int  #: clips that takes, of those that there are.
    missing: int  #: clips that there are too few.
    gpu_hours: float  #: to generate them, at ``SECONDS_PER_CLIP``.


def measure_fillings(manifest: Manifest, fills: Mapping[str, str]) -> dict[str, Filling]:
    """What each row of a suite takes of the generated clips.

    Args:
        manifest: Real and generated clips.
        fills: Row -> its setting ``fill``.
    """
    real, made = count_training_clips(manifest), dict.fromkeys(manifest.classes, 0)
    for clip in manifest.clips:
        if clip.source == "generated":
            made[clip.labels[0]] += 1
    found = {}
    for row, text in fills.items():
        fill = read_fill(text, real)
        asked = [max(0, fill - count) for count in real]
        taken = sum(map(min, made.values(), asked))
        found[row] = Filling(fill, taken, sum(asked) - taken, taken * SECONDS_PER_CLIP / 3600)
    return found


def draw_fill_curve(rows: Sequence[dict], columns: Sequence[str]) -> bytes:
    """A panel a store: each figure, mean and 95 % interval over seeds and clips, against the clips of a class.

    Args:
        rows: Of a table's document; those without a ``filling`` are left out.
        columns: Figures to draw.
    """
    import matplotlib
    from matplotlib.figure import Figure

    drawn = [row for row in rows if row["filling"] and row["figures"]]
    stores = list(dict.fromkeys(row["store"] for row in drawn))
    with matplotlib.rc_context(LOOK):
        figure = Figure(figsize=(6.4, 0.6 + 3.6 * len(stores)), layout="constrained")
        panels = figure.subplots(len(stores), sharex=True, squeeze=False)[:, 0]
        for axes, store in zip(panels, stores, strict=True):
            mine = sorted((row for row in drawn if row["store"] == store), key=lambda row: row["filling"]["fill"])
            places = [row["filling"]["fill"] for row in mine]
            for column in columns:
                figures = [row["figures"][column] for row in mine]
                if any(each["mean"] is None for each in figures):
                    continue
                means = [each["mean"] for each in figures]
                (line,) = axes.plot(places, means, "o-", markersize=4, linewidth=1.4, label=plain(column_name(column)))
                low, high = ([each[key] for each in figures] for key in ("low", "high"))
                if None not in low + high:
                    axes.fill_between(places, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
            bottom, top = axes.get_ylim()
            axes.set_ylim(max(bottom, -0.02), min(top, 1.02))  # of few seeds, intervals reach far beyond
            axes.set_title(plain(store), loc="left", fontsize=10)
            axes.spines[["right"]].set_visible(False)
            above = axes.twiny()
            above.set_xlim(axes.get_xlim())
            hours = [f"{row['filling']['gpu_hours']:.3g}" for row in mine]
            above.set_xticks(places, hours, rotation=45, fontsize=7, color=INK)
            above.spines[["right"]].set_visible(False)
            above.set_xlabel(f"GPU-hours to generate the clips, at {SECONDS_PER_CLIP:g} s each", fontsize=8)
        panels[-1].set_xlabel("clips that classes are filled to; bands: 95 % intervals over seeds and clips")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
        return as_svg(figure)
