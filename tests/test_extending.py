"""docs/extending.md, block by block: one file, one import and one line in a dict make it work on the command line."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import longreel
from longreel.experiments.runs import read_config

PAGE = (Path(__file__).parents[1] / "docs" / "extending.md").read_text(encoding="utf-8")
BLOCK = re.compile(
    r"```python\n# (?P<file>\S+), and in (?P<dict>[A-Z]+) of (?P<home>\S+): (?P<line>\"(?P<key>\w+)\": (?P<name>\w+))\n"
    r"(?P<code>.*?)```",
    re.S,
)
OPTIONS = {
    "margin": ["--loss", "margin:width=0.3"],
    "halves": ["--sampler", "halves:part=0.25"],
    "shaken": ["--mixer", "shaken:size=0.2"],
    "extremes": ["--head", "extremes"],
}


def copy_package(target: Path) -> None:
    """The package without what lies beside it in a checkout; compiled modules come along, which saves time."""
    target.mkdir()
    for path in Path(longreel.__file__).parent.iterdir():
        if path.suffix == ".py":
            shutil.copy2(path, target)
        elif (path / "__init__.py").is_file():
            shutil.copytree(path, target / path.name)


def install(block: re.Match[str], package: Path) -> None:
    """What the page tells to do: write the block's file, import it where the dict is, name it in the dict."""
    file, home = package / block["file"], package / block["home"]
    assert not file.exists()
    assert file.parent == home.parent
    file.write_text(block["code"], encoding="utf-8")
    text = home.read_text(encoding="utf-8")
    (opening,) = re.findall(rf"^{block['dict']}: dict\[.*\] = {{\n", text, flags=re.MULTILINE)
    text = text.replace(opening, f"{opening}    {block['line']},\n")
    text = text.replace("\nfrom .", f"\nfrom .{file.stem} import {block['name']}\nfrom .", 1)
    home.write_text(text, encoding="utf-8")


def run(folder: Path, *arguments: object) -> None:
    """A command of the package in the folder, which must succeed."""
    command = [sys.executable, "-P", "-m", "longreel.cli", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("key", OPTIONS)
def test_a_part_of_the_page_is_one_file_one_import_and_one_line(key, made, tmp_path):
    found = {block["key"]: block for block in BLOCK.finditer(PAGE)}
    assert set(found) == set(OPTIONS)
    copy_package(tmp_path / "longreel")
    install(found[key], tmp_path / "longreel")
    folder = tmp_path / "run"
    run(tmp_path, "train", made.store, made.manifest, "--out", folder, "--epochs", 2, "--threads", 1, *OPTIONS[key])
    config = read_config(folder)
    assert OPTIONS[key][1] in (config["head"], config["loss"], config["sampler"], config["mixer"])
    run(tmp_path, "evaluate", folder)


def test_the_page_shows_the_first_block_installed():
    block = BLOCK.search(PAGE)
    assert block is not None
    shown = f" # {block['home']}\n+from .{Path(block['file']).stem} import {block['name']}\n"
    assert shown in PAGE
    assert f"+    {block['line']},\n" in PAGE
