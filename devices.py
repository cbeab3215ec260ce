"""Which device computes, and on how many cores."""

import os
from typing import TYPE_CHECKING

from .errors import EnvironmentFault, unknown

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda")


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def choose_device(name: str) -> "torch.device":
    """``cpu``, ``cuda``, or for ``auto`` the GPU where torch finds one.

    Raises:
        LongreelError: When there is no such choice.
        EnvironmentFault: When a GPU is asked for and torch finds none.
    """
    import torch

    if name not in DEVICES:
        raise unknown("device", name, DEVICES)
    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        raise EnvironmentFault("--device cuda: torch finds no GPU. Use --device cpu, or a torch built for your GPU.")
    return torch.device("cuda" if found and name != "cpu" else "cpu")
