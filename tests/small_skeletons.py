"""Short clips of joints for the tests of skeletons, and a head that shows what mixers do to them."""

import torch
from torch import Tensor

from longreel.balance import Batch, Known
from longreel.layouts import LAYOUTS, Layout
from longreel.poses import as_rows

KINECT, NTU, COCO = (LAYOUTS[name] for name in ("kinect20", "ntu25", "coco17"))
LENGTHS = (7, 1, 4, 5)
COUNTS = torch.tensor([100.0, 34.0, 33.0, 10.0])


def make_joints(layout: Layout, bodies: int = 1, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Joints ``(4, 7, M, V, C)`` around (1, 2, 3), all found; frames beyond a clip's length hold large numbers."""
    generator = torch.Generator().manual_seed(seed)
    shape = (4, 7, bodies, len(layout.joints), layout.channels)
    joints = torch.randn(shape, generator=generator, dtype=dtype) + torch.tensor([1.0, 2.0, 3.0], dtype=dtype)
    return torch.where(make_mask()[..., None, None, None], joints, 1e3)


def make_mask() -> Tensor:
    """``(4, 7)`` bool: so many frames of each clip come first."""
    return torch.arange(7) < torch.tensor(LENGTHS)[:, None]


def naive_axes(joints: Tensor, mask: Tensor, layout: Layout) -> Tensor:
    """What points left, up and to the front or back of one clip's first body ``(T, M, V, 3)``: ``(3, 3)``."""
    assert layout.upright is not None
    lower, upper, right, left = layout.upright
    ups, acrosses = [], []
    for frame in joints[mask].detach().double():
        body = frame[0]
        if all(bool((body[joint] != 0).any()) for joint in (lower, upper, right, left)):
            ups.append(body[upper] - body[lower])
            acrosses.append(body[left] - body[right])
    up, across = (torch.stack(lines).mean(dim=0) for lines in (ups, acrosses))
    up = up / up.norm()
    across = across - float(across @ up) * up
    across = across / across.norm()
    front = [across[a] * up[b] - across[b] * up[a] for a, b in ((1, 2), (2, 0), (0, 1))]
    return torch.stack([across, up, torch.stack(front)]).to(joints.dtype)


def scattered_mask() -> Tensor:
    """``(4, 7)`` bool: frames that exist stand anywhere among those of ``make_mask``."""
    return (
        torch.tensor([[0, 1, 0, 1, 1, 0, 1], [1, 0, 0, 0, 0, 0, 0], [1, 0, 0, 1, 0, 0, 0], [0, 0, 1, 1, 0, 0, 0]]) > 0
    )


class Watching:
    """A head that hands out the mean frame and keeps what it was shown."""

    branches = 1

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.frames = self.mask = torch.zeros(0)

    def aggregate(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        assert mask is not None
        self.frames, self.mask = frames, mask
        return (frames * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)

    def classify(self, clips: Tensor) -> Tensor:
        return clips[:, :4]


def make_batch(layout: Layout = KINECT, clips: int = 8, seed: int = 0, bodies: int = 1) -> Batch:
    """Clips of 1 to 9 frames, padded with large numbers, and one of 4 classes each; in clip 1 a joint was not found."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(9) < torch.randint(1, 10, (clips, 1), generator=generator)
    joints = torch.randn(clips, 9, bodies, len(layout.joints), 3, generator=generator) + 3.0
    joints[1, :, 0, 13] = 0.0
    rows = as_rows(joints).where(mask[..., None], torch.tensor(1e4))
    return Batch(rows, mask, torch.eye(4)[torch.arange(clips) % 4])


def make_known(seed: int = 0, counts: Tensor = COUNTS) -> Known:
    return Known(counts, torch.zeros(len(counts)), torch.Generator().manual_seed(seed))
