"""A head so small that it can be followed by hand, and batches for the tests of mixers."""

import torch
from torch import Tensor

from longreel.balance import Batch, Known

COUNTS = torch.tensor([40.0, 12.0, 3.0])


class MeanHead:
    """The mean of the frames that count, as each clip's vector and as its logits; it remembers what it was shown."""

    def __init__(self, branches: int = 1) -> None:
        self.branches = branches
        self.frames = self.mask = self.clips = torch.zeros(0)

    def aggregate(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        assert mask is not None
        self.frames, self.mask = frames, mask
        weights = mask[0] if mask.ndim == 4 else mask  # the first branch's views
        sums = (frames * weights[..., None]).sum(dim=-2)
        return sums / weights.sum(dim=-1, keepdim=True).clamp(min=1)

    def classify(self, clips: Tensor) -> Tensor:
        self.clips = clips
        return clips


def make_batch(seed: int = 0, clips: int = 9, frames: int = 12, dim: int = 5) -> Batch:
    """Clips of 4 to ``frames`` rows, padded with large numbers; every third has two labels."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(4, frames + 1, (clips,), generator=generator)
    mask = torch.arange(frames) < lengths[:, None]
    rows = torch.randn(clips, frames, dim, generator=generator).where(mask[..., None], torch.tensor(1e4))
    targets = torch.eye(3)[torch.arange(clips) % 3]
    targets[::3, 1] = 1.0
    return Batch(rows, mask, targets)


def make_known(seed: int = 0, running_ap: tuple[float, ...] = (0.9, 0.5, 0.1)) -> Known:
    return Known(COUNTS, torch.tensor(running_ap), torch.Generator().manual_seed(seed))
