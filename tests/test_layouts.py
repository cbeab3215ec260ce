"""Layouts: the published tables, the attributes of NW-UCLA's file, and what a layout in a file may hold."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import h5py
import pytest

from longreel.errors import LongreelError
from longreel.layouts import LAYOUTS, Layout, find_layout, load_layout

#: as they are written down beside BRL's code: joint:other.
NTU_SKIP = (
    "0:20 1:1 2:2 3:20 4:4 5:20 6:4 7:5 8:8 9:20 10:8 11:9 12:1 13:0 14:12 15:13 16:1 17:0 18:16 19:17 20:20 21:7 "
    "22:6 23:11 24:10"
)
KINECT_SKIP = "0:2 1:1 2:2 3:3 4:4 5:2 6:4 7:5 8:8 9:2 10:8 11:9 12:1 13:0 14:12 15:13 16:1 17:0 18:16 19:17"
#: PYSKL's pairs of ntu25, and of coco17.
NTU_BONES = (
    "0:1 1:20 2:20 3:2 4:20 5:4 6:5 7:6 8:20 9:8 10:9 11:10 12:0 13:12 14:13 15:14 16:0 17:16 18:17 19:18 21:22 20:20 "
    "22:7 23:24 24:11"
)
COCO_BONES = "0:0 1:0 2:0 3:1 4:2 5:0 6:0 7:5 8:6 9:7 10:8 11:0 12:0 13:11 14:12 15:13 16:14"


def pairs(text: str) -> dict[int, int]:
    return {int(joint): int(other) for joint, _, other in (pair.partition(":") for pair in text.split())}


def in_json(layout: Layout) -> dict:
    return json.loads(json.dumps(asdict(layout)))


def write(folder: Path, content: object) -> Path:
    path = folder / "mine.json"
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_is_called_by_its_name_and_is_sound(name):
    layout = find_layout(name)
    assert layout.name == name
    assert layout.size == len(layout.joints) * 3
    for joint, other in enumerate(layout.flip):
        word = layout.joints[joint]
        assert layout.joints[other] == word.replace("left", "RIGHT").replace("right", "left").replace("RIGHT", "right")
    for joint, parent in enumerate(layout.parents):  # a mirrored bone is a bone
        assert layout.parents[layout.flip[joint]] == layout.flip[parent]


@pytest.mark.parametrize(
    ("name", "field", "text"),
    [
        ("ntu25", "skip", NTU_SKIP),
        ("kinect20", "skip", KINECT_SKIP),
        ("ntu25", "parents", NTU_BONES),
        ("coco17", "parents", COCO_BONES),
    ],
)
def test_tables_are_the_published_ones(name, field, text):
    assert dict(enumerate(getattr(LAYOUTS[name], field))) == pairs(text)


@pytest.mark.parametrize(("name", "above"), [("ntu25", "spine_shoulder"), ("kinect20", "shoulder_center")])
def test_upright_goes_up_the_spine_and_from_the_right_to_the_left_shoulder_in_the_upper_part(name, above):
    layout = LAYOUTS[name]
    assert layout.upright is not None
    assert [layout.joints[joint] for joint in layout.upright[1:]] == [above, "shoulder_right", "shoulder_left"]
    assert layout.upright[0] == layout.spine
    assert set(layout.upright) <= set(layout.upper)
    assert LAYOUTS["coco17"].upright is None


def test_coco_has_scores_and_no_skip_table():
    assert LAYOUTS["coco17"].skip is None
    assert [layout.name for layout in LAYOUTS.values() if layout.scored] == ["coco17"]


def test_kinect20_is_what_the_file_of_nw_ucla_says(shared_data):
    path = shared_data / "skeleton" / "nw_ucla.h5"
    if not path.exists():
        pytest.skip("needs skeleton/nw_ucla.h5 in ../shared/data")
    layout = LAYOUTS["kinect20"]
    with h5py.File(path) as file:
        told = {name: value.tolist() if hasattr(value, "tolist") else value for name, value in file.attrs.items()}
        joints: Any = file["joints"]
        assert joints.shape[3:] == (len(layout.joints), layout.channels)
    assert list(layout.joints) == told["joint_names"]
    assert [list(pair) for pair in enumerate(layout.parents)] == told["bone_pairs"]
    assert list(layout.flip) == told["flip_order"]
    assert (list(layout.upper), list(layout.lower)) == (told["upper_body"], told["lower_body"])
    assert layout.centre == told["center_joint"]
    assert layout.joints[layout.spine] == "spine"


def test_rows_hold_whole_bodies():
    assert LAYOUTS["ntu25"].bodies(150) == 2
    assert LAYOUTS["kinect20"].bodies(60) == 1
    with pytest.raises(LongreelError, match=r"does not go into rows of 60\. Layouts that do: kinect20"):
        LAYOUTS["ntu25"].bodies(60)
    with pytest.raises(LongreelError, match="Layouts that do: none"):
        LAYOUTS["ntu25"].bodies(0)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_comes_back_from_its_file(name, tmp_path):
    path = write(tmp_path, in_json(LAYOUTS[name]))
    assert load_layout(path) == LAYOUTS[name]
    assert find_layout(str(path)) == LAYOUTS[name]


def test_a_layout_that_is_not_known_is_refused_with_the_nearest():
    with pytest.raises(LongreelError, match=r"no layout called 'ntu52'\. Did you mean 'ntu25'.*JSON file"):
        find_layout("ntu52")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"joints": None}, r"joints is None, and must be a list of texts"),
        ({"parents": [0, 1.5]}, r"parents is \[0, 1.5\], and must be a list of whole numbers"),
        ({"centre": True}, r"centre is True, and must be a whole number"),
        ({"wings": []}, r"no key of a layout called 'wings'"),
        ({"parents": [0, 1]}, r"layout kinect20: parents has 2 numbers for 20 joints"),
        ({"spine": 20}, r"spine has 20, which is no joint. They go from 0 to 19"),
        ({"centre": -1}, r"centre has -1, which is no joint"),
        ({"flip": [1, 2, 0, *range(3, 20)]}, r"flip must come back"),
        ({"upper": [0, 1, 2]}, r"upper and lower must hold every joint once"),
        ({"parents": [1, 0, *range(2, 20)]}, r"parents go round in a circle"),
        ({"upright": [0, 1, 8]}, r"upright must be four joints"),
        ({"upright": [0, 0, 8, 4]}, r"upright must be four different joints"),
        ({"upright": [0, 1, 8, 20]}, r"upright has 20, which is no joint"),
        ({"upright": [0, 1, 8, 4], "coordinates": 2}, r"upright must be four joints, of a layout in three dimensions"),
        ({"coordinates": 5}, r"channels=3 must be coordinates=5"),
        ({"joints": ["same"] * 20}, r"each of its joints a name of its own"),
    ],
)
def test_a_file_with_a_fault_is_refused_with_its_name_and_the_key(change, message, tmp_path):
    path = write(tmp_path, in_json(LAYOUTS["kinect20"]) | change)
    with pytest.raises(LongreelError, match=message) as caught:
        load_layout(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_no_layout_is_refused(tmp_path):
    with pytest.raises(LongreelError, match=r"absent\.json: cannot be read"):
        load_layout(tmp_path / "absent.json")
    with pytest.raises(LongreelError, match="is not a JSON object"):
        load_layout(write(tmp_path, [1]))
    short = {key: value for key, value in in_json(LAYOUTS["ntu25"]).items() if key != "flip"}
    with pytest.raises(LongreelError, match="has no 'flip'"):
        load_layout(write(tmp_path, short))


def test_a_layout_of_ones_own_needs_neither_skip_nor_scores_nor_what_is_upright(tmp_path):
    told = in_json(LAYOUTS["kinect20"])
    mine = {key: told[key] for key in ("joints", "parents", "flip", "upper", "lower", "centre", "spine")}
    found = load_layout(write(tmp_path, mine | {"name": "mine"}))
    assert found == replace(LAYOUTS["kinect20"], name="mine", skip=None, upright=None)
