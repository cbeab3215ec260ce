"""The table of scores: a row for each generated clip."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..manifest import Clip
from .footage import Footage
from .neighbours import Floats, Places, Threshold

NEAR = ("test", "val", "train", "class")  #: what a generated clip may be too near to.
COLUMNS = (
    "clip_id", "label",
    "entropy", "uncertainty", "agreement", "margin", "top", "agrees",
    "finite", "brightness", "difference", "black", "static", "decodes",
    *(f"{name}_{what}" for name in NEAR for what in ("clip", "cosine")),
    *(f"near_{name}" for name in NEAR),
    "features", "flags",
)  # fmt: skip
#: column and the value of it that is worth a look -> the flag.
FLAGS = {
    **{(f"near_{name}", True): f"near-{name}" for name in NEAR},
    ("finite", False): "non-finite",
    ("black", True): "black",
    ("static", True): "static",
    ("decodes", False): "undecodable",
    ("agrees", False): "other-class",
    ("features", False): "no-features",
}


@dataclass(frozen=True)
class Near:
    """What each generated clip is nearest to, among some clips."""

    threshold: Threshold
    cosines: Floats  #: ``(B,)``; NaN where there is none.
    places: Places  #: ``(B,)`` in ``among``; -1 where there is none.
    among: Sequence[Clip]

    @cached_property
    def exceeded(self) -> NDArray[np.bool_]:
        """``(B,)``: too near."""
        return self.threshold.exceeded(self.cosines)

    def describe(self) -> dict:
        """For ``inspection.json``."""
        known = self.cosines[~np.isnan(self.cosines)]
        quantiles = np.quantile(known, [0.5, 0.9, 0.99, 1.0]).tolist() if len(known) else [None] * 4
        return {
            "threshold": self.threshold.cosine,
            "real_clips": self.threshold.n,
            "real_copies": self.threshold.same,
            "too_near": int(self.exceeded.sum()),
            "cosines": dict(zip(("median", "q90", "q99", "largest"), quantiles, strict=True)),
        }


def make_row(
    clip: Clip,
    with_features: bool,
    certainty: Mapping[str, object],
    near: Mapping[str, Near],
    place: int,
    footage: Footage | None,
) -> dict[str, object]:
    """The row of one generated clip; what is not known is not in it."""
    row: dict[str, object] = {"clip_id": clip.clip_id, "label": ";".join(clip.labels), "features": with_features}
    row |= certainty
    for name, one in near.items():
        where = int(one.places[place])
        if where >= 0:
            row |= {f"{name}_clip": one.among[where].clip_id, f"{name}_cosine": float(one.cosines[place])}
            if one.threshold.cosine is not None:
                row[f"near_{name}"] = bool(one.exceeded[place])
    if footage is not None:
        row |= footage.columns()
    return row | {"flags": ";".join(flag for (column, value), flag in FLAGS.items() if row.get(column) is value)}


def as_csv(rows: Sequence[Mapping[str, object]]) -> bytes:
    """The rows as CSV with a header; numbers with six decimals."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([_cell(row.get(name)) for name in COLUMNS] for row in rows)
    return out.getvalue().encode()


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"  # as `generate fill --keep` reads them
    return f"{value:.6f}" if isinstance(value, float) else str(value)
