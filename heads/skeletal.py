"""Heads of skeletons: from padded rows of joints to what a network sees, and from there to a clip's vector."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor, nn

from ..layouts import Layout
from ..poses import as_joints, find_axes, find_origin, found_joints, move, take_frames, turn
from .classifiers import LinearClassifier
from .options import check_at_least, check_choice
from .pooled import Pooled
from .streams import JITTERS, STREAMS, Jitter, derive, draw_places, jitter, min_max, spread_places
from .views import as_asked, views_of

NORMALISATIONS = ("none", "min-max")


class Network(Protocol):
    """What is learnt: ``(B, T', M, V, C)``, and which bodies exist ``(B, M)``, -> ``(B, E)``."""

    width: int  #: E

    def __call__(self, values: Tensor, bodies: Tensor) -> Tensor: ...


class Skeletons(nn.Module):
    """Pool clips of joints: centre them, take a random view of them in training, derive a stream, pick frames, ask a
    network.

    A clip's origin is the spine of its first body in the first frame that has it. In training frames are drawn, one
    of each of ``frames`` equal parts of a clip's time; else they are spread evenly, ``spreads`` times, and the vector
    is the mean. Shorter clips have some frames several times.
    Streams are derived before frames are picked, so motion is that of the original rate.

    Args:
        layout: Of the joints.
        network: Whatever is learnt.
        stream: One of ``STREAMS``.
        frames: How many the network sees at once, ``T'``.
        spreads: How often it sees a clip that is scored. BRL's code takes the mean of the probabilities of ten random
            draws; even spreads, and the mean of the vectors, need no generator.
        upright: Whether clips are turned so that the first body stands along y and faces along z, where the layout
            says what that is (``poses.find_axes``).
        augment: Whether training turns, stretches and mirrors clips.
        normalise: ``min-max``, each axis of a clip to [-1, 1] as NW-UCLA's loaders have it, which undoes a stretch; or
            ``none``, which keeps units, as PYSKL does for NTU.

    Shape:
        - frames: ``(B, T, D)`` with ``D = M * V * C``, as they were stored: not standardised.
        - mask: as in ``Head``; a view's frames are taken for the whole clip.
        - output: ``(B, E)``, or ``(V, B, E)`` for V views, each with draws of its own.
    """

    branches = 1

    def __init__(
        self,
        layout: Layout,
        network: Network,
        *,
        stream: str,
        frames: int,
        spreads: int,
        upright: bool,
        augment: bool,
        normalise: str,
    ) -> None:
        super().__init__()
        check_choice("skeletons", "stream", stream, STREAMS)
        check_choice("skeletons", "normalise", normalise, NORMALISATIONS)
        check_at_least(1, "skeletons", frames=frames, spreads=spreads)
        derive(torch.zeros(1, 1, 1, len(layout.joints), layout.channels), torch.ones(1, 1).bool(), layout, stream)
        self.layout, self.network, self.width = layout, network, network.width
        self.stream, self.frames, self.spreads, self.normalise = stream, frames, spreads, normalise
        self.upright = upright
        self.jitter = JITTERS.get(layout.name, Jitter()) if augment else None

    def forward(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        views = views_of(mask)
        if views is None:
            views = torch.ones(1, *frames.shape[:2], dtype=torch.bool, device=frames.device)
        seen = frames.expand(len(views), -1, -1, -1).flatten(0, 1)  # (V * B, T, D)
        spreads, bodies = self.look(seen, views.flatten(0, 1))
        pooled = torch.stack([self.network(values, bodies) for values in spreads]).mean(dim=0)
        return as_asked(pooled.unflatten(0, views.shape[:2]), mask)

    def look(self, rows: Tensor, mask: Tensor) -> tuple[list[Tensor], Tensor]:
        """What the network sees of rows ``(B, T, D)`` with mask ``(B, T)``: bodies ``(B, M)``, and each time the joints
        ``(B, T', M, V, C)``.
        """
        joints = as_joints(rows, self.layout)
        found = found_joints(joints) & mask[..., None, None, None]
        joints = move(joints, -find_origin(joints, mask, self.layout), found)
        if self.upright:
            joints = turn(joints, find_axes(joints, found, self.layout), self.layout)
        if self.training and self.jitter is not None:
            joints = jitter(joints, self.layout, self.jitter)
        if self.normalise == "min-max":
            joints = min_max(joints, found, self.layout)
        values = derive(joints, mask, self.layout, self.stream)
        if self.training:
            places = (draw_places(mask, self.frames),)
        else:
            places = spread_places(mask, self.frames, self.spreads)
        return [take_frames(values, each) for each in places], found.any(dim=(1, 3, 4))

    def prepare(self, draw_rows: Callable[[], Tensor], seed: int) -> None:
        """Nothing comes from the training rows."""

    def explain(self, frames: Tensor, mask: Tensor | None = None) -> dict[str, Tensor]:
        return {}


class Skeletal(Pooled):
    """A head of skeletons, and their layout."""

    def __init__(self, skeletons: Skeletons, classes: int) -> None:
        super().__init__(skeletons, LinearClassifier(skeletons.width, classes))
        self.layout: Layout | None = skeletons.layout
