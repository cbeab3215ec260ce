"""The heads and MOVE as the papers write them down, in plain PyTorch: what step_speed.py compares with.

Parameters have the names of longreel's heads, so that both can be given the same numbers.
"""

import random

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from longreel.balance.move import tail_weight

WIDTH, CLASSES, CLUSTERS, REDUCED, HIDDEN, HEADS = 2048, 1004, 64, 1024, 2048, 4


class Nonlinear(nn.Module):
    """Two layers on every frame, then the mean of the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(WIDTH, HIDDEN)
        self.dropout = nn.Dropout(0.5)
        self.project = nn.Linear(HIDDEN, CLASSES)

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        logits = self.project(self.dropout(self.hidden(frames).relu()))  # (B, T, C)
        return (logits * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)


class Codebook(nn.Module):
    """Sums of residuals to centres, each of length 1, then all together of length 1."""

    def __init__(self) -> None:
        super().__init__()
        self.nearness = nn.Linear(WIDTH, CLUSTERS)
        self.centres = nn.Parameter(torch.randn(CLUSTERS, WIDTH))

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        shares = self.nearness(frames).softmax(dim=-1) * mask[..., None]  # (B, T, K)
        sums = shares.transpose(1, 2) @ frames - shares.sum(dim=1)[..., None] * self.centres
        return F.normalize(F.normalize(sums, dim=2).flatten(1), dim=1)


class NetVlad(nn.Module):
    """The codebook's sums, reduced."""

    def __init__(self) -> None:
        super().__init__()
        self.codebook = Codebook()
        self.reduce = nn.Linear(CLUSTERS * WIDTH, REDUCED, bias=False)
        self.normalise = nn.BatchNorm1d(REDUCED)

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        return F.relu6(self.normalise(self.reduce(self.codebook(frames, mask))))


class Attention(nn.Module):
    """Prototypical self-attention with a key and a value of every frame."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.project = (nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(4))
        self.dropout = nn.Dropout(0.1)
        self.norm = nn.LayerNorm(WIDTH, eps=1e-6)

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        mean = (frames * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)
        query = self.query(mean).unflatten(1, (HEADS, 1, -1))  # (B, H, 1, D / H)
        key, value = (each(frames).unflatten(2, (HEADS, -1)).transpose(1, 2) for each in (self.key, self.value))
        scores = query @ key.transpose(2, 3) / key.shape[-1] ** 0.5
        weights = scores.masked_fill(~mask[:, None, None], -1e9).softmax(dim=-1)
        found = (self.dropout(weights) @ value).flatten(1)
        return self.norm(self.dropout(self.project(found)) + mean)


class Pair(nn.Module):
    """Both aggregators."""

    def __init__(self) -> None:
        super().__init__()
        self.vlad, self.attention = NetVlad(), Attention()


class TwoLayers(nn.Module):
    """Hidden layer and logits of a clip's vector."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(width, HIDDEN)
        self.dropout = nn.Dropout(0.5)
        self.project = nn.Linear(HIDDEN, CLASSES)

    def forward(self, clips: Tensor) -> Tensor:
        return self.project(self.dropout(self.hidden(clips).relu()))


class OneLayer(nn.Module):
    """Logits of a clip's vector."""

    def __init__(self) -> None:
        super().__init__()
        self.project = nn.Linear(REDUCED, CLASSES)

    def forward(self, clips: Tensor) -> Tensor:
        return self.project(clips)


class NetVladHead(nn.Module):
    """NetVLAD and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.aggregator, self.classifier = NetVlad(), OneLayer()

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        return self.classifier(self.aggregator(frames, mask))


class Aggregated(nn.Module):
    """NetVLAD and self-attention side by side, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.aggregator, self.classifier = Pair(), TwoLayers(REDUCED + WIDTH)

    def pool(self, frames: Tensor, masks: Tensor) -> Tensor:
        """One view; ``masks`` are ``(2, B, T)``: of the self-attention and of NetVLAD."""
        return torch.cat([self.aggregator.vlad(frames, masks[1]), self.aggregator.attention(frames, masks[0])], dim=1)


def draw_masks(targets: Tensor, counts: Tensor, frames: int, sigma: int = 3) -> Tensor:
    """MOVE's dynamic frame sampler, clip by clip: ``(2 branches, 2 views, B, T)``."""
    tau = tail_weight(counts)
    masks = torch.zeros(2, 2, len(targets), frames, dtype=torch.bool)
    for branch in masks:
        for view in branch:
            for clip, target in enumerate(targets):
                bounds = [max(int(tau[label] * frames), sigma) for label in target.nonzero().flatten()]
                kept = random.randint(int(sum(bounds) / len(bounds)), frames)
                view[clip, random.sample(range(frames), kept)] = True
    return masks


def move_loss(
    head: Aggregated,
    frames: Tensor,
    targets: Tensor,
    counts: Tensor,
    masks: Tensor,
    beyond: Tensor,
    partner: Tensor,
    share: Tensor,
    gamma: float = 0.5,
) -> Tensor:
    """Equations (7) to (12) of MOVE with the draws given: masks ``(2, 2, B, T)``, beyond and share ``(B, 1)``."""
    first, second = (head.pool(frames, masks[:, view]) for view in range(2))
    clips = beyond * first + (1 - beyond) * second
    clips = share * clips + (1 - share) * clips[partner]
    mixed = share * targets + (1 - share) * targets[partner]
    mixed = (mixed * (1 - tail_weight(counts) + gamma)).clamp(max=1)
    return F.binary_cross_entropy_with_logits(head.classifier(clips), mixed)
