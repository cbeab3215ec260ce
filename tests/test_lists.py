"""Readers of published lists: each form against lists that were counted by hand, and every kind of fault."""

import json
from collections import Counter
from pathlib import Path

import pytest
from small_lists import GEN2BALANCE, SSV2, VIDEOLT, write_lists

from longreel.errors import LongreelError
from longreel.experiments.lists import Entry, check_splits, read_counts, read_entries, read_names

NAMES = ("ant", "bee", "cat")


def listed(tmp_path: Path, text: str, name: str = "train.lst") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_videolt_has_several_numbers_a_line(tmp_path):
    folder = write_lists(tmp_path, VIDEOLT)
    names = read_names(folder / "count-labels-train.lst")
    assert names == ("Apples", "cat'sCradle", "Zoo")
    assert read_counts(folder / "count-labels-train.lst") == [3, 2, 1]
    assert read_entries(folder / "train.lst", names, multi_label=True) == [
        Entry("-aaa", ("Apples",), 1),
        Entry("bbb", ("Apples", "cat'sCradle"), 2),
        Entry("ccc", ("Zoo",), 3),
        Entry("ddd", ("Apples", "cat'sCradle"), 4),
    ]


def test_gen2balance_has_paths_and_names_by_number(tmp_path):
    folder = write_lists(tmp_path, GEN2BALANCE)
    names = read_names(folder / "misc/label_id_to_label.json")
    assert names == ("ski, slalom", "bowling", "cut_car")
    assert read_counts(folder / "real/train_freq.json") == [1, 1, 1]
    assert read_entries(folder / "real/train.csv", names)[0] == Entry(
        "Kinetics-400/videos_train/a.mp4", ("bowling",), 1
    )


def test_something_something_has_templates_whose_brackets_are_no_part_of_the_class(tmp_path):
    folder = write_lists(tmp_path, SSV2)
    names = read_names(folder / "something-something-v2-labels.json")
    assert names == ("Holding something", "Tearing something in two")
    entries = read_entries(folder / "something-something-v2-train.json", names)
    assert entries[0] == Entry("1", ("Holding something",), 1)
    assert Counter(entry.labels[0] for entry in entries) == {names[0]: 7, names[1]: 6}


def test_names_of_more_than_ten_classes_are_in_the_order_of_their_numbers(tmp_path):
    named = {str(number): f"class {number}" for number in range(12)}
    expected = tuple(named.values())
    path = listed(tmp_path, json.dumps(dict(sorted(named.items()))), "a.json")
    assert read_names(path) == expected
    assert read_names(listed(tmp_path, json.dumps({name: key for key, name in named.items()}), "b.json")) == expected
    table = "id,name\n" + "".join(f"{key},{name}\n" for key, name in named.items())
    assert read_names(listed(tmp_path, table, "c.csv")) == expected


def test_an_id_may_hold_spaces_and_lines_may_end_in_any_way(tmp_path):
    path = listed(tmp_path, "\ufeffa b (c)&d.avi 2\r\n\r\n  e.avi\t0 \n")
    assert read_entries(path, NAMES) == [Entry("a b (c)&d.avi", ("cat",), 1), Entry("e.avi", ("ant",), 3)]


BAD_LISTS = {
    "one cell": ("a 0\nb\n", r"train.lst:2: 'b' is not of the form ID NUMBER"),
    "a comma": ("a.mp4,0\n", r"train.lst:1: 'a.mp4,0' is not of the form ID NUMBER"),
    "a class too many": ("a 0\nb 3\n", r"train.lst:2: '3' is no class number from 0 to 2"),
    "a name": ("a ant\n", r"train.lst:1: 'ant' is no class number"),
    "below zero": ("a -1\n", r"train.lst:1: '-1' is no class number"),
    "leading zero": ("a 01\n", r"train.lst:1: '01' is no class number"),
    "an empty label": ("a 0,\n", r"train.lst:1: '' is no class number"),
    "two classes": ("a 0,1\n", r"train.lst:1: has 2 classes"),
    "spaces behind commas": ("a 0, 1\n", r"train.lst:1: 'a 0,' is no clip id"),
    "twice": ("a 0\nb 1\na 0\n", r"train.lst:3: clip 'a' is already there: .*train.lst:1"),
    "control character": ("a\x1bb 0\n", r"train.lst:1: 'a\\x1bb' is no clip id"),
    "empty": ("\n \n", r"train.lst: has no clips"),
}


@pytest.mark.parametrize(("text", "answer"), BAD_LISTS.values(), ids=BAD_LISTS)
def test_a_line_that_cannot_be_used_is_named(text, answer, tmp_path):
    with pytest.raises(LongreelError, match=answer):
        read_entries(listed(tmp_path, text), NAMES)


def test_a_class_twice_on_a_line_is_refused(tmp_path):
    with pytest.raises(LongreelError, match=r"train.lst:1: names a class twice"):
        read_entries(listed(tmp_path, "a 1,1\n"), NAMES, multi_label=True)


BAD_OBJECTS = {
    "cut short": ('[{"id": "1", "template": "ant"', "is not JSON"),
    "no list": ('{"id": "1"}', "is no JSON list"),
    "no object": ('["1"]', "entry 1: is no object with the texts id and template"),
    "no template": ('[{"id": "1", "template": "ant"}, {"id": "2"}]', "entry 2: is no object"),
    "a number": ('[{"id": 1, "template": "ant"}]', "entry 1: is no object"),
    "unknown class": ('[{"id": "1", "template": "ants"}]', "entry 1: no class called 'ants'. Did you mean 'ant'"),
    "twice": ('[{"id": "1", "template": "ant"}, {"id": "1", "template": "bee"}]', "entry 2: clip '1' is already"),
}


@pytest.mark.parametrize(("text", "answer"), BAD_OBJECTS.values(), ids=BAD_OBJECTS)
def test_an_object_that_cannot_be_used_is_named(text, answer, tmp_path):
    with pytest.raises(LongreelError, match=rf"train.json: {answer}"):
        read_entries(listed(tmp_path, text, "train.json"), NAMES)


BAD_NAMES = {
    "a gap.lst": ("ant 0 5.0\nbee 2 5.0\n", r":2: class 'bee' has the number '2', where 1 was due"),
    "two cells.lst": ("ant 0\n", r":1: 'ant 0' is not of the form NAME NUMBER COUNT"),
    "twice.lst": ("ant 0 5.0\nant 1 5.0\n", r":2: class 'ant' is there twice"),
    "empty.lst": ("", r"names no class"),
    "no header.csv": ("0,ant\n", r":1: expected id,name in the first line"),
    "three cells.csv": ("id,name\n0,ant,x\n", r":2: expected id,name"),
    "semicolon.csv": ("id,name\n0,ant;bee\n", r":2: 'ant;bee' is no class name"),
    "blank.csv": ("id,name\n0, \n", r":2: ' ' is no class name"),
    "a list.json": ('["ant"]', r"is no JSON object"),
    "a gap.json": ('{"0": "ant", "2": "bee"}', r"entry 2: class 'bee' has the number '2'"),
    "empty.json": ("{}", r"names no class"),
    "pickle.pkl": ("", r"is no file of class names. They are read from .lst, .csv, .json"),
}


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_cannot_be_used_are_named(name, tmp_path):
    text, answer = BAD_NAMES[name]
    with pytest.raises(LongreelError, match=f"{name}.*{answer}"):
        read_names(listed(tmp_path, text, name))


@pytest.mark.parametrize(
    ("name", "text", "answer"),
    [
        ("a.lst", "ant 0 5.0\nbee 1 4.5\n", r"a.lst:2: '4.5' is no count"),
        ("a.json", "[5, 4.5]", r"a.json: 4.5 is no count"),
        ("b.json", '{"ant": 5}', r"b.json: is no JSON list"),
    ],
)
def test_counts_that_cannot_be_used_are_named(name, text, answer, tmp_path):
    with pytest.raises(LongreelError, match=answer):
        read_counts(listed(tmp_path, text, name))


def test_a_file_that_is_not_there_or_no_text_is_named(tmp_path):
    with pytest.raises(LongreelError, match=r"nowhere.lst: cannot be read \(No such file"):
        read_entries(tmp_path / "nowhere.lst", NAMES)
    (tmp_path / "binary.lst").write_bytes(b"a 0\nb\xff 1\n")
    with pytest.raises(LongreelError, match=r"binary.lst: is not UTF-8 \(byte 5\)"):
        read_entries(tmp_path / "binary.lst", NAMES)


def splits(**clips: str) -> tuple[dict[str, Path], dict[str, list[Entry]]]:
    """Splits with clips given as ``id label``, one a word pair."""
    pairs = {split: text.split(", ") for split, text in clips.items()}
    entries = {
        split: [Entry(pair.split()[0], (pair.split()[1],), line) for line, pair in enumerate(listed, 1)]
        for split, listed in pairs.items()
    }
    return {split: Path(f"{split}.lst") for split in clips}, entries


def test_a_clip_in_two_splits_is_a_leak_and_both_lines_are_named():
    files, entries = splits(train="a ant, b bee", val="c ant", test="d bee, b bee")
    with pytest.raises(LongreelError, match=r"test.lst:2: clip 'b' of test is also in train: train.lst:2"):
        check_splits(files, entries, "(.+)")


def test_a_class_that_is_never_trained_is_named():
    files, entries = splits(train="a ant", test="b ant, c bee")
    with pytest.raises(LongreelError, match=r"test.lst:2: class 'bee' has no training clip"):
        check_splits(files, entries, "(.+)")


def test_recordings_in_two_splits_are_counted():
    files, entries = splits(train="v_Run_g01_c01 ant, v_Run_g02_c01 ant", test="v_Run_g02_c07 ant, v_Run_g03_c01 ant")
    assert check_splits(files, entries, r"v_(.+)_c\d+") == [
        "1 recordings are in train and in test, such as 'Run_g02': a leak"
    ]
    assert check_splits(files, entries, "(.+)") == []
    assert check_splits(files, entries, r"other_(.+)") == []  # ids of another form are recordings of their own
