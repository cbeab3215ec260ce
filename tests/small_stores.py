"""Small stores for the tests of verifying, mending, exporting and merging."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from longreel.store import ClipFeatures, Origin, ShardWriter, Spec

SPEC = Spec(backbone="b", weights="w", dim=4, sampling="3 frames", preprocessing="none", decoder="auto")
ORIGIN = Origin(decoder="pyav", fraction=1.0, size=7, mtime_ns=9, sha256="ab" * 32)


def some_clip(seed: int, frames: int = 3, dim: int = 4) -> ClipFeatures:
    rng = np.random.default_rng(seed)
    return ClipFeatures(rng.normal(size=(frames, dim)).astype(np.float16), np.arange(frames) / 2)


def write_shard(folder: Path, clips: Mapping[str, ClipFeatures], spec: Spec = SPEC) -> Path:
    """One more shard, with these clips; gives its path."""
    folder.mkdir(parents=True, exist_ok=True)
    before = set(folder.glob("*.h5"))
    with ShardWriter(folder, spec) as writer:
        for clip_id, clip in clips.items():
            writer.add(clip_id, clip, ORIGIN)
    (made,) = set(folder.glob("*.h5")) - before
    return made


def write_shards(folder: Path, count: int) -> list[Path]:
    """A store with so many shards of two clips each: `0a`, `0b`, `1a`, ..."""
    return [
        write_shard(folder, {f"{number}{half}": some_clip(2 * number + place) for place, half in enumerate("ab")})
        for number in range(count)
    ]


def flip_bit(path: Path, byte: int) -> None:
    content = bytearray(path.read_bytes())
    content[byte] ^= 1
    path.write_bytes(content)
