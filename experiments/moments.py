"""Mean and standard deviation of rows that come in parts, as more of them than memory holds must."""

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

VALUES = 2**22  #: numbers taken at a time, 16 MiB in float32.
STRIDE = 64  #: every 64th row of a block goes into what is taken off all of them.
Scale = tuple[Tensor, Tensor]  #: mean and deviation, each ``(D,)`` float32.


class Moments:
    """Of rows that are added block by block: each has moments of its own, which are joined in float64.

    A block's are sums in float32 of what is left of its rows when the mean of a few of them is taken off, so that
    columns far from zero lose no digits. Numbers from 1e19 on are too large for that.

    Reference:
        Chan, Golub and LeVeque, "Algorithms for computing the sample variance", The American Statistician 1983.

    Args:
        width: Of a row, ``D``.
    """

    def __init__(self, width: int) -> None:
        self._count = 0
        self._mean, self._squares = torch.zeros(2, width, dtype=torch.float64)  # (D,) each

    def add(self, rows: Tensor) -> None:
        """``(N, D)``, N may be 0."""
        more = len(rows)
        if not more:
            return
        pivot = rows[::STRIDE].float().mean(dim=0)  # (D,)
        left = rows.float() - pivot
        beside = left.sum(dim=0).double() / more
        squares = (left.square_().sum(dim=0).double() - beside.square() * more).clamp(min=0)
        apart, total = pivot + beside - self._mean, self._count + more
        self._squares = self._squares + squares + apart.square() * (self._count * more / total)
        self._mean = self._mean + apart * (more / total)
        self._count = total

    def scale(self) -> Scale:
        """Mean and deviation of what was added; the deviation of a constant column, or of no rows, is 1."""
        deviation = (self._squares / max(1, self._count)).sqrt()
        deviation = torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation))
        return self._mean.float(), deviation.float()


def measure(parts: Iterable[Tensor], width: int, kinds: Mapping[str, Tensor | None]) -> dict[str, Scale]:
    """The scale of each kind of rows; no bit depends on how the rows are parted.

    Args:
        parts: All rows in order, ``(N, D)`` each, on the CPU. They are taken to the end, also for no kinds.
        width: ``D``.
        kinds: Which rows are of a kind, ``(rows,)`` bool; ``None`` for all of them.
    """
    moments = {kind: Moments(width) for kind in kinds}
    begin = 0
    for block in _in_blocks(parts, max(1, VALUES // width)):
        end = begin + len(block)
        for kind, wanted in kinds.items():
            moments[kind].add(block if wanted is None else block[wanted[begin:end]])
        begin = end
    return {kind: each.scale() for kind, each in moments.items()}


def _in_blocks(parts: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """The same rows, so many at a time but for the last."""
    left = torch.empty(0)  # of a block that is not yet full
    for part in parts:
        if len(left):
            missing = size - len(left)
            left, part = torch.cat([left, part[:missing]]), part[missing:]
            if len(left) < size:
                continue
            yield left
        full = len(part) // size * size
        yield from part[:full].split(size) if full else ()
        left = part[full:].clone()  # the part itself need not be kept
    if len(left):
        yield left
