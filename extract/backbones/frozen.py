"""Frozen image and video models of the transformers library: one feature row a frame, or a window of frames."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ...errors import EnvironmentFault, LongreelError, unknown
from ..preprocessing import Preprocessing
from ..sampling import Sampling
from ..threads import one_torch_thread
from .families import FAMILIES, OTHER, OTHER_WITH_TEXT, PROJECTING, Family, Rows
from .folders import fingerprint_text, fingerprint_weights, load_model, read_config, read_processor
from .folding import FOLDED, fold_batch_norms
from .preprocessors import read_preprocessing

FRAMES = 16  #: of a clip, for image models, when nothing is said.
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
EMBEDDINGS = ("pooled", "projected")
DEVICES = ("auto", "cpu", "cuda")
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
    batch: int
    sampling: Sampling
    dim: int
    rows: Callable[[Tensor], Tensor]  #: windows ``(B, T, H, W, 3)`` uint8 -> ``(B, D)`` float32, on the CPU.

    @torch.inference_mode()
    def __call__(self, windows: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """``(batch, window, H, W, 3)`` uint8 -> ``(batch, D)`` float32."""
        return self.rows(torch.from_numpy(windows)).numpy()


def load_frozen(
    folder: Path,
    name: str | None = None,
    *,
    embedding: str | None = None,
    precision: str = "float32",
    device: str = "auto",
) -> FrozenModel:
    """Load a frozen model from a local folder. No code of the folder is ever run, and no pickle is read.

    Args:
        folder: As transformers saves it.
        name: What stores call it; the folder's name if ``None``.
        embedding: ``pooled``, or ``projected`` into the space shared with text; if ``None`` pooled, where there is one.
        precision: Of weights and arithmetic, ``float32`` or ``bfloat16``. Rows are float32 in any case.
        device: ``cpu``, ``cuda``, or ``auto`` for a GPU where there is one.

    Raises:
        LongreelError: When the folder is no such model, or a choice does not exist.
        EnvironmentFault: When its weights cannot be loaded.
    """
    if precision not in PRECISIONS:
        raise unknown("precision", precision, PRECISIONS)
    place, dtype = choose_device(device), PRECISIONS[precision]
    model_type = str(read_config(folder).get("model_type"))
    family = FAMILIES.get(model_type, OTHER)
    geometry, normalise = read_preprocessing(*read_processor(folder, family.window is not None, model_type))
    take, words, model = _load(folder, model_type, family, embedding, dtype)
    prepare(model, model_type, place, dtype)
    window = family.window(model.config) if family.window else 1
    shape = (BATCHES[place.type, "video" if family.window else "image"], window, geometry.height, geometry.width, 3)

    def rows(windows: Tensor) -> Tensor:
        pixels = normalise.apply(windows.to(place)).to(dtype)
        return take(model, family.pixels(model.config, pixels)).float().cpu()

    return FrozenModel(
        name=name or folder.resolve().name,
        weights=fingerprint_weights(folder),
        embedding=words,
        precision=precision,
        device=str(place) if place.type == "cpu" else f"cuda ({torch.cuda.get_device_name(place)})",
        preprocessing=geometry,
        normalisation=str(normalise),
        window=window,
        batch=shape[0],
        sampling=Sampling(frames=window if family.window else FRAMES),
        dim=_width(rows, folder, (1, *shape[1:])),
        rows=rows,
    )


def choose_device(name: str) -> torch.device:
    """``cpu``, ``cuda``, or for ``auto`` the GPU where torch finds one.

    Raises:
        LongreelError: When there is no such choice.
        EnvironmentFault: When a GPU is asked for and torch finds none.
    """
    if name not in DEVICES:
        raise unknown("device", name, DEVICES)
    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        raise EnvironmentFault("--device cuda: torch finds no GPU. Use --device cpu, or a torch built for your GPU.")
    return torch.device("cuda" if found and name != "cpu" else "cpu")


def prepare(model: nn.Module, model_type: str, place: torch.device, dtype: torch.dtype) -> None:
    """Freeze a model and bring it into the form that is computed with."""
    model.eval().requires_grad_(False)
    if model_type in FOLDED:
        fold_batch_norms(model)
    model.to(place, dtype) if model_type in FOLDED else model.to(place)
    if not any(isinstance(module, nn.Conv3d) for module in model.modules()):
        model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    if place.type == "cuda":  # convolutions would else be rounded to 10 bits, whatever the precision is called
        torch.backends.cudnn.allow_tf32 = False


def _load(
    folder: Path, model_type: str, family: Family, embedding: str | None, dtype: torch.dtype
) -> tuple[Rows, str, nn.Module]:
    """What is taken of the model's output, its name in the store's spec, and the model."""
    if embedding not in (None, *EMBEDDINGS):
        raise unknown("embedding", str(embedding), EMBEDDINGS)
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
            return rows(torch.zeros(shape, dtype=torch.uint8)).shape[1]
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise LongreelError(
            f"{folder}: the model cannot take windows of {shape[1:]} as its files ask for: {reason}. "
            f"Check the size in its preprocessor file."
        ) from error
