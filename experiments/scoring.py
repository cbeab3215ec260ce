"""Scores of trained heads."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from .clips import ClipSet
from .drawn import Drawn

SCORE_CLIPS = 256
SCORE_ROWS = 65536


def score_clips(head: nn.Module, clips: ClipSet, frames: int | None = None) -> np.ndarray:
    """Logits ``(clips, C)`` float32 of a head in evaluation mode.

    Args:
        head: Scores ``(B, T, D)`` with a mask.
        clips: What to score.
        frames: Rows spread evenly over each clip; all of them if ``None``.
    """
    return score_together([head], clips, frames)[0]


@torch.no_grad()
def score_together(heads: Sequence[nn.Module], clips: ClipSet, frames: int | None = None) -> list[np.ndarray]:
    """The same of several heads, each batch being read once."""
    if len(clips) == 0:
        return [np.zeros((0, clips.targets.shape[1]), dtype=np.float32) for _ in heads]
    found: list[list[Tensor]] = [[] for _ in heads]
    for head in heads:
        head.eval()
    for batch in clips.batches(cut(clips, frames), frames):
        drawn = Drawn(*batch)
        for scores, head in zip(found, heads, strict=True):
            scores.append(head(*drawn.for_head(head)))
    return [torch.cat(scores).cpu().numpy() for scores in found]


def cut(clips: ClipSet, frames: int | None, count: int | None = None) -> tuple[Tensor, ...]:
    """Clip indices in batches of at most 256 and, padded, about 65 536 rows: one long clip fills no memory.

    They are numbered from 0 up to ``count``, or to all there are.
    """
    longest = frames or int(clips.lengths.max())
    return torch.arange(len(clips) if count is None else count).split(max(1, min(SCORE_CLIPS, SCORE_ROWS // longest)))
