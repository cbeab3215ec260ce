"""What is done about the long tail: class counts and groups, and the balance methods."""

from ..errors import unknown
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


def choose_method(name: str) -> Loss:
    """The balance method of that name.

    Raises:
        LongreelError: When there is none.
    """
    if name not in METHODS:
        raise unknown("balance method", name, METHODS)
    return METHODS[name]
