"""docs/extending.md, block by block: each is a file, and one line in a dict makes it work on the command line."""

import re
import types
from pathlib import Path

import pytest

from longreel.balance import LOSSES, MIXERS, SAMPLERS
from longreel.cli import app
from longreel.experiments.runs import read_config
from longreel.heads import HEADS

PAGE = (Path(__file__).parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCK = re.compile(
    r"```python\n# (?P<file>\S+), and in (?P<dict>[A-Z]+) of \S+ \"(?P<key>\w+)\": (?P<name>\w+)\n(?P<code>.*?)```",
    re.S,
)
DICTS = {"LOSSES": LOSSES, "SAMPLERS": SAMPLERS, "MIXERS": MIXERS, "HEADS": HEADS}
OPTIONS = {
    "margin": ["--loss", "margin:width=0.3"],
    "halves": ["--sampler", "halves:part=0.25"],
    "shaken": ["--mixer", "shaken:size=0.2"],
    "extremes": ["--head", "extremes"],
}


@pytest.mark.parametrize("key", OPTIONS)
def test_a_part_of_the_page_is_one_file_and_one_line(key, made, tmp_path, monkeypatch):
    found = {block["key"]: block for block in BLOCK.finditer(PAGE)}
    assert set(found) == set(OPTIONS)
    block = found[key]
    module = types.ModuleType(key)
    exec(compile(block["code"], block["file"], "exec"), module.__dict__)
    monkeypatch.setitem(DICTS[block["dict"]], key, getattr(module, block["name"]))
    arguments = ["train", str(made.store), str(made.manifest), "--out", str(tmp_path / "run"), "--epochs", "2"]
    with pytest.raises(SystemExit) as ended:
        app([*arguments, "--threads", "1", *OPTIONS[key]])
    assert ended.value.code == 0
    config = read_config(tmp_path / "run")
    assert OPTIONS[key][1] in (config["head"], config["loss"], config["sampler"], config["mixer"])
    with pytest.raises(SystemExit) as ended:
        app(["evaluate", str(tmp_path / "run")])
    assert ended.value.code == 0
