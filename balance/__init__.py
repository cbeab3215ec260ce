"""What is done about the long tail: class counts and groups, and the balance methods."""

from collections.abc import Sequence

from ..errors import LongreelError, unknown
from .counts import Groups, count_training_clips, make_groups
from .losses import BinaryCrossEntropy, Loss, SoftCrossEntropy

__all__ = [
    "METHODS",
    "BinaryCrossEntropy",
    "Groups",
    "Loss",
    "SoftCrossEntropy",
    "choose_method",
    "count_training_clips",
    "make_groups",
]

#: balance method -> its loss.
METHODS: dict[str, Loss] = {
    "ce": SoftCrossEntropy(tau=0.0),
    "bce": BinaryCrossEntropy(),
    "balanced-softmax": SoftCrossEntropy(tau=1.0),
}


def choose_method(name: str, counts: Sequence[int]) -> Loss:
    """The balance method of that name, for classes with so many real training clips.

    Raises:
        LongreelError: When there is none, or it needs a prior and a class has no real training clip.
    """
    if name not in METHODS:
        raise unknown("balance method", name, METHODS)
    if METHODS[name].needs_prior and min(counts) == 0:
        raise LongreelError(f"{name} needs real training clips of every class: its prior counts nothing else.")
    return METHODS[name]
