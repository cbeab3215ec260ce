"""Features that others made, to a store: what is to do, reading in threads, and writing."""

import json
import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..durable import make_folder, owned
from ..errors import LongreelError, StoreInUse
from ..manifest import Clip
from ..provenance import describe_environment
from ..slices import WHOLE
from ..store import (
    ClipFeatures,
    Failure,
    FeatureStore,
    Origin,
    SealLimits,
    ShardWriter,
    Spec,
    append_failures,
)
from .arrays import Changing, Unreadable, to_clip
from .pipeline import Extraction
from .planning import Plan, file_facts, id_problem, open_whole, plan_extraction
from .sources import Source

LIMITS = SealLimits(clips=16384, size=64 << 20)
AHEAD_BYTES = 192 << 20  #: of clips that are read but not yet written.
CLIP_BYTES = 4096  #: what a clip takes beside its values.
BATCH_BYTES = 4 << 20
BATCH_CLIPS = 64
THREADS = 4
FAILURES_AT_ONCE = 256  #: in one write of the ledger.
NOT_HASHED = "00" * 32  #: as the digest of the source file: the clip's own digest says whether its content changed.


@dataclass(frozen=True)
class Given:
    """What the features themselves do not say."""

    backbone: str
    weights: str = "unknown"
    fps: float | None = None  #: rows a second; the time of a row is its index where that is not known.

    def __post_init__(self) -> None:
        for option, text in (("--backbone", self.backbone), ("--weights", self.weights)):
            if not text.strip() or not text.isprintable():
                raise LongreelError(f"{option}: {text!r} is blank or holds control characters. Name the network.")

    def spec(self, dim: int) -> Spec:
        """The facts that all features of the store share."""
        sampling = "given" if self.fps is None else f"given, {self.fps:.12g} fps"
        return Spec(self.backbone, self.weights, dim, sampling, preprocessing="given", decoder="given")


def import_features(
    source: Source,
    folder: Path,
    given: Given,
    *,
    workers: int | None = None,
    refresh: bool = False,
    retry_failed: bool = False,
    repair: bool = False,
    on_plan: Callable[[Plan], None] = lambda plan: None,
    on_clip: Callable[[str], None] = lambda clip_id: None,
) -> Extraction:
    """Write the features of every clip of the source that the store does not hold yet.

    A clip that cannot be used goes to the ledger and stops nothing. Interrupted at any point, the same call goes on
    from the last sealed shard and ends in the same digest.

    Args:
        source: From ``open_source``.
        folder: The store; made if needed.
        given: Backbone, weights and rows a second.
        workers: Reading threads; 4 if ``None``.
        refresh: Import clips again whose file has changed.
        retry_failed: Try the clips of the ledger again.
        repair: Read every byte of the store first; otherwise only damage that shows in a shard's header is seen.
        on_plan, on_clip: Called once before the work, and after each clip.

    Raises:
        StoreMismatch: When the store was made in another way.
        StoreInUse: When another process is writing to it.
        EnvironmentFault: When it cannot be written.
    """
    if given.fps is not None and not 0.0 < given.fps < math.inf:
        raise LongreelError(f"--fps {given.fps:g} is no rate. Give the rows a second, such as 1, or leave it out.")
    make_folder(folder)
    with owned(folder / f".writer-{WHOLE}.lock", f"{folder} (slice {WHOLE})", StoreInUse):
        store, aside = open_whole(folder, repair)
        spec = given.spec(store.spec.dim if store else _first_width(source))
        plan = plan_extraction(
            source.manifest,
            folder,
            spec,
            WHOLE,
            refresh=refresh,
            retry_failed=retry_failed,
            unchanged=lambda clip, origin: _is_unchanged(source, clip, origin, store, given.fps),
        )
        plan = replace(plan, set_aside=[path.name for path in aside])
        on_plan(plan)
        provenance = json.dumps(describe_environment("numpy", "h5py"))
        writer = ShardWriter(folder, spec, slice_name=str(WHOLE), provenance=provenance, limits=LIMITS)
        reading = _read_ahead(source, plan.todo, spec.dim, given.fps, workers or THREADS)
        with writer, closing(reading):
            failures = _write(reading, writer, on_clip)
        return Extraction(len(plan.todo) - len(failures), len(plan.done), 0, plan.failed + failures, plan.set_aside)


def _first_width(source: Source) -> int:
    """The width of the first clip, in the order of the ids, that has one."""
    reasons = []
    for clip in source.manifest.clips:
        try:
            return source.width(clip)
        except Unreadable as error:
            reasons.append(f"{clip.clip_id}: {error}")
    raise LongreelError(
        f"{source.manifest.path}: not one of its {len(reasons)} arrays can be read; the first: {reasons[0]}. "
        f"Give a folder of float .npy files, or an HDF5 file of float datasets."
    )


def _is_unchanged(source: Source, clip: Clip, origin: Origin, store: FeatureStore | None, fps: float | None) -> bool:
    """Whether the source still gives what is stored; a file that was only touched does."""
    facts = file_facts(source.manifest.root / clip.path)
    if store is None or facts[0] == -1 or facts == (origin.size, origin.mtime_ns):
        return True
    with suppress(Unreadable):
        features = to_clip(source.load(clip).values, store.spec.dim, fps)
        return features.digest(clip.clip_id) == store.clip_digest(clip.clip_id)
    return False


@dataclass(frozen=True)
class Ready:
    """A clip that was read and can be written."""

    clip_id: str
    features: ClipFeatures = field(repr=False)
    origin: Origin
    digest: bytes


def _read_clip(source: Source, clip: Clip, dim: int, fps: float | None) -> Ready | Failure:
    try:
        if problem := id_problem(clip.clip_id):
            raise Unreadable(problem)
        loaded = source.load(clip)
        features = to_clip(loaded.values, dim, fps)
    except Unreadable as error:
        # What was seen of a file that is being changed is no reason to leave it alone next time.
        facts = (-1, -1) if isinstance(error, Changing) else file_facts(source.manifest.root / clip.path)
        return Failure(clip.clip_id, clip.path, str(error), "", *facts, time=time.time())
    origin = Origin(source.reader, 1.0, loaded.size, loaded.mtime_ns, NOT_HASHED)
    return Ready(clip.clip_id, features, origin, features.digest(clip.clip_id))


def _read_ahead(
    source: Source, todo: Sequence[Clip], dim: int, fps: float | None, workers: int
) -> Generator[Ready | Failure, None, None]:
    """Read the clips in threads, and yield them in their order; what waits to be taken is bounded in bytes."""

    def read(batch: list[Clip]) -> list[Ready | Failure]:
        return [_read_clip(source, clip, dim, fps) for clip in batch]

    batches = _cut(source, todo)
    waiting: deque[tuple[Future[list[Ready | Failure]], int]] = deque()
    ahead = 0
    pool = ThreadPoolExecutor(workers, thread_name_prefix="import")
    try:
        batch = next(batches, None)
        while batch or waiting:
            while batch and (not waiting or ahead + batch[1] <= AHEAD_BYTES):
                waiting.append((pool.submit(read, batch[0]), batch[1]))
                ahead += batch[1]
                batch = next(batches, None)
            future, size = waiting.popleft()
            results = future.result()
            del future  # it would hold these clips while the next are read
            while results:
                yield results.pop(0)
            ahead -= size
    finally:
        pool.shutdown(cancel_futures=True)


def _write(results: Iterator[Ready | Failure], writer: ShardWriter, on_clip: Callable[[str], None]) -> list[Failure]:
    """Put what was read into shards and the ledger; all failures."""
    failures: list[Failure] = []
    noted = 0
    try:
        for result in results:
            if isinstance(result, Failure):
                failures.append(result)
            else:
                writer.add(result.clip_id, result.features, result.origin, result.digest)
            if len(failures) - noted >= FAILURES_AT_ONCE:
                append_failures(writer.folder, str(WHOLE), failures[noted:])
                noted = len(failures)
            on_clip(result.clip_id)
            del result
    finally:
        append_failures(writer.folder, str(WHOLE), failures[noted:])
    return failures


def _cut(source: Source, todo: Sequence[Clip]) -> Iterator[tuple[list[Clip], int]]:
    """Clips in groups that are worth a thread's turn, with their bytes in the source."""
    batch: list[Clip] = []
    total = 0
    for clip in todo:
        size = source.weigh(clip) + CLIP_BYTES
        if batch and (total + size > BATCH_BYTES or len(batch) == BATCH_CLIPS):
            yield batch, total
            batch, total = [], 0
        batch.append(clip)
        total += size
    if batch:
        yield batch, total
