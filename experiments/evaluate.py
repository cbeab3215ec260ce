"""Evaluating a run on a split. The test split is opened once; later calls give what was found then."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..durable import naming_faults, owned, write_json
from ..errors import LongreelError, RunMismatch, unknown
from ..manifest import Manifest, read_manifest
from ..store import FeatureStore
from .calibration import Link, calibrate, link_of, plain_calibration
from .clips import load_clips, multi_hot
from .metrics import as_json, count_empty_as_zero, evaluate_scores
from .mixtures import mix_scores
from .runs import HEAD, hash_head, load_head, read_config, read_document, read_scores, store_digest, write_scores
from .scoring import score_clips

LOOKS = "looks.jsonl"  #: of a run: when each split was opened, and what for.
EMPTY = ("left-out", "zero")  #: what becomes of a class without a positive clip in class average and mAP.


def evaluate_run(folder: Path, split: str = "test", *, empty_class: str = "left-out") -> dict:
    """Score a split with the run's chosen head and compute its metrics.

    Clips that could not be extracted are scored as the lowest and counted. The evaluation is kept in the run's
    folder; the split is not opened again while it is there.

    Args:
        folder: A finished run.
        split: ``val`` or ``test``.
        empty_class: ``zero`` counts a class without a positive clip as 0 in class average and mAP, instead of leaving
            it out. It is worked out from the kept evaluation, which stays as it is.

    Returns:
        The document that ``longreel evaluate --json`` prints. One that an earlier version kept has no ``calibration``.

    Raises:
        RunMismatch: When the run has not finished, or manifest or store have changed since.
    """
    if empty_class not in EMPTY:
        raise unknown("way to count an empty class", empty_class, EMPTY)
    document = _evaluate(folder, split)
    return _with_zeros(document) if empty_class == "zero" else document


def _evaluate(folder: Path, split: str) -> dict:
    """The kept evaluation, or else a new one."""
    config = read_config(folder)
    if split not in ("val", "test"):
        raise unknown("split to evaluate on", split, ("val", "test"))
    kept, scores_path = folder / f"evaluation-{split}.json", folder / f"scores-{split}.safetensors"
    if kept.exists() and scores_path.exists():
        return _read_kept(folder, kept, split)
    with owned(folder / ".lock", str(folder)):
        if kept.exists() and scores_path.exists():  # by another process, in the meantime
            return _read_kept(folder, kept, split)
        manifest = read_same_manifest(folder, config)
        if not manifest.split(split):
            raise LongreelError(f"{manifest.path}: has no {split} clips.")
        found = (_score_parts if "fused" in config else _score)(folder, config, manifest, split)
        looks = log_look(folder, split, "evaluate")
        write_scores(scores_path, found.scores, found.ids)
        document = _make_document(folder, config, split, found.scores, found.targets) | {
            "failed": found.failed,
            "looks": looks,
            "calibration": _calibrate(config, manifest, found.scores, found.targets) if found.are_logits else None,
        }
        write_json(kept, document)
        return document


@dataclass(frozen=True)
class Scored:
    """The scores of a split's clips."""

    scores: np.ndarray  #: ``(N, C)``
    targets: np.ndarray  #: ``(N, C)`` bool
    ids: Sequence[str]
    failed: int  #: clips without features.
    are_logits: bool  #: of a head that was trained.


def _score(folder: Path, config: dict, manifest: Manifest, split: str) -> Scored:
    store = open_same_store(folder, config, manifest)
    clips = load_clips(store, manifest, split)
    head = load_head(folder / HEAD, config)
    scores, targets = clips.with_failed(score_clips(head, clips, config["fit"]["test_frames"]))
    return Scored(scores, targets, clips.all_ids, len(clips.failed), head.trainable)


def _score_parts(folder: Path, config: dict, manifest: Manifest, split: str) -> Scored:
    """Of a fused run: the weighted mean of what its parts say."""
    members, documents, scored = config["fused"]["runs"], [], []
    for member in members:
        part = folder / member["run"]
        if hash_head(part) != member["digest"]:
            raise RunMismatch(f"{part}: is not the run that {folder} was made of. Fuse again, into another folder.")
        documents.append(_evaluate(part, split))
        scored.append(load_scored(part, split))
    weights, links = [member["weight"] for member in members], [Link(**member["link"]) for member in members]
    scores = mix_scores([each for each, *_ in scored], weights, links)
    _, targets, ids = scored[0]
    return Scored(scores, targets, ids, max(document["failed"] for document in documents), True)


def read_same_manifest(folder: Path, config: dict) -> Manifest:
    manifest = read_manifest(Path(config["manifest"]), Path(config["root"]))
    if manifest.digest != config["manifest_digest"]:
        raise RunMismatch(
            f"{folder}: {config['manifest']} has changed since the training. Train again, or restore the manifest."
        )
    return manifest


def log_look(folder: Path, split: str, why: str) -> int:
    """Note that the split is opened; how often it has been, this time included."""
    path = folder / LOOKS
    with naming_faults(path, 0), open(path, "a", encoding="utf-8") as file:
        file.write(json.dumps({"split": split, "time": time.strftime("%FT%T%z"), "why": why}) + "\n")
    return _count_looks(path, split)


def _count_looks(path: Path, split: str) -> int:
    return sum(json.loads(line)["split"] == split for line in path.read_text(encoding="utf-8").splitlines())


def _read_kept(folder: Path, kept: Path, split: str) -> dict:
    """The kept evaluation; the split may have been opened again since, by ``measure_oracle``."""
    document, log = read_document(kept), folder / LOOKS
    return document | {"looks": _count_looks(log, split)} if log.exists() else document


def open_same_store(folder: Path, config: dict, manifest: Manifest) -> FeatureStore:
    store = FeatureStore(config["store"])
    if store.spec.as_dict() != config["spec"] or store_digest(store, manifest) != config["store_digest"]:
        raise RunMismatch(
            f"{folder}: {config['store']} is not the store it was trained on. Train again, or restore the store."
        )
    return store


def _make_document(folder: Path, config: dict, split: str, scores: np.ndarray, targets: np.ndarray) -> dict:
    evaluation = evaluate_scores(scores, targets, config["groups"]["members"])
    figures = evaluation.classes
    result = read_document(folder / "result.json")
    return {
        "run": folder.name,
        "split": split,
        "head": config["head"],
        "balance": config["balance"],
        "seed": config["fit"]["seed"],
        "epoch": result["epoch"],
        "selection": result["selection"],
        **as_json(evaluation),
        "groups_rule": config["groups"]["rule"],
        "watermark": config["watermark"],
        "departures": config["departures"],
        "classes": {
            name: {
                "train_clips": config["counts"][index],
                "clips": int(figures.positives[index]),
                "accuracy": _number(figures.accuracy[index]),
                "ap": _number(figures.ap[index]),
            }
            for index, name in enumerate(config["classes"])
        },
        "clips": len(scores),
        "empty_class": "left-out",
    }


def _calibrate(config: dict, manifest: Manifest, scores: np.ndarray, targets: np.ndarray) -> dict | None:
    link = link_of(config["method"])
    if link is None:
        return None
    multi_label, groups = any(len(clip.labels) > 1 for clip in manifest.clips), config["groups"]["members"]
    return plain_calibration(calibrate(scores, targets, groups, link, multi_label=multi_label))


def _with_zeros(document: dict) -> dict:
    """The document of an evaluation in which classes without a positive clip count 0."""
    return document | {
        "overall": count_empty_as_zero(document["overall"]),
        "groups": {name: count_empty_as_zero(summary) for name, summary in document["groups"].items()},
        "classes": {
            name: figures if figures["clips"] else figures | {"accuracy": 0.0, "ap": 0.0}
            for name, figures in document["classes"].items()
        },
        "empty_class": "zero",
    }


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def load_scored(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Scores ``(N, C)``, targets ``(N, C)`` bool and ids of an evaluated split, in the order of the ids."""
    config = read_config(folder)
    scores, ids = read_scores(folder / f"scores-{split}.safetensors")
    clips = {clip.clip_id: clip for clip in read_same_manifest(folder, config).split(split)}
    order = sorted(range(len(ids)), key=ids.__getitem__)
    targets = multi_hot([clips[ids[place]] for place in order], config["classes"]).numpy() > 0
    return scores[order], targets, [ids[place] for place in order]
