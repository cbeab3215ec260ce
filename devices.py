"""Which device computes, on how many cores, and how numbers come to it."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

from .errors import EnvironmentFault, unknown

if TYPE_CHECKING:
    import torch

DEVICES = ("auto", "cpu", "cuda")


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def naming_full_memory(device: "torch.device") -> Iterator[None]:
    """Turn a device's full memory into an ``EnvironmentFault``."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        reason = str(error).strip().partition(". ")[0]
        raise EnvironmentFault(
            f"{device}: the device's memory is full ({reason}). Take smaller batches, fewer trainings at a time "
            f"(sweep --pack), or leave the features outside it (train --features memory)."
        ) from error


def send(values: "torch.Tensor", device: "torch.device") -> "torch.Tensor":
    """Numbers of the CPU on a device, without waiting until it has done all that it was asked before.

    A plain copy to a GPU does wait for that, and one from memory that the system may move can.
    """
    if device.type == "cuda" and values.device.type == "cpu":
        values = values.pin_memory()
    return values.to(device, non_blocking=device.type != "cpu")


def send_beside(
    work: Callable[[], tuple["torch.Tensor", ...]], device: "torch.device"
) -> Callable[[], tuple["torch.Tensor", ...]]:
    """Do work that sends numbers to a device, at once, and have them come while the device computes other things.

    Args:
        work: Gives tensors that are on the device.
        device: Where; on the CPU the work is done, and no more.

    Returns:
        What gives them to the thread that computes: what it then asks of the device waits there until they have come.
    """
    import torch

    if device.type == "cpu":
        found = work()
        return lambda: found
    module, aside = torch.get_device_module(device), _stream_aside(device)
    with module.stream(aside):
        found = work()
        come = aside.record_event()

    def take() -> tuple["torch.Tensor", ...]:
        now = module.current_stream(device)
        now.wait_event(come)
        for each in found:
            each.record_stream(now)  # the next batch gets its memory when this stream is done with it, and not before
        return found

    return take


@cache
def _stream_aside(device: "torch.device") -> "torch.Stream":
    """One for all that is sent, as each stream keeps memory of its own."""
    import torch

    return torch.get_device_module(device).Stream(device)


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


def keep_convolutions_exact(device: "torch.device") -> None:
    """In this process a GPU's convolutions keep all digits of their precision, and are the same in each run.

    By itself torch rounds what goes into them to 10 bits, and may add in another order each time.
    """
    import torch

    if device.type == "cuda":
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.deterministic = True
