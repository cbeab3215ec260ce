"""Which part of the clips this process takes: as it is told, or as torchrun or a Slurm array tell it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from .errors import LongreelError

Item = TypeVar("Item")
TORCHRUN = ("RANK", "WORLD_SIZE")
SLURM = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "SLURM_ARRAY_TASK_MIN")
STEP = "SLURM_ARRAY_TASK_STEP"


@dataclass(frozen=True)
class Slice:
    """The part ``number`` of ``count``. Numbers begin at 1."""

    number: int = 1
    count: int = 1

    def __str__(self) -> str:
        return f"{self.number}of{self.count}"

    def of(self, items: Sequence[Item]) -> Sequence[Item]:
        """The items of this slice: every ``count``-th one."""
        return items[self.number - 1 :: self.count]


WHOLE = Slice()


def parse_slice(text: str) -> Slice:
    """``2/8`` -> the second of eight slices.

    Raises:
        LongreelError: When it is not of that form.
    """
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise LongreelError(f"--shard {text!r} is not i/n with i from 1 to n, such as 2/8.")
    return Slice(int(number), int(count))


def slice_of_environment(environment: Mapping[str, str]) -> tuple[Slice, str]:
    """The slice that torchrun and Slurm give this process, and words that say so; the whole and none without them.

    Each task of an array may be a torchrun of its own: then every process of every task has a slice of its own.

    Raises:
        LongreelError: When a variable is no number, or out of range.
    """
    tasks, words = WHOLE, []
    if all(name in environment for name in SLURM):
        first, task, count = (_number(environment, name) for name in (SLURM[2], SLURM[0], SLURM[1]))
        step = max(1, _number(environment, STEP)) if STEP in environment else 1
        tasks = _checked((task - first) // step, count, f"Slurm array task {task}")
        words.append(f"Slurm array task {tasks.number} of {tasks.count}")
    ranks = WHOLE
    if all(name in environment for name in TORCHRUN):
        rank, world = (_number(environment, name) for name in TORCHRUN)
        ranks = _checked(rank, world, f"torchrun rank {rank}")
        words.append(f"torchrun rank {rank} of {world}")
    whole = Slice((tasks.number - 1) * ranks.count + ranks.number, tasks.count * ranks.count)
    return whole, f"shard {whole.number}/{whole.count}: {', '.join(words)}" if words else ""


def _number(environment: Mapping[str, str], name: str) -> int:
    if not environment[name].isdecimal():
        raise LongreelError(f"{name}={environment[name]!r} is no number. Unset it, or say --shard i/n.")
    return int(environment[name])


def _checked(place: int, count: int, what: str) -> Slice:
    if not 0 <= place < count:
        raise LongreelError(f"{what} is not one of {count}. Say --shard i/n.")
    return Slice(place + 1, count)
