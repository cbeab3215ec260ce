"""What the importers of skeletons share: clips of joints with their splits, wherever they come from."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ForeignRefused, LongreelError
from ..layouts import LAYOUTS, Layout, find_layout
from ..manifest import Clip, Manifest
from .arrays import Unreadable


@dataclass(frozen=True)
class Skeletons:
    """Clips of joints. The clips' paths are files relative to the manifest's root."""

    manifest: Manifest  #: all clips, whatever split they are in; ``split`` says nothing here.
    load: Callable[[Clip], NDArray[Any]]  #: ``(T, M, V, C)``; raises ``Unreadable``.
    layout: Layout
    classes: tuple[str, ...]  #: in the order of the data set's own numbers.
    bodies: int  #: M of the store; clips with fewer are filled up with zeros, of more the first are taken.
    splits: Mapping[str, Mapping[str, tuple[str, ...]]]  #: name -> ``train``, ``test`` -> ids, in the published order.
    usual: str  #: the split that is taken where none is named; empty where one must be.
    reader: str  #: stands in ``Origin.decoder``.
    notes: list[str] = field(default_factory=list)  #: what a person should know.

    @property
    def dim(self) -> int:
        """``D = M V C``."""
        return self.bodies * self.layout.size


def choose_layout(asked: str | None, joints: int) -> Layout:
    """The layout that was asked for, else the one with so many joints.

    Raises:
        LongreelError: When there is none, or it has another number of joints.
    """
    known = {len(layout.joints): name for name, layout in LAYOUTS.items()}
    layout = find_layout(asked or known.get(joints, f"of {joints} joints"))
    if len(layout.joints) != joints:
        raise LongreelError(
            f"--layout {asked}: {layout.name} has {len(layout.joints)} joints, these skeletons have {joints}. "
            f"{f'Take {known[joints]}' if joints in known else 'Give a JSON file of your own'}."
        )
    return layout


def refuse_twice(name: str, halves: Mapping[str, Sequence[str]], path: Path) -> None:
    """Refuse a split that has a clip twice, or in two halves.

    Raises:
        ForeignRefused: With the first of them.
    """
    seen: set[str] = set()
    for clip_id in (each for ids in halves.values() for each in ids):
        if clip_id in seen:
            raise ForeignRefused(f"{path}: split {name!r} has {clip_id!r:.80} twice. Each clip is in one half, once.")
        seen.add(clip_id)


def as_rows(joints: NDArray[Any], layout: Layout, bodies: int) -> NDArray[np.float32]:
    """``(T, M, V, C)`` -> ``(T, D)`` in the order bodies, joints, coordinates.

    Raises:
        Unreadable: When the shape does not fit the layout, there is no frame, or a number is not finite.
    """
    wanted = (len(layout.joints), layout.channels)
    if joints.ndim != 4 or joints.shape[2:] != wanted or math.prod(joints.shape) == 0:
        raise Unreadable(f"has the shape {joints.shape}; {layout.name} wants (T, M, {wanted[0]}, {wanted[1]})")
    rows = np.zeros((len(joints), bodies, *wanted), dtype=np.float32)
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused
        rows[:, : joints.shape[1]] = joints[:, :bodies]
    if not np.isfinite(rows).all():
        raise Unreadable("has numbers that are not finite, or too large for float32")
    return rows.reshape(len(rows), -1)
