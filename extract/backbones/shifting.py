"""The temporal shift: a ResNet whose residual branches see parts of the frames before and behind theirs.

Reference:
    Lin, Gan & Han, "TSM: Temporal Shift Module for Efficient Video Understanding", ICCV 2019, arXiv:1811.08383,
    sections 3 and 4: the residual shift, with an eighth of the channels each way. Released as ``shift8_blockres``.
    Differs from the paper, which trains on 8 or 16 frames of a clip: here the shift runs over all sampled frames of a
    clip in order, and a row is one frame's vector before the classifier, as VideoLT's features are.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

#: frames of one pass through a layer. One fixed shape keeps the bits, and small batches are fastest on a CPU.
CHUNKS = {"cpu": 8, "cuda": 32}
DEEP = 23  #: blocks of the third stage from which on only every second block shifts, in the released code.


def shift(near: Tensor, division: int) -> Tensor:
    """The first ``C // division`` channels of every frame from the next frame, as many more from the one before.

    ``(1 + T + 1, C, H, W)`` -> ``(T, C, H, W)``: the first and the last frame given are only looked at.
    """
    fold = near.shape[1] // division
    now = near[1:-1].clone()
    now[:, :fold] = near[2:, :fold]
    now[:, fold : 2 * fold] = near[:-2, fold : 2 * fold]
    return now


def step_of(config: Any) -> int:
    """Every how manyth block of a stage shifts."""
    return 2 if len(config.depths) > 2 and config.depths[2] >= DEEP else 1


def reach_of(config: Any) -> int:
    """How many frames before and behind its own a row depends on: as many as blocks shift."""
    return sum(-(-depth // step_of(config)) for depth in config.depths)


def shifted_rows(model: Any, inputs: dict[str, Tensor]) -> Tensor:
    """The rows of one clip's frames, which are zero before its first and behind its last.

    Layer by layer, a few frames at a time in one fixed shape: the number of frames changes no bit of a row that is
    more than ``reach_of`` frames away from where they end.

    Args:
        model: A ``ResNetModel`` of transformers, with ``temporal_shift`` in its configuration.
        inputs: ``pixel_values``, ``(1, T, 3, H, W)``.

    Returns:
        ``(1, T, D)``.
    """
    (pixels,) = inputs["pixel_values"]
    count, size = len(pixels), CHUNKS[pixels.device.type]
    hidden = _framed(-(-count // size) * size + 2, pixels)
    hidden[1 : count + 1], hidden[count + 1 :] = pixels, 0
    hidden = _by_chunks(lambda near: model.embedder(near[1:-1]), hidden, count, size)
    for stage in model.encoder.stages:
        for number, layer in enumerate(stage.layers):
            division = 0 if number % step_of(model.config) else model.config.temporal_shift
            hidden = _by_chunks(partial(_block, layer, division), hidden, count, size)
    pooled = _by_chunks(lambda near: model.pooler(near[1:-1]), hidden, count, size)
    return pooled[1 : count + 1].flatten(1)[None]


def _block(layer: Any, division: int, near: Tensor) -> Tensor:
    """A residual block, its branch on shifted frames: ``(1 + T + 1, C, H, W)`` -> ``(T, C', H', W')``."""
    now = near[1:-1]
    branch = layer.layer(shift(near, division) if division else now)
    return layer.activation(branch + layer.shortcut(now))


def _by_chunks(part: Callable[[Tensor], Tensor], hidden: Tensor, count: int, size: int) -> Tensor:
    """``part`` of ``size`` frames and their two neighbours at a time.

    ``hidden`` and the result are ``(1 + N + 1, ...)`` with N a multiple of ``size``, and zero before and behind the
    clip's ``count`` frames.
    """
    out = None
    for begin in range(0, count, size):
        made = part(hidden[begin : begin + size + 2])
        out = _framed(len(hidden), made) if out is None else out
        out[begin + 1 : begin + 1 + size] = made
    assert out is not None, "a clip has at least one frame"
    out[count + 1 :] = 0
    return out


def _framed(length: int, like: Tensor) -> Tensor:
    """``(length, C, H, W)`` to be filled but for the first frame, which is zero; the channels last in memory."""
    shape = (length, *like.shape[1:])
    out = torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)
    out[0] = 0
    return out
