"""Protocols: manifests of small lists counted by hand, long tails of manifests, and the commands."""

import csv
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest
from small_lists import GEN2BALANCE, SSV2, VIDEOLT, write_lists
from typer.testing import CliRunner

from longreel.balance import METHODS
from longreel.balance.counts import make_groups
from longreel.cli import app
from longreel.errors import LongreelError
from longreel.experiments.longtails import KEEP
from longreel.experiments.manifests import make_protocol, make_tail
from longreel.experiments.protocols import PROTOCOLS, choose_protocol
from longreel.manifest import SPLITS, read_manifest

METRICS = {"map", "acc1", "acc5", "class_average"}


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# Small lists


def test_videolt_makes_a_manifest_of_three_splits_with_the_ids_of_the_lists(tmp_path):
    made = make_protocol("videolt", write_lists(tmp_path / "labels", VIDEOLT), tmp_path / "v.csv")
    manifest = read_manifest(tmp_path / "v.csv")
    assert [(clip.clip_id, clip.path, clip.labels, clip.split) for clip in manifest.clips] == [
        ("-aaa", "-aaa.mp4", ("Apples",), "train"),
        ("bbb", "bbb.mp4", ("Apples", "cat'sCradle"), "train"),
        ("ccc", "ccc.mp4", ("Zoo",), "train"),
        ("ddd", "ddd.mp4", ("Apples", "cat'sCradle"), "train"),
        ("eee", "eee.mp4", ("cat'sCradle",), "val"),
        ("fff", "fff.mp4", ("Zoo",), "val"),
        ("ggg", "ggg.mp4", ("Apples", "Zoo"), "test"),
        ("hhh", "hhh.mp4", ("cat'sCradle",), "test"),
    ]
    assert made.digest == manifest.digest
    assert (made.clips, made.labels) == ({"train": 4, "val": 2, "test": 2}, {"train": 6, "val": 2, "test": 3})
    assert (made.classes, made.multi_label, made.largest, made.smallest) == (3, 3 / 8, 3, 1)
    assert made.groups == {"head": 0, "medium": 0, "tail": 3}
    assert json.loads((tmp_path / "v.made.json").read_text())["digest"] == manifest.digest


def test_counts_that_are_not_the_published_ones_are_told(tmp_path):
    made = make_protocol("videolt", write_lists(tmp_path / "labels", VIDEOLT), tmp_path / "v.csv")
    assert "3 classes, published are 1004" in made.departures
    assert "4 train clips, published are 179334" in made.departures
    assert "3 test labels, published are 56170" in made.departures
    assert "0 head classes, published are 47" in made.departures


def test_a_training_list_that_is_not_the_one_its_authors_counted_is_told(tmp_path):
    counts = "Apples 0 3.0\ncat'sCradle 1 9.0\nZoo 2 1.0\n"
    folder = write_lists(tmp_path / "labels", VIDEOLT, count_labels_train=counts)
    made = make_protocol("videolt", folder, tmp_path / "v.csv")
    assert made.departures[0] == (
        '1 classes have other counts than count-labels-train.lst: "cat\'sCradle" has 2 clips, not 9'
    )


def test_the_papers_selection_puts_the_test_list_into_val_and_marks_the_manifest(tmp_path):
    made = make_protocol("videolt-paper", write_lists(tmp_path / "labels", VIDEOLT), tmp_path / "v.csv")
    assert [row["clip_id"] for row in rows_of(tmp_path / "v.csv") if row["split"] == "val"] == ["ggg", "hhh"]
    assert {row["split"] for row in rows_of(tmp_path / "v.csv")} == {"train", "val"}
    assert "test list" in (made.watermark or "")


def test_groups_of_a_file_are_kept_beside_the_manifest(tmp_path):
    made = make_protocol("rareact", write_lists(tmp_path / "lists", GEN2BALANCE), tmp_path / "r.csv")
    assert made.groups == {"head": 1, "tail": 1, "rareact": 1}
    manifest = read_manifest(tmp_path / "r.csv")
    groups = make_groups(str(tmp_path / "r.groups.json"), manifest.classes, [1, 1, 1])
    assert {name: [manifest.classes[i] for i in members] for name, members in groups.members.items()} == {
        "head": ["bowling"],
        "tail": ["ski, slalom"],
        "rareact": ["cut_car"],
    }


def test_something_something_is_thinned_by_its_seed(tmp_path):
    folder = write_lists(tmp_path / "lists", SSV2)
    made = [make_protocol("ssv2-lt", folder, tmp_path / f"{seed}.csv", seed=seed) for seed in (0, 0, 1)]
    assert made[0] == made[1]
    assert "2 classes have fewer training clips than the shape asks for" in made[0].departures[0]
    assert read_manifest(tmp_path / "0.csv").clips[0].path == "1.webm"
    assert made[2].recipe["seed"] == 1


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{id}", "Kinetics-400/videos_train/a.mp4"),
        ("k400/{label}/{stem}.mkv", "k400/bowling/a.mkv"),
        ("{split}/{stem}.webm", "train/a.webm"),
    ],
)
def test_a_template_says_where_videos_lie_and_leaves_the_ids_alone(template, expected, tmp_path):
    make_protocol("rareact", write_lists(tmp_path / "lists", GEN2BALANCE), tmp_path / "r.csv", path=template)
    first = read_manifest(tmp_path / "r.csv").clips[0]
    assert (first.clip_id, first.path) == ("Kinetics-400/videos_train/a.mp4", expected)


@pytest.mark.parametrize(
    ("template", "answer"),
    [
        ("{name}.mp4", "it holds {name}. Its fields are {id}, {stem}, {label}, {split}"),
        ("{id.__class__}", "it holds {id.__class__}"),
        ("{stem:>99999999999}", "it holds {stem:>99999999999}"),
        ("{}", "it holds {}"),
        ("{id", "cannot be used"),
        ("{id!x}", "cannot be used"),
        ("../{id}", "leads out of the root"),
        ("/{id}", "leads out of the root"),
        ("{split}.mp4", "gives 'train.mp4' for both"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused(template, answer, tmp_path):
    with pytest.raises(LongreelError, match=re.escape(answer)):
        make_protocol("rareact", write_lists(tmp_path / "lists", GEN2BALANCE), tmp_path / "r.csv", path=template)
    assert not (tmp_path / "r.csv").exists()


FAULTS = {
    "leak": ({"test": "ggg 0\nbbb 1\n"}, r"test.lst:2: clip 'bbb' of test is also in train: .*train.lst:2"),
    "unknown label": ({"validate": "eee 3\n"}, r"validate.lst:1: '3' is no class number from 0 to 2"),
    "never trained": ({"train": "aaa 0\nbbb 1\n"}, r"validate.lst:2: class 'Zoo' has no training clip"),
    "twice": ({"train": "aaa 0\nbbb 1\nccc 2\naaa 1\n"}, r"train.lst:4: clip 'aaa' is already there"),
    "cut short": ({"train": "aaa 0\nbbb 1\nccc"}, r"train.lst:3: 'ccc' is not of the form"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_lists_that_cannot_be_used_leave_nothing_behind(name, tmp_path):
    replaced, answer = FAULTS[name]
    with pytest.raises(LongreelError, match=answer):
        make_protocol("videolt", write_lists(tmp_path / "labels", VIDEOLT, **replaced), tmp_path / "v.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["labels"]


def test_a_folder_without_the_lists_is_told_which_it_lacks_and_whose_they_are(tmp_path):
    folder = write_lists(tmp_path / "labels", VIDEOLT)
    (folder / "test.lst").unlink()
    with pytest.raises(LongreelError, match=r"labels: has no test.lst. Give the folder .*17Skye17/VideoLT"):
        make_protocol("videolt", folder, tmp_path / "v.csv")


@pytest.mark.parametrize(
    ("name", "options", "answer"),
    [
        ("videolt", {"ratio": 0.01}, "protocol videolt knows no --ratio: it has no option"),
        ("minikinetics200-lt", {}, "Give --ratio, one of: 0.01, 0.02, 0.05, 0.1"),
        ("minikinetics200-lt", {"ratio": 0.03}, "has no --ratio 0.03. Give one of: 0.01"),
        ("minikinetics200-lt", {"ratio": 0.01, "shots": 4}, "knows no --shots: its option is --ratio"),
        ("hmdb51-few-shot", {"shots": 3}, "has no --shots 3. Give one of: 2, 4, 8, 16"),
        ("videlt", {}, "no protocol called 'videlt'. Did you mean 'videolt'"),
    ],
)
def test_a_protocol_and_its_option_must_fit(name, options, answer):
    with pytest.raises(LongreelError, match=answer):
        choose_protocol(name, options)


def test_a_seed_for_a_protocol_that_draws_nothing_is_refused(tmp_path):
    with pytest.raises(LongreelError, match="protocol videolt draws nothing"):
        make_protocol("videolt", write_lists(tmp_path / "labels", VIDEOLT), tmp_path / "v.csv", seed=0)


def test_what_is_there_is_never_overwritten_and_the_same_may_be_made_again(tmp_path):
    folder = write_lists(tmp_path / "labels", VIDEOLT)
    out = tmp_path / "deep" / "v.csv"
    made = make_protocol("videolt", folder, out)
    before = {path: path.stat().st_mtime_ns for path in out.parent.iterdir()}
    assert make_protocol("videolt", folder, out) == made
    with pytest.raises(LongreelError, match=r"v.csv: is there already, and is not the same"):
        make_protocol("videolt", folder, out, path="videos/{id}.mp4")
    assert {path: path.stat().st_mtime_ns for path in out.parent.iterdir()} == before
    with pytest.raises(LongreelError, match=r"ends in \.csv"):
        make_protocol("videolt", folder, tmp_path / "v.jsonl")


def test_an_interrupted_writing_is_completed_by_the_same_command(tmp_path):
    folder = write_lists(tmp_path / "labels", VIDEOLT)
    made = make_protocol("videolt", folder, tmp_path / "v.csv")
    (tmp_path / "v.made.json").unlink()
    assert make_protocol("videolt", folder, tmp_path / "v.csv") == made
    assert json.loads((tmp_path / "v.made.json").read_text())["clips"] == made.clips


# Long tails of manifests


def test_a_tail_keeps_every_column_and_the_other_splits(tmp_path):
    rows = [
        {
            "path": f"{label}{number}.mp4",
            "label": label,
            "split": ("test", "val", *["train"] * 8)[number],
            "source": "generated" if number == 9 else "real",
            "start": "" if number else "1.5",
            "note": f'a, "b"\n{"" if number else chr(13)}',
        }
        for label in ("ant", "bee")
        for number in range(10)
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    whole = read_manifest(tmp_path / "m.jsonl")
    made = make_tail(whole, tmp_path / "t.csv", "exponential:factor=0.3", seed=5)
    tail = read_manifest(tmp_path / "t.csv")
    assert made.digest == tail.digest
    assert all(clip in whole.clips for clip in tail.clips)
    assert [clip for clip in whole.clips if clip.split != "train"] == [c for c in tail.clips if c.split != "train"]
    real = Counter(clip.labels[0] for clip in tail.clips if clip.split == "train" and clip.source == "real")
    assert real == {"ant": 7, "bee": 2}
    assert sum(clip.source == "generated" for clip in tail.clips) == 2
    assert made.recipe == {"tail_of": whole.digest, "shape": "exponential:factor=0.3", "keep": "drawn", "seed": 5}


def test_a_label_that_csv_would_split_is_refused(tmp_path):
    row = {"path": "a.mp4", "label": ["ant;bee"], "split": "train"}
    (tmp_path / "m.jsonl").write_text(json.dumps(row))
    with pytest.raises(LongreelError, match=r"clip 'a\.mp4': its label 'ant;bee' has a ';'"):
        make_tail(read_manifest(tmp_path / "m.jsonl"), tmp_path / "t.csv", "exponential")


# Rules and commands


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_is_complete_and_names_things_there_are(name):
    protocol = PROTOCOLS[name]
    assert set(protocol.metrics) <= METRICS
    assert protocol.balance in METHODS
    assert protocol.keep in KEEP
    assert set(protocol.lists) <= set(SPLITS)
    assert protocol.source
    assert protocol.extraction
    assert protocol.backbones
    assert ("last epoch" in protocol.selection) == ("val" not in protocol.lists)
    assert (protocol.option is None) == (set(protocol.published) == {None})
    for published in protocol.published.values():
        assert set(published.clips) <= set(protocol.lists)
        if not protocol.groups.endswith(".json"):
            rule = make_groups(protocol.groups, ["a"], [1])
            assert list(rule.members) == list(published.groups)


def invoke(command: Sequence[str]):
    return CliRunner().invoke(app, list(command))


@pytest.mark.parametrize("name", ["list", "make", "tail"])
def test_every_command_has_help_with_an_example(name):
    assert f"Example: longreel protocol {name}" in " ".join(invoke(["protocol", name, "--help"]).stdout.split())


def test_the_examples_of_make_and_tail_run_as_they_stand(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_lists(tmp_path / "VideoLT" / "labels", VIDEOLT)
    done = invoke("protocol make videolt VideoLT/labels --out videolt.csv".split())
    assert done.exit_code == 0
    assert "8 clips, 37.5% of several classes -> videolt.csv" in done.stdout
    assert "warning: 3 classes, published are 1004" in done.stderr
    assert "as published" not in done.stdout
    rows = ["path,label,split", *(f"{label}{n}.mp4,{label},train" for label in "ab" for n in range(9))]
    Path("videos.csv").write_text("\n".join(rows))
    done = invoke("protocol tail videos.csv --shape exponential:factor=0.5 --out tail.csv".split())
    assert done.exit_code == 0
    assert "13 clips" in done.stdout
    assert "2 classes, 9 to 4 training clips" in done.stdout
    Path("deep").mkdir()
    done = invoke("protocol tail videos.csv --shape exponential:factor=0.5 --out deep/tail.csv".split())
    assert f"are relative to {tmp_path.resolve()}: give it as --root" in done.stderr


def test_json_is_one_document(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_lists(tmp_path / "labels", VIDEOLT)
    made = json.loads(invoke("protocol make videolt labels --out v.csv --json".split()).stdout)
    assert made["recipe"]["protocol"] == "videolt"
    assert set(made["recipe"]["lists"]) == {"train.lst", "validate.lst", "test.lst"}
    listed = json.loads(invoke("protocol list --json".split()).stdout)
    assert set(listed) == set(PROTOCOLS)
    assert [form["option"] for form in listed["minikinetics200-lt"]["published"]] == [0.01, 0.02, 0.05, 0.1]


def test_the_list_names_every_protocol_with_its_counts():
    shown = invoke(["protocol", "list"]).stdout
    assert all(f"{name}\n" in shown for name in PROTOCOLS)
    assert "179334 train, 25619 val, 51239 test; 1004 classes: 47 head, 617 medium, 340 tail" in shown
    assert "--ratio 0.05: 25287 train" in shown
