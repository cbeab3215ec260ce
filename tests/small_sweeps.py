"""A sweep on the store of `write_small_store`: a few quick epochs, searched in four ways."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from longreel.experiments.spaces import read_space
from longreel.experiments.sweep import Sweep, check_sweep, claim_sweep, read_objective

SPACE = """
[settings]
epochs = 3
batch_size = 16
[space]
learning_rate = { low = 1e-4, high = 1e-1, log = true }
"head.hidden" = { low = 8, high = 32, step = 8 }
"head.dropout" = { low = 0.0, high = 0.5 }
balance = ["ce", "balanced-softmax"]
"""
GRID = """
[settings]
epochs = 2
batch_size = 16
head = "nonlinear:hidden=8"
[space]
learning_rate = [1e-3, 1e-2, 1e30]
balance = ["ce", "balanced-softmax"]
"""


def sweep_of(made, folder: Path, text: str = SPACE, *, objective: str = "map", **more: Any) -> Sweep:
    """A sweep whose space is written beside its folder; ``more`` replaces what it has of its own."""
    (folder / "space.toml").write_text(text)
    space, goal = read_space(folder / "space.toml"), read_objective(objective)
    return replace(Sweep(made.store, made.manifest, space, goal, sampler="random", groups="5,10"), **more)


def begin(sweep: Sweep, folder: Path) -> Path:
    """The sweep's folder, checked and claimed."""
    document = check_sweep(sweep)
    folder.mkdir(parents=True, exist_ok=True)
    claim_sweep(folder, document)
    return folder
