"""Scores of a trained head."""

import numpy as np
import torch
from torch import Tensor, nn

from .clips import ClipSet

SCORE_CLIPS = 256
SCORE_ROWS = 65536


@torch.inference_mode()
def score_clips(head: nn.Module, clips: ClipSet, frames: int | None = None) -> np.ndarray:
    """Logits ``(clips, C)`` float32 of a head in evaluation mode.

    Args:
        head: Scores ``(B, T, D)`` with a mask.
        clips: What to score.
        frames: Rows spread evenly over each clip; all of them if ``None``.
    """
    head.eval()
    if len(clips) == 0:
        return np.zeros((0, clips.targets.shape[1]), dtype=np.float32)
    return torch.cat([head(*clips.batch(batch, frames)) for batch in cut(clips, frames)]).numpy()


def cut(clips: ClipSet, frames: int | None) -> tuple[Tensor, ...]:
    """Clip indices in batches of at most 256 and, padded, about 65 536 rows: one long clip fills no memory."""
    longest = frames or int((clips.offsets[1:] - clips.offsets[:-1]).max())
    return torch.arange(len(clips)).split(max(1, min(SCORE_CLIPS, SCORE_ROWS // longest)))
