"""Generated clips looked at before anything is trained on them: scores of each, figures of all, a picture. No verdicts.

Nothing is deleted and nothing is left out: what is done with a score is a rule of whoever trains.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..durable import make_folder, owned, write_bytes, write_json
from ..errors import ManifestError, StoreMismatch
from ..manifest import Clip, Manifest
from ..provenance import describe_environment
from ..store import FeatureStore
from .certainty import Certainty, freeze_certainty, read_inspection
from .datasets import compare_sets, davies_bouldin
from .footage import Footage, look_at
from .neighbours import Floats, Threshold, embed_clips, find_nearest, find_nearest_others, learn_threshold
from .projection import AT_LEAST, AT_MOST, Point, draw_points, draw_sample, project
from .scores import Near, as_csv, make_row
from .texts import TEMPLATE

SCORES, DOCUMENT, PICTURE = "scores.csv", "inspection.json", "tsne.svg"
PACKAGES = ("numpy", "faiss-cpu", "scikit-learn", "torch", "transformers")
FEW = 1000  #: real clips below which a 99.9th percentile is about the largest.


@dataclass(frozen=True)
class ClipSet:
    """Clips and a row for each."""

    clips: tuple[Clip, ...]
    rows: Floats  #: ``(B, D)``; NaN where the store has no features of a clip.

    def known(self) -> "ClipSet":
        """The clips that have features."""
        there = np.flatnonzero(np.isfinite(self.rows).all(axis=1))
        return ClipSet(tuple(self.clips[place] for place in there), self.rows[there])

    def groups(self) -> list[np.ndarray]:
        """Of each class, the places of its clips."""
        members: dict[str, list[int]] = {}
        for place, clip in enumerate(self.clips):
            for label in clip.labels:
                members.setdefault(label, []).append(place)
        return [np.array(places) for places in members.values()]


@dataclass
class Looking:
    """What is being looked at, and what there is to say of it."""

    sets: dict[str, ClipSet]  #: ``generated``, and the real ``train``, ``val`` and ``test``.
    notes: list[str] = field(default_factory=list)


def inspect_clips(
    manifest: Manifest,
    store: FeatureStore,
    folder: Path,
    *,
    text: Path | None = None,
    template: str = TEMPLATE,
    rule: str = "min-max",
    refreeze: bool = False,
    picture: bool = True,
    seed: int = 0,
    on_step: Callable[[str], None] = lambda step: None,
) -> dict:
    """Look at a manifest's generated clips and write ``scores.csv``, ``inspection.json`` and ``tsne.svg``.

    Args:
        manifest: With generated clips in train, beside real ones.
        store: Features of its clips.
        folder: Where the files go. The bounds of uncertainty that are in it already are kept.
        text: A CLIP folder, for entropy and agreement; its text side must be that of the store.
        template: What a class name is put into.
        rule: How entropy becomes uncertainty, see ``entropy.RULES``.
        refreeze: Find new bounds of uncertainty.
        picture: Whether to draw.
        seed: Of all that is drawn by chance.
        on_step: Told what is done next.

    Returns:
        The document of ``inspection.json``.

    Raises:
        ManifestError: When the manifest has no generated clips.
        StoreMismatch: When the store has none of them, or is in no space with the texts.
        LongreelError: When the bounds in the folder are of something else.
    """
    on_step("read features")
    looking = _gather(manifest, store)
    made = looking.sets["generated"]
    make_folder(folder)
    with owned(folder / ".lock", str(folder)):
        before = read_inspection(folder / DOCUMENT)
        certainty = freeze_certainty(
            manifest, store.spec, made.rows, before, text=text, template=template, rule=rule, refreeze=refreeze
        )
        looking.notes += certainty.notes
        on_step("search near duplicates")
        near = _search(looking)
        on_step("look at videos")
        footage = [look_at(manifest.root / clip.path) for clip in made.clips]
        rows = _score(made, certainty, near, footage)
        on_step("compare data sets")
        document = _describe(manifest, store, looking, certainty, near, rows) | _compare(looking, seed)
        document["notes"] = [*looking.notes, *_tell_footage(footage)]
        if picture:
            on_step("draw")
            document["notes"] += _draw(looking, folder / PICTURE, seed)
        write_json(folder / DOCUMENT, document)  # with the bounds, so that no score is of others
        write_bytes(folder / SCORES, as_csv(rows))
    return document


def _gather(manifest: Manifest, store: FeatureStore) -> Looking:
    wanted = {"generated": [clip for clip in manifest.clips if clip.source == "generated"]}
    if not wanted["generated"]:
        raise ManifestError(f"{manifest.path}: has no generated clips. Fill it with `longreel generate fill`.")
    for split in ("train", "val", "test"):
        wanted[split] = [clip for clip in manifest.split(split) if clip.source == "real"]
    looking = Looking({name: _read(store, clips) for name, clips in wanted.items()})
    for name, found in looking.sets.items():
        if lacking := len(found.clips) - len(found.known().clips):
            what = name if name == "generated" else f"real {name}"
            looking.notes.append(
                f"{store.folder}: has no usable features of {lacking} of {len(found.clips)} {what} clips"
            )
    if not looking.sets["generated"].known().clips:
        raise StoreMismatch(
            f"{store.folder}: has no usable features of any generated clip of {manifest.path}. "
            f"Run `longreel extract` with this manifest and store first."
        )
    return looking


def _read(store: FeatureStore, clips: Sequence[Clip]) -> ClipSet:
    rows = np.full((len(clips), store.spec.dim), np.nan, dtype=np.float32)
    there = [place for place, clip in enumerate(clips) if clip.clip_id in store]
    rows[there] = embed_clips(store, [clips[place].clip_id for place in there])
    return ClipSet(tuple(clips), rows)


def _search(looking: Looking) -> dict[str, Near]:
    """Each generated clip's nearest: real ones of test, val and train, and generated ones of its class.

    What is too near is learnt of real clips in the same place: train against test and val, test (else val) against
    train, and train against train of a class.
    """
    made, train, val, test = (looking.sets[name] for name in ("generated", "train", "val", "test"))
    held = test if len(test.known().clips) else val
    pairs = {"test": (test, train), "val": (val, train), "train": (train, held)}
    found = {}
    for name, (base, like) in pairs.items():
        threshold = learn_threshold(find_nearest(like.rows, base.rows)[0])
        found[name] = Near(threshold, *find_nearest(made.rows, base.rows), base.clips)
    threshold = learn_threshold(find_nearest_others(train.rows, train.groups())[0])
    found["class"] = Near(threshold, *find_nearest_others(made.rows, made.groups()), made.clips)
    for name, near in found.items():
        if near.among:
            looking.notes += _tell_threshold(name, near.threshold)
    return found


def _tell_threshold(name: str, threshold: Threshold) -> list[str]:
    if threshold.cosine is None:
        return [f"near {name}: no real clips to learn from what is too near; cosines are given, nothing is flagged"]
    notes = []
    if threshold.n - threshold.same < FEW:
        notes.append(
            f"near {name}: the threshold is of {threshold.n - threshold.same} real clips, so it is about the largest "
            f"cosine among them"
        )
    if threshold.same:
        notes.append(
            f"near {name}: {threshold.same} of {threshold.n} real clips have a real copy of themselves there; "
            f"they are left out of the threshold. Look at the real data first"
        )
    return notes


def _score(
    made: ClipSet, certainty: Certainty, near: dict[str, Near], footage: Sequence[Footage | None]
) -> list[dict[str, object]]:
    known = set(np.flatnonzero(np.isfinite(made.rows).all(axis=1)).tolist())
    return [
        make_row(clip, place in known, certainty.columns(place), near, place, footage[place])
        for place, clip in enumerate(made.clips)
    ]


def _describe(
    manifest: Manifest,
    store: FeatureStore,
    looking: Looking,
    certainty: Certainty,
    near: dict[str, Near],
    rows: list[dict[str, object]],
) -> dict:
    flags = Counter(flag for row in rows for flag in str(row["flags"]).split(";") if flag)
    return {
        "version": 1,
        "manifest": manifest.digest,
        "store": store.spec.as_dict(),
        "clips": {name: len(found.clips) for name, found in looking.sets.items()},
        "with_features": {name: len(found.known().clips) for name, found in looking.sets.items()},
        "uncertainty": certainty.frozen,
        "text": certainty.describe(),
        "near": {name: one.describe() for name, one in near.items()},
        "flags": dict(sorted(flags.items())),
        "environment": describe_environment(*PACKAGES),
    }


def _compare(looking: Looking, seed: int) -> dict:
    """Davies-Bouldin scores and discrepancies; clips of several classes have no place in the former."""
    train, made = looking.sets["train"].known(), looking.sets["generated"].known()
    scores = {}
    for name, parts in {"real": [train], "generated": [made], "both": [train, made]}.items():
        labels = [clip.labels for part in parts for clip in part.clips]
        single = [place for place, found in enumerate(labels) if len(found) == 1]
        rows = np.concatenate([part.rows for part in parts])[single]
        scores[name] = davies_bouldin(rows, [labels[place][0] for place in single])
    return {"davies_bouldin": scores, "mmd": compare_sets(train.rows, made.rows, seed)}


def _tell_footage(footage: Sequence[Footage | None]) -> list[str]:
    lacking = sum(one is None for one in footage)
    return [f"{lacking} generated clips have no video to look at here, so nothing is said of them"] * bool(lacking)


def _draw(looking: Looking, path: Path, seed: int) -> list[str]:
    parts = [looking.sets["train"].known(), looking.sets["generated"].known()]
    clips, rows = [clip for part in parts for clip in part.clips], np.concatenate([part.rows for part in parts])
    if len(clips) < AT_LEAST:
        path.unlink(missing_ok=True)
        return [f"no picture: it takes {AT_LEAST} clips, there are {len(clips)}"]
    chosen = draw_sample([(clip.labels[0], clip.source) for clip in clips], AT_MOST, seed)
    spots = project(rows[chosen], seed)
    points = [
        Point(float(x), float(y), clips[place].clip_id, clips[place].labels[0], clips[place].source == "generated")
        for place, (x, y) in zip(chosen, spots, strict=True)
    ]
    title = f"Real and generated training clips by t-SNE: {len(points)} of {len(clips)}"
    write_bytes(path, draw_points(points, title).encode())
    return []
