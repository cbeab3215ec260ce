"""Scores and rules: which generated clips a filled manifest leaves out, and what it says about that."""

import json
from pathlib import Path

import pytest
from small_filling import fill, indices, invoke, make_place, scored, write_scores

from longreel.generate.clips import make_clip_id
from longreel.manifest import read_manifest


@pytest.fixture
def place(tmp_path) -> Path:
    return make_place(tmp_path)


def test_scores_become_columns_of_the_generated_rows_alone(place):
    manifest = fill(place, "--fill", "4", "--scores", scored(place))
    extras = {clip.clip_id: clip.extra for clip in manifest.clips}
    assert extras[make_clip_id("cat", 1)] == {"note": "", "uncertainty": "0.1", "static": "True"}
    assert extras[make_clip_id("dog", 0)] == {"note": "", "uncertainty": "", "static": ""}
    assert extras["a/0.mp4"] == {"note": "one, two", "uncertainty": "", "static": ""}


def test_rules_leave_clips_out_and_the_next_ones_that_exist_take_their_place(place):
    rules = ("--keep", "uncertainty<=0.5", "--keep", "static == 0")
    done = invoke(place, "--fill", "4", "--scores", scored(place), *rules)
    assert indices(read_manifest(place / "filled.csv")) == {"cat": [2, 4]}
    record = json.loads((place / "filled.rules.json").read_text())
    assert record["keep"] == ["uncertainty<=0.5", "static==0"]
    # dog 0 to 5 and cat 5 have no scores; cat 3 has no uncertainty.
    assert record["left_out"] == {"uncertainty<=0.5": 9, "static==0": 8}
    assert record["unscored"] == 8
    assert {each["label"]: (each["there"], each["left_out"], each["added"], each["in_place"])
            for each in record["classes"]} == {"cat": (6, 4, 2, 1), "dog": (6, 6, 0, 0)}  # fmt: skip
    assert "10 clips left out, 1 others in their place" in done.stdout
    assert "8 clips are left out since a column of the rules has no number" in done.stderr
    assert all((place / "made" / "videos" / make_clip_id("cat", i)).is_file() for i in range(6)), "nothing is deleted"


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        ("s<2", [1]),
        ("s<=2", [1, 2]),
        ("s>2", [3]),
        ("s>=2", [2, 3]),
        ("s==2", [2]),
        ("s!=2", [1, 3]),
        ("s>-1e9", [1, 2, 3]),
    ],
)
def test_every_relation_means_what_it_says(place, rule, kept):
    scores = write_scores(place, [(make_clip_id("cat", i), i) for i in (1, 2, 3)], ["s"])
    assert indices(fill(place, "--scores", scores, "--keep", rule)) == {"cat": kept}


@pytest.mark.parametrize(
    "rule",
    [
        "",
        "uncertainty",
        "<=0.5",
        "uncertainty<=",
        "uncertainty<=x",
        "uncertainty<=nan",
        "uncertainty<=inf",
        "uncertainty=1",
        "a<b<1",
    ],
)
def test_what_is_no_rule_is_refused(place, rule):
    done = invoke(place, "--scores", scored(place), f"--keep={rule}")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("error: ")
    assert not (place / "filled.csv").exists()


def test_a_rule_on_an_unknown_column_or_without_scores_is_refused_with_a_hint(place):
    assert "Did you mean 'uncertainty'?" in invoke(place, "--scores", scored(place), "--keep", "uncertanty<1").stderr
    assert "needs scores" in invoke(place, "--keep", "uncertainty<1").stderr


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "column 'clip_id' is missing"),
        (b"id,s\nx,1\n", "column 'clip_id' is missing"),
        (b"clip_id,s,s\nx,1,2\n", ":1: column 's' stands twice"),
        (b"clip_id,s\nx,1\nx,2\n", ":3: clip 'x' is there twice"),
        (b"clip_id,s\nx\n", ":2: has 1 cells under 2 names"),
        (b"clip_id,uncertainty\nx,0.5\ny,1.5\n", ":3: column 'uncertainty': '1.5'"),
        (b"clip_id,uncertainty\nx,nan\n", ":2: column 'uncertainty': 'nan'"),
        (b'clip_id,s\nx,"1\n', "is not CSV"),
        (b"clip_id,s\n\xff,1\n", "is not UTF-8"),
    ],
)
def test_scores_that_cannot_be_used_are_refused_by_line(place, content, words):
    (place / "scores.csv").write_bytes(content)
    done = invoke(place, "--scores", place / "scores.csv")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert words in done.stderr
