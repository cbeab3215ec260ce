"""A run: one training as a folder, with its resolved configuration, history, head, scores and provenance."""

import hashlib
import json
import reprlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as save_arrays
from safetensors.torch import load_file

from ..durable import write_bytes, write_json
from ..errors import RunMismatch
from ..heads import SKELETON_HEADS, Standardised, build_head
from ..layouts import Layout, read_layout
from ..manifest import Manifest
from ..store import FeatureStore, Spec
from .manifests import read_watermark
from .settings import TrainSettings, describe

PLACES = ("store", "manifest", "root")  #: may move while a training is interrupted; their digests may not change.
HEAD = "head.safetensors"  #: of a run: the chosen head.


def resolve_config(settings: TrainSettings, manifest: Manifest, store: FeatureStore, digest: str) -> dict:
    """The configuration with everything that defaults, files and the machine decided; the digest is the store's."""
    document = describe(settings) | {
        "store": str(settings.store.resolve()),
        "manifest": str(settings.manifest.resolve()),
        "root": str(manifest.root),
        "classes": list(manifest.classes),
        "manifest_digest": manifest.digest,
        "store_digest": digest,
        "spec": store.spec.as_dict(),
        "standardise": settings.standardise and settings.head.partition(":")[0] not in SKELETON_HEADS,
        "threads": torch.get_num_threads(),
        "watermark": read_watermark(manifest),
    }
    del document["fit"]["checkpoint_seconds"]  # has no part in the result
    return json.loads(json.dumps(document))


def store_digest(store: FeatureStore, manifest: Manifest) -> str:
    """One digest over the features that training can see: those of train and val."""
    seen = (*manifest.split("train"), *manifest.split("val"))
    return store.digest([clip.clip_id for clip in seen if clip.clip_id in store])


def store_layout(spec: Spec) -> Layout | None:
    """The layout of a store's joints; none where its rows are no skeletons.

    Raises:
        LongreelError: When the store holds a layout that is none.
    """
    return read_layout(spec.layout, "the store's layout") if spec.layout else None


def claim(folder: Path, config: dict) -> None:
    """Make the folder this configuration's, or check that it already is."""
    path = folder / "config.json"
    if not path.exists():
        if stray := [entry.name for entry in folder.iterdir() if not entry.name.startswith(".")]:
            raise RunMismatch(f"{folder}: is not empty and no run ({stray[0]}). Give a new folder with --out.")
        write_json(path, config)
        return
    known = read_document(path)
    found, wanted = ({key: each[key] for key in each if key not in PLACES} for each in (known, config))
    if found != wanted:
        key, mine, theirs = next(_differences(found, wanted))
        raise RunMismatch(
            f"{folder}: holds another run: {key} is {reprlib.repr(mine)} there, {reprlib.repr(theirs)} now. "
            f"Give the same options, or another folder with --out."
        )
    if known != config:  # its store or manifest has moved
        write_json(path, config)


def _differences(found: dict, wanted: dict):
    for key in sorted(found.keys() | wanted.keys()):
        mine, theirs = found.get(key), wanted.get(key)
        if isinstance(mine, dict) and isinstance(theirs, dict):
            yield from ((f"{key}.{inner}", *rest) for inner, *rest in _differences(mine, theirs))
        elif mine != theirs:
            yield key, mine, theirs


def write_scores(path: Path, scores: np.ndarray, ids: Sequence[str]) -> None:
    """Keep logits ``(clips, C)`` together with the clips' ids."""
    write_bytes(path, save_arrays({"scores": np.ascontiguousarray(scores)}, metadata={"ids": json.dumps(list(ids))}))


def read_scores(path: Path) -> tuple[np.ndarray, list[str]]:
    """The logits and ids that ``write_scores`` kept."""
    try:
        with safe_open(path, framework="numpy") as file:
            return file.get_tensor("scores"), json.loads(file.metadata()["ids"])
    except (OSError, SafetensorError) as error:
        raise RunMismatch(f"{path}: cannot be read ({error}). Remove it and evaluate again.") from None


def read_config(folder: Path) -> dict:
    """The resolved configuration of a finished run.

    Raises:
        RunMismatch: When the folder is no run, or its training has not finished.
    """
    if not (folder / "config.json").exists():
        raise RunMismatch(f"{folder}: is not a run. Make one with `longreel train STORE MANIFEST --out {folder}`.")
    if not (folder / "result.json").exists():
        raise RunMismatch(f"{folder}: its training has not finished. Run the same `longreel train` command again.")
    return read_document(folder / "config.json")


def read_document(path: Path) -> dict:
    """One of a run's JSON files.

    Raises:
        RunMismatch: When it cannot be read or holds something else.
    """
    try:
        document = json.loads(path.read_text())
        if not isinstance(document, dict):
            raise ValueError("not an object")
        return document
    except (OSError, ValueError) as error:
        raise RunMismatch(f"{path}: cannot be read ({error}). Restore it, or train into another folder.") from None


def hash_head(folder: Path) -> str:
    """SHA-256 of a run's head.

    Raises:
        RunMismatch: When it has none.
    """
    try:
        return hashlib.sha256((folder / HEAD).read_bytes()).hexdigest()
    except OSError as error:
        raise RunMismatch(f"{folder}: has no head ({error.strerror}). Restore it, or train again.") from None


def load_head(path: Path, config: dict) -> Standardised:
    """The head of a run that a file has, on raw features."""
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise RunMismatch(f"{path}: cannot be read ({error}). Train into another folder.") from None
    spec = Spec(**config["spec"])
    scale = tensors["mean"], tensors["deviation"]
    head = build_head(config["head"], spec.dim, len(config["classes"]), *scale, store_layout(spec))
    head.load_state_dict(tensors)
    return head
