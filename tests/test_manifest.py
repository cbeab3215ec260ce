import json
import os
import time
from pathlib import Path

import pytest

from longreel.errors import ManifestError
from longreel.manifest import Clip, read_manifest

HEADER = "path,label,split\n"


def write(folder: Path, text: str | bytes, name: str = "m.csv") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def refusal(folder: Path, text: str | bytes, name: str = "m.csv", root: Path | None = None) -> str:
    """What is said of a manifest that cannot be used, without its folder."""
    with pytest.raises(ManifestError) as caught:
        read_manifest(write(folder, text, name), root)
    return str(caught.value).replace(f"{folder}/", "")


def test_csv_and_jsonl_give_the_same_clips(tmp_path):
    table = (
        "path,label,split,clip_id,start,end,source,camera\n"
        "a/x.mp4,run;jump,train,one,,,real,north\n"
        "a/x.mp4,run,val,two,1.5,3,,\n"
        'a/"y",jump,train,,0,2.25,generated,"so, uth"\n'.replace('a/"y"', '"a/""y"""')
    )
    lines = [
        {"path": "a/x.mp4", "label": ["run", "jump"], "split": "train", "clip_id": "one", "camera": "north"},
        {"path": "a/x.mp4", "label": "run", "split": "val", "clip_id": "two", "start": 1.5, "end": 3, "camera": ""},
        {"path": 'a/"y"', "label": "jump", "split": "train", "end": 2.25, "start": 0, "source": "generated"}
        | {"camera": "so, uth"},
    ]
    from_csv = read_manifest(write(tmp_path, table))
    from_jsonl = read_manifest(write(tmp_path, "\n".join(map(json.dumps, lines)), "m.jsonl"))
    assert from_csv.clips == from_jsonl.clips
    assert from_csv.digest == from_jsonl.digest
    assert from_csv.clips[0] == Clip(
        "one", "a/x.mp4", ("run", "jump"), "train", "real", None, None, {"camera": "north"}
    )
    assert (from_csv.clips[2].clip_id, from_csv.clips[2].source) == ('a/"y"#0-2.25', "generated")
    assert (from_csv.classes, from_csv.multi_label) == (("jump", "run"), True)
    assert [clip.clip_id for clip in from_csv.split("train")] == ["one", 'a/"y"#0-2.25']


def test_a_byte_order_mark_blank_lines_and_spaces_do_no_harm(tmp_path):
    text = "\ufeffpath, label ,split\r\n\r\n a.mp4 , run , train \r\n,,\r\n"
    for name, content in (
        ("m.csv", text),
        ("m.jsonl", "\ufeff" + '\n{"path":"a.mp4","label":"run","split":"train"}\n\n'),
    ):
        (clip,) = read_manifest(write(tmp_path, content, name)).clips
        assert clip == Clip("a.mp4", "a.mp4", ("run",), "train")


def test_line_numbers_count_the_line_ends_inside_quotes(tmp_path):
    text = 'path,label,split,note\n"a.mp4",run,train,"two\nlines\nand three"\nb.mp4,run,trian,\n'
    assert refusal(tmp_path, text).startswith("m.csv:5: column 'split': 'trian'")


def test_the_digest_depends_on_labels_and_splits_and_not_on_the_order(tmp_path):
    rows = ["a,run,train\n", "b,jump,train\n", "c,run,val\n"]
    digest = read_manifest(write(tmp_path, HEADER + "".join(rows))).digest
    assert read_manifest(write(tmp_path, HEADER + "".join(rows[::-1]))).digest == digest
    for other in ("c,jump,val\n", "c,run,test\n", "d,run,val\n"):
        assert read_manifest(write(tmp_path, HEADER + "".join(rows[:2]) + other)).digest != digest


#: what is wrong -> the file's text, and what must be said of it.
REFUSED_CSV: dict[str, tuple[str | bytes, list[str]]] = {
    "an empty file": ("", ["m.csv: is empty", "header line with path, label, split"]),
    "only a header": (HEADER, ["m.csv: has no clips", "one line a clip"]),
    "no text": (HEADER.encode() + b"\xff,x,train\n", ["not UTF-8", "byte 17", "Save it as UTF-8"]),
    "utf-16": (HEADER.encode("utf-16"), ["not UTF-8", "byte 0"]),
    "an open quote": (HEADER + '"a,x,train\n', ["m.csv:2: is not CSV", "Quote cells"]),
    "a cell too many": (HEADER + "a,b,x,train\n", ["m.csv:2: has 4 cells under 3 names", "comma"]),
    "a missing column": ("path,lable,split\na,x,train\n", ["m.csv:1: column 'label' is missing", "'lable'?"]),
    "a column twice": ("path,label,split,path\n", ["m.csv:1: column 'path' stands twice", "rename"]),
    "an empty path": (HEADER + ",x,train\n", ["m.csv:2: column 'path': is empty", "a video file"]),
    "an empty label": (HEADER + "a,,train\n", ["m.csv:2: column 'label': is empty"]),
    "a label twice": (HEADER + "a,x;x,train\n", ["m.csv:2: column 'label'", "distinct classes by ';'"]),
    "a control character": (HEADER + "a\x1b[31m,x,train\n", ["m.csv:2: column 'path'", "'a\\x1b[31m'"]),
    "an unknown split": (HEADER + "a,x,Training\n", ["m.csv:2: column 'split': 'Training'", "Did you mean 'train'?"]),
    "an unknown source": ("path,label,split,source\na,x,train,generatd\n", ["column 'source'", "'generated'?"]),
    "a time that is none": ("path,label,split,start\na,x,train,0:05\n", ["m.csv:2: column 'start': '0:05'", "12.5"]),
    "a negative time": ("path,label,split,start\na,x,train,-1\n", ["m.csv:2: column 'start': '-1'"]),
    "not a number": ("path,label,split,end\na,x,train,nan\n", ["m.csv:2: column 'end': 'nan'"]),
    "no duration": ("path,label,split,start,end\na,x,train,5,5\n", ["m.csv:2: column 'end': 5 is not after 'start' 5"]),
    "a generated test clip": (
        "path,label,split,source\na,x,train,\nb,x,test,generated\n",
        ["m.csv:3: column 'split'", "cannot be in test", "Put it in train"],
    ),
    "an id twice": (
        "path,label,split,clip_id\na,x,train,n\nb,x,train,n\n",
        ["m.csv:3: column 'clip_id': 'n' is already on line 2"],
    ),
    "ids that look the same": (
        "path,label,split,clip_id\na,x,train,\u00e9\nb,x,train,e\u0301\n",
        ["m.csv:3: column 'clip_id'", "on line 2"],
    ),
    "a span twice": (
        "path,label,split,clip_id\na,x,train,n\n./a,x,train,m\n",
        ["m.csv:3: column 'path': 'a' with this span is already on line 2"],
    ),
    "an untrained class": (
        HEADER + "a,jumping,train\nb,jumpimg,test\n",
        ["m.csv:3: column 'label': class 'jumpimg' has no real training clip", "Did you mean 'jumping'?"],
    ),
    "only generated training clips": (
        "path,label,split,source\na,x,train,generated\nb,y,train,real\nc,x,val,\n",
        ["m.csv:2: column 'label': class 'x' has no real training clip"],
    ),
}
ROW = '{"path":"a","label":"x","split":"train","n":1}'
REFUSED_JSONL: dict[str, tuple[str, list[str]]] = {
    "an empty file": ("\n\n", ["m.jsonl: has no clips", "path, label, split"]),
    "broken json": (ROW + "\n{", ["m.jsonl:2: is not JSON", "one object a line"]),
    "no object": ("[1]", ["m.jsonl:1: is not an object", "path, label, split"]),
    "depth without end": ("[" * 100_000, ["m.jsonl:1: is not JSON"]),
    "an integer that no float holds": (ROW.replace('"n":1', f'"end":{"1" * 400}'), ["m.jsonl:1: column 'end'", "12.5"]),
    "an integer of 5000 digits": (ROW.replace('"n":1', f'"end":{"1" * 5000}'), ["m.jsonl:1: "]),
    "a label that is a number": (ROW.replace('"x"', "3"), ["m.jsonl:1: column 'label': 3 is not text", "in quotes"]),
    "no label in the list": (ROW.replace('"x"', "[]"), ["m.jsonl:1: column 'label': [] is empty"]),
    "half a character": (ROW.replace('"a"', '"\\ud800"'), ["m.jsonl:1: column 'path'", "Remove them"]),
}


@pytest.mark.parametrize(("text", "parts"), REFUSED_CSV.values(), ids=REFUSED_CSV)
def test_csv_that_cannot_be_used_is_refused_with_its_place_and_remedy(tmp_path, text, parts):
    said = refusal(tmp_path, text)
    assert [part for part in parts if part not in said] == [], said


@pytest.mark.parametrize(("text", "parts"), REFUSED_JSONL.values(), ids=REFUSED_JSONL)
def test_jsonl_that_cannot_be_used_is_refused_with_its_place_and_remedy(tmp_path, text, parts):
    said = refusal(tmp_path, text, "m.jsonl")
    assert [part for part in parts if part not in said] == [], said


def test_a_missing_manifest_and_a_missing_root_are_named(tmp_path):
    with pytest.raises(ManifestError, match=r"none\.csv: cannot be read \(No such file or directory\)"):
        read_manifest(tmp_path / "none.csv")
    with pytest.raises(ManifestError, match=r"nowhere: no such folder\..*--root"):
        read_manifest(write(tmp_path, HEADER), tmp_path / "nowhere")
    with pytest.raises(ManifestError, match=r"m\.xlsx: a manifest is a \.csv or \.jsonl file"):
        read_manifest(write(tmp_path, HEADER, "m.xlsx"))
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ManifestError, match="cannot be read"):
        read_manifest(tmp_path / "folder.csv")


def test_the_byte_that_is_no_text_is_counted_from_the_start_of_the_file(tmp_path):
    good = HEADER + "a.mp4,x,train\n" * 3000
    assert f"byte {len(good)}" in refusal(tmp_path, good.encode() + b"\xff")


def test_many_problems_are_shown_as_ten_and_a_count(tmp_path):
    lines = refusal(tmp_path, HEADER + "a,x,nowhere\n" * 25).splitlines()
    assert [line.split(":")[1] for line in lines[:10]] == [str(number) for number in range(2, 12)]
    assert lines[10:] == ["m.csv: and 15 more of this kind."]


@pytest.fixture
def root(tmp_path) -> Path:
    """A folder with a video in it and a way out of it by link."""
    root = tmp_path / "root"
    (root / "in").mkdir(parents=True)
    (root / "in" / "a.mp4").touch()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "b.mp4").touch()
    (tmp_path / "rooted").mkdir()
    (root / "to_out").symlink_to(tmp_path / "out")
    (root / "b.mp4").symlink_to(tmp_path / "out" / "b.mp4")
    (root / "to_in").symlink_to("in")
    return root


OUTSIDE = ["../out/b.mp4", "in/../../out/b.mp4", "/etc/passwd", "to_out/b.mp4", "b.mp4", "../rooted/c.mp4", "..", "."]


@pytest.mark.parametrize("path", [*OUTSIDE, "to_out/new/c.mp4", "in/../../root/../out/b.mp4"])
def test_a_path_that_leads_out_of_the_root_is_refused(tmp_path, root, path):
    said = refusal(tmp_path, f"{HEADER}{path},x,train\n", root=root)
    assert said.startswith(f"m.csv:2: column 'path': {path!r} lies outside root.")
    assert "--root" in said


INSIDE = {
    "in/a.mp4": "in/a.mp4",
    "./in//a.mp4": "in/a.mp4",
    "in/../in/a.mp4": "in/a.mp4",
    "{root}/in/a.mp4": "in/a.mp4",
    "to_in/a.mp4": "to_in/a.mp4",
    "not/there/yet.mp4": "not/there/yet.mp4",
    "..a/...mp4": "..a/...mp4",
}


@pytest.mark.parametrize(("path", "kept"), INSIDE.items())
def test_a_path_within_the_root_is_kept_relative_to_it(tmp_path, root, path, kept):
    (clip,) = read_manifest(write(tmp_path, f"{HEADER}{path.format(root=root)},x,train\n"), root).clips
    assert (clip.path, clip.clip_id) == (kept, kept)


def test_an_absolute_path_under_a_root_that_is_a_link_is_kept_relative_too(tmp_path, root):
    link = tmp_path / "link"
    link.symlink_to(root)
    (clip,) = read_manifest(write(tmp_path, f"{HEADER}{link}/in/a.mp4,x,train\n"), link).clips
    assert clip.path == "in/a.mp4"


def test_a_link_changed_between_two_readings_is_seen(tmp_path, root):
    text = f"{HEADER}to_in/a.mp4,x,train\n"
    read_manifest(write(tmp_path, text), root)
    os.replace(root / "to_out", root / "to_in")
    assert "lies outside" in refusal(tmp_path, text, root=root)


def test_spans_of_one_long_video_keep_ids_of_their_own(tmp_path):
    rows = "".join(f"a.mp4,x,train,{start},{start + 0.001}\n" for start in (36000.125, 36000.126, 1234567.5))
    clips = read_manifest(write(tmp_path, "path,label,split,start,end\n" + rows)).clips
    assert clips[0].clip_id == "a.mp4#36000.125-36000.126"
    assert len({clip.clip_id for clip in clips}) == 3


def test_ten_thousand_clips_are_read_in_about_a_second(tmp_path):
    rows = "".join(f"class{i % 100}/video_{i}.mp4,class{i % 100},train\n" for i in range(10_000))
    path = write(tmp_path, HEADER + rows)
    begun = time.process_time()
    assert len(read_manifest(path).clips) == 10_000
    assert time.process_time() - begun < 5


def test_thousands_of_untrained_classes_are_refused_as_fast(tmp_path):
    rows = "".join(f"a{i},trained-{i:04d},train\nb{i},untrained-{i:04d},val\n" for i in range(1500))
    begun = time.process_time()
    assert "and 1490 more" in refusal(tmp_path, HEADER + rows)
    assert time.process_time() - begun < 5
