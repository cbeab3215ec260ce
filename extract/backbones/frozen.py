"""Frozen image and video models: one feature row a frame, or a window of frames."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...devices import choose_device, keep_convolutions_exact
from ...errors import LongreelError, unknown
from ..preprocessing import Preprocessing
from ..sampling import Sampling
from ..threads import one_torch_thread
from .checkpoints import fingerprint_checkpoint, read_checkpoint
from .families import FAMILIES, OTHER_WITH_TEXT, PROJECTING, SHIFTED, Family, Rows, family_of
from .folders import fingerprint_text, fingerprint_weights, load_model, read_config, read_processor
from .folding import FOLDED, fold_batch_norms
from .preprocessors import Normalisation, read_preprocessing
from .presets import IMAGENET_MEAN, IMAGENET_STD
from .shifting import shifted_rows

FRAMES = 16  #: of a clip, for image models, when nothing is said.
SEGMENTS = 8  #: the same for a temporal shift: what it was trained on.
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
EMBEDDINGS = ("pooled", "projected")
#: windows of one forward pass; small batches are fastest on a CPU. One fixed shape keeps the bits.
BATCHES = {("cpu", "image"): 8, ("cpu", "video"): 1, ("cuda", "image"): 64, ("cuda", "video"): 8}


@dataclass
class FrozenModel:
    """A loaded model and its preprocessing; a ``Backbone``."""

    name: str
    weights: str
    embedding: str
    precision: str
    device: str
    preprocessing: Preprocessing
    normalisation: str
    window: int
    reach: int | None
    batch: int
    sampling: Sampling
    dim: int
    rows: Callable[[Tensor], Tensor]  #: windows -> rows, float32, on the CPU; shapes are those of ``Backbone``.

    @torch.inference_mode()
    def __call__(self, windows: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """Windows to rows; shapes are those of ``Backbone``."""
        return self.rows(torch.from_numpy(windows)).numpy()


def load_frozen(
    path: Path,
    name: str | None = None,
    *,
    embedding: str | None = None,
    precision: str = "float32",
    device: str = "auto",
    short_side: int | None = None,
    crop: int | None = None,
) -> FrozenModel:
    """Load a frozen model from a local folder or file. No code in it is ever run; of a pickle, only tensors are read.

    Args:
        path: A folder as transformers saves it, or a checkpoint of the temporal shift module as its authors publish it.
        name: What stores call it; the folder's or file's name if ``None``.
        embedding: ``pooled``, or ``projected`` into the space shared with text; if ``None`` pooled, where there is one.
        precision: Of weights and arithmetic, ``float32`` or ``bfloat16``. Rows are float32 in any case.
        device: ``cpu``, ``cuda``, or ``auto`` for a GPU where there is one.
        short_side, crop: In place of the model's own, in pixels; see ``Preprocessing.resized``.

    Raises:
        LongreelError: When it is no such model, or a choice does not exist.
        EnvironmentFault: When its weights cannot be loaded.
    """
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    if embedding not in (None, *EMBEDDINGS):
        raise unknown("embedding", str(embedding), EMBEDDINGS)
    place, dtype = choose_device(device), PRECISIONS[precision]
    source = (_read_folder if path.is_dir() else _read_file)(path, embedding, dtype)
    source = replace(source, geometry=source.geometry.resized(short_side, crop))
    prepare(source.model, source.model_type, place, dtype)
    return _freeze(source, name or path.resolve().name, place, precision)


def prepare(model: nn.Module, model_type: str, place: torch.device, dtype: torch.dtype) -> None:
    """Freeze a model and bring it into the form that is computed with."""
    model.eval().requires_grad_(False)
    if model_type in FOLDED:
        fold_batch_norms(model)
    model.to(place, dtype) if model_type in FOLDED else model.to(place)
    if not any(isinstance(module, nn.Conv3d) for module in model.modules()):
        model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    keep_convolutions_exact(place)


@dataclass(frozen=True)
class _Source:
    """What is read of a folder or a file."""

    path: Path
    weights: str
    model: Any
    model_type: str
    family: Family
    take: Rows  #: what is taken of the model's output.
    words: str  #: its name in the store's spec.
    geometry: Preprocessing
    normalise: Normalisation


def _freeze(source: _Source, name: str, place: torch.device, precision: str) -> FrozenModel:
    family, model, geometry = source.family, source.model, source.geometry
    window = family.window(model.config) if family.window else 1
    shifted = family.reach is not None

    def rows(windows: Tensor) -> Tensor:
        pixels = source.normalise.apply(windows.to(place)).to(PRECISIONS[precision])
        return source.take(model, family.pixels(model.config, pixels)).float().cpu()

    return FrozenModel(
        name=name,
        weights=source.weights,
        embedding=source.words,
        precision=precision,
        device=str(place) if place.type == "cpu" else f"cuda ({torch.cuda.get_device_name(place)})",
        preprocessing=geometry,
        normalisation=str(source.normalise),
        window=window,
        reach=family.reach(model.config) if family.reach else None,
        batch=1 if shifted else BATCHES[place.type, "video" if family.window else "image"],
        sampling=Sampling(frames=SEGMENTS if shifted else window if family.window else FRAMES),
        dim=_width(rows, source.path, (1, 1 if shifted else window, geometry.height, geometry.width, 3)),
        rows=rows,
    )


def _read_file(path: Path, embedding: str | None, dtype: torch.dtype) -> _Source:
    if embedding == "projected":
        raise LongreelError(f"{path}: has no text side, so nothing is projected. Use --embedding pooled.")
    return _Source(
        path=path,
        weights=fingerprint_checkpoint(path),
        model=read_checkpoint(path),
        model_type="resnet",
        family=SHIFTED,
        take=shifted_rows,
        words="pooled",
        geometry=Preprocessing(224, 224, 256),  # as its authors test it, at one crop
        normalise=Normalisation(1 / 255, IMAGENET_MEAN, IMAGENET_STD),
    )


def _read_folder(folder: Path, embedding: str | None, dtype: torch.dtype) -> _Source:
    config = read_config(folder)
    model_type, family = str(config.get("model_type")), family_of(config)
    geometry, normalise = read_preprocessing(*read_processor(folder, family.window is not None, model_type))
    take, words, model = _load(folder, model_type, family, embedding, dtype)
    return _Source(folder, fingerprint_weights(folder), model, model_type, family, take, words, geometry, normalise)


def _load(
    folder: Path, model_type: str, family: Family, embedding: str | None, dtype: torch.dtype
) -> tuple[Rows, str, nn.Module]:
    """What is taken of the model's output, its name in the store's spec, and the model."""
    unused = family.unused + (PROJECTING if family.projected and embedding != "projected" else ())
    model, complete = load_model(folder, torch.float32 if model_type in FOLDED else dtype, unused)
    if model_type not in FAMILIES and hasattr(model, "get_image_features"):
        family = OTHER_WITH_TEXT
    if family.pooled is not None and embedding != "projected":
        return (family.pooled if complete else family.incomplete or family.pooled), "pooled", model
    if embedding == "pooled":
        raise LongreelError(f"{folder}: no pooled row is known of this kind of model. Use --embedding projected.")
    if family.projected is None:
        raise LongreelError(f"{folder}: has no text side, so nothing is projected. Use --embedding pooled.")
    return family.projected, f"projected, text {fingerprint_text(folder)}", model


def _width(rows: Callable[[Tensor], Tensor], folder: Path, shape: tuple[int, ...]) -> int:
    """The width of a row, found by computing one."""
    try:
        with torch.inference_mode(), one_torch_thread():
            return rows(torch.zeros(shape, dtype=torch.uint8)).shape[-1]
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise LongreelError(
            f"{folder}: the model cannot take windows of {shape[1:]} as its files ask for: {reason}. "
            f"Check the size in its preprocessor file, or --crop where it was given."
        ) from error
