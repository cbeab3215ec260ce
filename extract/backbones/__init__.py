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


def load_backbone(name: str) -> Backbone:
    """A built-in backbone, a folder that transformers can load, or ``owner/model@commit`` from the hub.

    Raises:
        LongreelError: When there is no such backbone or folder.
        EnvironmentFault: When the weights cannot be fetched or loaded.
    """
    if name in BACKBONES:
        make, _ = BACKBONES[name]
        return make()
    from .image import fetch_revision, load_image_model

    if Path(name).is_dir():
        return load_image_model(Path(name))
    if "@" in name:
        return load_image_model(fetch_revision(name), name)
    error = unknown("backbone", name, BACKBONES)
    if "/" in name:
        error = LongreelError(f"{name}: no such folder.")
    raise type(error)(f"{error} Give one of them, a folder of a transformers image model, or owner/model@commit.")
