"""Kinetics-Skeleton as PYSKL publishes it: poses one behind the other, in files beside the table of contents.

Reference:
    PYSKL, github kennymckormick/pyskl, tools/data/README.md: an annotation has ``raw_file`` and ``frame_inds`` in place
    of joints; the file is a dict of clip -> ``keypoint`` (N, V, 3) with x, y and score of N poses.
    Frames without a pose are left out, as its ``DecompressPose`` does. Differs: of more than two poses in a frame those
    with the highest ``box_score`` stay; there the first two that the file has.
"""

from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import ForeignRefused
from .arrays import Unreadable
from .plain_pickle import Array, load_plain

FILES_KEPT = 2  #: that stay in memory; clips are read file by file.


def is_folded(entry: dict) -> bool:
    """Whether an annotation's joints are in another file."""
    return "keypoint" not in entry and isinstance(entry.get("raw_file"), str)


def unfold(name: str, entry: dict, folder: Path, bodies: int) -> NDArray[Any]:
    """``(T, M, V, 3)`` of a clip, T being the frames that have a pose.

    Args:
        name: Of the clip.
        entry: Its annotation.
        folder: Of the table of contents.
        bodies: How many of a frame are kept at most.

    Raises:
        Unreadable: When its file is not there or does not hold it, or what it holds does not fit.
    """
    poses, frames = _read(_find(entry["raw_file"], folder), name), entry.get("frame_inds")
    if not isinstance(frames, Array) or frames.values.shape != (len(poses),) or len(poses) == 0:
        raise Unreadable(f"has {len(poses)} poses, and no 'frame_inds' with one number for each")
    given = entry.get("box_score")
    certainty = np.ones(len(poses))
    if isinstance(given, Array) and given.values.shape == certainty.shape:
        certainty = given.values
    found, place = np.unique(frames.values, return_inverse=True)
    order = np.lexsort((np.arange(len(poses)), -certainty, place))  # frame by frame, the most certain first
    rank = np.arange(len(poses)) - np.searchsorted(place[order], place[order])
    kept = order[rank < bodies]
    clip = np.zeros((len(found), bodies, *poses.shape[1:]), dtype=poses.dtype)
    clip[place[kept], rank[rank < bodies]] = poses[kept]
    return clip


def _find(given: str, folder: Path) -> Path:
    """The file that an annotation names, by as much of its path as there is below the folder."""
    parts = [part for part in PurePosixPath(given).parts if part not in ("/", "..")]
    for first in range(len(parts)):
        if (path := folder.joinpath(*parts[first:])).is_file():
            return path
    raise Unreadable(f"needs {given!r}, which is not below {folder}. Put the kpfiles there")


def _read(path: Path, name: str) -> NDArray[Any]:
    try:
        document = _open(path)
    except (OSError, ForeignRefused) as error:
        raise Unreadable(str(error)) from None
    entry = document.get(name) if isinstance(document, dict) else None
    poses = entry.get("keypoint") if isinstance(entry, dict) else None
    if not isinstance(poses, Array) or poses.values.ndim != 3:
        raise Unreadable(f"is not in {path.name} as a 'keypoint' of (N, V, 3)")
    return poses.values


@lru_cache(FILES_KEPT)
def _open(path: Path) -> object:
    with open(path, "rb") as file:
        return load_plain(file, path)
