"""Where a training stands, and its checkpoint: one safetensors file, no pickle, whole or not at all."""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ..durable import write_bytes
from ..errors import RunMismatch

OWN = ("running_ap", "draws")  #: tensors of the progress that are one each.


@dataclass
class Progress:
    """Where a training stands; together with head and optimiser this is all of its state."""

    epoch: int = 0  #: epochs done.
    best_epoch: int = 0  #: counted from 1.
    best_value: float = -math.inf
    best: dict[str, Tensor] = field(default_factory=dict)
    running_ap: Tensor = field(default_factory=lambda: torch.zeros(0))  #: ``(C,)`` of the epoch before.
    memory: dict[str, Tensor] = field(default_factory=dict)  #: what the mixer keeps from batch to batch.
    draws: Tensor = field(default_factory=torch.get_rng_state)  #: state of the generator, but for clips and frames.
    history: list[dict] = field(default_factory=list)
    seconds: float = 0.0  #: on the clock; an epoch's are divided among the trainings that shared its batches.


def save_checkpoint(path: Path, head: nn.Module, optimiser: torch.optim.Optimizer, progress: Progress) -> None:
    """Write head, best head, optimiser state, and all of the progress."""
    tensors = {f"head.{name}": tensor for name, tensor in head.state_dict().items()}
    tensors |= {f"best.{name}": tensor for name, tensor in progress.best.items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{key}": tensor for key, tensor in state.items()}
    tensors |= {f"memory.{name}": tensor for name, tensor in progress.memory.items()}
    tensors |= {name: getattr(progress, name) for name in OWN}
    facts = {key: value for key, value in vars(progress).items() if key not in ("best", "memory", *OWN)}
    write_bytes(path, save(on_cpu(tensors), metadata={"progress": json.dumps(facts)}))


def on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors brought back from a device, for a file; those of the CPU as they are."""
    return {name: tensor.cpu() for name, tensor in tensors.items()}


def load_checkpoint(
    path: Path,
    head: nn.Module,
    make_optimiser: Callable[[int], torch.optim.Optimizer],
    progress: Progress,
    device: torch.device,
) -> None:
    """Put everything back as ``save_checkpoint`` found it; ``make_optimiser`` is given the number of epochs done.

    The head is on the device already, and all that goes with it comes there.

    Raises:
        RunMismatch: When the file is no checkpoint.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, SafetensorError) as error:
        raise RunMismatch(f"{path}: cannot be read ({error}). Remove it, and the training begins anew.") from None
    head.load_state_dict(_under(tensors, "head."))
    state: dict[int, dict] = {}
    for name, tensor in _under(tensors, "optimiser.").items():
        index, key = name.split(".", 1)
        state.setdefault(int(index), {})[key] = tensor
    for key, value in json.loads(metadata["progress"]).items():
        setattr(progress, key, value)
    optimiser = make_optimiser(progress.epoch)
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    progress.best = {name: tensor.to(device) for name, tensor in _under(tensors, "best.").items()}
    progress.memory = {name: tensor.to(device) for name, tensor in _under(tensors, "memory.").items()}
    progress.running_ap, progress.draws = tensors["running_ap"].to(device), tensors["draws"]


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
