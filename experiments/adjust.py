"""What a method does to the last layer of a head once it is trained."""

from torch import Tensor

from ..balance import ADJUSTMENTS
from ..errors import LongreelError
from ..heads import Standardised
from ..parts import build_part


def adjust_output(head: Standardised, adjustment: str | None, counts: Tensor) -> None:
    """Adjust the output in place, for classes with so many real training clips ``(C,)``; ``None`` leaves it alone.

    Raises:
        LongreelError: When its numbers are not finite any more.
    """
    if adjustment is None:
        return
    build_part("adjustment", ADJUSTMENTS, adjustment)(head.output, counts)
    if not (head.output.weight.isfinite().all() and head.output.bias.isfinite().all()):
        raise LongreelError(
            f"{adjustment}: the last layer's numbers are not finite behind it. Take a smaller tau, and another folder."
        )
