"""What is done to the last layer of a trained head, in place, so that the saved head has it."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..errors import LongreelError, unknown


class Output(Protocol):
    """A head's last layer."""

    @property
    def weight(self) -> Tensor:
        """``(C, E)``"""
        ...

    @property
    def bias(self) -> Tensor:
        """``(C,)``, added to the logits."""
        ...


class Adjustment(Protocol):
    """Changes a last layer in place, for classes with so many real training clips ``(C,)``.

    It shifts and stretches each class's logits: it changes which class wins, and no class's own order of clips.
    """

    @property
    def needs_prior(self) -> bool:
        """Whether a class without real training clips makes it undefined."""
        ...

    def __call__(self, output: Output, counts: Tensor) -> None: ...


@dataclass(frozen=True)
class TauNorm:
    """Divide each class's weights by their length to the power ``tau``.

    Reference:
        Kang et al., "Decoupling Representation and Classifier for Long-Tailed Recognition", ICLR 2020, eq. (3),
        arXiv:1910.09217: ``w_c / |w_c|^tau``. ``tau=1`` gives length 1. The paper chooses tau on val, from 0 to 1.

    Args:
        tau: The power. 0 leaves the layer as it is, bias and all.
        bias: ``drop`` sets the bias to 0: paper and released code score without it. ``scale`` divides it like the
            weights, so that each class's logit is only stretched; ``keep`` leaves it.
    """

    tau: float = 1.0
    bias: str = "drop"
    needs_prior = False

    def __post_init__(self) -> None:
        if not 0 <= self.tau < math.inf:
            raise LongreelError(f"tau-norm: tau={self.tau:g} must be at least 0.")
        if self.bias not in ("drop", "scale", "keep"):
            raise unknown("bias of tau-norm", self.bias, ("drop", "scale", "keep"))

    @torch.no_grad()
    def __call__(self, output: Output, counts: Tensor) -> None:
        if self.tau == 0:
            return
        lengths = output.weight.norm(dim=1).clamp(min=torch.finfo(output.weight.dtype).tiny)  # (C,)
        factors = lengths**-self.tau
        output.weight.mul_(factors[:, None])
        if self.bias == "drop":
            output.bias.zero_()
        elif self.bias == "scale":
            output.bias.mul_(factors)


@dataclass(frozen=True)
class LogitAdjustment:
    """Take ``tau * log(prior)`` from the logits, by way of the bias.

    Reference:
        Menon et al., "Long-tail learning via logit adjustment", ICLR 2021, eq. (9), arXiv:2007.07314. For a head
        trained with plain softmax cross-entropy; after Balanced Softmax or a class-balanced sampler it counts twice.

    Raises:
        LongreelError: When a class has no real training clip.
    """

    tau: float = 1.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.tau):
            raise LongreelError(f"logit-adjustment: tau={self.tau} must be a finite number.")

    @property
    def needs_prior(self) -> bool:
        return self.tau != 0.0

    @torch.no_grad()
    def __call__(self, output: Output, counts: Tensor) -> None:
        if self.tau == 0:
            return
        if (counts <= 0).any():
            raise LongreelError("logit-adjustment needs real training clips of every class: its prior counts these.")
        prior = counts.double() / counts.sum()
        output.bias.sub_((self.tau * prior.log()).to(output.bias))


#: name -> adjustment. docs/losses.md has options, sources and differences.
ADJUSTMENTS: dict[str, Callable[..., Adjustment]] = {
    "tau-norm": TauNorm,
    "logit-adjustment": LogitAdjustment,
}
