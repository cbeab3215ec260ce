"""Protocols on lists and features as they were published, and their docs; the lists lie outside of the repository."""

import csv
import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from small_lists import VIDEOLT, write_lists
from typer.testing import CliRunner

from longreel.balance.counts import make_groups
from longreel.cli import app
from longreel.experiments.clips import load_clips
from longreel.experiments.manifests import Made, make_protocol
from longreel.experiments.protocols import PROTOCOLS
from longreel.extract import Given, import_features, open_source
from longreel.manifest import read_manifest
from longreel.store import FeatureStore

PAGE = (Path(__file__).parent.parent / "docs" / "protocols.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def lists(shared_data) -> Path:
    """The published lists."""
    if not (shared_data / "protocols").is_dir():
        pytest.skip("needs the published lists in ../shared/data/protocols")
    return shared_data / "protocols"


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


FOLDERS = {
    "videolt": "videolt",
    "videolt-paper": "videolt",
    "minikinetics200": "minikinetics200",
    "minikinetics200-lt": "minikinetics200",
    "k100-lt": "gen2balance/K100-LT",
    "ucf-lt": "gen2balance/UCF-LT",
    "rareact": "gen2balance/RareAct-K100-LT",
    "hmdb51-few-shot": "clip-tasks",
    "ucf101-few-shot": "clip-tasks",
    "hmdb51-base": "clip-tasks",
    "ucf101-base": "clip-tasks",
}
FORMS = [(name, value) for name in FOLDERS for value in PROTOCOLS[name].published]


@pytest.fixture(scope="module")
def publish(lists, tmp_path_factory):
    """``publish(name, value)``: what is made of the published lists, and the manifest; made once."""

    @cache
    def make(name: str, value: float | None = None) -> tuple[Made, Path]:
        out = tmp_path_factory.mktemp("published") / "m.csv"
        options = {} if value is None else {str(PROTOCOLS[name].option): value}
        return make_protocol(name, lists / FOLDERS[name], out, options=options), out

    return make


@pytest.mark.parametrize(("name", "value"), FORMS, ids=lambda part: str(part))
def test_the_published_lists_have_exactly_the_published_counts(name, value, publish):
    made, path = publish(name, value)
    assert made.departures == []
    assert made.notes == list(PROTOCOLS[name].notes)
    rows = rows_of(path)
    assert Counter(row["split"] for row in rows) == PROTOCOLS[name].published[value].clips
    assert len({row["clip_id"] for row in rows}) == len({row["path"] for row in rows}) == len(rows)


def test_videolt_is_what_its_lists_say_line_by_line(lists, publish):
    names = [line.split()[0] for line in (lists / "videolt" / "count-labels-train.lst").read_text().splitlines()]
    expected = []
    for split, file in (("train", "train.lst"), ("val", "validate.lst"), ("test", "test.lst")):
        for line in (lists / "videolt" / file).read_text().splitlines():
            clip_id, numbers = line.split()
            label = ";".join(names[int(number)] for number in numbers.split(","))
            expected.append({"clip_id": clip_id, "path": f"{clip_id}.mp4", "label": label, "split": split})
    assert rows_of(publish("videolt")[1]) == expected
    assert sum(";" in row["label"] for row in expected) / len(expected) == pytest.approx(0.084, abs=5e-4)


@pytest.mark.slow
def test_the_manifest_of_videolt_reads_back(publish):
    made, path = publish("videolt")
    assert read_manifest(path).digest == made.digest


@pytest.mark.parametrize("name", ["k100-lt", "ucf-lt", "rareact"])
def test_gen2balances_groups_are_those_of_its_mapping_class_by_class(name, lists, publish):
    made, path = publish(name)
    manifest = read_manifest(path)
    assert manifest.digest == made.digest
    rule = str(path.with_suffix(".groups.json")) if name == "rareact" else PROTOCOLS[name].groups
    train = Counter(clip.labels[0] for clip in manifest.split("train"))
    groups = make_groups(rule, manifest.classes, [train[label] for label in manifest.classes])
    found = {manifest.classes[i]: group for group, members in groups.members.items() for i in members}
    published = json.loads((lists / FOLDERS[name] / "misc" / "lt_mapping.json").read_text())
    assert {label: group.replace("fewshot", "few") for label, group in found.items()} == {
        label: group.replace("fewshot", "few") for label, group in published.items()
    }


@pytest.mark.parametrize("ratio", [0.01, 0.02, 0.05, 0.1])
def test_minikinetics_keeps_the_first_lines_of_each_class_with_a_stable_ranking(ratio, lists, publish):
    by_class: dict[int, list[str]] = {}
    for line in (lists / "minikinetics200" / "train.lst").read_text().splitlines():
        by_class.setdefault(int(line.split()[1]), []).append(line.split()[0])
    ranked = sorted(by_class, key=lambda number: (-len(by_class[number]), number))
    expected = {}
    for rank, number in enumerate(ranked):
        for clip_id in by_class[number][: int(399 * ratio ** (rank / 199))]:
            expected[clip_id] = f"{number:03d}"
    manifest = read_manifest(publish("minikinetics200-lt", ratio)[1])
    assert {clip.clip_id: clip.labels[0] for clip in manifest.split("train")} == expected
    assert manifest.classes == tuple(f"{number:03d}" for number in range(200))


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_is_documented_with_its_counts(name):
    rows = [line for line in PAGE.splitlines() if line.startswith(f"| `{name}`")]
    for value, published in PROTOCOLS[name].published.items():
        form = "" if value is None else f"{value:g}"
        counts = [f"{count:,}".replace(",", " ") for count in published.clips.values()]
        groups = " / ".join(str(count) for count in published.groups.values())
        assert [row for row in rows if all(part in row for part in (*counts, groups, form, str(published.classes)))]


def documented() -> list[str]:
    return re.findall(r"^longreel (protocol .*)$", PAGE, flags=re.MULTILINE)


def invoke(command: Sequence[str]):
    return CliRunner().invoke(app, list(command))


def test_every_documented_command_runs_on_the_published_lists(lists, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for link, folder in {
        "VideoLT/labels": "videolt",
        "MOVE/Imbalanced-MiniKinetics200/data": "minikinetics200",
        "Gen2Balance/data/annotations": "gen2balance",
        "tc-clip": "clip-tasks",
    }.items():
        Path(link).parent.mkdir(parents=True, exist_ok=True)
        os.symlink(lists / folder, link)
    elsewhere = ("ssv2-lt", "tail videos.csv", "make videolt")  # not published, not ours, and made above
    commands = [command for command in documented() if not any(words in command for words in elsewhere)]
    assert len(commands) > 8
    for command in commands:
        done = invoke(command.replace("'", "").split())
        assert done.exit_code == 0, (command, done.stderr)
        if " make " in command:
            assert "counts: as published" in done.stdout, (command, done.stderr)


def test_documented_options_exist():
    for command in documented():
        shown = invoke([*command.split()[:2], "--help"]).stdout
        assert all(word in shown for word in command.split() if word.startswith("--")), command


# Features as they were released


def bring(folder: Path, store: Path):
    with open_source(folder) as source:
        return import_features(source, store, Given("ResNet-50", "torchvision"))


def test_videolts_released_features_have_the_ids_of_its_manifest(tmp_path):
    make_protocol("videolt", write_lists(tmp_path / "labels", VIDEOLT), tmp_path / "v.csv")
    (tmp_path / "features").mkdir()
    for number, name in enumerate(("-aaa", "bbb", "ccc", "ddd", "eee", "fff", "ggg", "hhh"), 3):
        np.save(tmp_path / "features" / f"{name}.npy", np.full((number, 2048), number, dtype=np.float32))
    assert bring(tmp_path / "features", tmp_path / "store").failures == []
    manifest, store = read_manifest(tmp_path / "v.csv"), FeatureStore(tmp_path / "store")
    assert {clip.clip_id for clip in manifest.clips} == set(store)
    train = load_clips(store, manifest, "train")
    assert train.ids == ("-aaa", "bbb", "ccc", "ddd")
    assert train.features.shape == (3 + 4 + 5 + 6, 2048)


def test_released_features_in_a_folder_for_each_split_are_imported_one_after_the_other(tmp_path):
    names = {"train": ["a_000000_000010", "-b_000003_000013"], "val": ["c_000100_000110"]}
    for split, stems in names.items():
        (tmp_path / split).mkdir()
        for stem in stems:
            np.save(tmp_path / split / f"{stem}.npy", np.ones((150, 2048), dtype=np.float32))
    written = [bring(tmp_path / split, tmp_path / "store").written for split in names]
    assert written == [2, 1]
    assert sorted(FeatureStore(tmp_path / "store")) == sorted([*names["train"], *names["val"]])
    bring(tmp_path, tmp_path / "nested")  # of the folder above, the ids have the name of the folder in them
    assert "val/c_000100_000110" in FeatureStore(tmp_path / "nested")
