"""Layouts of skeletons: which joints a body has, how they hang together, and which change places in a mirror.

A frame of a skeleton store is ``M * V * C`` numbers: bodies, joints, coordinates, in that order.
"""

import json
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any

from .errors import LongreelError, unknown


@dataclass(frozen=True)
class Layout:
    """The joints of one body. Joints are numbered from 0, in the order of ``joints``.

    Raises:
        LongreelError: When a table is not of one number for each joint, or a number is no joint.
    """

    name: str
    joints: tuple[str, ...]
    parents: tuple[int, ...]  #: of each joint, what its bone begins at; the root's is the root.
    flip: tuple[int, ...]  #: of each joint, the one whose place it takes in a mirror.
    upper: tuple[int, ...]  #: joints of the upper body.
    lower: tuple[int, ...]  #: the others.
    centre: int  #: of the graph.
    spine: int  #: what a clip is centred on.
    skip: tuple[int, ...] | None = None  #: of each joint, one about two bones away; itself where there is none.
    channels: int = 3  #: numbers of a joint, C.
    coordinates: int = 3  #: the first of them; what follows, if anything, is a score.
    #: four joints: the line up the body, from and to, and the one across it, from its right to its left. All in one of
    #: the two parts, so that a clip whose parts are of two clips stands as one of them.
    upright: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if fault := _fault(self):
            raise LongreelError(f"layout {self.name}: {fault}")

    @property
    def size(self) -> int:
        """``V * C``, numbers of one body."""
        return len(self.joints) * self.channels

    @property
    def scored(self) -> bool:
        """Whether the last number of a joint is a score."""
        return self.channels > self.coordinates

    def bodies(self, dim: int) -> int:
        """How many bodies, M, a row of ``dim`` numbers has.

        Raises:
            LongreelError: When it has no whole number of them.
        """
        if dim < self.size or dim % self.size:
            fitting = [each.name for each in LAYOUTS.values() if dim >= each.size and dim % each.size == 0]
            raise LongreelError(
                f"layout {self.name}: {len(self.joints)} joints of {self.channels} numbers are {self.size} a body, "
                f"which does not go into rows of {dim}. Layouts that do: {', '.join(fitting) or 'none'}."
            )
        return dim // self.size


def find_layout(text: str) -> Layout:
    """The layout of that name, or of that JSON file.

    Raises:
        LongreelError: When there is none, or the file is not one.
    """
    if text in LAYOUTS:
        return LAYOUTS[text]
    if text.endswith(".json"):
        return load_layout(Path(text))
    error = unknown("layout", text, LAYOUTS)
    raise type(error)(f"{error} A JSON file of the same fields works too.")


def load_layout(path: Path) -> Layout:
    """Read a layout from a JSON object whose keys are the fields of ``Layout``.

    Raises:
        LongreelError: When the file cannot be read, or a key is missing, not known, or has a value of the wrong kind.
    """
    try:
        return read_layout(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise LongreelError(f"{path}: cannot be read ({error}). Give a layout in JSON.") from None


def read_layout(text: str, where: str) -> Layout:
    """The layout that a JSON text holds; ``where`` says in messages where that stands.

    Raises:
        LongreelError: As ``load_layout``.
    """
    try:
        given = json.loads(text)
    except ValueError as error:
        raise LongreelError(f"{where}: is not a layout in JSON ({error}).") from None
    if not isinstance(given, dict):
        raise LongreelError(f"{where}: is not a JSON object. Give one with the keys {', '.join(KEYS)}.")
    if strange := [key for key in given if key not in KEYS]:
        raise LongreelError(f"{where}: {unknown('key of a layout', strange[0], KEYS)}")
    if missing := [key for key in NEEDED if key not in given]:
        raise LongreelError(f"{where}: has no {missing[0]!r}. A layout needs {', '.join(NEEDED)}.")
    for key, value in given.items():
        if not FORMS[KEYS[key]](value):
            raise LongreelError(f"{where}: {key} is {value!r}, and must be {KEYS[key]}.")
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
    try:
        return Layout(**values)
    except LongreelError as error:
        raise LongreelError(f"{where}: {error}") from None


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


#: what a value is in JSON -> whether it is.
FORMS: dict[str, Callable[[object], bool]] = {
    "a text": lambda value: isinstance(value, str),
    "a whole number": _is_number,
    "a list of texts": lambda value: isinstance(value, list) and all(isinstance(each, str) for each in value),
    "a list of whole numbers": lambda value: isinstance(value, list) and all(map(_is_number, value)),
    "a list of whole numbers, or null": lambda value: value is None or FORMS["a list of whole numbers"](value),
}
#: field of ``Layout`` -> what it is in JSON.
KEYS = {
    "name": "a text",
    "joints": "a list of texts",
    **dict.fromkeys(("parents", "flip", "upper", "lower"), "a list of whole numbers"),
    **dict.fromkeys(("centre", "spine"), "a whole number"),
    "skip": "a list of whole numbers, or null",
    **dict.fromkeys(("channels", "coordinates"), "a whole number"),
    "upright": "a list of whole numbers, or null",
}
NEEDED = [field.name for field in fields(Layout) if field.default is MISSING]


def _fault(layout: Layout) -> str | None:
    """What is wrong with a layout, and what to do."""
    count = len(layout.joints)
    if not layout.name or count == 0 or len(set(layout.joints)) < count:
        return "give it a name, and each of its joints a name of its own."
    if not 1 <= layout.coordinates <= layout.channels <= layout.coordinates + 1:
        return f"channels={layout.channels} must be coordinates={layout.coordinates}, or one more for a score."
    tables = {"parents": layout.parents, "flip": layout.flip, "skip": layout.skip}
    for key, table in tables.items():
        if table is not None and len(table) != count:
            return f"{key} has {len(table)} numbers for {count} joints. Give one for each."
    if layout.upright is not None and (len(layout.upright) != 4 or layout.coordinates != 3):
        return "upright must be four joints, of a layout in three dimensions, or null."
    if layout.upright is not None and len(set(layout.upright)) < 4:
        return "upright must be four different joints."
    tables |= {"upright": layout.upright}
    tables |= {"upper": layout.upper, "lower": layout.lower, "centre": (layout.centre,), "spine": (layout.spine,)}
    for key, table in tables.items():
        if wrong := [joint for joint in table or () if not 0 <= joint < count]:
            return f"{key} has {wrong[0]}, which is no joint. They go from 0 to {count - 1}."
    if any(layout.flip[layout.flip[joint]] != joint for joint in range(count)):
        return "flip must come back to each joint when it is followed twice."
    if sorted(layout.upper + layout.lower) != list(range(count)) or not layout.upper or not layout.lower:
        return "upper and lower must hold every joint once between them, and both one at least."
    if any(_root(layout.parents, joint) is None for joint in range(count)):
        return "parents go round in a circle. Follow them from any joint and a root, its own parent, must be reached."
    return None


def _root(parents: tuple[int, ...], joint: int) -> int | None:
    for _ in parents:
        if parents[joint] == joint:
            return joint
        joint = parents[joint]
    return None


#: name -> layout. The skip tables are those of BRL's released code (github.com/firework8/BRL), as no one rule gives
#: them; bones and mirrors of ntu25 and coco17 are PYSKL's; kinect20's bones are those of the NW-UCLA loaders, which
#: mirror nothing, and its mirror is by the joints' names. BRL has no skip table or body parts for coco17; the parts
#: here are ours. PYSKL's line up a body (PreNormalize3D) goes from joint 0, which is of the lower part, to 1; here it
#: goes from 1 on.
LAYOUTS: dict[str, Layout] = {
    "ntu25": Layout(
        name="ntu25",
        joints=(
            *("spine_base", "spine_mid", "neck", "head"),
            *("shoulder_left", "elbow_left", "wrist_left", "hand_left"),
            *("shoulder_right", "elbow_right", "wrist_right", "hand_right"),
            *("hip_left", "knee_left", "ankle_left", "foot_left"),
            *("hip_right", "knee_right", "ankle_right", "foot_right"),
            *("spine_shoulder", "hand_tip_left", "thumb_left", "hand_tip_right", "thumb_right"),
        ),
        parents=(1, 20, 20, 2, 20, 4, 5, 6, 20, 8, 9, 10, 0, 12, 13, 14, 0, 16, 17, 18, 20, 22, 7, 24, 11),
        flip=(0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 16, 17, 18, 19, 12, 13, 14, 15, 20, 23, 24, 21, 22),
        upper=(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 20, 21, 22, 23, 24),
        lower=(0, 12, 13, 14, 15, 16, 17, 18, 19),
        centre=20,
        spine=1,
        skip=(20, 1, 2, 20, 4, 20, 4, 5, 8, 20, 8, 9, 1, 0, 12, 13, 1, 0, 16, 17, 20, 7, 6, 11, 10),
        upright=(1, 20, 8, 4),
    ),
    "kinect20": Layout(
        name="kinect20",
        joints=(
            *("hip_center", "spine", "shoulder_center", "head"),
            *("shoulder_left", "elbow_left", "wrist_left", "hand_left"),
            *("shoulder_right", "elbow_right", "wrist_right", "hand_right"),
            *("hip_left", "knee_left", "ankle_left", "foot_left"),
            *("hip_right", "knee_right", "ankle_right", "foot_right"),
        ),
        parents=(1, 2, 2, 2, 2, 4, 5, 6, 2, 8, 9, 10, 0, 12, 13, 14, 0, 16, 17, 18),
        flip=(0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 6, 7, 16, 17, 18, 19, 12, 13, 14, 15),
        upper=(1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11),
        lower=(0, 12, 13, 14, 15, 16, 17, 18, 19),
        centre=2,
        spine=1,
        skip=(2, 1, 2, 3, 4, 2, 4, 5, 8, 2, 8, 9, 1, 0, 12, 13, 1, 0, 16, 17),
        upright=(1, 2, 8, 4),
    ),
    "coco17": Layout(
        name="coco17",
        joints=(
            *("nose", "eye_left", "eye_right", "ear_left", "ear_right", "shoulder_left", "shoulder_right"),
            *("elbow_left", "elbow_right", "wrist_left", "wrist_right"),
            *("hip_left", "hip_right", "knee_left", "knee_right", "ankle_left", "ankle_right"),
        ),
        parents=(0, 0, 0, 1, 2, 0, 0, 5, 6, 7, 8, 0, 0, 11, 12, 13, 14),
        flip=(0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15),
        upper=(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10),
        lower=(11, 12, 13, 14, 15, 16),
        centre=0,
        spine=0,
        coordinates=2,
    ),
}
