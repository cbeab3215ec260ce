"""Published checkpoints of the families, as far as their facts are certain. Nothing is fetched unless it is named."""

import json
from dataclasses import dataclass

HALF = (0.5, 0.5, 0.5)
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
APACHE, NON_COMMERCIAL, DINOV3 = "Apache-2.0", "CC BY-NC 4.0: no commercial use", "DINOv3 License; ask on the hub first"


@dataclass(frozen=True)
class Preset:
    """One published checkpoint: ``owner/model`` on the hub, to be pinned by a commit of your choice."""

    family: str  #: ``model_type`` in its config.json.
    dim: int  #: width of a pooled row.
    frames: int  #: that make a row.
    size: int  #: height and width of the frames that the model sees.
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    licence: str  #: of the weights.
    projected: int | None = None  #: width of a projected row.

    def __str__(self) -> str:
        rows = f"{self.dim} numbers" + (f" ({self.projected} projected)" if self.projected else "")
        frames = "a frame" if self.frames == 1 else f"{self.frames} frames"
        return f"{self.family}: {rows} from {frames} of {self.size}x{self.size}; {self.licence}"


def _imagenet(family: str, dim: int, frames: int, size: int, licence: str) -> Preset:
    return Preset(family, dim, frames, size, IMAGENET_MEAN, IMAGENET_STD, licence)


def _clip(dim: int, projected: int) -> Preset:
    return Preset("clip", dim, 1, 224, CLIP_MEAN, CLIP_STD, "MIT (OpenAI's repository)", projected)


PRESETS: dict[str, Preset] = {
    "google/mobilenet_v2_1.0_224": Preset("mobilenet_v2", 1280, 1, 224, HALF, HALF, "see its page"),
    "microsoft/resnet-50": _imagenet("resnet", 2048, 1, 224, APACHE),
    "microsoft/resnet-101": _imagenet("resnet", 2048, 1, 224, APACHE),
    "google/vit-base-patch16-224-in21k": Preset("vit", 768, 1, 224, HALF, HALF, APACHE),
    "facebook/dinov2-small": _imagenet("dinov2", 384, 1, 224, APACHE),
    "facebook/dinov2-base": _imagenet("dinov2", 768, 1, 224, APACHE),
    "facebook/dinov2-large": _imagenet("dinov2", 1024, 1, 224, APACHE),
    "facebook/dinov3-vits16-pretrain-lvd1689m": _imagenet("dinov3_vit", 384, 1, 224, DINOV3),
    "facebook/dinov3-vitb16-pretrain-lvd1689m": _imagenet("dinov3_vit", 768, 1, 224, DINOV3),
    "facebook/dinov3-vitl16-pretrain-lvd1689m": _imagenet("dinov3_vit", 1024, 1, 224, DINOV3),
    "facebook/dinov3-convnext-tiny-pretrain-lvd1689m": _imagenet("dinov3_convnext", 768, 1, 224, DINOV3),
    "openai/clip-vit-base-patch32": _clip(768, 512),
    "openai/clip-vit-base-patch16": _clip(768, 512),
    "openai/clip-vit-large-patch14": _clip(1024, 768),
    "google/siglip-base-patch16-224": Preset("siglip", 768, 1, 224, HALF, HALF, APACHE, 768),
    "google/siglip2-base-patch16-224": Preset("siglip", 768, 1, 224, HALF, HALF, APACHE, 768),
    "google/siglip2-base-patch16-naflex": Preset("siglip2", 768, 1, 256, HALF, HALF, APACHE, 768),
    "MCG-NJU/videomae-base": _imagenet("videomae", 768, 16, 224, NON_COMMERCIAL),
    "MCG-NJU/videomae-base-finetuned-kinetics": _imagenet("videomae", 768, 16, 224, NON_COMMERCIAL),
    "facebook/timesformer-base-finetuned-k400": Preset(
        "timesformer", 768, 8, 224, (0.45, 0.45, 0.45), (0.225, 0.225, 0.225), NON_COMMERCIAL
    ),
    "google/vivit-b-16x2-kinetics400": Preset("vivit", 768, 32, 224, HALF, HALF, "MIT"),
    "facebook/vjepa2-vitl-fpc64-256": _imagenet("vjepa2", 1024, 64, 256, "MIT"),
    "microsoft/xclip-base-patch32": Preset(
        "xclip", 768, 8, 224, IMAGENET_MEAN, IMAGENET_STD, "MIT", 512
    ),
}  # fmt: skip


def describe_presets(model_type: str, folder_name: str) -> str:
    """What is known of a folder that lacks its preprocessor file, as a sentence with a space before it, or nothing.

    A preset of the folder's own name is taken, else the first one of the family.
    """
    family = {name: preset for name, preset in PRESETS.items() if preset.family == model_type}
    if not family:
        return ""
    name = next((name for name in family if name.rpartition("/")[2] == folder_name), next(iter(family)))
    preset = family[name]
    known = {"size": f"{preset.size}x{preset.size}", "image_mean": preset.mean, "image_std": preset.std}
    return f" The published {name} has {json.dumps(known)}; take the file from there if yours is that model."
