"""The fill curve: what each point learns from and costs, and a picture of it that is to scale."""

import json
import re
from xml.etree import ElementTree

import numpy as np
import pytest
from small_filled import write_filled

from longreel.cli import app
from longreel.experiments.fill_curve import measure_fillings
from longreel.manifest import read_manifest

SUITE = """
title = "Curve"
groups = "2,4"
columns = ["class_average", "<=2.class_average"]
[settings]
head = "linear"
epochs = 2
curriculum = "two-stage"
balance = "balanced-softmax"
[[rows]]
name = "none"
fill = "0"
[[rows]]
name = "half"
fill = "50%"
[[rows]]
name = "all"
fill = "100%"
"""


@pytest.fixture
def benched(tmp_path, write_small_store, capsys):
    made, _ = write_filled(tmp_path / "data", write_small_store)
    (tmp_path / "curve.toml").write_text(SUITE)
    command = ["bench", str(tmp_path / "curve.toml"), str(made.manifest), "--store", f"toy={made.store}"]
    with pytest.raises(SystemExit, match="0"):
        app([*command, "--seeds", "2", "--draws", "20", "--out", str(tmp_path / "out"), "--jobs", "1"])
    return tmp_path / "out", capsys.readouterr().out


def test_each_point_says_what_it_takes_and_costs(benched):
    """6, 3 and 2 real clips: filled to 3 that is one generated clip, filled to 6 three and four."""
    out, shown = benched
    rows = json.loads((out / "table.json").read_text())["rows"]
    hours = [0.0, 393.7 / 3600, 7 * 393.7 / 3600]
    for row, fill, generated, cost in zip(rows, (0, 3, 6), (0, 1, 7), hours, strict=True):
        assert (row["filling"]["fill"], row["filling"]["generated"]) == (fill, generated)
        assert row["filling"]["gpu_hours"] == pytest.approx(cost)
    assert re.search(r"generated\s*┃ GPU-hours", shown)
    assert "| 7 | 0.8 |" in (out / "table.md").read_text()


def test_the_picture_has_every_point_to_scale(benched):
    out, _ = benched
    document = json.loads((out / "table.json").read_text())
    lines = []
    for element in ElementTree.parse(out / "fill-curve.svg").iter("{http://www.w3.org/2000/svg}path"):
        if "stroke-width: 1.4" in element.get("style", "") and "clip-path" in element.attrib:
            points = re.findall(r"[ML] (\S+) (\S+)", element.get("d", ""))
            lines.append(np.array(points, dtype=float))
    assert [len(line) for line in lines] == [3, 3]
    for column, line in zip(document["columns"], lines, strict=True):
        told = np.array([[row["filling"]["fill"], row["figures"][column]["mean"]] for row in document["rows"]])
        for axis in (0, 1):
            if np.ptp(told[:, axis]) > 0:
                slope, shift = np.polyfit(told[:, axis], line[:, axis], 1)
                np.testing.assert_allclose(slope * told[:, axis] + shift, line[:, axis], atol=0.01)
    assert "GPU-hours to generate the clips, at 393.7 s each" in (out / "fill-curve.svg").read_text()


def test_a_manifest_with_fewer_generated_clips_than_asked_gives_what_there_are(tmp_path, write_small_store):
    made, _ = write_filled(tmp_path / "data", write_small_store)
    found = measure_fillings(read_manifest(made.manifest), {"more": "1000", "less": "67%"})
    assert (found["more"].fill, found["more"].generated, found["more"].missing) == (1000, 7, 3000 - 11 - 7)
    assert (found["less"].fill, found["less"].generated, found["less"].missing) == (4, 3, 0)
