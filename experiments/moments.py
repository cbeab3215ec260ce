"""Mean and standard deviation of rows that come in parts, as more of them than memory holds must."""

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor

VALUES = 2**22  #: numbers taken at a time, 16 MiB in float32.
PIVOT = 64  #: every so manieth row of a block goes into what is taken off it.
Scale = tuple[Tensor, Tensor]  #: mean and deviation, each ``(D,)`` float32 on the CPU.


class Moments:
    """Of rows that are added block by block: each has moments of its own, which are joined in float64.

    A block's are sums in float32 of what is left of its rows without a row near their mean, so that columns far from
    zero lose no digits.

    Reference:
        Chan, Golub and LeVeque, "Algorithms for computing the sample variance", The American Statistician 1983.
    """

    def __init__(self) -> None:
        self._count = 0
        self._mean, self._squares = torch.zeros(2, dtype=torch.float64)  # (D,) each from the first block on

    def add(self, rows: Tensor) -> None:
        """``(N, D)``, N may be 0."""
        more = len(rows)
        if not more:
            return
        pivot = rows[::PIVOT].float().mean(dim=0)  # (D,)
        left = rows.float() - pivot
        beside = left.sum(dim=0).double() / more
        squares = (left.square_().sum(dim=0).double() - beside.square() * more).clamp(min=0)
        apart, total = pivot + beside - self._mean, self._count + more
        self._squares = self._squares + squares + apart.square() * (self._count * more / total)
        self._mean = self._mean + apart * (more / total)
        self._count = total

    def scale(self) -> Scale:
        """Mean and deviation of what was added; a constant column has deviation 1."""
        deviation = (self._squares / self._count).sqrt()
        deviation = torch.where(deviation > 1e-6, deviation, torch.ones_like(deviation))
        return self._mean.float().cpu(), deviation.float().cpu()


def measure(parts: Iterable[Tensor], kinds: Mapping[str, Tensor | None]) -> dict[str, Scale]:
    """The scale of each kind of rows; no bit depends on how the rows are parted.

    Args:
        parts: All rows in order, ``(N, D)`` each. They are taken to the end, also where no kind is asked for.
        kinds: Which rows are of a kind, ``(rows,)`` bool; ``None`` for all of them.
    """
    moments = {kind: Moments() for kind in kinds}
    begin = 0
    for block in _in_blocks(parts):
        end = begin + len(block)
        for kind, wanted in kinds.items():
            moments[kind].add(block if wanted is None else block[wanted[begin:end].to(block.device)])
        begin = end
    return {kind: each.scale() for kind, each in moments.items()}


def _in_blocks(parts: Iterable[Tensor]) -> Iterator[Tensor]:
    """The same rows in blocks of equal size, but for the last."""
    left: Tensor | None = None  # of a block that is not yet full
    for part in parts:
        size = max(1, VALUES // part.shape[1])
        if left is not None:
            missing = size - len(left)
            left, part = torch.cat([left, part[:missing]]), part[missing:]
            if not len(part):
                continue
            yield left
        *full, left = part.split(size)
        yield from full
    if left is not None:
        yield left
