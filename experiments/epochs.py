"""The heads of a run's epochs, kept where they are asked for: ``RUN/epochs/00012.safetensors``."""

from pathlib import Path

from safetensors.torch import save
from torch import nn

from ..durable import make_folder, write_bytes
from ..errors import RunMismatch
from .checkpoint import on_cpu

EPOCHS = "epochs"


def open_epochs(run: Path, *, wanted: bool, begun: bool) -> Path | None:
    """The folder for the heads of a run's epochs, made where they are wanted; a run that has it goes on with it.

    Raises:
        RunMismatch: When epochs of the training were done without it.
    """
    folder = run / EPOCHS
    if folder.exists():
        return folder
    if not wanted:
        return None
    if begun:
        raise RunMismatch(f"{run}: was begun without --keep-epochs. Leave it out, or train into another folder.")
    make_folder(folder)
    return folder


def keep_epoch(folder: Path, epoch: int, head: nn.Module) -> None:
    """Keep the head as it is behind an epoch, counted from 1."""
    write_bytes(folder / f"{epoch:05d}.safetensors", save(on_cpu(head.state_dict())))


def forget_epochs(folder: Path) -> None:
    """Remove all of them."""
    for path in kept_epochs(folder).values():
        path.unlink()


def kept_epochs(folder: Path) -> dict[int, Path]:
    """Epoch -> the file of its head."""
    return {int(path.stem): path for path in sorted(folder.glob("*.safetensors"))}
