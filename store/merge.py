"""Stores of one kind into one store of large shards. The sources are only read."""

import contextlib
import json
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ..durable import make_folder, owned, write_bytes
from ..errors import LongreelError, StoreDamaged, StoreInUse, StoreMismatch
from ..provenance import describe_environment
from .ledger import Failure, read_failures
from .reader import FeatureStore
from .records import ClipFeatures, combine_digests
from .shard import read_provenance, refuse_changed, shard_paths
from .writer import SealLimits, ShardWriter

LARGE = SealLimits(clips=1024, size=512 << 20, seconds=math.inf)
PROVENANCE_BYTES = 32_000  #: HDF5 refuses attributes of more than 64 KiB.
NAMED = 5  #: clips that a message names.


@dataclass(frozen=True)
class Merge:
    """What a merge did."""

    clips: int  #: in the merged store.
    written: int  #: in this call; the others were there from an interrupted one.
    shards: int
    replaced: int  #: clips with other features in several sources, of which the one written last was taken.
    failed: int  #: clips that could not be extracted by any source.
    digest: str


def merge_stores(
    sources: Sequence[Path],
    out: Path,
    *,
    newest: bool = False,
    limits: SealLimits = LARGE,
    on_clip: Callable[[int, int], None] = lambda done, total: None,
) -> Merge:
    """Write the clips of all sources to ``out``, each once, and their ledgers as one.

    Every shard is checked against its hash first, and every clip against its digest on the way. Interrupted at any
    point, the same call goes on from the last sealed shard. Two shards at most are in memory: one gathers while the
    other is sealed.

    Args:
        sources: Stores with equal specs.
        out: A folder that does not exist or is empty, or what an interrupted merge of the same sources has left.
        newest: Of a clip with different features in two sources take the one whose shard file was written last, and
            from files of one age that of the source named last.
        limits: When a shard is full.
        on_clip: Called after each clip with the number done and the number to do.

    Raises:
        StoreMismatch: When a source is no store, is of another kind, or has other features for a clip; or ``out``
            holds something else.
        StoreDamaged: When a shard of a source is not what was written.
        StoreInUse: When another process writes to ``out``.
        EnvironmentFault: When ``out`` cannot be written.
    """
    if out.resolve() in {source.resolve() for source in sources}:
        raise LongreelError(f"{out}: is a source too. Give another folder, and use that from then on.")
    for source in sources:  # no digest covers a clip's origin, and what is damaged must not get a new, right hash
        refuse_changed(source)
    stores = [FeatureStore(source) for source in sources]
    _check_specs(stores)
    chosen, replaced = choose_clips(stores, newest)
    make_folder(out)
    with owned(out / ".writer-1of1.lock", f"{out} (slice 1of1)", StoreInUse):
        done = _find_done(out, stores[0], chosen)
        todo = [(clip_id, store) for clip_id, store in chosen.items() if clip_id not in done]
        with ShardWriter(out, stores[0].spec, provenance=_merge_provenance(stores), limits=limits) as writer:
            for number, (clip_id, store) in enumerate(todo, 1):
                features = store.read([clip_id])[0]  # a copy: a mapped one would hold its shard open
                writer.add(clip_id, ClipFeatures(features, store[clip_id].seconds), store.origin(clip_id))
                on_clip(number, len(todo))
        failures = _merge_ledgers([*sources, out], chosen)
        _write_ledger(out, failures)
        merged = FeatureStore(out)
    digest = combine_digests(store.clip_digest(clip_id) for clip_id, store in chosen.items())
    if merged.digest() != digest:
        raise StoreDamaged(f"{out}: does not hold what its sources do. Check the disk, and merge into a new folder.")
    return Merge(len(chosen), len(todo), len(merged.shards), replaced, len(failures), digest)


def choose_clips(stores: Sequence[FeatureStore], newest: bool) -> tuple[dict[str, FeatureStore], int]:
    """The store from which each clip is taken, and for how many clips there was something to choose.

    Raises:
        StoreMismatch: When two stores have different features for a clip, unless ``newest``.
    """
    chosen: dict[str, FeatureStore] = {}
    different: dict[str, FeatureStore] = {}
    for store in stores:
        for clip_id in store:
            first = chosen.setdefault(clip_id, store)
            if first.clip_digest(clip_id) == store.clip_digest(clip_id):
                continue
            different.setdefault(clip_id, store)
            if newest and _time_written(store, clip_id) >= _time_written(first, clip_id):
                chosen[clip_id] = store
    if different and not newest:
        names = ", ".join(
            f"{clip_id!r} in {chosen[clip_id].folder} and {store.folder}"
            for clip_id, store in list(different.items())[:NAMED]
        )
        raise StoreMismatch(
            f"{len(different)} clips have different features: {names}. "
            f"--newest takes those that were written last; or leave one of the stores out."
        )
    return chosen, len(different)


def _time_written(store: FeatureStore, clip_id: str) -> int:
    return store.place(clip_id)[0].path.stat().st_mtime_ns


def _check_specs(stores: Sequence[FeatureStore]) -> None:
    first = stores[0]
    for store in stores:
        if different := first.spec.differences(store.spec):
            raise StoreMismatch(
                f"{store.folder}: was made otherwise than {first.folder}: {'; '.join(different)}. "
                f"Only features made in the same way go into one store."
            )


def _find_done(out: Path, source: FeatureStore, chosen: Mapping[str, FeatureStore]) -> set[str]:
    """The clips that an interrupted merge has left in ``out``."""
    if not shard_paths(out):
        return set()
    store = FeatureStore(out)
    _check_specs([source, store])
    for clip_id in store:
        if clip_id not in chosen or chosen[clip_id].clip_digest(clip_id) != store.clip_digest(clip_id):
            raise StoreMismatch(f"{out}: holds {clip_id!r} otherwise than the sources do. Merge into a new folder.")
    return set(store)


def _merge_provenance(stores: Sequence[FeatureStore]) -> str:
    """The versions and machines of all sources, as many as there is room for, those of most shards first."""
    counts = Counter(read_provenance(shard.path) for store in stores for shard in store.shards)
    kept, size = [], 0
    for text, shards in counts.most_common():
        size += len(text)
        if size <= PROVENANCE_BYTES:
            document = text
            with contextlib.suppress(ValueError):
                document = json.loads(text)
            kept.append({"shards": shards, "provenance": document})
    return json.dumps(
        describe_environment("numpy", "h5py") | {"merged_from": kept, "left_out": len(counts) - len(kept)}
    )


def _merge_ledgers(folders: Sequence[Path], chosen: Mapping[str, FeatureStore]) -> dict[str, Failure]:
    """The latest failure of each clip that no source has features of."""
    failures: dict[str, Failure] = {}
    for folder in folders:
        for clip_id, failure in read_failures(folder).items():
            if clip_id not in chosen and (clip_id not in failures or failures[clip_id].time <= failure.time):
                failures[clip_id] = failure
    return failures


def _write_ledger(out: Path, failures: Mapping[str, Failure]) -> None:
    if failures:
        lines = [json.dumps(asdict(failure)) + "\n" for failure in failures.values()]
        write_bytes(out / "failed-1of1.jsonl", "".join(lines).encode())
