"""The demo's videos: a small long-tailed set of real H.264 files whose classes differ in motion, not in looks.

Every clip shows one actor that moves as its class says, in front of a random background. Shape, colour, size, place,
speed, frame size, frame rate, length, noise, compression, a moving camera and fainter distractors (which move as any
class does) are drawn alike for all classes. Numpy draws the frames, PyAV writes the files.
"""

import csv
import io
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from ..durable import make_folder, naming_faults, owned, publish, write_bytes
from ..errors import EnvironmentFault, LongreelError, RunMismatch
from ..generate.motions import CLASSES, TURN, Floats
from ..manifest import SPLITS

RECIPE = 1  #: raised when the same seed would give other clips, so that a folder never mixes the two.
FRAME_RATES = (10, 12, 15, 20, 24, 25, 30)
COLUMNS = ("path", "label", "split", "background", "shape", "speed", "distractors")

#: Split -> class -> clips. Training counts fall by the same factor from class to class: 60 * 20 ** (-rank / 9).
COUNTS: dict[str, dict[str, int]] = {
    "train": dict(zip(CLASSES, (60, 43, 31, 22, 16, 11, 8, 6, 4, 3), strict=True)),
    "val": dict.fromkeys(CLASSES, 6),
    "test": dict.fromkeys(CLASSES, 12),
}

#: Shape -> distance to its edge (negative inside) of offsets from its centre, all in radii.
SHAPES: dict[str, Callable[[Floats, Floats], Floats]] = {
    "disc": lambda x, y: np.hypot(x, y) - 1,
    "square": lambda x, y: np.maximum(np.abs(x), np.abs(y)) - 0.88,
    "diamond": lambda x, y: (np.abs(x) + np.abs(y)) / np.sqrt(2) - 0.88,
    "ring": lambda x, y: np.abs(np.hypot(x, y) - 0.75) - 0.3,
    "cross": lambda x, y: np.maximum(np.minimum(np.abs(x), np.abs(y)) - 0.38, np.maximum(np.abs(x), np.abs(y)) - 1),
}

#: Background -> pattern in [0, 1] over turned coordinates in shorter frame sides, at a spatial frequency.
BACKGROUNDS: dict[str, Callable[[Floats, Floats, float], Floats]] = {
    "plain": lambda u, v, f: 0 * u + 0.5,
    "gradient": lambda u, v, f: 0.5 + 0.4 * u,
    "stripes": lambda u, v, f: 0.5 + 0.5 * np.sin(6.3 * f * u),
    "checker": lambda u, v, f: (np.floor(f * u) + np.floor(f * v)) % 2,
    "clouds": lambda u, v, f: 0.5 + 0.25 * (np.sin(4 * f * u + np.sin(9 * v)) + np.sin(4 * f * v + np.sin(7 * u))),
}


@dataclass(frozen=True, slots=True)
class Mover:
    """One moving thing: its look and how it runs its class's path. Lengths are in shorter frame sides."""

    label: str
    shape: str
    colour: tuple[float, ...]  #: red, green, blue in [0, 255].
    radius: float
    reach: float  #: half the length of its path.
    centre: tuple[float, float]  #: of its path, in [0, 1] of the room it has in x and y.
    tilt: float  #: radians by which its path is turned.
    cycles: float
    phase: float
    span: tuple[float, float]  #: when it starts and stops to move, in [0, 1] of the clip.


@dataclass(frozen=True, slots=True)
class Scene:
    """Every random choice of one clip."""

    height: int
    width: int
    fps: int
    frames: int
    crf: int
    noise: float  #: standard deviation of the grain, in grey levels.
    grain: int  #: seed of the grain and of the camera's shake.
    background: str
    frequency: float
    turn: float  #: radians by which the background is turned.
    colours: tuple[tuple[float, ...], tuple[float, ...]]  #: the background's two ends.
    pan: tuple[float, float]  #: the camera's drift in x and y over the clip, in shorter frame sides.
    shake: float  #: standard deviation of the camera's shake, in shorter frame sides.
    actor: Mover
    distractors: tuple[Mover, ...]

    @property
    def side(self) -> int:
        """The shorter side of the frame, in pixels: the unit of the other lengths."""
        return min(self.height, self.width)


def draw_scene(rng: np.random.Generator, label: str) -> Scene:
    """Draw the look and the nuisances of a clip; only the actor's path depends on ``label``."""
    ground = rng.uniform(70, 185, 3)
    fps = int(rng.choice(FRAME_RATES))
    return Scene(
        height=2 * int(rng.integers(48, 97)),
        width=2 * int(rng.integers(48, 97)),
        fps=fps,
        frames=round(fps * rng.uniform(1.2, 2.0)),
        crf=int(rng.integers(22, 35)),
        noise=rng.uniform(0, 4),
        grain=int(rng.integers(2**32)),
        background=str(rng.choice(list(BACKGROUNDS))),
        frequency=rng.uniform(2, 7),
        turn=rng.uniform(0, TURN),
        colours=(tuple(ground - rng.uniform(0, 20, 3)), tuple(ground + rng.uniform(0, 20, 3))),
        pan=(rng.normal(0, 0.02), rng.normal(0, 0.02)),
        shake=rng.uniform(0, 0.004),
        actor=_draw_mover(rng, label, ground, size=1.0, strength=1.0),
        distractors=tuple(
            _draw_mover(rng, str(other), ground, size=0.7, strength=rng.uniform(0.1, 0.4))
            for other in rng.choice(list(CLASSES), size=rng.integers(0, 3))
        ),
    )


def _draw_mover(rng: np.random.Generator, label: str, ground: Floats, size: float, strength: float) -> Mover:
    contrast = rng.choice([-1, 1]) * rng.uniform(60, 120) + rng.normal(0, 15, 3)
    return Mover(
        label=label,
        shape=str(rng.choice(list(SHAPES))),
        colour=tuple(np.clip(ground + strength * contrast, 0, 255)),
        radius=size * rng.uniform(0.1, 0.16),
        reach=rng.uniform(0.22, 0.32),
        centre=(rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.8)),
        tilt=rng.normal(0, 0.15),
        cycles=rng.uniform(0.9, 1.6),
        phase=rng.uniform(),
        span=(rng.uniform(0, 0.15), rng.uniform(0.85, 1)),
    )


def place(mover: Mover, scene: Scene) -> Floats:
    """Where a still camera sees a mover in each frame: x, y and radius in pixels, ``(T, 3)``."""
    start, stop = mover.span
    t = np.clip((np.linspace(0, 1, scene.frames) - start) / (stop - start), 0, 1)
    x, y, scale = CLASSES[mover.label](t, mover.cycles, mover.phase)
    cos, sin = np.cos(mover.tilt), np.sin(mover.tilt)
    # One margin for all classes and both axes, or the place alone would tell a slide from a fall.
    margin = mover.reach + mover.radius
    room = np.array([scene.width, scene.height]) / scene.side - 2 * margin
    left, top = margin + np.array(mover.centre) * room
    columns = left + mover.reach * (x * cos - y * sin), top + mover.reach * (x * sin + y * cos), mover.radius * scale
    return scene.side * np.stack(np.broadcast_arrays(*columns), axis=1)


def draw_frames(scene: Scene) -> Iterator[NDArray[np.uint8]]:
    """Yield the clip's frames, ``(H, W, 3)`` RGB."""
    rng = np.random.default_rng(scene.grain)
    shake = scene.shake * rng.standard_normal((scene.frames, 2))
    drift = np.linspace(-0.5, 0.5, scene.frames)[:, None] * np.array(scene.pan)
    camera = np.rint(scene.side * (drift + shake)).astype(int)  # (T, 2), whole pixels
    margin = int(np.abs(camera).max())
    canvas = _draw_background(scene, margin)
    grain = scene.noise * rng.standard_normal((scene.height + 16, scene.width + 16, 1), dtype=np.float32)
    movers = [(mover, place(mover, scene)) for mover in (*scene.distractors, scene.actor)]
    for index, (right, down) in enumerate(camera):
        frame = canvas[margin + down :, margin + right :][: scene.height, : scene.width].copy()
        for mover, track in movers:
            x, y, radius = track[index]
            _paint(frame, mover, x - right, y - down, radius)
        row, column = rng.integers(0, 17, 2)
        frame += grain[row : row + scene.height, column : column + scene.width]
        yield np.clip(frame + 0.5, 0, 255).astype(np.uint8)


def _draw_background(scene: Scene, margin: int) -> NDArray[np.float32]:
    """The background with ``margin`` more pixels on every side, for the camera to move over: ``(H, W, 3)``."""
    y, x = (np.arange(-margin, n + margin) / scene.side - 0.5 for n in (scene.height, scene.width))
    cos, sin = np.cos(scene.turn), np.sin(scene.turn)
    u, v = x * cos + y[:, None] * sin, y[:, None] * cos - x * sin
    low, high = np.array(scene.colours, np.float32)
    return low + BACKGROUNDS[scene.background](u, v, scene.frequency)[..., None].astype(np.float32) * (high - low)


def _paint(frame: NDArray[np.float32], mover: Mover, x: float, y: float, radius: float) -> None:
    """Blend a mover into ``frame`` in place, its edge one pixel soft; only the pixels around it are touched."""
    size = radius * 1.5 + 1
    top, left = max(0, int(y - size)), max(0, int(x - size))
    window = frame[top : max(0, int(y + size)), left : max(0, int(x + size))]
    rows, columns = (np.arange(n, dtype=np.float32) for n in window.shape[:2])
    distance = SHAPES[mover.shape]((columns + (left - x)) / radius, (rows[:, None] + (top - y)) / radius)
    cover = np.clip(0.5 - radius * distance, 0, 1)
    window += cover[..., None].astype(np.float32) * (np.array(mover.colour, np.float32) - window)


def write_clip(path: Path, frames: Iterator[NDArray[np.uint8]], fps: int, crf: int) -> None:
    """Write frames as an H.264 mp4 of constant frame rate, whole or not at all.

    Raises:
        EnvironmentFault: When the disk is full, the folder cannot be written, or PyAV lacks an H.264 encoder.
    """
    if "libx264" not in av.codecs_available:
        raise EnvironmentFault("this PyAV cannot write H.264 (no libx264). Install the 'av' wheel from PyPI.")
    part = path.with_name(path.name + ".part")
    # Without B-frames every frame is shown in the order it is stored, so the file needs no edit list.
    # x264's macroblock tree reads memory that it never wrote, so that bytes depend on what was there before.
    options = {"preset": "veryfast", "crf": str(crf), "bf": "0", "threads": "1", "x264-params": "mbtree=0"}
    with naming_faults(path, 0):
        with av.open(str(part), "w", format="mp4", container_options={"use_editlist": "0"}) as container:
            stream = container.add_stream("libx264", rate=fps, options=options)
            for index, pixels in enumerate(frames):
                if index == 0:
                    stream.height, stream.width, stream.pix_fmt = *pixels.shape[:2], "yuv420p"
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode())
        publish(part, path)


def render_demo(
    folder: Path,
    seed: int = 0,
    on_clip: Callable[[int, int], None] | None = None,
    counts: Mapping[str, Mapping[str, int]] = COUNTS,
) -> Path:
    """Render the demo's videos and their manifest; clips that exist are kept, so a repeated call finishes a broken one.

    A clip depends on the seed, its class, its split and its number alone. The same seed gives the same bytes on the
    same kind of processor with the same versions of numpy and PyAV.

    Args:
        folder: Gets ``videos/<class>/<nnn>.mp4`` (from 000 in train, 100 in val, 200 in test) and ``manifest.csv``,
            whose ``speed`` is the actor's, in shorter frame sides a second.
        seed: 0 or more.
        on_clip: Called with (clips done, clips in all) after each clip.
        counts: Split -> class -> number of clips.

    Returns:
        The manifest's path.

    Raises:
        LongreelError: When the seed is negative.
        RunMismatch: When the folder holds other videos than those of this seed.
        EnvironmentFault: When the folder cannot be written, or PyAV lacks an H.264 encoder.
        InUse: When another process renders into the folder.
    """
    if seed < 0:
        raise LongreelError(f"the seed is {seed}. Expected 0 or more.")
    jobs = [(label, split, i) for split, classes in counts.items() for label, n in classes.items() for i in range(n)]
    make_folder(folder)
    with owned(folder / ".demo.lock", str(folder)):
        _claim(folder, f"longreel demo, recipe {RECIPE}, seed {seed}\n")
        rows: list[tuple[str, ...]] = [COLUMNS]
        for done, job in enumerate(jobs, 1):
            rows.append(_render_clip(folder, seed, *job))
            if on_clip is not None:
                on_clip(done, len(jobs))
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(rows)
        write_bytes(folder / "manifest.csv", text.getvalue().encode())
    return folder / "manifest.csv"


def _claim(folder: Path, mark: str) -> None:
    """Mark the folder as this recipe's and seed's before its first clip, so that clips of two kinds never mix."""
    path = folder / "demo.txt"
    if not path.exists() and not (folder / "videos").exists():
        write_bytes(path, mark.encode())
    found = path.read_text() if path.exists() else "no demo"
    if found != mark:
        raise RunMismatch(f"{folder}: holds videos of {found.strip()!r}, not of {mark.strip()!r}. Give another folder.")


def _render_clip(folder: Path, seed: int, label: str, split: str, index: int) -> tuple[str, ...]:
    """Render one clip unless it exists, and return its row of the manifest."""
    part = SPLITS.index(split)
    scene = draw_scene(np.random.default_rng([seed, zlib.crc32(label.encode()), part, index]), label)
    path = folder / "videos" / label / f"{part}{index:02d}.mp4"
    if not path.exists():
        make_folder(path.parent)
        write_clip(path, draw_frames(scene), scene.fps, scene.crf)
    start, stop = scene.actor.span
    speed = 2 * scene.actor.reach / (stop - start) * scene.fps / scene.frames
    relative = path.relative_to(folder).as_posix()
    return relative, label, split, scene.background, scene.actor.shape, f"{speed:.3f}", str(len(scene.distractors))
