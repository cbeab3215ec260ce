"""Names, ids and files of all kinds: a filled manifest that is read back, or one line that says why not."""

import csv
import json
import unicodedata
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_filling import REAL, app, indices, invoke, make_place, write_clips
from typer.testing import CliRunner

from longreel.balance.counts import count_training_clips
from longreel.errors import LongreelError
from longreel.generate.clips import make_clip_id
from longreel.generate.fill import fill_manifest
from longreel.manifest import OPTIONAL, REQUIRED, read_manifest


@pytest.fixture
def place(tmp_path) -> Path:
    return make_place(tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        {"clip_id": "../../etc/passwd", "label": "cat", "index": 0, "prompt": ""},
        {"clip_id": make_clip_id("cat", 0), "label": "dog", "index": 0, "prompt": ""},
        {"clip_id": make_clip_id("cat", 0), "label": "cat", "index": "0", "prompt": ""},
        {"clip_id": make_clip_id("cat", 0), "label": "cat", "index": False, "prompt": ""},
        {"clip_id": make_clip_id("cat", -1), "label": "cat", "index": -1, "prompt": ""},
        {"clip_id": ["x"], "label": ["cat"], "index": 0, "prompt": ""},
        {"clip_id": "x"},
        [1],
        7,
        "\ud800",
    ],
)
def test_a_prompt_that_is_none_is_refused_by_line(place, line):
    with (place / "made" / "prompts.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    done = invoke(place)
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert f"{place / 'made' / 'prompts.jsonl'}:13: " in done.stderr


def test_prompts_that_are_damaged_or_there_twice_are_refused(place):
    path = place / "made" / "prompts.jsonl"
    whole = path.read_bytes()
    for content in (whole + whole, whole + b"\xff\n", whole + b"[" * 100_000 + b"\n"):
        path.write_bytes(content)
        done = invoke(place)
        assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
        assert str(path) in done.stderr
    path.unlink()
    assert "longreel generate prompts" in invoke(place).stderr


def test_a_class_with_a_semicolon_needs_jsonl(place):
    label = "pick up; put down"
    rows = [{"path": "a.mp4", "label": [label], "split": "train", "start": 1.5, "weight": 0.25, "tags": ["x"]}]
    (place / "real" / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    write_clips(place / "made", {label: [0, 1]})
    manifest = read_manifest(place / "real" / "m.jsonl")
    with pytest.raises(LongreelError, match=r"has a ';', which CSV splits it at. Write a .jsonl file"):
        fill_manifest(manifest, place / "made", place / "filled.csv")
    fill_manifest(manifest, place / "made", place / "filled.jsonl", fill="2")
    found = read_manifest(place / "filled.jsonl").clips
    assert [clip.labels for clip in found] == [(label,)] * 2
    assert (found[0].clip_id, found[0].start) == ("a.mp4#1.5-", 1.5)
    assert found[0].extra == {"weight": 0.25, "tags": ["x"]}


NASTY = st.sampled_from(
    [
        'a,"b"', "a\nb", "a\r\nb", "a;b", "b; c", ";", "..", "../x", "/etc/passwd", "\0", "🎬🏊", " blank ",
        "n" * 10_000, "=1+1", "ünï", "u\u0308", "[bold]", "\u2028", "\ud800", "", "\ufeff", "'",
    ]
)  # fmt: skip
ANY = st.one_of(NASTY, st.text(max_size=30))
KINDS = settings(suppress_health_check=[HealthCheck.too_slow], deadline=None, max_examples=100)
#: what a manifest takes as a label or an id.
NAME = ANY.filter(
    lambda text: text.strip() and not any(unicodedata.category(letter) in ("Cc", "Cs") for letter in text)
)
EXTRA = st.dictionaries(
    ANY.filter(lambda name: name not in (*REQUIRED, *OPTIONAL)),
    st.one_of(ANY, st.integers(), st.floats(), st.none(), st.lists(ANY, max_size=2)),
    max_size=2,
)


@st.composite
def tables(draw) -> list[dict[str, object]]:
    """Rows of a manifest, which is refused seldom: the first has a real training clip of every class."""
    classes = draw(st.lists(NAME, min_size=1, max_size=3))
    rows: list[dict[str, object]] = [{"label": classes, "split": "train"}]
    for split in draw(st.lists(st.sampled_from(["train", "val", "test"]), max_size=3)):
        rows.append({"label": [draw(st.sampled_from(classes))], "split": split})
    for number, row in enumerate(rows):
        row |= {"path": f"{number}.mp4"} | draw(st.one_of(st.just({}), EXTRA))
        row |= {"clip_id": draw(NAME)} if draw(st.booleans()) else {"start": draw(st.floats(0, 1e8))}
    return rows


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_any_manifest_is_filled_and_read_back_with_the_same_real_clips_or_refused_in_one_line(ending, tmp_path_factory):
    seen: Counter[str] = Counter()

    @KINDS
    @given(tables(), st.integers(0, 4))
    def check(rows: list[dict[str, object]], number: int) -> None:
        folder = tmp_path_factory.mktemp("f")
        (folder / "real").mkdir()
        (folder / "real" / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
        try:
            before = read_manifest(folder / "real" / "m.jsonl")
        except LongreelError:
            seen["no manifest"] += 1
            return
        write_clips(folder / "made", {label: range(4) for label in before.classes}, prompts=4)
        out = folder / f"filled.{ending}"
        arguments = ["fill", folder / "real" / "m.jsonl", folder / "made", "--fill", number, "--out", out]
        done = CliRunner().invoke(app, [str(argument) for argument in arguments])
        if done.exit_code:
            assert (done.exit_code, done.stderr.count("\n")) == (2, 1), done.stderr
            assert not out.exists()
            seen["refused"] += 1
            return
        after = read_manifest(out)
        assert after.classes == before.classes
        assert count_training_clips(after) == count_training_clips(before)
        real = [(clip.clip_id, clip.labels, clip.split, clip.start) for clip in after.clips if clip.source == "real"]
        assert real == [(clip.clip_id, clip.labels, clip.split, clip.start) for clip in before.clips]
        asked = [max(0, number - count) for count in count_training_clips(before)]
        assert [len(indices(after).get(label, [])) for label in after.classes] == asked
        assert {path.name for path in folder.iterdir()} == {"real", "made", out.name, "filled.rules.json"}
        seen["filled"] += 1

    check()
    assert seen["filled"] > 0.4 * seen.total(), seen
    assert seen["refused"] > 0 or ending == "jsonl", seen


def test_any_scores_and_rules_fill_a_manifest_or_are_refused_in_one_line(tmp_path_factory):
    seen: Counter[str] = Counter()
    folder = tmp_path_factory.mktemp("f")
    (folder / "real").mkdir()
    (folder / "real" / "m.csv").write_text(REAL)
    write_clips(folder / "made", {"dog": range(2), "cat": range(2)})
    known = [make_clip_id(label, index) for label in ("dog", "cat") for index in range(2)]
    cell = st.one_of(ANY, st.sampled_from(["0.25", "1", "true"]))

    @KINDS
    @given(
        st.lists(ANY, max_size=2, unique=True),
        st.lists(st.tuples(st.one_of(st.sampled_from(known), ANY), cell, cell), max_size=4),
        st.one_of(ANY, st.sampled_from(["<0.5", ">=0", "==1", "!=x", "=1"])),
    )
    def check(columns: list[str], rows: list[tuple[str, ...]], relation: str) -> None:
        out = folder / f"filled{seen.total()}.csv"
        with (folder / "scores.csv").open("w", newline="", encoding="utf-8", errors="replace") as file:
            cut = [row[: 1 + len(columns)] for row in rows]
            csv.writer(file, quoting=csv.QUOTE_ALL).writerows([("clip_id", *columns), *cut])
        options = [f"--keep={column}{relation}" for column in columns[:1]]
        done = invoke(folder, "--scores", folder / "scores.csv", *options, out=out.name)
        if done.exit_code:
            assert (done.exit_code, done.stderr.count("\n")) == (2, 1), done.stderr
            assert not out.exists()
        else:
            assert count_training_clips(read_manifest(out)) == [1, 3]
        seen["refused" if done.exit_code else "filled"] += 1

    check()
    assert min(seen.values()) > 0.1 * seen.total(), seen
