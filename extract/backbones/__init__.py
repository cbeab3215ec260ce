"""Frozen backbones: what turns a clip's frames into feature rows, chosen by name, folder or pinned hub revision."""

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ...errors import LongreelError, unknown
from ..preprocessing import Preprocessing
from ..sampling import Sampling


class Backbone(Protocol):
    """What the extraction needs of a backbone.

    Calling it maps windows ``(batch, window, height, width, 3)`` uint8 to rows ``(batch, dim)`` float32. It computes in
    that one shape, and a row depends on nothing but its own window, to the last bit, wherever it stands in the batch.
    It is called by several threads at once.

    With a ``reach`` it maps ``(1, T, height, width, 3)`` to ``(1, T, dim)``, for any T: a row a frame, which depends on
    the frames that are up to ``reach`` before and behind it, and where the frames end sees nothing beyond.
    """

    name: str
    weights: str  #: fingerprint of the weights, or the version of a built-in descriptor.
    dim: int
    embedding: str  #: what a row is: ``pooled``, ``projected, text <fingerprint>``, ``descriptor``.
    precision: str  #: of weights and arithmetic.
    device: str  #: that computes, ``cpu`` or ``cuda (name)``.
    window: int  #: frames that make one row; with a ``reach``, frames that are computed at a time, at least so many.
    reach: int | None  #: frames on either side that a frame's row depends on; ``None``: a window has one row.
    batch: int  #: windows of one forward pass.
    sampling: Sampling  #: taken when the user gives none.
    preprocessing: Preprocessing
    normalisation: str  #: what happens to pixel values inside, in words, for the store's spec.

    def __call__(self, windows: NDArray[np.uint8], /) -> NDArray[np.float32]: ...


def _motion() -> Backbone:
    from .motion import Motion

    return Motion()


#: built-in backbones by name, each with a line of description.
BACKBONES: dict[str, tuple[Callable[[], Backbone], str]] = {
    "motion": (_motion, "spatio-temporal descriptor; needs no weights and no network"),
}


def load_backbone(
    name: str,
    *,
    embedding: str | None = None,
    precision: str = "float32",
    device: str = "auto",
    short_side: int | None = None,
    crop: int | None = None,
) -> Backbone:
    """A built-in backbone, a transformers model's folder, ``owner/model@commit`` from the hub, or a TSM checkpoint.

    The options are those of ``load_frozen``; a built-in backbone has one of each.

    Raises:
        LongreelError: When there is no such backbone, folder or file, or it has no such choice.
        EnvironmentFault: When the weights cannot be fetched or loaded, or there is no GPU.
    """
    if name in BACKBONES:
        chosen = (embedding, precision, short_side, crop) != (None, "float32", None, None)
        if chosen or device not in ("auto", "cpu"):
            raise LongreelError(
                f"{name} is built in: it has one kind of row, of frames of one size, in float32, on a CPU. "
                f"Leave out --embedding, --precision, --device, --short-side, --crop and --rule."
            )
        make, _ = BACKBONES[name]
        return make()
    from ...hub import fetch_revision
    from .folders import FETCHED
    from .frozen import load_frozen

    load = partial(
        load_frozen, embedding=embedding, precision=precision, device=device, short_side=short_side, crop=crop
    )
    if os.path.isdir(name) or os.path.isfile(name):  # Path's own would raise where a name is too long
        return load(Path(name))
    if "@" in name:
        return load(fetch_revision(name, FETCHED), name)
    error = unknown("backbone", name, BACKBONES)
    if "/" in name:
        error = LongreelError(f"{name}: no such folder.")
    raise type(error)(
        f"{error} Give one of them, a folder of a transformers model, owner/model@commit, or a TSM checkpoint."
    )
