"""Weights of classes by how many clips they have, and the losses that use them."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ..errors import LongreelError, unknown
from .entropies import binary_cross_entropies, share_of, soft_cross_entropy

FORMS = ("bce", "ce")


def class_balanced_weights(counts: Tensor, beta: float | Tensor = 0.9999) -> Tensor:
    """One over the effective number of clips of each class, scaled to sum C.

    Reference:
        Cui et al., "Class-Balanced Loss Based on Effective Number of Samples", CVPR 2019, proposition 1 and
        section 4, arXiv:1901.05555: ``E_n = (1 - beta^n) / (1 - beta)``. ``beta=0`` gives ones; towards 1, ``1 / n``.

    Args:
        counts: Real training clips of each class, above 0: ``(C,)``.
        beta: In [0, 1), one for all classes or ``(C,)``.

    Shape:
        - output: ``(C,)`` in the dtype of the counts.
    """
    if not isinstance(beta, Tensor):
        # made where the counts are, as one number would have to be sent there
        beta = torch.full_like(counts, beta, dtype=torch.float64)
    effective = -torch.expm1(counts.double() * beta.log()) / (1.0 - beta)  # 1 - beta^n loses its digits in float32
    weights = 1.0 / effective
    return (weights * (len(counts) / weights.sum())).to(counts.dtype)


def action_aware_weights(counts: Tensor, upsilon: float = 0.99, spread: float = 0.0099) -> Tensor:
    """Class-balanced weights with a ``beta`` of each class, from ``upsilon`` (poorest) to ``upsilon + spread``.

    Reference:
        The released code of "Balanced Representation Learning" (BRL) for long-tailed skeleton actions:
        ``beta_c = upsilon + spread * (n_c - n_min) / (n_max - n_min)``, scaled to sum C.
        Differs from it: there the weights are written over from epoch to epoch, and every second epoch they are flat.
    """
    low, high = counts.min(), counts.max()
    place = (counts - low).double() / (high - low).clamp(min=1).double()  # all equal: every class is the poorest
    return class_balanced_weights(counts, upsilon + spread * place)


def weighted_mean(losses: Tensor, target: Tensor, weights: Tensor, *, per_class: bool) -> Tensor:
    """Mean over the classes of binary terms ``(B, C)``, weighted: ``(B,)``.

    Args:
        losses, target: ``(B, C)``.
        weights: Of the classes, ``(C,)``.
        per_class: Whether each class's term has the class's weight; else all terms of a clip have that of its class,
            and a clip of several classes, or with a soft target, the mean weight of its labels.
    """
    return (weights * losses).mean(dim=1) if per_class else share_of(target) @ weights * losses.mean(dim=1)


def check_form(part: str, form: str, released: bool) -> None:
    """Refuse a form that there is not, or that was not released.

    Raises:
        LongreelError: In these cases.
    """
    if form not in FORMS:
        raise unknown(f"form of {part}", form, FORMS)
    if released and form != "bce":
        raise LongreelError(f"{part}: VideoLT released the form bce alone. Leave out released=true, or form={form}.")


@dataclass(frozen=True)
class ClassBalanced:
    """Cross-entropy of a clip times the inverse effective number of clips of its class.

    Reference:
        Cui et al., CVPR 2019 (see ``class_balanced_weights``), section 4.2 with ``form="bce"``, 4.1 with ``form="ce"``.
        Differs from the paper: a clip of several classes has their mean weight, in ``ce`` each label's term its own;
        binary terms are averaged over the classes, not summed.
        Differs from VideoLT: there each class's binary term has its class's weight, ``w_c bce_c``, whoever the clip is
        of. ``released=true`` does so. It sets how fast the classes learn, and Adam undoes that in the last layer.

    Args:
        beta: Of the effective number.
        form: ``bce`` or ``ce``.
        released: Weigh as VideoLT's code does.
    """

    beta: float = 0.9999
    form: str = "bce"
    released: bool = False
    needs_prior = True

    def __post_init__(self) -> None:
        if not 0 <= self.beta < 1:
            raise LongreelError(f"class-balanced: beta={self.beta:g} must be at least 0 and below 1.")
        check_form("class-balanced", self.form, self.released)

    def __call__(self, logits: Tensor, target: Tensor, counts: Tensor) -> Tensor:
        weights = class_balanced_weights(counts, self.beta)  # (C,)
        if self.form == "ce":
            return soft_cross_entropy(logits, share_of(target), weights)
        return weighted_mean(binary_cross_entropies(logits, target), target, weights, per_class=self.released)


@dataclass(frozen=True)
class ActionAware:
    """Softmax cross-entropy with ``action_aware_weights``, as BRL trains its last epochs.

    Differs from the released code: that divides a batch's sum by the sum of its weights; here each clip stands for
    itself. A mixed clip has the mean of its two weighted losses in both.
    """

    upsilon: float = 0.99
    spread: float = 0.0099
    needs_prior = True

    def __post_init__(self) -> None:
        if not (self.upsilon >= 0 and self.spread >= 0 and self.upsilon + self.spread < 1):
            given = f"upsilon={self.upsilon:g}, spread={self.spread:g}"
            raise LongreelError(f"action-aware: {given}: both must be at least 0 and their sum below 1.")

    def __call__(self, logits: Tensor, target: Tensor, counts: Tensor) -> Tensor:
        weights = action_aware_weights(counts, self.upsilon, self.spread)
        return soft_cross_entropy(logits, share_of(target), weights)
