"""Which training clips a run learns from, and how far it trusts in them."""

from dataclasses import dataclass, replace

from torch import Tensor

from ..balance import TRUSTS, Method, Trusted
from ..errors import LongreelError
from ..parts import build_part
from .clips import ClipSet


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
    made = build_part("trust", TRUSTS, trust)
    if made.needs_uncertainty and train.uncertainty[train.generated].isnan().any():
        raise LongreelError(
            f"trust {trust} goes by the uncertainty of generated clips, and some have none in the manifest. "
            f"See `longreel generate inspect`, and `longreel generate fill --scores`."
        )
    trusted = made(train.targets, train.generated, train.uncertainty)
    if fill is not None:
        filled = train.filled(fill, counts)
        trusted = replace(trusted, kept=filled if trusted.kept is None else filled & trusted.kept)
    kinds = {stage.clips for stage in method.stages}
    for kind in sorted(kinds):
        if (pool := train.pool(kind, trusted.kept)) is not None and len(pool) == 0:
            raise LongreelError(f"there is no {kind} clip to learn from. Give some, or choose another curriculum.")
    seen = kinds.pop() if len(kinds) == 1 else "all"
    return Learnt(trusted, train.pool(seen, trusted.kept))
