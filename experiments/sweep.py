"""What a sweep searches, where, how and for which figure; checked before anything is trained."""

import reprlib
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..balance import count_training_clips, make_groups
from ..durable import write_json
from ..errors import LongreelError, ManifestError, RunMismatch, unknown
from ..manifest import Manifest, read_manifest
from ..store import FeatureStore
from .choices import check_choices
from .optimisation import SELECTIONS
from .runs import read_document, store_digest
from .settings import TrainSettings, make_settings
from .spaces import Space, Values
from .trials import PRUNERS, SAMPLERS, grid_size


@dataclass(frozen=True)
class Objective:
    """The figure on val that is to be large: ``map``, or of a group: ``tail.map``."""

    group: str | None
    figure: str  #: a key of ``SELECTIONS``.

    @property
    def column(self) -> str:
        """As a suite names it: ``tail.class_average``."""
        figure = self.figure.replace("-", "_")
        return figure if self.group is None else f"{self.group}.{figure}"


def read_objective(text: str) -> Objective:
    """The objective of that name.

    Raises:
        LongreelError: When there is no such figure.
    """
    group, _, figure = text.rpartition(".")
    if figure not in SELECTIONS:
        raise unknown("objective", figure, SELECTIONS)
    return Objective(group or None, figure)


@dataclass(frozen=True)
class Sweep:
    """What is searched, where, and how."""

    store: Path
    manifest: Path
    space: Space
    objective: Objective = field(default_factory=lambda: Objective(None, "map"))
    sampler: str = "tpe"
    pruner: str = "none"
    seed: int = 0  #: of the search, and of every training in it, so that all of them see the same batches.
    root: Path | None = None
    protocol: str | None = None
    groups: str | None = None  #: rule in place of the protocol's.
    device: str = "cpu"  #: that trains.
    precision: str = "float32"  #: of products, if neither the space nor the protocol has one.

    def given(self, values: Values) -> dict[str, Any]:
        """What a training with these values is asked for, but for the seed.

        Raises:
            LongreelError: As ``Space.fill``.
        """
        asked = {"select": self.objective.figure, **self.space.fill(values)}
        return asked if self.groups is None else asked | {"groups": self.groups}

    def settings(self, values: Values) -> TrainSettings:
        """The settings of a trial.

        Raises:
            LongreelError: When a name is not known or a value cannot be used.
        """
        given = self.given(values) | {"seed": self.seed}
        rules = {"root": self.root, "protocol": self.protocol, "precision": self.precision}
        return make_settings(self.store, self.manifest, given, **rules)


def check_sweep(sweep: Sweep) -> dict:
    """Refuse, before anything is trained, what would leave the sweep without figures.

    Returns:
        What makes two sweeps the same, for ``claim_sweep``.

    Raises:
        LongreelError: When a part of the sweep is not known, there is nothing to train or select on, or a choice or
            an end of a range cannot be trained.
    """
    import torch

    for kind, name, known in (("sampler", sweep.sampler, SAMPLERS), ("pruner", sweep.pruner, PRUNERS)):
        if name not in known:
            raise unknown(kind, name, known)
    if sweep.sampler == "grid":
        grid_size(sweep.space)
    manifest = read_manifest(sweep.manifest, sweep.root)
    if not manifest.split("train"):
        raise ManifestError(f"{sweep.manifest}: has no train clips. Give some rows the split train.")
    if not manifest.split("val"):
        raise ManifestError(
            f"{sweep.manifest}: has no val clips, and a sweep chooses on nothing else. Give some training rows the "
            f"split val; test clips stay unseen."
        )
    store = FeatureStore(sweep.store)
    groups = _check_extremes(sweep, manifest, store)
    return ({} if sweep.device == "cpu" else {"device": sweep.device, "precision": sweep.precision}) | {
        **sweep.space.describe(),
        "objective": sweep.objective.column,
        "sampler": sweep.sampler,
        "pruner": sweep.pruner,
        "seed": sweep.seed,
        "protocol": sweep.protocol,
        "groups": groups,
        "manifest_digest": manifest.digest,
        "store_digest": store_digest(store, manifest),
        "threads": torch.get_num_threads(),
    }


def _check_extremes(sweep: Sweep, manifest: Manifest, store: FeatureStore) -> dict:
    """Every choice and every end of a range must be of use by itself; gives the groups of classes."""
    counts = count_training_clips(manifest)
    groups = make_groups(sweep.settings(next(sweep.space.extremes())).groups, manifest.classes, counts)
    _check_group(sweep, manifest, groups.members)
    for values in sweep.space.extremes():
        try:
            check_choices(sweep.settings(values), counts, store.spec)
        except LongreelError as error:
            shown = ", ".join(f"{key} = {value}" for key, value in values.items())
            raise type(error)(f"{sweep.space.path}: with {shown}: {error}") from None
    return asdict(groups)


def _check_group(sweep: Sweep, manifest: Manifest, members: dict[str, list[int]]) -> None:
    group = sweep.objective.group
    if group is None:
        return
    if group not in members:
        raise unknown("group", group, members)
    names = {manifest.classes[index] for index in members[group]}
    if not any(names.intersection(clip.labels) for clip in manifest.split("val")):
        raise LongreelError(f"{sweep.manifest}: has no val clips of the group {group!r}. Choose another objective.")


def claim_sweep(folder: Path, document: dict) -> None:
    """Make the folder this sweep's, or check that it already is.

    Raises:
        RunMismatch: When it holds another sweep, or something else.
    """
    path = folder / "sweep.json"
    if not path.exists():
        if stray := [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]:
            raise RunMismatch(f"{folder}: is not empty and no sweep ({stray[0]}). Give a new folder with --out.")
        write_json(path, document)
        return
    known = read_document(path)
    for key in sorted(known.keys() | document.keys()):
        if known.get(key) != document.get(key):
            mine, theirs = (reprlib.repr(each.get(key)) for each in (known, document))
            raise RunMismatch(
                f"{folder}: holds another sweep: {key} is {mine} there, {theirs} now. "
                f"Give the same options and space, or another folder with --out."
            )
