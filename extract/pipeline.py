"""Clips to store: decode workers, the backbone, and the shard writer, with what is already there left alone."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..child import Child
from ..devices import cores
from ..durable import make_folder, owned
from ..errors import LongreelError, StoreInUse, unknown
from ..manifest import Manifest
from ..provenance import describe_environment
from ..slices import WHOLE, Slice
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
from .forward import ClipRows, Forward
from .planning import Plan, file_facts, plan_extraction
from .sampling import Sampling
from .workers import (
    DEADLINE_SECONDS,
    Decoded,
    DecodeSettings,
    DecodeTask,
    Event,
    Failed,
    Frames,
    Restarted,
    decode_clips,
)

GPU_THREADS = 2  #: one batch is copied while another is computed.


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
    """The facts that all features of a store share.

    Raises:
        LongreelError: When there is no such decoder, or the backbone cannot take keyframes alone.
    """
    if decoder not in ("auto", *DECODERS):
        raise unknown("decoder", decoder, ("auto", *DECODERS))
    if sampling.keyframes and backbone.window > 1:
        raise LongreelError(
            f"{backbone.name} looks at {backbone.window} frames in a row; it cannot take keyframes alone."
        )
    return Spec(
        backbone=backbone.name,
        weights=backbone.weights,
        dim=backbone.dim,
        sampling=str(sampling),
        preprocessing=f"{backbone.preprocessing}; {backbone.normalisation}",
        decoder=decoder,
        embedding=backbone.embedding,
        precision=backbone.precision,
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
    started: Sequence[Child] = (),
    deadline_seconds: float = DEADLINE_SECONDS,
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
        workers: Decode processes; one a core if ``None``. As many threads run the backbone, each a batch of its own:
            whichever of the two has work takes the cores.
        started: From ``started_workers``; they are the first of the workers.
        deadline_seconds: What decoding a clip may take beside its duration.
        refresh: Extract clips again whose file has changed.
        retry_failed: Try the clips of the ledger again.
        repair: Read every byte of the store first; otherwise only damage that shows in a shard's header is seen.
        on_plan, on_clip: Called once before the work, and after each clip.

    Raises:
        LongreelError: When there is no such decoder, or the backbone cannot take keyframes alone.
        StoreMismatch: When the store was made in another way.
        StoreInUse: When another process is writing the same slice.
        EnvironmentFault: When the store cannot be written.
    """
    sampling = sampling or backbone.sampling
    spec = make_spec(backbone, sampling, decoder)
    make_folder(folder)
    with owned(folder / f".writer-{part}.lock", f"{folder} (slice {part})", StoreInUse):
        plan = plan_extraction(manifest, folder, spec, part, refresh=refresh, retry_failed=retry_failed, repair=repair)
        on_plan(plan)
        tasks = [DecodeTask(clip.clip_id, str(manifest.root / clip.path), clip.start, clip.end) for clip in plan.todo]
        settings = DecodeSettings(sampling, backbone.preprocessing, decoder, backbone.window, deadline_seconds)
        environment = describe_environment("torch", "transformers", "av", "decord", "numpy", "h5py")
        environment |= {"device": backbone.device, "batch": backbone.batch}
        with (
            ShardWriter(folder, spec, slice_name=str(part), provenance=json.dumps(environment)) as writer,
            Forward(backbone, cores() if backbone.device == "cpu" else GPU_THREADS) as forward,
        ):
            run = _Run(manifest, backbone, part, writer, forward, on_clip)
            for event in decode_clips(tasks, settings, workers or cores(), started):
                run.take(event)
            run.finish()
        return Extraction(run.written, len(plan.done), run.partial, plan.failed + run.failures, plan.set_aside)


@dataclass
class _Open:
    """A clip that is under way."""

    rows: ClipRows = field(default_factory=ClipRows)
    seconds: list[NDArray[np.float64]] = field(default_factory=list)
    end: Decoded | None = None


class _Run:
    """The clips that are under way, and the tally."""

    def __init__(
        self,
        manifest: Manifest,
        backbone: Backbone,
        part: Slice,
        writer: ShardWriter,
        forward: Forward,
        on_clip: Callable[[str], None],
    ) -> None:
        self.written = self.partial = 0
        self.failures: list[Failure] = []
        self._clips = {clip.clip_id: clip for clip in manifest.clips}
        self._root, self._part = manifest.root, part
        self._frames_a_row = backbone.window if backbone.reach is None else 1
        self._writer, self._forward, self._on_clip = writer, forward, on_clip
        self._open: dict[str, _Open] = {}

    def take(self, event: Event) -> None:
        """Advance the clip that the event is about, and write those that are complete."""
        match event:
            case Frames(clip_id, frames, seconds):
                clip = self._open.setdefault(clip_id, _Open())
                clip.seconds.append(seconds[:: self._frames_a_row])
                self._forward.add(clip.rows, frames)
            case Restarted(clip_id):
                self._open.pop(clip_id, None)
            case Failed(clip_id, reason, stderr):
                self._open.pop(clip_id, None)
                self._fail(clip_id, reason, stderr)
            case Decoded(clip_id):
                self._open[clip_id].end = event
        self._write_complete()

    def finish(self) -> None:
        """Write the clips whose last rows wait for a full batch."""
        self._forward.finish()
        self._write_complete()

    def _write_complete(self) -> None:
        for clip_id, clip in list(self._open.items()):
            if clip.end is not None and clip.rows.complete:
                del self._open[clip_id]
                self._write(clip, clip.end)

    def _write(self, clip: _Open, end: Decoded) -> None:
        features = clip.rows.stacked()
        if not np.isfinite(features).all() or np.abs(features).max() > np.finfo(np.float16).max:
            self._fail(end.clip_id, "its features do not fit float16 (not finite, or above 65504)", "")
            return
        span = self._clips[end.clip_id].start, self._clips[end.clip_id].end
        origin = Origin(end.decoder, end.fraction, end.size, end.mtime_ns, end.sha256, *span)
        rows = ClipFeatures(features.astype(np.float16), np.concatenate(clip.seconds))
        self._writer.add(end.clip_id, rows, origin)
        self.written += 1
        self.partial += end.fraction < 1.0
        self._on_clip(end.clip_id)

    def _fail(self, clip_id: str, reason: str, stderr: str) -> None:
        clip = self._clips[clip_id]
        size, mtime_ns = file_facts(self._root / clip.path)
        failure = Failure(clip_id, clip.path, reason, stderr, size, mtime_ns, clip.start, clip.end, time.time())
        append_failure(self._writer.folder, str(self._part), failure)
        self.failures.append(failure)
        self._on_clip(clip_id)
