"""Clips to store: decode workers, the backbone, and the shard writer, with what is already there left alone."""

import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..durable import make_folder, owned
from ..errors import StoreInUse, unknown
from ..manifest import Manifest
from ..provenance import describe_environment
from ..store import (
    ClipFeatures,
    Failure,
    Origin,
    ShardWriter,
    Spec,
    append_failure,
)
from .backbones import Backbone
from .decoders import DECODERS
from .planning import WHOLE, Plan, Slice, file_facts, plan_extraction
from .sampling import Sampling
from .workers import Decoded, DecodeSettings, DecodeTask, Failed, Frames, Restarted, decode_clips


@dataclass(frozen=True)
class Extraction:
    """What an extraction did."""

    written: int
    already: int
    partial: int  #: of the written ones.
    failures: list[Failure] = field(default_factory=list)  #: of this run and, where they were left alone, earlier ones.
    set_aside: list[str] = field(default_factory=list)  #: names that damaged shards have got.

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


def extract_clips(
    manifest: Manifest,
    folder: Path,
    backbone: Backbone,
    *,
    sampling: Sampling | None = None,
    decoder: str = "auto",
    part: Slice = WHOLE,
    workers: int | None = None,
    refresh: bool = False,
    retry_failed: bool = False,
    repair: bool = False,
    on_plan: Callable[[Plan], None] = lambda plan: None,
    on_clip: Callable[[str], None] = lambda clip_id: None,
) -> Extraction:
    """Write the features of every clip that the store does not hold yet, or whose shard is damaged.

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
        repair: Read every byte of the store first; otherwise only damage that shows in a shard's header is seen.
        on_plan, on_clip: Called once before the work, and after each clip.

    Raises:
        StoreMismatch: When the store was made in another way.
        StoreInUse: When another process is writing the same slice.
        EnvironmentFault: When the store cannot be written.
    """
    import torch

    if decoder not in ("auto", *DECODERS):
        raise unknown("decoder", decoder, ("auto", *DECODERS))
    torch.set_num_threads(max(1, _cores() // 2))
    sampling = sampling or backbone.sampling
    spec = make_spec(backbone, sampling, decoder)
    make_folder(folder)
    with owned(folder / f".writer-{part}.lock", f"{folder} (slice {part})", StoreInUse):
        again = {"refresh": refresh, "retry_failed": retry_failed, "repair": repair}
        plan = plan_extraction(manifest, folder, spec, part, **again)
        on_plan(plan)
        run = _Run(manifest, folder, backbone, part, on_clip)
        tasks = [DecodeTask(clip.clip_id, str(manifest.root / clip.path), clip.start, clip.end) for clip in plan.todo]
        settings = DecodeSettings(sampling, backbone.preprocessing, decoder)
        environment = describe_environment("torch", "transformers", "av", "decord", "numpy", "h5py")
        provenance = json.dumps(environment | {"threads": torch.get_num_threads()})
        with ShardWriter(folder, spec, slice_name=str(part), provenance=provenance) as writer:
            for event in decode_clips(tasks, settings, workers or _cores()):
                run.take(event, writer)
        return Extraction(run.written, len(plan.done), run.partial, plan.failed + run.failures, plan.set_aside)


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
        size, mtime_ns = file_facts(self._manifest.root / clip.path)
        failure = Failure(clip_id, clip.path, reason, stderr, size, mtime_ns, clip.start, clip.end, time.time())
        append_failure(self._folder, str(self._part), failure)
        self.failures.append(failure)
        self._on_clip(clip_id)
