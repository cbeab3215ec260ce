"""Which training clips a run learns from, and how far it trusts in them."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..balance import TRUSTS, Method, Trusted
from ..errors import LongreelError
from ..parts import build_part
from .clips import ClipSet
from .settings import TrainSettings


@dataclass(frozen=True)
class Learnt:
    """The clips that a training learns from."""

    trusted: Trusted
    clips: Tensor | None  #: indices of those that any stage draws from; ``None``: all there are.


def choose_clips(train: ClipSet, method: Method, trust: str, fill: int | None, counts: Tensor) -> Learnt:
    """Settle it for a run.

    Args:
        train: The training clips, real and generated.
        method: Its stages say which kind they draw from.
        trust: In generated clips: a name of ``TRUSTS``.
        fill: Up to how many clips of a class generated ones are used; all of them if ``None``.
        counts: Real training clips, ``(C,)``.

    Raises:
        LongreelError: When a stage has no clips, or some clips have no uncertainty that ``trust`` goes by.
    """
    made, kinds = build_part("trust", TRUSTS, trust), {stage.clips for stage in method.stages}
    for kind, there in (("real", ~train.generated), ("generated", train.generated)):
        if kind in kinds and not there.any():
            raise LongreelError(f"there is no {kind} clip to learn from. Give some, or choose another curriculum.")
    filled = torch.ones_like(train.generated) if fill is None else train.filled(fill, counts)
    drawn = filled & train.generated if kinds != {"real"} else torch.zeros_like(filled)
    if made.needs_uncertainty and (unknown := train.uncertainty.isnan() & drawn).any():
        first = train.ids[int(unknown.nonzero()[0])]
        raise LongreelError(
            f"trust {trust} goes by the uncertainty of generated clips, and {int(unknown.sum())} have none in the "
            f"manifest, such as {first!r}. See `longreel generate inspect`; `longreel generate fill --scores ... "
            f"--keep 'uncertainty<=1'` leaves those out that have none."
        )
    trusted = made(train.targets, train.generated, torch.where(drawn, train.uncertainty, 0.0))
    if fill is not None:
        trusted = replace(trusted, kept=filled if trusted.kept is None else filled & trusted.kept)
    for kind in sorted(kinds):
        if (pool := train.pool(kind, trusted.kept)) is not None and len(pool) == 0:
            raise LongreelError(f"no {kind} clip is left to learn from by fill {fill} and trust {trust}. Take others.")
    seen = kinds.pop() if len(kinds) == 1 else "all"
    return Learnt(trusted, train.pool(seen, trusted.kept))


def check_generated(train: ClipSet, settings: TrainSettings) -> None:
    """Refuse settings that do nothing where there are no generated clips.

    Raises:
        LongreelError: Naming the first of them.
    """
    asked = {"curriculum": settings.curriculum, "trust": settings.trust, "fill": settings.fill}
    plain = {"curriculum": ("joint", "real"), "trust": ("full",), "fill": (None, "0")}
    if train.generated.any():
        return
    for key, value in asked.items():
        if value not in plain[key]:
            raise LongreelError(
                f"{key} {value} is about generated clips, and the manifest has none in train. "
                f"See `longreel generate fill`, or leave it out."
            )
