"""Checks of what a user asks of a head."""

import math
from collections.abc import Collection

from ..errors import LongreelError, unknown

MOST = 1 << 20  #: hidden units, centres, neighbours.


def check_at_least(least: int, head: str, **options: int) -> None:
    """Refuse whole numbers that are too small, or so large that no memory would do."""
    for name, value in options.items():
        if value < least:
            raise LongreelError(f"{head}: {name}={value} must be {least} or more.")
        if value > MOST:
            raise LongreelError(f"{head}: {name}={value} must be {MOST} or less.")


def check_share(head: str, **options: float) -> None:
    """Refuse what is not a part of one."""
    for name, value in options.items():
        if not 0 <= value < 1:
            raise LongreelError(f"{head}: {name}={value:g} must be at least 0 and below 1.")


def check_above_zero(head: str, **options: float) -> None:
    """Refuse what is not a finite number above 0."""
    for name, value in options.items():
        if not 0 < value < math.inf:
            raise LongreelError(f"{head}: {name}={value:g} must be a number above 0.")


def check_choice(head: str, name: str, value: str, known: Collection[str]) -> None:
    """Refuse a word that is not among the known ones."""
    if value not in known:
        raise unknown(f"{name} of {head}", value, known)


def check_divides(head: str, heads: int, dim: int) -> None:
    """Refuse attention heads that do not share the features evenly."""
    check_at_least(1, head, heads=heads)
    if dim % heads:
        near = max(count for count in range(1, heads) if dim % count == 0)
        raise LongreelError(f"{head}: heads={heads} do not share {dim} numbers of a row evenly. Take heads={near}.")
