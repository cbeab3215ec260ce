"""Frozen backbones: what turns a clip's frames into feature rows, chosen by name, folder or pinned hub revision."""

from collections.abc import Callable
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
    """

    name: str
    weights: str  #: fingerprint of the weights, or the version of a built-in descriptor.
    dim: int
    embedding: str  #: what a row is: ``pooled``, ``projected, text <fingerprint>``, ``descriptor``.
    precision: str  #: of weights and arithmetic.
    device: str  #: that computes, ``cpu`` or ``cuda (name)``.
    window: int  #: frames that make one row.
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
    name: str, *, embedding: str | None = None, precision: str = "float32", device: str = "auto"
) -> Backbone:
    """A built-in backbone, a folder that transformers can load, or ``owner/model@commit`` from the hub.

    ``embedding``, ``precision`` and ``device`` are those of ``load_frozen``; a built-in backbone has one of each.

    Raises:
        LongreelError: When there is no such backbone or folder, or it has no such choice.
        EnvironmentFault: When the weights cannot be fetched or loaded, or there is no GPU.
    """
    if name in BACKBONES:
        if embedding is not None or precision != "float32" or device == "cuda":
            raise LongreelError(
                f"{name} is built in: it has one kind of row, in float32, on a CPU. "
                f"Leave out --embedding, --precision and --device."
            )
        make, _ = BACKBONES[name]
        return make()
    from .folders import fetch_revision
    from .frozen import load_frozen

    if Path(name).is_dir():
        return load_frozen(Path(name), embedding=embedding, precision=precision, device=device)
    if "@" in name:
        folder = fetch_revision(name)
        return load_frozen(folder, name, embedding=embedding, precision=precision, device=device)
    error = unknown("backbone", name, BACKBONES)
    if "/" in name:
        error = LongreelError(f"{name}: no such folder.")
    raise type(error)(f"{error} Give one of them, a folder of a transformers model, or owner/model@commit.")
