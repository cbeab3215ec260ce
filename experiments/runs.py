"""A run: one training as a folder, with its resolved configuration, history, head, scores and provenance."""

import json
import reprlib
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as save_arrays
from safetensors.torch import load_file, save
from torch import Tensor

from ..balance import ADJUSTMENTS, METHODS, Method, build_stage, choose_method, count_training_clips, make_groups
from ..durable import make_folder, owned, write_bytes, write_json
from ..errors import LongreelError, ManifestError, RunMismatch
from ..heads import Standardised, build_head
from ..manifest import Manifest, read_manifest
from ..parts import build_part
from ..provenance import describe_environment
from ..store import FeatureStore
from .clips import ClipSet, load_clips
from .fit import Progress, fit
from .manifests import read_watermark
from .metrics import evaluate_scores
from .optimisation import SELECTIONS
from .scoring import cut, score_clips
from .settings import TrainSettings
from .stages import lay_out

CHECKPOINT = "checkpoint.safetensors"
PREPARED_ROWS = 16384  #: training rows that a head may look at before it is trained.
PLACES = ("store", "manifest", "root")  #: may move while a training is interrupted; their digests may not change.


@dataclass(frozen=True)
class Trained:
    """What ``train_run`` tells of a finished run."""

    folder: Path
    epoch: int  #: the chosen one, counted from 1.
    selection: str
    val: float | None  #: the selected metric on val at that epoch.
    failed: dict[str, int]  #: clips of each split without features: absent from training, scored lowest in val.
    partial: dict[str, int]  #: clips of each split that could be decoded in part only; they are used.


def train_run(folder: Path, settings: TrainSettings, on_epoch: Callable[[dict], None] = lambda row: None) -> Trained:
    """Train a head on a store. The same call goes on where an interrupted one stopped, and ends in the same weights.

    Raises:
        RunMismatch: When the folder holds a run of another configuration.
        InUse: When another process is training there.
        StoreMismatch: When clips of the manifest were never extracted.
    """
    ready = _prepare(settings)
    make_folder(folder)
    with owned(folder / ".lock", str(folder)):
        claim(folder, ready.config)
        if not (folder / "result.json").exists():
            if ready.head.trainable:
                checkpoint = folder / CHECKPOINT
                progress = fit(
                    ready.head, ready.method, ready.counts, ready.train, ready.val, settings.fit, checkpoint, on_epoch
                )
                _adjust(ready)
            else:
                progress = _remember(ready, settings)
            _finish(folder, ready, progress, settings)
        for left in (folder / CHECKPOINT, *folder.glob(".*.tmp")):
            left.unlink(missing_ok=True)
        return Trained(folder, **read_document(folder / "result.json"))


@dataclass(frozen=True)
class _Ready:
    """Everything that a training needs, checked, before anything is written."""

    config: dict
    method: Method
    counts: Tensor  #: ``(C,)`` real training clips.
    train: ClipSet
    val: ClipSet | None
    head: Standardised


def _prepare(settings: TrainSettings) -> _Ready:
    manifest = read_manifest(settings.manifest, settings.root)
    if not manifest.split("train"):
        raise ManifestError(f"{settings.manifest}: has no training clips. Give some rows the split train.")
    counts = count_training_clips(manifest)
    own = {"loss": settings.loss, "sampler": settings.sampler, "mixer": settings.mixer}
    released = settings.compat == "released"
    method = choose_method(settings.balance, counts, **own, adjustment=settings.adjustment, released=released)
    lay_out(method, settings.fit.epochs)  # that every stage finds its epochs
    groups = make_groups(settings.groups, manifest.classes, counts)
    store = FeatureStore(settings.store)
    train = load_clips(store, manifest, "train")
    val = load_clips(store, manifest, "val") if manifest.split("val") else None
    _check_trainable(settings, manifest, train, val)
    mean, deviation = train.statistics()
    if not settings.standardise:
        mean, deviation = torch.zeros_like(mean), torch.ones_like(deviation)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.fit.seed)
        head = build_head(settings.head, store.spec.dim, len(manifest.classes), mean, deviation)
    if not head.trainable:
        _check_plain(settings, method)
    for stage in method.stages:
        build_stage(stage).mixer.check(head)
    head.prepare(train.draw_rows(PREPARED_ROWS, settings.fit.seed), settings.fit.seed)
    config = resolve_config(settings, manifest, store) | {"groups": asdict(groups), "counts": counts}
    config |= {"method": json.loads(json.dumps(asdict(method)))}
    return _Ready(config, method, torch.tensor(counts, dtype=torch.float32), train, val, head)


def _check_trainable(settings: TrainSettings, manifest: Manifest, train: ClipSet, val: ClipSet | None) -> None:
    """Refuse what failed clips have made untrainable."""
    advice = f"See `longreel store info {settings.store}`."
    found = train.targets.sum(dim=0) if len(train) else torch.zeros(len(manifest.classes))
    if missing := [name for name, clips in zip(manifest.classes, found, strict=True) if clips == 0]:
        raise LongreelError(f"class {missing[0]!r} has no training clip left, all of them failed. {advice}")
    if val is not None and len(val) == 0:
        raise LongreelError(f"all {len(val.failed)} val clips failed, so no epoch can be selected. {advice}")


def resolve_config(settings: TrainSettings, manifest: Manifest, store: FeatureStore) -> dict:
    """The configuration with everything that defaults, files and the machine decided."""
    document = asdict(settings) | {
        "store": str(settings.store.resolve()),
        "manifest": str(settings.manifest.resolve()),
        "root": str(manifest.root),
        "classes": list(manifest.classes),
        "manifest_digest": manifest.digest,
        "store_digest": store_digest(store, manifest),
        "spec": asdict(store.spec),
        "threads": torch.get_num_threads(),
        "watermark": read_watermark(manifest),
    }
    del document["fit"]["checkpoint_seconds"]  # has no part in the result
    return json.loads(json.dumps(document))


def store_digest(store: FeatureStore, manifest: Manifest) -> str:
    """One digest over the features that training can see: those of train and val."""
    seen = (*manifest.split("train"), *manifest.split("val"))
    return store.digest([clip.clip_id for clip in seen if clip.clip_id in store])


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


def _check_plain(settings: TrainSettings, method: Method) -> None:
    """Refuse a method of which a head that is not trained would take no notice."""
    given = next(filter(None, (settings.loss, settings.sampler, settings.mixer, settings.adjustment)), None)
    if given is not None or method not in (METHODS["ce"], METHODS["bce"]):  # what is trained if nothing is said
        what = given or settings.balance
        raise LongreelError(f"{settings.head} is not trained, so {what} has no part in it. Leave it out.")


@torch.inference_mode()
def _remember(ready: _Ready, settings: TrainSettings) -> Progress:
    """What a head that is not trained does in place of it: it takes the training clips as they are."""
    head, train, frames = ready.head.eval(), ready.train, settings.fit.test_frames
    clips = torch.cat([head.aggregate(*train.batch(batch, frames)) for batch in cut(train, frames)])
    head.remember(clips, train.targets)
    return Progress()


def _adjust(ready: _Ready) -> None:
    """What the method does to the last layer of the chosen head."""
    if ready.method.adjustment is not None:
        output, given = ready.head.output, ready.method.adjustment
        build_part("adjustment", ADJUSTMENTS, given)(output, ready.counts)
        if not (output.weight.isfinite().all() and output.bias.isfinite().all()):
            raise LongreelError(
                f"{given}: the last layer's numbers are not finite behind it. Take a smaller tau, and another folder."
            )


def _finish(folder: Path, ready: _Ready, progress: Progress, settings: TrainSettings) -> None:
    """Write the run's files; ``result.json`` comes last and marks the run as finished."""
    train, val, select = ready.train, ready.val, settings.fit.select
    write_bytes(folder / "head.safetensors", save(ready.head.state_dict()))
    value = None
    if val is not None:
        scores, targets = val.with_failed(score_clips(ready.head, val, settings.fit.test_frames))
        value = SELECTIONS[select](evaluate_scores(scores, targets))
        write_scores(folder / "scores-val.safetensors", scores, val.all_ids)
    write_json(folder / "history.json", progress.history)
    environment = describe_environment("torch", "numpy", "safetensors", "h5py")
    write_json(folder / "provenance.json", environment | {"finished": time.strftime("%FT%T%z")})
    chosen = f"best val {select}" if val is not None else "last epoch (no val split)"
    result = {
        "epoch": progress.best_epoch,
        "selection": chosen if ready.head.trainable else "not trained",
        "val": value,
        "failed": {"train": len(train.failed), "val": len(val.failed) if val else 0},
        "partial": {"train": train.partial, "val": val.partial if val else 0},
    }
    write_json(folder / "result.json", result)


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


def load_head(folder: Path, config: dict) -> Standardised:
    """The trained head of a run, on raw features."""
    try:
        tensors = load_file(folder / "head.safetensors")
    except (OSError, SafetensorError) as error:
        raise RunMismatch(f"{folder}/head.safetensors: cannot be read ({error}). Train into another folder.") from None
    head = build_head(
        config["head"], config["spec"]["dim"], len(config["classes"]), tensors["mean"], tensors["deviation"]
    )
    head.load_state_dict(tensors)
    return head
