"""Model families of transformers: what they take, and which of their numbers are the feature row."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ...errors import LongreelError
from .shifting import reach_of, shifted_rows

Inputs = dict[str, Tensor]
Rows = Callable[[Any, Inputs], Tensor]  #: model and its inputs -> ``(B, D)``


@dataclass(frozen=True)
class Family:
    """How windows become a model's input, and rows are taken from its output."""

    pixels: Callable[[Any, Tensor], Inputs]  #: configuration and pixels ``(B, T, 3, H, W)`` -> the model's arguments.
    pooled: Rows | None  #: ``None``: the model has no pooled form that we know.
    projected: Rows | None = None  #: in the space that the model shares with its text tower.
    window: Callable[[Any], int] | None = None  #: frames of a window; ``None`` for image models.
    reach: Callable[[Any], int] | None = None  #: see ``Backbone``; ``None`` where a window has one row.
    incomplete: Rows | None = None  #: instead of ``pooled`` where the weights lack a tensor that they may lack.
    unused: tuple[str, ...] = ("pooler",)  #: words in the names of tensors that the weights may lack.


def _image(config: Any, pixels: Tensor) -> Inputs:
    return {"pixel_values": pixels[:, 0]}


def _patches(config: Any, pixels: Tensor) -> Inputs:
    """SigLIP 2's NaFlex: one square grid of flat patches a picture, none of them padding."""
    side = getattr(config, "vision_config", config).patch_size
    batch, _, channels, height, width = pixels.shape
    down, across = height // side, width // side
    cut = pixels[:, 0].reshape(batch, channels, down, side, across, side).permute(0, 2, 4, 3, 5, 1)
    ones = torch.ones(batch, down * across, dtype=torch.int64, device=pixels.device)
    grid = torch.tensor([[down, across]], device=pixels.device).repeat(batch, 1)
    return {
        "pixel_values": cut.reshape(batch, down * across, -1),
        "pixel_attention_mask": ones,
        "spatial_shapes": grid,
    }


def _video(config: Any, pixels: Tensor) -> Inputs:
    return {"pixel_values": pixels}


def _jepa(config: Any, pixels: Tensor) -> Inputs:
    return {"pixel_values_videos": pixels}


def _common(model: Any, inputs: Inputs) -> Tensor:
    """The model's own pooled output where it has one, else class token, or mean over a feature map."""
    output = model(**inputs)
    pooled = getattr(output, "pooler_output", None)
    return pooled.flatten(1) if pooled is not None else _unpooled(output.last_hidden_state)


def _without_pooler(model: Any, inputs: Inputs) -> Tensor:
    """The same of a checkpoint whose weights have no pooler: a classifier's, say."""
    return _unpooled(model(**inputs).last_hidden_state)


def _unpooled(hidden: Tensor) -> Tensor:
    return hidden.mean(dim=(2, 3)) if hidden.ndim == 4 else hidden[:, 0]


def _pooler(model: Any, inputs: Inputs) -> Tensor:
    """The pooled output, of models whose tokens have no class token to stand in for it."""
    pooled = model(**inputs).pooler_output
    if pooled is None:
        raise LongreelError("the model was saved without its pooling head, so it has no pooled row. Use another one.")
    return pooled


def _tower(model: Any, inputs: Inputs) -> Tensor:
    return _pooler(model.vision_model, inputs)


def _image_features(model: Any, inputs: Inputs) -> Tensor:
    return _tensor(model.get_image_features(**inputs))


def _video_features(model: Any, inputs: Inputs) -> Tensor:
    return _tensor(model.get_video_features(**inputs))


def _tensor(output: Any) -> Tensor:
    """transformers 5 gives an output object that has the projected vector where others have the pooled one."""
    return output if isinstance(output, Tensor) else output.pooler_output


def _token_mean(model: Any, inputs: Inputs) -> Tensor:
    return model(**inputs).last_hidden_state.mean(dim=1)


def _encoder_mean(model: Any, inputs: Inputs) -> Tensor:
    return model(**inputs, skip_predictor=True).last_hidden_state.mean(dim=1)


def _class_token(model: Any, inputs: Inputs) -> Tensor:
    return model(**inputs).last_hidden_state[:, 0]


def _frame_mean(model: Any, inputs: Inputs) -> Tensor:
    """X-CLIP's vision tower: the frames of a window, which see one another, averaged."""
    pixels = inputs["pixel_values"]  # (B, T, 3, H, W)
    frames = model.vision_model(pixel_values=pixels.flatten(0, 1)).pooler_output  # (B*T, D)
    return frames.unflatten(0, pixels.shape[:2]).mean(dim=1)


#: words in the names of tensors that pooled rows of a model with a text side need not.
PROJECTING = ("text_model", "text_projection", "visual_projection", "logit_")
_IMAGE = Family(_image, _common, incomplete=_without_pooler)
_TWO_TOWERS = Family(_image, _tower, _image_features)

#: ``model_type`` in config.json -> the family.
FAMILIES: dict[str, Family] = {
    "mobilenet_v2": _IMAGE,
    "resnet": _IMAGE,
    "convnext": _IMAGE,
    "vit": _IMAGE,
    "dinov2": _IMAGE,
    "dinov2_with_registers": _IMAGE,
    "dinov3_vit": _IMAGE,
    "dinov3_convnext": _IMAGE,
    "clip": _TWO_TOWERS,
    "clip_vision_model": _IMAGE,
    "siglip": _TWO_TOWERS,
    "siglip_vision_model": Family(_image, _pooler),
    "siglip2": Family(_patches, _tower, _image_features),
    "siglip2_vision_model": Family(_patches, _pooler),
    "videomae": Family(_video, _token_mean, window=lambda config: config.num_frames),
    "timesformer": Family(_video, _class_token, window=lambda config: config.num_frames),
    "vivit": Family(_video, _class_token, window=lambda config: config.num_frames),
    "vjepa2": Family(
        _jepa, _encoder_mean, window=lambda config: config.frames_per_clip, unused=("pooler", "predictor")
    ),
    "xclip": Family(
        _video, _frame_mean, _video_features, window=lambda config: config.vision_config.num_frames
    ),
}  # fmt: skip


SHIFTED_FRAMES = 160  #: seen at a time: VideoLT's 150 at once, and about 1 GB of memory for a ResNet-50.
#: a ResNet with a temporal shift.
SHIFTED = Family(_video, shifted_rows, window=lambda config: max(SHIFTED_FRAMES, reach_of(config)), reach=reach_of)
#: any other image model, taken by its common outputs.
OTHER = _IMAGE
#: any other model of pictures and text: only its projected picture has a common name.
OTHER_WITH_TEXT = Family(_image, None, _image_features)


def family_of(config: dict) -> Family:
    """The family of a model by its configuration; a ResNet's may ask for a temporal shift.

    Raises:
        LongreelError: When it asks for one that we do not know.
    """
    model_type, shift = config.get("model_type"), config.get("temporal_shift")
    if shift is None:
        return FAMILIES.get(str(model_type), OTHER)
    if model_type != "resnet" or not isinstance(shift, int) or shift < 2:
        raise LongreelError(
            f"temporal_shift {shift!r} of a {model_type} is not understood. Expected a resnet, and a whole number from "
            f"2 on: the part of the channels that is shifted each way, 8 for an eighth."
        )
    return SHIFTED
