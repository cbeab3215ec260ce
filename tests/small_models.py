"""Tiny models with random weights, one of each family, with processor files as the published checkpoints ship them."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as tf
from numpy.typing import NDArray
from torch import Tensor, nn

SIDE = 32
MEAN, STD = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]
LAYERS: dict[str, Any] = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": SIDE,
    "patch_size": 8,
}
TEXT: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 50,
}
TUBES: dict[str, Any] = {"num_frames": 4, "tubelet_size": [2, 8, 8]}
PLAIN: dict[str, Any] = {
    "do_resize": True,
    "do_normalize": True,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "resample": 3,
    "size": {"height": SIDE, "width": SIDE},
    "image_mean": MEAN,
    "image_std": STD,
}
CUT: dict[str, Any] = PLAIN | {
    "size": {"shortest_edge": 36},
    "do_center_crop": True,
    "crop_size": {"height": SIDE, "width": SIDE},
}


@dataclass(frozen=True)
class Small:
    """A family's tiny model: its settings file, and what of its output the row is, by the model's own forward."""

    make: Callable[[], nn.Module]
    settings: dict[str, Any]
    row: Callable[[Any, Tensor], Tensor]  #: model, pixels of one window ``(T, 3, H, W)`` -> ``(D,)``.
    dim: int
    frames: int = 1
    file: str = "preprocessor_config.json"
    projected: Callable[[Any, Tensor], Tensor] | None = None
    offset: float = 0.0  #: taken off after rescaling.

    def save(self, folder: Path) -> Path:
        """The folder, with weights of seed 0."""
        return save(folder, self.make, self.settings, self.file)

    def pixels(self, windows: NDArray[np.uint8]) -> Tensor:
        """``(N, T, H, W, 3)`` uint8 -> ``(N, T, 3, H, W)``, normalised in numpy."""
        scaled = windows.astype(np.float64) * self.settings["rescale_factor"] - self.offset
        normal = (scaled - np.array(MEAN)) / np.array(STD)
        return torch.from_numpy(normal.transpose(0, 1, 4, 2, 3).astype(np.float32))


def save(folder: Path, make: Callable[[], nn.Module], settings: dict, file: str = "preprocessor_config.json") -> Path:
    """Save a model with random weights of seed 0."""
    torch.manual_seed(0)
    model = make()
    if any(isinstance(module, nn.BatchNorm2d) for module in model.modules()):
        shake(model)
    model.save_pretrained(folder)  # pyright: ignore[reportCallIssue]
    (folder / file).write_text(json.dumps(settings))
    return folder


def shake(model: nn.Module) -> None:
    """Weights with which a picture still shows behind many layers, and batch norms neither at zero nor at one."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.3)


def photo(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """A smooth picture with noise on it."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = 127 + 90 * np.sin(x / 17 + seed)[..., None] * np.cos(y / 13)[..., None] * np.array([1, -1, 0.5])
    return np.clip(waves + rng.normal(0, 15, (height, width, 3)), 0, 255).astype(np.uint8)


def clip_model() -> nn.Module:
    """A tiny CLIP, projecting to 12 numbers."""
    return tf.CLIPModel(tf.CLIPConfig(text_config=TEXT, vision_config=LAYERS, projection_dim=12))


def _siglip() -> nn.Module:
    return tf.SiglipModel(tf.SiglipConfig(text_config=TEXT | {"projection_size": 24}, vision_config=LAYERS))


def _siglip2() -> nn.Module:
    vision = LAYERS | {"num_patches": 16}
    return tf.Siglip2Model(tf.Siglip2Config(text_config=TEXT | {"projection_size": 24}, vision_config=vision))


def _xclip() -> nn.Module:
    vision = LAYERS | {"num_frames": 4, "mit_hidden_size": 12, "mit_intermediate_size": 16}
    vision |= {"mit_num_hidden_layers": 1, "mit_num_attention_heads": 2}
    config = tf.XCLIPConfig(text_config=TEXT, vision_config=vision, projection_dim=12)
    config.prompt_num_attention_heads = 2
    model = tf.XCLIPModel(config)
    for name, weights in model.named_parameters():
        if "position_embedding" in name:  # some are zero or not filled at all before a checkpoint is read
            nn.init.normal_(weights, 0, 0.5)
    return model


def _jepa() -> nn.Module:
    small: dict[str, Any] = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2, "mlp_ratio": 1}
    small |= {"pred_hidden_size": 48, "pred_num_hidden_layers": 1, "pred_num_attention_heads": 2}
    return tf.VJEPA2Model(tf.VJEPA2Config(crop_size=SIDE, frames_per_clip=4, patch_size=8, tubelet_size=2, **small))


def _resnet(depth: str = "bottleneck") -> nn.Module:
    return tf.ResNetModel(tf.ResNetConfig(embedding_size=8, hidden_sizes=[16, 40], depths=[2, 1], layer_type=depth))


def _naflex(pixels: Tensor) -> dict[str, Tensor]:
    """SigLIP 2's arguments, patch by patch."""
    patches = [
        pixels[0, :, y : y + 8, x : x + 8].permute(1, 2, 0).flatten()
        for y in range(0, SIDE, 8)
        for x in range(0, SIDE, 8)
    ]
    grid = {"spatial_shapes": torch.tensor([[4, 4]]), "pixel_attention_mask": torch.ones(1, 16, dtype=torch.int64)}
    return {"pixel_values": torch.stack(patches)[None], **grid}


def _processor(name: str, settings: dict) -> dict:
    return settings | {"image_processor_type": name}


CLIP_LIKE = _processor("CLIPImageProcessor", CUT)
VIDEO_LIKE = _processor("VideoMAEImageProcessor", CUT | {"resample": 2})
CONVNEXT_LIKE = PLAIN | {"feature_extractor_type": "ConvNextFeatureExtractor", "size": SIDE, "crop_pct": 0.875}

SMALL: dict[str, Small] = {
    "mobilenet_v2": Small(
        lambda: tf.MobileNetV2Model(tf.MobileNetV2Config(image_size=SIDE, depth_multiplier=0.35)),
        _processor("MobileNetV2ImageProcessor", CUT | {"resample": 2}),
        lambda model, x: model(x).last_hidden_state.mean((2, 3))[0],
        1280,
    ),
    "resnet": Small(_resnet, CONVNEXT_LIKE, lambda model, x: model(x).last_hidden_state.mean((2, 3))[0], 40),
    "convnext": Small(
        lambda: tf.ConvNextModel(tf.ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1])),
        CONVNEXT_LIKE,
        lambda model, x: model(x).pooler_output[0],
        32,
    ),
    "vit": Small(
        lambda: tf.ViTModel(tf.ViTConfig(**LAYERS)),
        _processor("ViTImageProcessor", PLAIN | {"size": SIDE, "resample": 2}),
        lambda model, x: model.pooler(model(x).last_hidden_state)[0],
        24,
    ),
    "vit saved as a classifier": Small(
        lambda: tf.ViTForImageClassification(tf.ViTConfig(**LAYERS)),
        _processor("ViTFeatureExtractor", PLAIN),
        lambda model, x: model(x).last_hidden_state[0, 0],
        24,
    ),
    "dinov2": Small(
        lambda: tf.Dinov2Model(tf.Dinov2Config(**LAYERS)),
        _processor("BitImageProcessor", CUT),
        lambda model, x: model(x).last_hidden_state[0, 0],
        24,
    ),
    "dinov2 with registers": Small(
        lambda: tf.Dinov2WithRegistersModel(tf.Dinov2WithRegistersConfig(**LAYERS)),
        _processor("BitImageProcessor", CUT),
        lambda model, x: model(x).last_hidden_state[0, 0],
        24,
    ),
    "dinov3": Small(
        lambda: tf.DINOv3ViTModel(tf.DINOv3ViTConfig(**LAYERS, num_register_tokens=2)),
        _processor("DINOv3ViTImageProcessorFast", PLAIN | {"resample": 2}),
        lambda model, x: model(x).last_hidden_state[0, 0],
        24,
    ),
    "dinov3 convnext": Small(
        lambda: tf.DINOv3ConvNextModel(tf.DINOv3ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1])),
        _processor("DINOv3ViTImageProcessorFast", PLAIN | {"resample": 2}),
        lambda model, x: model(x).last_hidden_state[0, 0],
        32,
    ),
    "clip": Small(
        clip_model,
        CLIP_LIKE,
        lambda model, x: model.vision_model(x).pooler_output[0],
        24,
        projected=lambda model, x: model.visual_projection(model.vision_model(x).pooler_output)[0],
    ),
    "clip vision": Small(
        lambda: tf.CLIPVisionModel(tf.CLIPVisionConfig(**LAYERS)),
        CLIP_LIKE,
        lambda model, x: model(x).pooler_output[0],
        24,
    ),
    "siglip": Small(
        _siglip,
        _processor("SiglipImageProcessor", PLAIN),
        lambda model, x: model.vision_model(x).pooler_output[0],
        24,
        projected=lambda model, x: model.vision_model(x).pooler_output[0],
    ),
    "siglip2": Small(
        _siglip2,
        _processor("Siglip2ImageProcessor", PLAIN | {"resample": 2, "patch_size": 8, "max_num_patches": 16}),
        lambda model, x: model.vision_model(**_naflex(x)).pooler_output[0],
        24,
        projected=lambda model, x: model.get_image_features(**_naflex(x)).pooler_output[0],
    ),
    "videomae": Small(
        lambda: tf.VideoMAEModel(tf.VideoMAEConfig(**LAYERS, num_frames=4)),
        VIDEO_LIKE,
        lambda model, x: torch.stack(list(model(x[None]).last_hidden_state[0])).mean(0),
        24,
        4,
    ),
    "timesformer": Small(
        lambda: tf.TimesformerModel(tf.TimesformerConfig(**LAYERS, num_frames=4)),
        VIDEO_LIKE,
        lambda model, x: model(x[None]).last_hidden_state[0, 0],
        24,
        4,
    ),
    "vivit": Small(
        lambda: tf.VivitModel(tf.VivitConfig(**{key: LAYERS[key] for key in LAYERS if key != "patch_size"}, **TUBES)),
        _processor("VivitImageProcessor", CUT | {"resample": 2, "rescale_factor": 1 / 127.5, "offset": True}),
        lambda model, x: model(x[None]).last_hidden_state[0, 0],
        24,
        4,
        offset=1.0,
    ),
    "vjepa2": Small(
        _jepa,
        CUT | {"resample": 2, "video_processor_type": "VJEPA2VideoProcessor"},
        lambda model, x: model.encoder(x[None]).last_hidden_state[0].mean(0),
        48,
        4,
        file="video_preprocessor_config.json",
    ),
    "xclip": Small(
        _xclip,
        VIDEO_LIKE | {"image_processor_type": "VideoMAEFeatureExtractor"},
        lambda model, x: model.vision_model(x).pooler_output.mean(0),
        24,
        4,
        projected=lambda model, x: model.mit(model.visual_projection(model.vision_model(x).pooler_output)[None])[1][0],
    ),
}
