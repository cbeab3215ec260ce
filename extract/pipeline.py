"""Clips to store: decode workers, the backbone, and the shard writer, with what is already there left alone."""

import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..durable import make_folder, owned
from ..errors import LongreelError, ManifestError, StoreMismatch, unknown
from ..manifest import Clip, Manifest
from ..provenance import describe_environment
from ..store import (
    ClipFeatures,
    Failure,
    FeatureStore,
    Origin,
    ShardWriter,
    Spec,
    append_failure,
    read_failures,
    shard_paths,
)
from .backbones import Backbone
from .decoders import DECODERS
from .sampling import Sampling
from .workers import Decoded, DecodeSettings, DecodeTask, Failed, Frames, Restarted, decode_clips


@dataclass(frozen=True)
class Slice:
    """The part ``number`` of ``count`` of a manifest's clips, for machines that share the work. Numbers begin at 1."""

    number: int = 1
    count: int = 1

    def __str__(self) -> str:
        return f"{self.number}of{self.count}"

    def of(self, clips: Sequence[Clip]) -> Sequence[Clip]:
        """The clips of this slice: every ``count``-th one."""
        return clips[self.number - 1 :: self.count]


def parse_slice(text: str) -> Slice:
    """``2/8`` -> the second of eight slices.

    Raises:
        LongreelError: When it is not of that form.
    """
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise LongreelError(f"--shard {text!r} is not i/n with i from 1 to n, such as 2/8.")
    return Slice(int(number), int(count))


@dataclass(frozen=True)
class Plan:
    """What an extraction will do with each clip of its slice, and why anything is not reused."""

    todo: list[Clip]
    done: list[str]
    failed: list[Failure]  #: clips that failed before and are left alone.
    changed: list[str]  #: clips whose video file is no longer the one that was extracted.

    def describe(self) -> list[str]:
        """What a person wants to know before the work."""
        lines = [f"{len(self.done)} clips are there, {len(self.failed)} failed before, {len(self.todo)} to do"]
        if self.failed:
            lines.append(f"not tried again: {len(self.failed)} clips that failed before; --retry-failed tries them")
        again = set(self.changed) - set(self.done)
        if kept := [clip_id for clip_id in self.changed if clip_id not in again]:
            lines.append(
                f"changed since: the files of {len(kept)} clips, such as {kept[0]}; --refresh extracts them again"
            )
        if again:
            lines.append(f"not reused: {len(again)} clips whose files have changed")
        return lines


@dataclass(frozen=True)
class Extraction:
    """What an extraction did."""

    written: int
    already: int
    partial: int  #: of the written ones.
    failures: list[Failure] = field(default_factory=list)  #: of this run and, where they were left alone, earlier ones.

    def summary(self) -> str:
        """The tally in words."""
        failed = len(self.failures)
        return f"{self.written} written ({self.partial} partial), {self.already} already there, {failed} failed"


def make_spec(backbone: Backbone, sampling: Sampling, decoder: str) -> Spec:
    """The facts that all features of a store share."""
    return Spec(
        backbone=backbone.name,
        weights=backbone.weights,
        dim=backbone.dim,
        sampling=str(sampling),
        preprocessing=f"{backbone.preprocessing}; {backbone.normalisation}",
        decoder=decoder,
    )


def plan_extraction(
    manifest: Manifest, folder: Path, spec: Spec, part: Slice, *, refresh: bool = False, retry_failed: bool = False
) -> Plan:
    """Compare the manifest with the store.

    Raises:
        StoreMismatch: When the store was made in another way.
        ManifestError: When not one of the clips to do has a file.
    """
    store = FeatureStore(folder) if shard_paths(folder) else None
    if store is not None and (different := store.spec.differences(spec)):
        raise StoreMismatch(
            f"{folder}: holds features made in another way: {'; '.join(different)}. "
            f"Give the same options, or another store folder."
        )
    earlier = read_failures(folder)
    plan = Plan([], [], [], [])
    for clip in part.of(manifest.clips):
        path = manifest.root / clip.path
        if store is not None and clip.clip_id in store:
            origin = store.origin(clip.clip_id)
            same_span = (origin.start, origin.end) == (clip.start, clip.end)
            same = same_span and _is_unchanged(path, origin)
            if not same:
                plan.changed.append(clip.clip_id)
            if same or (same_span and not refresh):
                plan.done.append(clip.clip_id)
                continue
        elif clip.clip_id in earlier and not retry_failed and _is_same_failure(earlier[clip.clip_id], path, clip):
            plan.failed.append(earlier[clip.clip_id])
            continue
        plan.todo.append(clip)
    if plan.todo and not plan.done and not any((manifest.root / clip.path).exists() for clip in plan.todo):
        raise ManifestError(
            f"{manifest.path}: none of its {len(plan.todo)} videos is under {manifest.root}. "
            f"Give their folder with --root."
        )
    return plan


def _file_facts(path: Path) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _is_same_failure(failure: Failure, path: Path, clip: Clip) -> bool:
    """Whether trying again would meet the same file and span."""
    return (failure.size, failure.mtime_ns) == _file_facts(path) and (failure.start, failure.end) == (
        clip.start,
        clip.end,
    )


def _is_unchanged(path: Path, origin: Origin) -> bool:
    """Whether the file is the one extracted; a file that is gone does not make its features wrong."""
    size, mtime_ns = _file_facts(path)
    if size == -1 or (size, mtime_ns) == (origin.size, origin.mtime_ns):
        return True
    if size != origin.size:
        return False
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == origin.sha256
    except OSError:
        return False


def extract_clips(
    manifest: Manifest,
    folder: Path,
    backbone: Backbone,
    *,
    sampling: Sampling | None = None,
    decoder: str = "auto",
    part: Slice = Slice(),
    workers: int | None = None,
    refresh: bool = False,
    retry_failed: bool = False,
    on_plan: Callable[[Plan], None] = lambda plan: None,
    on_clip: Callable[[str], None] = lambda clip_id: None,
) -> Extraction:
    """Write the features of every clip that the store does not hold yet.

    A clip that cannot be decoded goes to the ledger and stops nothing. Interrupted at any point, the same call goes
    on from the last sealed shard and ends in the same features.

    Args:
        manifest: The clips.
        folder: The store; made if needed.
        backbone: From ``load_backbone``.
        sampling: Which frames; the backbone's own choice if ``None``.
        decoder: ``auto``, ``decord`` or ``pyav``.
        part: Which of several machines this is.
        workers: Decode processes; one a core if ``None``. The forward pass gets half of the cores' threads, since its
            spinning threads would otherwise starve the decoders.
        refresh: Extract clips again whose file has changed.
        retry_failed: Try the clips of the ledger again.
        on_plan, on_clip: Called once before the work, and after each clip.

    Raises:
        StoreMismatch: When the store was made in another way.
        InUse: When another process is writing the same slice.
        EnvironmentFault: When the store cannot be written.
    """
    import torch

    if decoder not in ("auto", *DECODERS):
        raise unknown("decoder", decoder, ("auto", *DECODERS))
    torch.set_num_threads(max(1, _cores() // 2))
    sampling = sampling or backbone.sampling
    spec = make_spec(backbone, sampling, decoder)
    make_folder(folder)
    with owned(folder / f".writer-{part}.lock", f"{folder} (slice {part})"):
        plan = plan_extraction(manifest, folder, spec, part, refresh=refresh, retry_failed=retry_failed)
        on_plan(plan)
        run = _Run(manifest, folder, backbone, part, on_clip)
        tasks = [DecodeTask(clip.clip_id, str(manifest.root / clip.path), clip.start, clip.end) for clip in plan.todo]
        settings = DecodeSettings(sampling, backbone.preprocessing, decoder)
        environment = describe_environment("torch", "transformers", "av", "decord", "numpy", "h5py")
        provenance = json.dumps(environment | {"threads": torch.get_num_threads()})
        with ShardWriter(folder, spec, slice_name=str(part), provenance=provenance) as writer:
            for event in decode_clips(tasks, settings, workers or _cores()):
                run.take(event, writer)
        return Extraction(run.written, len(plan.done), run.partial, plan.failed + run.failures)


def _cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Run:
    """The clips that are under way, and the tally."""

    def __init__(
        self, manifest: Manifest, folder: Path, backbone: Backbone, part: Slice, on_clip: Callable[[str], None]
    ) -> None:
        self.written = self.partial = 0
        self.failures: list[Failure] = []
        self._clips = {clip.clip_id: clip for clip in manifest.clips}
        self._manifest, self._folder, self._backbone, self._part, self._on_clip = (
            manifest,
            folder,
            backbone,
            part,
            on_clip,
        )
        self._rows: dict[str, list[NDArray[np.float32]]] = {}
        self._seconds: dict[str, list[NDArray[np.float64]]] = {}

    def take(self, event: Frames | Restarted | Decoded | Failed, writer: ShardWriter) -> None:
        """Advance the clip that the event is about."""
        match event:
            case Frames(clip_id, frames, seconds):
                self._rows.setdefault(clip_id, []).append(self._backbone(frames))
                self._seconds.setdefault(clip_id, []).append(seconds[:: self._backbone.window])
            case Restarted(clip_id):
                self._forget(clip_id)
            case Failed(clip_id, reason, stderr):
                self._forget(clip_id)
                self._fail(clip_id, reason, stderr)
            case Decoded(clip_id):
                self._finish(event, writer)

    def _forget(self, clip_id: str) -> tuple[list, list]:
        return self._rows.pop(clip_id, []), self._seconds.pop(clip_id, [])

    def _finish(self, event: Decoded, writer: ShardWriter) -> None:
        rows, seconds = self._forget(event.clip_id)
        features = np.concatenate(rows)
        if not np.isfinite(features).all() or np.abs(features).max() > np.finfo(np.float16).max:
            self._fail(event.clip_id, "its features do not fit float16 (not finite, or above 65504)", "")
            return
        clip = ClipFeatures(features.astype(np.float16), np.concatenate(seconds))
        span = self._clips[event.clip_id].start, self._clips[event.clip_id].end
        origin = Origin(event.decoder, event.fraction, event.size, event.mtime_ns, event.sha256, *span)
        writer.add(event.clip_id, clip, origin)
        self.written += 1
        self.partial += event.fraction < 1.0
        self._on_clip(event.clip_id)

    def _fail(self, clip_id: str, reason: str, stderr: str) -> None:
        clip = self._clips[clip_id]
        size, mtime_ns = _file_facts(self._manifest.root / clip.path)
        failure = Failure(clip_id, clip.path, reason, stderr, size, mtime_ns, clip.start, clip.end, time.time())
        append_failure(self._folder, str(self._part), failure)
        self.failures.append(failure)
        self._on_clip(clip_id)
