"""What the bootstrap draws of one run give, kept beside its scores: a table made again takes no time."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from ..durable import write_bytes
from .evaluate import load_scored
from .runs import read_config
from .statistics import Metric, metric_draws


@dataclass(frozen=True)
class Draws:
    """What is drawn for a table."""

    split: str
    columns: tuple[str, ...]  #: none: the overall figures and each group's class average.
    count: int = 1000
    seed: int = 0


def metrics_of(columns: Sequence[str], groups: Mapping[str, Sequence[int]]) -> dict[str, Metric]:
    """What columns such as ``map`` and ``tail.map`` read from an evaluation."""
    by_group = [f"{name}.class_average" for name, members in groups.items() if members]

    def read(column: str) -> Metric:
        group, _, figure = column.rpartition(".")
        return lambda evaluation: getattr(evaluation.groups[group] if group else evaluation.overall, figure)

    return {column: read(column) for column in (columns or ["acc1", "class_average", "map", *by_group])}


def draw_run(folder: Path, draws: Draws) -> np.ndarray:
    """Each column's figure of an evaluated run, ``(M, 1 + W)``: on the clips as they are, then on each draw of them."""
    path = folder / f"draws-{draws.split}.safetensors"
    scores = (folder / f"scores-{draws.split}.safetensors").read_bytes()
    config = read_config(folder)
    groups = config["groups"]["members"]
    facts = [hashlib.sha256(scores).hexdigest(), config["manifest_digest"], groups, list(draws.columns)]
    told = json.dumps([*facts, draws.count, draws.seed])
    try:
        with safe_open(path, framework="numpy") as file:
            if file.metadata() == {"of": told}:
                return file.get_tensor("figures")
    except (OSError, SafetensorError):
        pass  # not drawn yet, or of an earlier version: drawn again
    found, targets, _ = load_scored(folder, draws.split)
    figures = metric_draws([found], targets, groups, metrics_of(draws.columns, groups), draws.count, draws.seed)[:, 0]
    write_bytes(path, save({"figures": np.ascontiguousarray(figures)}, metadata={"of": told}))
    return figures
