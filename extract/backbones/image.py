"""Frozen image models of the transformers library: one feature row a frame."""

import hashlib
import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from torch import Tensor, nn

from ...errors import EnvironmentFault, LongreelError
from ..preprocessing import Preprocessing
from ..sampling import Sampling

BATCH = 8  #: frames a forward pass; small batches are fastest on a CPU, and one fixed shape keeps the bits.
SHORT_SIDE = {"CLIP", "ChineseCLIP", "Bit", "MobileNetV1", "MobileNetV2", "ConvNext", "LeViT", "MobileViT"}
RESAMPLE = {2: "bilinear", 3: "bicubic"}  #: the numbers are Pillow's.


@dataclass(frozen=True)
class Normalisation:
    """``(pixel * rescale - mean) / std`` on each colour channel."""

    rescale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __str__(self) -> str:
        return f"x * {self.rescale:.12g}, mean {self.mean}, std {self.std}"

    def apply(self, frames: Tensor) -> Tensor:
        """uint8 frames ``(B, H, W, 3)`` -> float32 ``(B, 3, H, W)``, channels last in memory."""
        scaled = (frames.float() * self.rescale - torch.tensor(self.mean)) / torch.tensor(self.std)
        return scaled.permute(0, 3, 1, 2)


class ImageModel:
    """A loaded model and its preprocessing; a ``Backbone``."""

    window = 1
    batch = BATCH
    sampling = Sampling(frames=16)

    def __init__(
        self,
        name: str,
        model: nn.Module,
        weights: str,
        preprocessing: Preprocessing,
        normalise: Normalisation,
        pooler: bool,
    ) -> None:
        self.name = name
        self.weights = weights
        self.preprocessing = preprocessing
        self.normalisation = str(normalise)
        self._normalise = normalise
        self._pooler = pooler
        self._model = model.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.dim = self(np.zeros((BATCH, 1, preprocessing.height, preprocessing.width, 3), dtype=np.uint8)).shape[1]

    @torch.inference_mode()
    def __call__(self, windows: NDArray[np.uint8]) -> NDArray[np.float32]:
        """``(8, 1, H, W, 3)`` uint8 -> ``(8, D)`` float32."""
        return self._embed(self._normalise.apply(torch.from_numpy(windows[:, 0]))).float().numpy()

    def _embed(self, pixels: Tensor) -> Tensor:
        """One vector a frame: the model's own pooled output where its weights have one, else class token or mean."""
        if hasattr(self._model, "get_image_features"):
            output = self._model.get_image_features(pixel_values=pixels)
            return output if isinstance(output, Tensor) else output.pooler_output
        output = self._model(pixel_values=pixels)
        if self._pooler and getattr(output, "pooler_output", None) is not None:
            return output.pooler_output.flatten(1)
        hidden = output.last_hidden_state
        return hidden.mean(dim=(2, 3)) if hidden.ndim == 4 else hidden[:, 0]


def load_image_model(folder: Path, name: str | None = None) -> ImageModel:
    """Load a frozen image model from a local folder. No code of the folder is ever run, and no pickle is read.

    ``name`` is what stores call it; the folder's name if ``None``.

    Raises:
        LongreelError: When the folder is not an image model.
        EnvironmentFault: When its weights cannot be loaded.
    """
    config = _read_json(folder / "config.json")
    geometry, normalise = read_preprocessing(_read_json(folder / "preprocessor_config.json"), folder)
    if "auto_map" in config:
        raise LongreelError(
            f"{folder}: config.json asks for code of its own, which is never run. Use a model that transformers knows."
        )
    try:
        model, info = _load_quietly(folder)
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        raise EnvironmentFault(
            f"{folder}: transformers cannot load it: {' '.join(str(error).split())[:400]}"
        ) from error
    missing = sorted(info["missing_keys"])
    if unfilled := [key for key in missing if "pooler" not in key]:
        raise EnvironmentFault(
            f"{folder}: the weights lack {len(unfilled)} of the model's tensors, such as {unfilled[0]!r}."
        )
    return ImageModel(
        name or folder.resolve().name, model, _fingerprint(folder), geometry, normalise, pooler=not missing
    )


def _load_quietly(folder: Path) -> tuple[nn.Module, dict]:
    """The model and what of its tensors the weights did not fill; tensors we have no use for are not worth a report."""
    from transformers import AutoModel
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        return AutoModel.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            dtype=torch.float32,
        )
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def fetch_revision(name: str) -> Path:
    """The local folder of ``owner/model@commit``, fetched from the hub once.

    Raises:
        LongreelError: When the revision is not a full commit hash: a branch may change under a store.
        EnvironmentFault: When it cannot be fetched.
    """
    repository, _, revision = name.rpartition("@")
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise LongreelError(f"{name}: {revision!r} is not a commit. Pin one: owner/model@<40 hex digits>.")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=["*.json", "*.safetensors"]))
    except Exception as error:  # the hub client raises many kinds, all of them mean: not to be had
        reason = " ".join(str(error).split())[:300]
        raise EnvironmentFault(
            f"{name}: cannot be fetched ({reason}). Check the network, or give a local folder."
        ) from error


def read_preprocessing(config: dict, folder: Path) -> tuple[Preprocessing, Normalisation]:
    """Geometry and normalisation from a ``preprocessor_config.json``.

    Raises:
        LongreelError: When it asks for something that we do not do.
    """
    size = config.get("size")
    if isinstance(size, int):  # what a bare number means is not in the file but in the processor's class
        size = {"shortest_edge": size} if _processor(config) in SHORT_SIDE else {"height": size, "width": size}
    crop = config.get("crop_size") if config.get("do_center_crop", "crop_size" in config) else None
    crop = {"height": crop, "width": crop} if isinstance(crop, int) else crop
    resample = config.get("resample", 2)
    short_side = size.get("shortest_edge") if isinstance(size, dict) else None
    target = crop or size
    unknown = [key for key in ("crop_pct", "do_pad") if config.get(key)] + ["do_resize"] * (
        not config.get("do_resize", True)
    )
    if unknown or not isinstance(size, dict) or not isinstance(target, dict):
        raise LongreelError(
            f"{folder}/preprocessor_config.json: size {size}, {unknown} is not understood. "
            f"Expected a resize to a size, and a centre crop."
        )
    if "height" not in target or "width" not in target or resample not in RESAMPLE:
        raise LongreelError(
            f"{folder}/preprocessor_config.json: size {size}, crop {crop}, resample {resample} is not understood. "
            f"Expected a crop or size with height and width, and resample 2 (bilinear) or 3 (bicubic)."
        )
    if crop and short_side is None and size != crop:
        raise LongreelError(
            f"{folder}/preprocessor_config.json: a crop {crop} after a resize to {size} is not understood."
        )
    geometry = Preprocessing(target["height"], target["width"], short_side, RESAMPLE[resample])
    plain = not config.get("do_normalize", True)
    if not plain and not all(
        isinstance(config.get(key), list) and len(config[key]) == 3 for key in ("image_mean", "image_std")
    ):
        raise LongreelError(f"{folder}/preprocessor_config.json: image_mean and image_std are not three numbers each.")
    return geometry, Normalisation(
        rescale=config.get("rescale_factor", 1 / 255) if config.get("do_rescale", True) else 1.0,
        mean=(0.0, 0.0, 0.0) if plain else tuple(config["image_mean"]),
        std=(1.0, 1.0, 1.0) if plain else tuple(config["image_std"]),
    )


def _processor(config: dict) -> str:
    name = config.get("image_processor_type") or config.get("feature_extractor_type") or ""
    return name.removesuffix("Fast").removesuffix("ImageProcessor").removesuffix("FeatureExtractor")


def _read_json(path: Path) -> dict:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(document, dict):
            raise ValueError("not an object")
        return document
    except (OSError, ValueError) as error:
        raise LongreelError(
            f"{path}: cannot be read ({error}). Expected a folder as transformers saves it, with that file."
        ) from None


def _fingerprint(folder: Path) -> str:
    """SHA-256 over the configuration and every weight file."""
    total = hashlib.sha256()
    for path in [folder / "config.json", *sorted(folder.glob("*.safetensors"))]:
        with open(path, "rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()
