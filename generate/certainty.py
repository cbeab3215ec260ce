"""Entropy and agreement of the generated clips of a manifest, and the bounds of uncertainty, which are kept."""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import LongreelError
from ..manifest import Manifest
from ..store import Spec
from .entropy import Bounds, agreements, entropies, find_bounds, log_probabilities, margins, normalise
from .neighbours import Floats
from .texts import PROJECTED, ClassTexts, embed_classes


@dataclass(frozen=True)
class Certainty:
    """What a text tower says of generated clips; all of it empty without one."""

    notes: list[str]
    frozen: dict | None  #: bounds of uncertainty and what they are of, for ``inspection.json``.
    texts: ClassTexts | None = None
    template: str | None = None
    known: dict[int, dict[str, Any]] | None = None  #: place of a clip -> its columns.

    def columns(self, place: int) -> dict[str, object]:
        """Entropy, uncertainty, agreement, margin and top class of a clip, as far as they are known."""
        return (self.known or {}).get(place, {})

    def describe(self) -> dict | None:
        """What texts were compared with, and what came of it."""
        if self.texts is None or not self.known:
            return None
        found = self.known.values()
        means = {name: _mean(one[name] for one in found) for name in ("entropy", "agreement", "margin")}
        return {
            "template": self.template,
            "words": list(self.texts.words),
            "scale": self.texts.scale,
            "fingerprint": self.texts.fingerprint,
            "means": means | {"top_is_label": _mean(one["agrees"] for one in found)},
        }


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def read_inspection(path: Path) -> dict:
    """The document of an earlier inspection; empty where there was none.

    Raises:
        LongreelError: When it cannot be read.
    """
    if not path.exists():
        return {}
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        frozen = document["uncertainty"]
        if frozen is not None:
            Bounds(float(frozen["lo"]), float(frozen["hi"]))
            dict(frozen["of"])
        return document
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LongreelError(
            f"{path}: is no inspection ({error!r}). Remove it, or give another folder with --out."
        ) from None


def freeze_certainty(
    manifest: Manifest,
    spec: Spec,
    rows: Floats,
    before: dict,
    *,
    text: Path | None,
    template: str,
    rule: str,
    refreeze: bool,
) -> Certainty:
    """Compare generated clips ``(B, D)`` with the manifest's class names, and take or find the bounds of uncertainty.

    Args:
        before: The document of an earlier inspection, whose bounds are taken.
        refreeze: Find new ones all the same.

    Raises:
        LongreelError: When the bounds of before are of other texts, features or rules.
    """
    frozen = before.get("uncertainty")
    if text is None:
        hint = " Give the backbone's folder with --text." if spec.embedding.startswith(PROJECTED) else ""
        return Certainty([f"no entropy and no agreement: they take a CLIP text tower.{hint}"], frozen)
    texts = embed_classes(text, manifest.classes, template, spec.embedding)
    kept = np.flatnonzero(np.isfinite(rows).all(axis=1))
    logs = log_probabilities(rows[kept], texts.rows, texts.scale)
    entropy = entropies(logs)
    of = _identify(spec, texts, rule)
    if frozen is None or refreeze:
        frozen = asdict(find_bounds(entropy, rule, len(texts.words))) | {"clips": len(kept), "of": of}
    _check_same(frozen["of"], of)
    bounds = Bounds(frozen["lo"], frozen["hi"])
    numbers = np.stack([entropy, normalise(entropy, bounds), margins(logs)], axis=1)
    known = _tabulate(manifest, kept, logs, numbers)
    return Certainty(_tell(bounds, frozen, entropy), frozen, texts, template, known)


def _identify(spec: Spec, texts: ClassTexts, rule: str) -> dict[str, str]:
    """What entropies depend on besides the clips."""
    return {
        "rule": rule,
        "texts": hashlib.sha256(json.dumps(texts.words).encode()).hexdigest(),
        "text side": texts.fingerprint,
        "weights": spec.weights,
        "sampling": spec.sampling,
        "preprocessing": spec.preprocessing,
        "precision": spec.precision,
    }


def _check_same(before: dict, now: dict[str, str]) -> None:
    different = [name for name in now if before.get(name) != now[name]]
    if different:
        raise LongreelError(
            f"the uncertainty of this folder was settled with other {', '.join(different)}: "
            f"{before.get(different[0])!r}, now {now[different[0]]!r}. Give the same again, another --out, or settle "
            f"it anew with --refreeze."
        )


def _tabulate(manifest: Manifest, kept: np.ndarray, logs: np.ndarray, numbers: np.ndarray) -> dict[int, dict]:
    made = [clip for clip in manifest.clips if clip.source == "generated"]
    place_of = {label: place for place, label in enumerate(manifest.classes)}
    own = np.zeros(logs.shape, dtype=bool)
    for line, place in enumerate(kept):
        own[line, [place_of[label] for label in made[place].labels]] = True
    agreement, top = agreements(logs, own), logs.argmax(axis=1)
    return {
        int(place): {
            "entropy": float(numbers[line, 0]),
            "uncertainty": float(numbers[line, 1]),
            "agreement": float(agreement[line]),
            "margin": float(numbers[line, 2]),
            "top": manifest.classes[top[line]],
            "agrees": bool(own[line, top[line]]),
        }
        for line, place in enumerate(kept)
    }


def _tell(bounds: Bounds, frozen: dict, entropy: np.ndarray) -> list[str]:
    if not bounds.hi > bounds.lo:
        return [
            "all clips that the uncertainty was settled on have one entropy, so it is 0; --refreeze settles it anew"
        ]
    outside = int(((entropy < bounds.lo) | (entropy > bounds.hi)).sum())
    return [
        f"{outside} generated clips lie outside the entropies that the uncertainty was settled on with "
        f"{frozen['clips']} clips; they have 0 or 1"
    ] * bool(outside)
