"""Fusion: a run whose probabilities are the weighted mean of those of others, such as of the streams of skeletons."""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..durable import make_folder, owned, write_json
from ..errors import LongreelError, RunMismatch
from .calibration import Link, link_of, make_probabilities
from .evaluate import load_scored
from .mixtures import fit_weights, read_weights
from .runs import claim, hash_head, read_config, read_document

#: of a part's configuration that is told otherwise, or does not say what was fused.
OWN = {"store", "manifest", "root", "threads", "classes", "counts", "groups", "manifest_digest", "watermark"}
SAME = ("manifest_digest", "classes", "groups", "counts")  #: of all parts, and of the fused run.


@dataclass(frozen=True)
class Part:
    """One of the runs that are fused."""

    folder: Path
    config: dict
    link: Link


def open_parts(folders: Sequence[Path]) -> list[Part]:
    """The runs that are to be fused.

    Raises:
        RunMismatch: When one has not finished, or they differ in clips, classes, groups or kind of probabilities.
        LongreelError: When there are fewer than two.
    """
    if len({folder.resolve() for folder in folders}) < max(2, len(folders)):
        raise LongreelError("name two runs or more to fuse, each once.")
    parts = []
    for folder in folders:
        config = read_config(folder)
        link = link_of(config["method"])
        if "fused" in config or link is None:
            raise RunMismatch(f"{folder}: has no probabilities of its own. Name runs of `longreel train`.")
        parts.append(Part(folder, config, link))
    first = parts[0]
    for part in parts[1:]:
        differ = [key for key in SAME if part.config[key] != first.config[key]]
        if differ or part.link.name != first.link.name:
            what = differ[0] if differ else "kind of probabilities"
            raise RunMismatch(f"{part.folder} and {first.folder} differ in {what}. Fuse runs of one manifest alone.")
    return parts


def fuse_runs(out: Path, folders: Sequence[Path], weights: str | None = None) -> list[float]:
    """Make a run of others, which ``evaluate_run`` scores by theirs. The same call on what is there changes nothing.

    Args:
        out: Folder of the new run.
        folders: Finished runs of one manifest; their stores and heads may differ.
        weights: As for ``read_weights``. Those of ``val`` are the most likely ones of a mixture there, found by
            expectation maximisation from equal ones.

    Returns:
        The weights, which add up to 1.

    Raises:
        RunMismatch: As ``open_parts``; when ``out`` is another run; when ``val`` is asked for and has no clips.
        LongreelError: When the weights cannot be used.
    """
    parts = open_parts(folders)
    found = read_weights(weights, len(parts))
    if found is None:
        found = fit_weights(*_read_val(parts))
    make_folder(out)
    with owned(out / ".lock", str(out)):
        claim(out, json.loads(json.dumps(_describe(out, parts, found, weights))))
        seconds = [read_document(part.folder / "provenance.json").get("training_seconds", 0.0) for part in parts]
        write_json(out / "provenance.json", {"training_seconds": math.fsum(seconds)})
        results = [read_document(part.folder / "result.json") for part in parts]
        write_json(
            out / "result.json",
            {
                "epoch": None,
                "selection": results[0]["selection"],
                "val": None,
                "failed": {split: max(result["failed"][split] for result in results) for split in ("train", "val")},
                "partial": {split: max(result["partial"][split] for result in results) for split in ("train", "val")},
            },
        )
    return found


def _describe(out: Path, parts: Sequence[Part], weights: Sequence[float], asked: str | None) -> dict:
    """The configuration: that of the first part where all agree or one must speak for all."""
    first = parts[0].config
    kept = ("manifest", "root", "method", "fit", "watermark", *SAME)
    members = [
        {
            "run": os.path.relpath(part.folder, out),
            "weight": weight,
            "link": asdict(part.link),
            "digest": hash_head(part.folder),
        }
        for part, weight in zip(parts, weights, strict=True)
    ]
    heads = dict.fromkeys(part.config["head"] for part in parts)
    return {key: first.get(key) for key in kept} | {
        "head": " + ".join(heads),
        "balance": " + ".join(dict.fromkeys(part.config["balance"] for part in parts)),
        "departures": sorted({text for part in parts for text in part.config["departures"]}),
        "fused": {"weights": asked or "equal", "runs": members, "of": [_tell_apart(part) for part in parts]},
    }


def _tell_apart(part: Part) -> dict:
    """What makes a part another one than a run that differs in its seed alone."""
    told = {key: value for key, value in part.config.items() if key not in OWN}
    return told | {"fit": {key: value for key, value in part.config["fit"].items() if key != "seed"}}


def _read_val(parts: Sequence[Part]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Probabilities ``(R, N, C)`` and targets ``(N, C)`` of val."""
    if not all((part.folder / "scores-val.safetensors").exists() for part in parts):
        raise RunMismatch(f"{parts[0].folder}: has no val split to find weights on. Give weights, such as 1:1.")
    scored = [load_scored(part.folder, "val") for part in parts]
    probabilities = [make_probabilities(scores, part.link) for (scores, _, _), part in zip(scored, parts, strict=True)]
    return np.stack(probabilities), scored[0][1]
