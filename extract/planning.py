"""Before an extraction: which clips are to do, and why anything that is there is not reused."""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import ManifestError, StoreDamaged, StoreMismatch
from ..manifest import Clip, Manifest
from ..slices import Slice
from ..store import (
    Failure,
    FeatureStore,
    Lost,
    Origin,
    Spec,
    find_lost,
    read_failures,
    set_changed_aside,
    set_damaged_aside,
    shard_paths,
)


@dataclass(frozen=True)
class Plan:
    """What an extraction will do with each clip of its slice, and why anything is not reused."""

    todo: list[Clip]
    done: list[str]
    failed: list[Failure]  #: clips that failed before and are left alone.
    changed: list[str]  #: clips whose video file is no longer the one that was extracted.
    set_aside: list[str] = field(default_factory=list)  #: names that damaged shards have got by this plan.

    def describe(self) -> list[str]:
        """What a person wants to know before the work."""
        lines = [f"{len(self.done)} clips are there, {len(self.failed)} failed before, {len(self.todo)} to do"]
        lines += [f"damaged: a shard is now {name}, and its clips are made anew" for name in self.set_aside]
        if self.failed:
            lines.append(f"not tried again: {len(self.failed)} clips that failed before; --retry-failed tries them")
        again = set(self.changed) - set(self.done)
        if kept := [clip_id for clip_id in self.changed if clip_id not in again]:
            lines.append(
                f"changed since: the files of {len(kept)} clips, such as {kept[0]}; --refresh makes their features anew"
            )
        if again:
            lines.append(f"not reused: {len(again)} clips whose files have changed")
        return lines


def plan_extraction(
    manifest: Manifest,
    folder: Path,
    spec: Spec,
    part: Slice,
    *,
    refresh: bool = False,
    retry_failed: bool = False,
    unchanged: Callable[[Clip, Origin], bool] | None = None,
    repair: bool = False,
) -> Plan:
    """Compare the manifest with the store. A damaged shard is set aside and its clips are to do.

    Only the headers of the shards are read, so that much damage inside goes unseen; with ``repair`` every byte is.

    ``unchanged`` says whether a clip's file is still what was stored; by default, whether it is the file extracted.

    Raises:
        StoreMismatch: When the store was made in another way.
        ManifestError: When not one of the clips to do has a file.
    """
    store, aside = open_whole(folder, repair)
    if store is not None and (different := store.spec.differences(spec)):
        raise StoreMismatch(
            f"{folder}: holds features made in another way: {'; '.join(different)}. "
            f"Give the same options, or another store folder."
        )
    earlier, lost = read_failures(folder), find_lost(folder)
    plan = Plan([], [], [], [], [path.name for path in aside])
    for clip in part.of(manifest.clips):
        path = manifest.root / clip.path
        if store is not None and _is_held(clip.clip_id, store, lost):
            origin = store.origin(clip.clip_id)
            same_span = (origin.start, origin.end) == (clip.start, clip.end)
            same = same_span and (unchanged(clip, origin) if unchanged else _is_unchanged(path, origin))
            if not same:
                plan.changed.append(clip.clip_id)
            if same or (same_span and not refresh):
                plan.done.append(clip.clip_id)
                continue
        elif not retry_failed and _is_failure(earlier.get(clip.clip_id), lost.get(clip.clip_id), path, clip):
            plan.failed.append(earlier[clip.clip_id])
            continue
        plan.todo.append(clip)
    if plan.todo and not plan.done and not any(os.path.exists(manifest.root / clip.path) for clip in plan.todo):
        raise ManifestError(
            f"{manifest.path}: none of its {len(plan.todo)} videos is under {manifest.root}. "
            f"Give their folder with --root."
        )
    return plan


def id_problem(clip_id: str) -> str | None:
    """Why a name that others gave cannot be a clip's id."""
    if not clip_id or "\0" in clip_id:
        return "its name gives no clip id"
    try:
        clip_id.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8; rename it"
    return None


def file_facts(path: Path | str) -> tuple[int, int]:
    """Size and modification time in nanoseconds; -1 for both when there is no such file."""
    try:
        status = os.stat(path)
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def open_whole(folder: Path, repair: bool) -> tuple[FeatureStore | None, list[Path]]:
    """The store, ``None`` where nothing is, and the new paths of the damaged shards that were set aside.

    Without ``repair``, those whose header shows it; with it, every byte is read.
    """
    aside = set_damaged_aside(folder) if repair else []
    if not (before := shard_paths(folder)):
        return None, aside
    try:
        return FeatureStore(folder), aside
    except (StoreDamaged, StoreMismatch):  # damage may also look like another spec or a newer version
        moved = set_changed_aside(folder)
        if not moved and shard_paths(folder) == before:  # otherwise another slice has set it aside
            raise
    return FeatureStore(folder) if shard_paths(folder) else None, aside + moved


def _is_held(clip_id: str, store: FeatureStore, lost: Mapping[str, Lost]) -> bool:
    """Whether the store has the clip, and not just what it was before a shard that is now set aside."""
    return clip_id in store and (clip_id not in lost or store.place(clip_id)[0].sequence >= lost[clip_id].sequence)


def _is_failure(failure: Failure | None, lost: Lost | None, path: Path, clip: Clip) -> bool:
    """Whether trying again would meet the same file and span."""
    if failure is None or (lost is not None and failure.time < lost.time):
        return False
    same_file = (failure.size, failure.mtime_ns) == file_facts(path)
    return same_file and (failure.start, failure.end) == (clip.start, clip.end)


def _is_unchanged(path: Path, origin: Origin) -> bool:
    """Whether the file is the one extracted; a file that is gone does not make its features wrong."""
    size, mtime_ns = file_facts(path)
    if size == -1 or (size, mtime_ns) == (origin.size, origin.mtime_ns):
        return True
    if size != origin.size:
        return False
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == origin.sha256
    except OSError:
        return False
