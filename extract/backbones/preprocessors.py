"""Geometry and normalisation from a processor's settings file, as the families' published checkpoints ship them.

Our own reading: two processors of transformers (V-JEPA 2's and DINOv3's) need torchvision, and one code path for all
decoders and models is worth more than each class's own.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ...errors import LongreelError
from ..preprocessing import Preprocessing

#: classes for which a bare number as ``size`` is the short side; for others it is height and width.
SHORT_SIDE = {
    "Bit", "ChineseCLIP", "CLIP", "ConvNext", "Levit", "MobileNetV1", "MobileNetV2", "MobileViT", "Siglip",
    "VideoMAE", "Vivit", "XCLIP",
}  # fmt: skip
RESAMPLE = {2: "bilinear", 3: "bicubic"}  #: the numbers are Pillow's.
#: the filter of classes whose file does not name it; the rest must name it.
RESAMPLE_OF = {
    "Bit": 3, "ChineseCLIP": 3, "CLIP": 3, "ConvNext": 3, "DeiT": 3, "DINOv3ViT": 2, "Levit": 3, "MobileNetV1": 2,
    "MobileNetV2": 2, "Siglip": 3, "Siglip2": 2, "VideoMAE": 2, "ViT": 2, "Vivit": 2, "VJEPA2": 2,
}  # fmt: skip
WARPED_FROM = 384  #: from this size on, ConvNext's processor squashes instead of cropping.


@dataclass(frozen=True)
class Normalisation:
    """``(pixel * rescale - offset - mean) / std`` on each colour channel."""

    rescale: float
    mean: tuple[float, ...]
    std: tuple[float, ...]
    offset: float = 0.0

    def __str__(self) -> str:
        scaled = f"x * {self.rescale:.12g}" + (f" - {self.offset:.12g}" if self.offset else "")
        return f"{scaled}, mean {self.mean}, std {self.std}"

    def apply(self, frames: Tensor) -> Tensor:
        """uint8 frames ``(..., H, W, 3)`` -> float32 ``(..., 3, H, W)``, the channels last in memory."""
        mean, std = (torch.tensor(values, device=frames.device) for values in (self.mean, self.std))
        return ((frames.float() * self.rescale - (mean + self.offset)) / std).movedim(-1, -3)


def read_preprocessing(config: dict, path: Path) -> tuple[Preprocessing, Normalisation]:
    """Geometry and normalisation from the settings of a processor; ``path`` is the file they are from.

    Raises:
        LongreelError: When it asks for something that we do not do.
    """
    kind = _processor(config)
    asked = [key for key in ("do_pad",) if config.get(key)]
    asked += ["crop_pct"] * (bool(config.get("crop_pct")) and kind != "ConvNext")
    asked += ["do_flip_channel_order"] * bool(config.get("do_flip_channel_order", kind == "MobileViT"))
    asked += ["do_resize"] * (not config.get("do_resize", True))
    if asked:
        raise LongreelError(
            f"{path}: size {config.get('size')}, {asked} is not understood. "
            f"Expected a resize to a size, and a centre crop, of RGB frames."
        )
    geometry = GEOMETRIES.get(kind, _resize_and_crop)(config, path)
    return geometry, _normalisation(config, path, kind)


def _processor(config: dict) -> str:
    """The family in the processor's class name: ``VideoMAE`` of ``VideoMAEImageProcessorFast``."""
    keys = ("video_processor_type", "image_processor_type", "feature_extractor_type")
    name = next((config[key] for key in keys if isinstance(config.get(key), str)), "")
    name = name.removesuffix("Fast").removesuffix("Pil")
    for suffix in ("VideoProcessor", "ImageProcessor", "FeatureExtractor"):
        name = name.removesuffix(suffix)
    return name


def _filter(config: dict, path: Path) -> str:
    number = config.get("resample", RESAMPLE_OF.get(_processor(config)))
    if number not in RESAMPLE:
        raise LongreelError(
            f"{path}: resample {number} is not understood. Expected resample 2 (bilinear) or 3 (bicubic)."
        )
    return RESAMPLE[number]


def _size(config: dict, path: Path) -> dict:
    size = config.get("size")
    if isinstance(size, int):  # what a bare number means is not in the file but in the processor's class
        size = {"shortest_edge": size} if _processor(config) in SHORT_SIDE else {"height": size, "width": size}
    if not isinstance(size, dict):
        raise LongreelError(f"{path}: size {size} is not understood. Expected a resize to a size.")
    return size


def _crop(config: dict) -> dict | None:
    crop = config.get("crop_size") if config.get("do_center_crop", "crop_size" in config) else None
    return {"height": crop, "width": crop} if isinstance(crop, int) else crop


def _resize_and_crop(config: dict, path: Path) -> Preprocessing:
    """Squash to a size, or resize the short side and cut out the centre."""
    size, crop = _size(config, path), _crop(config)
    short_side = size.get("shortest_edge")
    target = crop or size
    if not isinstance(target, dict) or not {"height", "width"} <= target.keys():
        raise LongreelError(
            f"{path}: size {size}, crop {crop} is not understood. Expected a crop or size with height and width."
        )
    if crop and short_side is None and size != crop:
        raise LongreelError(
            f"{path}: a crop {crop} after a resize to {size} is not understood. Expected size with shortest_edge."
        )
    return Preprocessing(target["height"], target["width"], short_side, _filter(config, path))


def _percentage(config: dict, path: Path) -> Preprocessing:
    """ConvNext's, which ResNet takes too: ``size / crop_pct``, then cut to ``size``; large sizes are squashed."""
    size = _size(config, path).get("shortest_edge")
    if not isinstance(size, int) or _crop(config) is not None:
        raise LongreelError(f"{path}: size {config.get('size')} is not understood. Expected shortest_edge and no crop.")
    short_side = int(size / (config.get("crop_pct") or 224 / 256)) if size < WARPED_FROM else None
    return Preprocessing(size, size, short_side, _filter(config, path))


def _enlarged(config: dict, path: Path) -> Preprocessing:
    """LeViT's: the short side is 256/224 of what the file says, then a crop."""
    size = dict(_size(config, path))
    if "shortest_edge" in size:
        size["shortest_edge"] = int(256 / 224 * size["shortest_edge"])
    return _resize_and_crop(config | {"size": size}, path)


def _around_crop(config: dict, path: Path) -> Preprocessing:
    """V-JEPA 2's: the short side is 256/224 of the crop, whatever size the file says."""
    crop = _crop(config)
    if crop is None or not isinstance(crop.get("height"), int):
        raise LongreelError(f"{path}: crop {crop} is not understood. Expected crop_size with height and width.")
    return _resize_and_crop(config | {"size": {"shortest_edge": int(crop["height"] * 256 / 224)}}, path)


def _grid(config: dict, path: Path) -> Preprocessing:
    """SigLIP 2's NaFlex: the square of the most patches. Its own processor keeps each picture's shape instead."""
    patch, most = config.get("patch_size", 16), config.get("max_num_patches", 256)
    side = math.isqrt(most) * patch
    return Preprocessing(side, side, None, _filter(config, path))


#: processor class -> how it reads its sizes, where that is not a plain resize and crop.
GEOMETRIES: dict[str, Callable[[dict, Path], Preprocessing]] = {
    "ConvNext": _percentage,
    "Levit": _enlarged,
    "Siglip2": _grid,
    "VJEPA2": _around_crop,
}


def _normalisation(config: dict, path: Path, kind: str) -> Normalisation:
    plain = not config.get("do_normalize", True)
    if not plain and not all(
        isinstance(config.get(key), list) and len(config[key]) == 3 for key in ("image_mean", "image_std")
    ):
        raise LongreelError(f"{path}: image_mean and image_std are not three numbers each.")
    rescaled = config.get("do_rescale", True)
    factor = config.get("rescale_factor", 1 / 127.5 if kind == "Vivit" else 1 / 255)
    return Normalisation(
        rescale=factor if rescaled else 1.0,
        mean=(0.0, 0.0, 0.0) if plain else tuple(config["image_mean"]),
        std=(1.0, 1.0, 1.0) if plain else tuple(config["image_std"]),
        offset=1.0 if rescaled and kind == "Vivit" and config.get("offset", True) else 0.0,
    )
