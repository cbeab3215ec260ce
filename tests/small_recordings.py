"""Short recordings of joints in the files that others give, and the command that imports them."""

from pathlib import Path

import h5py
import numpy as np
import typer
from typer.testing import CliRunner

from longreel.commands.skeletons import import_skeletons

app = typer.Typer()
app.command("import-skeletons")(import_skeletons)
app.callback()(lambda: None)  # otherwise the only command has no name


def invoke(*words: object):
    """A call of the command line."""
    return CliRunner().invoke(app, [str(word) for word in words])


def draw_joints(bodies: int, frames: int, count: int, numbers: int, seed: int = 0) -> np.ndarray:
    """``(M, T, V, C)``"""
    return np.random.default_rng(seed).standard_normal((bodies, frames, count, numbers)).astype(np.float32)


def write_hdf5(path: Path, clips: int = 5, **changed: object) -> Path:
    """Clips of two classes in the form of NW-UCLA, the last two of them for test; ``None`` leaves a dataset out."""
    numbers = np.arange(clips)
    values: dict[str, object] = {
        "joints": draw_joints(clips, 4, 20, 3)[:, :, None],
        "lengths": np.array([4, 1, 2, 3, 4], np.int32)[numbers % 5],
        "labels": numbers % 2,
        "split": (numbers >= clips - 2).astype(np.int8),
        "names": [f"clip {number}" for number in numbers],
        "class_names": ["walk", "carry"],
        "view": np.where(numbers >= clips - 2, 3, 1 + numbers % 2).astype(np.int16),
    }
    with h5py.File(path, "w") as file:
        for name, value in (values | changed).items():
            if value is not None:
                file[name] = value
    return path


def naive_rows(clip: np.ndarray, bodies: int) -> list[list[float]]:
    """``(M, T, V, C)`` -> rows in the order bodies, joints, coordinates, by plain loops."""
    rows = []
    for frame in range(clip.shape[1]):
        row: list[float] = []
        for body in range(bodies):
            there = clip[body, frame] if body < len(clip) else np.zeros(clip.shape[2:])
            row += [float(number) for joint in there for number in joint]
        rows.append(row)
    return rows
