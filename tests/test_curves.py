"""Learning curves as a command: what is drawn is the history, and nothing is opened for it."""

import dataclasses
import json
import re
import xml.etree.ElementTree as xml
from pathlib import Path

import numpy as np
import pytest
from small_runs import settings_of

from longreel.cli import app
from longreel.experiments.train import train_run

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, write_small_store):
    """Two seeds of one method, another one, and neighbours."""
    folder = tmp_path_factory.mktemp("runs")
    made = write_small_store(folder / "data", noise=1.5)
    for seed in (0, 1):
        train_run(folder / f"ce-{seed}", settings_of(made, seed=seed))
    train_run(folder / "bs", settings_of(made, balance="balanced-softmax", epochs=7, validate_every=2))
    train_run(folder / "knn", dataclasses.replace(settings_of(made), head="knn"))
    return folder


def draw(*arguments: object) -> int:
    with pytest.raises(SystemExit) as ended:
        app(["curves", *map(str, arguments)])
    return int(ended.value.code or 0)


def lines_of(path: Path) -> list[np.ndarray]:
    """The points of each coloured line, in the order they were drawn."""
    found = []
    for element in xml.parse(path).iter("{http://www.w3.org/2000/svg}path"):
        style, points = element.get("style", ""), element.get("d", "")
        if "stroke-width: 1.1" in style and "stroke: #" in style and "clip-path" in element.attrib:
            found.append(np.array([[float(n) for n in pair] for pair in re.findall(r"[ML] (\S+) (\S+)", points)]))
    return found


def test_the_lines_are_the_histories_to_scale(runs, tmp_path):
    folders = [runs / "ce-0", runs / "ce-1", runs / "bs"]
    assert draw(*folders, "--out", tmp_path / "curves.svg") == 0
    lines = lines_of(tmp_path / "curves.svg")
    assert len(lines) == 6
    for key, drawn in (("val_map", lines[:3]), ("loss", lines[3:])):
        wanted = []
        for folder in folders:
            history = json.loads((folder / "history.json").read_text())
            wanted.append(np.array([[row["epoch"], row[key]] for row in history if key in row]))
        assert [len(line) for line in drawn] == [len(points) for points in wanted]
        for axis in (0, 1):  # one scale and shift for all lines of a panel
            told, shown = (np.concatenate([each[:, axis] for each in group]) for group in (wanted, drawn))
            slope, shift = np.polyfit(told, shown, 1)
            np.testing.assert_allclose(slope * told + shift, shown, atol=0.01)
            assert slope * (1 if axis == 0 else -1) > 0  # y goes down in SVG


def test_the_same_runs_give_the_same_bytes_and_no_split_is_opened(runs, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("*")}
    for name in ("one.svg", "two.svg"):
        assert draw(runs / "ce-0", runs / "bs", "--out", tmp_path / name) == 0
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("*")} == before


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("knn", "was not trained, so it has no curve"),
        ("none", "is not a run"),
        ("torn", "history.json: cannot be read"),
    ],
)
def test_what_has_no_curve_is_named(name, text, runs, tmp_path, capfd):
    if name == "torn" and not (runs / "torn").exists():
        (runs / "torn").mkdir()
        for file in ("config.json", "result.json"):
            (runs / "torn" / file).write_bytes((runs / "bs" / file).read_bytes())
        (runs / "torn" / "history.json").write_text("[{")
    assert draw(runs / name, "--out", tmp_path / "curves.svg") == 2
    assert text in capfd.readouterr().err
    assert not (tmp_path / "curves.svg").exists()
