"""The filled manifest: the rows of a manifest, and a training row for each generated clip that is finished and kept."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path

from ..errors import LongreelError
from ..manifest import Clip, Manifest
from .clips import Prompt, read_prompts, write_lines
from .listing import FORMS, publish_manifest
from .plan import count_missing, count_real, read_fill
from .rules import Rule, Scores, read_rules, read_scores
from .sidecars import VIDEOS, digest_prompt, read_whole


@dataclass(frozen=True)
class ClassFill:
    """What became of one class."""

    label: str
    real: int  #: real training clips.
    asked: int  #: clips to be added.
    there: int  #: finished clips that were looked at, the lowest index first, until enough were found.
    left_out: int  #: of these, by a rule.
    added: int
    in_place: int  #: of the added, those that stand in for clips that a rule left out.

    @property
    def missing(self) -> int:
        return self.asked - self.added


@dataclass(frozen=True)
class Filled:
    """What a filled manifest is made of. It is kept beside it, as ``NAME.rules.json`` beside ``NAME.csv``."""

    manifest: str  #: digest of the manifest that was filled.
    prompts: str  #: SHA-256 of the prompts.
    scores: str | None  #: SHA-256 of the scores.
    fill: int | None  #: training clips a class; ``None``: every finished clip.
    keep: list[str]  #: the rules, all of which a clip must meet.
    left_out: dict[str, int]  #: rule -> clips that do not meet it; a clip may stand under several.
    unscored: int  #: clips left out since a rule's column has no number for them.
    other_classes: int  #: prompts of classes that the manifest does not have; their clips are not added.
    classes: list[ClassFill]  #: those with clips to be added.
    watermark: str | None = None  #: stands on every table of it.

    @property
    def asked(self) -> int:
        return sum(each.asked for each in self.classes)

    @property
    def added(self) -> int:
        return sum(each.added for each in self.classes)

    @property
    def missing(self) -> int:
        return self.asked - self.added

    @property
    def in_place(self) -> int:
        return sum(each.in_place for each in self.classes)

    @property
    def short(self) -> list[ClassFill]:
        """The classes that lack clips, those that lack most first."""
        return sorted((each for each in self.classes if each.missing), key=lambda each: (-each.missing, each.label))


def fill_manifest(
    manifest: Manifest,
    folder: Path,
    out: Path,
    *,
    fill: str | None = None,
    scores: Path | None = None,
    keep: Sequence[str] = (),
    watermark: str | None = None,
) -> Filled:
    """Write a manifest of all clips of another, and of generated ones up to ``fill`` training clips a class.

    The clips of a class are taken by their index, the lowest first. A clip that a rule leaves out is replaced by the
    next one that is finished. Ids of real clips stay what they are; paths become relative to the new file's folder.

    Args:
        manifest: Of real clips.
        folder: The generated clips, with their ``prompts.jsonl``.
        out: The ``.csv`` or ``.jsonl`` file to write, in a folder that holds both the real and the generated videos.
        fill: A number, or ``max``; every finished clip if ``None``.
        scores: A CSV with ``clip_id`` and scores, which become columns of the generated clips' rows.
        keep: Rules on the scores, such as ``uncertainty<=0.5``.
        watermark: What must stand on every table of the manifest, and so of the filled one.

    Raises:
        LongreelError: When an input cannot be used, ``out`` lies elsewhere, or is there and was not made so.
    """
    if count := sum(clip.source == "generated" for clip in manifest.clips):
        raise LongreelError(f"{manifest.path}: has {count} generated clips already. Give the manifest of real clips.")
    root, videos = Path(os.path.realpath(out.parent)), Path(os.path.realpath(folder / VIDEOS))
    _check_place(out, root, manifest.root, videos)
    known = read_scores(scores) if scores is not None else None
    rules = read_rules(keep, known)
    prompts, real = read_prompts(folder), count_real(manifest)
    number = None if fill is None else read_fill(fill, real.values())
    choices = _choose_all(prompts, folder, real, number, rules, known)
    rows = [replace(clip, path=_join(manifest.root, root, clip.path)) for clip in manifest.clips]
    for prompt in (prompt for choice in choices for prompt in choice.taken):
        extra: dict[str, object] = {} if known is None else {**known.of_row(prompt.clip_id)}
        path = _join(videos, root, prompt.clip_id)
        rows.append(Clip(prompt.clip_id, path, (prompt.label,), "train", "generated", extra=extra))
    made = Filled(
        manifest=manifest.digest,
        prompts=sha256(write_lines(prompts).encode()).hexdigest(),
        scores=known and known.digest,
        fill=number,
        keep=[str(rule) for rule in rules],
        left_out={str(rule): sum(choice.broken[str(rule)] for choice in choices) for rule in rules},
        unscored=sum(choice.unscored for choice in choices),
        other_classes=sum(prompt.label not in real for prompt in prompts),
        classes=[choice.figures for choice in choices],
        watermark=watermark,
    )
    publish_manifest(out, root, rows, asdict(made))
    return made


def _check_place(out: Path, root: Path, real: Path, videos: Path) -> None:
    """A manifest's paths lead into its own folder, which must hold both kinds of videos."""
    if out.suffix.lower() not in FORMS:
        raise LongreelError(f"{out}: the manifest is written as {' or '.join(FORMS)}. Give a name that ends so.")
    if not videos.is_dir():
        raise LongreelError(f"{videos}: no such folder. Make the clips with `longreel generate videos`.")
    if any(Path(os.path.commonpath([root, folder])) != root for folder in (real, videos)):
        common = os.path.commonpath([real, videos])
        raise LongreelError(
            f"{out}: the folder of a manifest must hold its videos, but the real ones are under {real} and the "
            f"generated ones under {videos}. Give --out {Path(common) / out.name}, or a folder above."
        )


def _join(base: Path, root: Path, path: str) -> str:
    """A path below ``base`` as one below ``root``, which holds it."""
    between = base.relative_to(root).as_posix()
    return path if between == "." else f"{between}/{path}"


@dataclass(frozen=True)
class _Choice:
    taken: list[Prompt]
    figures: ClassFill
    broken: Counter[str]  #: rule -> clips that do not meet it.
    unscored: int


def _choose_all(
    prompts: Sequence[Prompt],
    folder: Path,
    real: Mapping[str, int],
    fill: int | None,
    rules: Sequence[Rule],
    scores: Scores | None,
) -> list[_Choice]:
    """A choice for each class of the manifest that clips are to be added to, in its order."""
    listed: dict[str, list[Prompt]] = {label: [] for label in real}
    for prompt in sorted(prompts, key=lambda prompt: prompt.index):
        listed.get(prompt.label, []).append(prompt)
    if fill is None:
        asked = {label: len(found) for label, found in listed.items()}
    else:
        asked = count_missing(real, fill)
    return [
        _choose(label, listed[label], folder, real[label], asked[label], rules, scores)
        for label in real
        if asked[label]
    ]


def _choose(
    label: str,
    listed: Sequence[Prompt],
    folder: Path,
    real: int,
    asked: int,
    rules: Sequence[Rule],
    scores: Scores | None,
) -> _Choice:
    """The first finished clips that meet all rules."""
    taken, verdicts = [], []
    for prompt in listed:
        if len(taken) == asked:
            break
        if _is_finished(folder, prompt):
            cells = {} if scores is None else scores.of.get(prompt.clip_id, {})
            verdicts.append([rule.keeps(cells) for rule in rules])
            taken += [prompt] if all(verdicts[-1]) else []
    broken = Counter(str(rule) for found in verdicts for rule, kept in zip(rules, found, strict=True) if not kept)
    in_place = sum(all(found) for found in verdicts[asked:])  # without rules, the first `asked` would have been taken
    figures = ClassFill(label, real, asked, len(verdicts), len(verdicts) - len(taken), len(taken), in_place)
    return _Choice(taken, figures, broken, sum(None in found for found in verdicts))


def _is_finished(folder: Path, prompt: Prompt) -> bool:
    """Whether the video is there whole, and the sidecar is its own."""
    sidecar = read_whole(folder, prompt.clip_id)
    own = {"label": prompt.label, "prompt_sha256": digest_prompt(prompt.prompt)}
    return sidecar is not None and own.items() <= sidecar.items()
