"""A head that others trained as a run of ours, so that it is evaluated and compared like one."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save

from ..balance import count_training_clips, make_groups
from ..durable import make_folder, owned, write_bytes, write_json
from ..errors import LongreelError, StoreMismatch
from ..heads import build_head
from ..heads.released import Released, load_released
from ..manifest import read_manifest
from ..provenance import describe_environment
from ..store import FeatureStore
from .lists import read_names
from .runs import claim, resolve_config, store_digest
from .settings import TrainSettings


def import_checkpoint(
    path: Path, folder: Path, settings: TrainSettings, *, names: Path | None = None, order: str | None = None
) -> dict:
    """Make a finished run of a checkpoint of VideoLT's or MOVE's code. Nothing in the file is run.

    Args:
        path: The checkpoint, such as ``ckpt.best.pth.tar``.
        folder: The run; it must be new, or hold this very run.
        settings: Store and manifest to evaluate it on, groups and test frames. What else they say has no part in it.
        names: File with the classes' names in the order of the checkpoint's logits, as VideoLT's
            ``count-labels-train.lst``; ``None`` where that is the order of ``manifest.classes``.
        order: As in ``load_released``.

    Returns:
        What the file says of itself, and the head.

    Raises:
        ForeignRefused: When the file is no such checkpoint, or holds more than tensors and numbers.
        StoreMismatch: When it takes features of another width than the store's.
        LongreelError: When its classes are not those of the manifest.
    """
    released = load_released(path, order)
    manifest = read_manifest(settings.manifest, settings.root)
    store = FeatureStore(settings.store)
    dim, classes = int(released.facts["dim"]), int(released.facts["classes"])
    if dim != store.spec.dim:
        raise StoreMismatch(f"{path}: takes features {dim} wide, those of {store.folder} are {store.spec.dim} wide.")
    places = _match_classes(path, classes, manifest.classes, names)
    head = build_head(released.head, dim, classes, torch.zeros(dim), torch.ones(dim))
    head.head.load_state_dict(released.tensors)  # type: ignore[attr-defined]
    with torch.no_grad():
        for tensor in (head.output.weight, head.output.bias):
            tensor.data = tensor[places]  # a manifest may have some of the classes alone
    counts = count_training_clips(manifest)
    groups = make_groups(settings.groups, manifest.classes, counts)
    config = resolve_config(settings, manifest, store, store_digest(store, manifest)) | {
        "groups": asdict(groups),
        "counts": counts,
    }
    config |= {"head": released.head, "balance": f"imported {path.name}", "method": None, "standardise": False}
    content = save(head.state_dict())
    config["imported"] = released.facts | {"digest": hashlib.sha256(content).hexdigest()}
    make_folder(folder)
    with owned(folder / ".lock", str(folder)):
        claim(folder, json.loads(json.dumps(config)))
        write_bytes(folder / "head.safetensors", content)
        write_json(folder / "provenance.json", describe_environment("torch", "safetensors"))
        write_json(folder / "result.json", _make_result(released))
    return {"folder": str(folder), "head": released.head, **released.facts}


def _match_classes(path: Path, count: int, classes: Sequence[str], names: Path | None) -> list[int]:
    """For each class of the manifest its place among the checkpoint's logits."""
    theirs = list(classes) if names is None else list(read_names(names))
    if count != len(theirs):
        what = "the manifest" if names is None else str(names)
        raise LongreelError(
            f"{path}: scores {count} classes, {what} has {len(theirs)}. Give their names with --classes."
        )
    if missing := [name for name in classes if name not in theirs]:
        raise LongreelError(f"{names}: has no class {missing[0]!r}, which the manifest has. Give the checkpoint's own.")
    place = {name: index for index, name in enumerate(theirs)}
    return [place[name] for name in classes]


def _make_result(released: Released) -> dict:
    return {
        "epoch": int(released.facts.get("epoch", 0)),
        "selection": "imported: whoever trained it chose the epoch, the released code on the test list",
        "val": None,
        "failed": {"train": 0, "val": 0},
        "partial": {"train": 0, "val": 0},
    }
