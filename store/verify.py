"""Checking that every byte of a store is what was written."""

import math
import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import EnvironmentFault, LongreelError, StoreDamaged
from .lost import read_lost_ids
from .records import combine_digests
from .shard import Shard, is_unchanged, read_shard, sequence_of, some_shard_paths

#: version of HDF5's superblock -> byte at which the 8 bytes of the end-of-file address begin (HDF5 specification II.A).
END_ADDRESS = {0: 40, 1: 44, 2: 28, 3: 28}


@dataclass(frozen=True)
class Verification:
    """What a check of a store found."""

    shards: int
    checked: int  #: shards of which every byte was read; of the others only the header and the length.
    sample: float | None  #: the part of the shards that was asked for, in percent; ``None`` for all.
    seed: int | None  #: which draw of the sample; the same seed draws the same shards.
    clips: int  #: whole clips of the checked shards, each counted once.
    digest: str | None  #: over the whole clips, computed from their bytes as they are now; ``None`` for a sample.
    damaged: list[dict] = field(default_factory=list)  #: ``shard``, ``problem`` and the ``clips`` lost, where known.
    ignored: list[str] = field(default_factory=list)  #: other ``.h5`` files: those set aside, or with a foreign name.


@dataclass
class _Findings:
    """The whole clips, and what is wrong with each damaged shard."""

    digests: dict[str, bytes] = field(default_factory=dict)
    newest: dict[str, int] = field(default_factory=dict)  #: clip -> sequence of the last whole shard that holds it.
    problems: dict[Path, str] = field(default_factory=dict)
    broken: dict[Path, list[str]] = field(default_factory=dict)  #: clips of a shard that could be opened.


def parse_sample(text: str) -> float:
    """``5%`` or ``5`` -> 5.0.

    Raises:
        LongreelError: When it is no part of the whole.
    """
    try:
        percent = float(text.removesuffix("%"))
    except ValueError:
        percent = math.nan
    if not 0 < percent <= 100:
        raise LongreelError(f"--sample {text!r} is not a part above 0% and up to 100%, such as 5%.")
    return percent


def verify_store(folder: Path, *, sample: float | None = None, seed: int | None = None) -> Verification:
    """Read every shard: the digest of all its bytes against its name, and each clip against its own digest.

    Args:
        folder: The store.
        sample: Read that many percent of the shards, drawn at random and at least one, in place of all. Whole shards,
            since none is opened before all of its bytes were hashed. Names, headers and lengths are checked of all.
        seed: Of the draw; a new one if ``None``, so that checks made again and again come to see every shard.

    Raises:
        StoreMismatch: When the folder holds no shard.
        EnvironmentFault: When a shard may not be read.
    """
    paths = some_shard_paths(folder)
    if sample is not None and seed is None:
        seed = random.SystemRandom().randrange(2**32)
    chosen = set(paths) if sample is None else draw_shards(paths, sample, seed or 0)
    found = _Findings()
    for path in paths:
        _check_shard(path, path in chosen, found)
    return Verification(
        shards=len(paths),
        checked=len(chosen),
        sample=sample,
        seed=None if sample is None else seed,
        clips=len(found.digests),
        digest=combine_digests(found.digests.values()) if sample is None else None,
        damaged=_describe_damage(found),
        ignored=sorted({path.name for path in folder.glob("*.h5")} - {path.name for path in paths}),
    )


def draw_shards(paths: Sequence[Path], percent: float, seed: int) -> set[Path]:
    """That many percent of the shards, rounded up, drawn at random."""
    return set(random.Random(seed).sample(paths, math.ceil(len(paths) * percent / 100)))


def _check_shard(path: Path, fully: bool, found: _Findings) -> None:
    """HDF5 can crash on one changed bit, so only a shard with the right hash is opened."""
    try:
        if problem := find_header_problem(path):
            found.problems[path] = problem
        elif fully and not is_unchanged(path):
            found.problems[path] = "its bytes are not what was written"
        elif fully:
            _check_clips(read_shard(path), found)
    except StoreDamaged as error:
        found.problems[path] = str(error)
    except PermissionError as error:
        raise EnvironmentFault(f"{path}: may not be read. Give this user the permission.") from error
    except OSError as error:
        found.problems[path] = f"it cannot be read: {error.strerror or error}"


def find_header_problem(path: Path) -> str | None:
    """What is wrong with a file's beginning or length as far as its first 64 bytes tell; ``None`` if nothing."""
    with open(path, "rb") as file:
        head, size = file.read(64), os.fstat(file.fileno()).st_size
    if len(head) < 64 or head[:8] != b"\x89HDF\r\n\x1a\n" or head[8] not in END_ADDRESS:
        return "it does not begin as an HDF5 file does"
    begin = END_ADDRESS[head[8]]
    if (end := int.from_bytes(head[begin : begin + 8], "little")) != size:
        return f"it has {size} bytes where {end} were written"
    return None


def _check_clips(shard: Shard, found: _Findings) -> None:
    """Sort the shard's clips into whole and broken ones."""
    for index, clip_id in enumerate(shard.ids):
        digest = shard.clip(index).digest(clip_id)
        if digest == shard.digest(index):
            found.digests[clip_id] = digest
            found.newest[clip_id] = shard.sequence
        else:
            found.problems[shard.path] = "clips are not what was written"
            found.broken.setdefault(shard.path, []).append(clip_id)


def _describe_damage(found: _Findings) -> list[dict]:
    """One entry a damaged shard. A clip that a whole later shard holds too is not lost with it."""
    unread = [path for path in found.problems if path not in found.broken]
    ids = dict(zip(unread, read_lost_ids(unread), strict=True)) | found.broken
    return [
        {
            "shard": path.name,
            "problem": problem,
            "clips": [clip_id for clip_id in ids[path] if found.newest.get(clip_id, 0) < sequence_of(path)],
        }
        for path, problem in found.problems.items()
    ]
