"""Folders of prompts, and the command that makes their videos, for the tests of it."""

import hashlib
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from longreel.generate.clips import PROMPTS, Prompt, make_clip_id, write_lines
from longreel.generate.procedural import Procedural
from longreel.generate.sidecars import read_whole

#: the command as the command line has it, in a process of its own.
COMMAND = """
import typer
from longreel.cli import Commands
from longreel.commands.rendering import videos
app = typer.Typer(cls=Commands, pretty_exceptions_enable=False)
app.callback()(lambda: None)
app.command()(videos)
app()
"""
SMALL = Procedural(frames=9, height=64, width=64)
SIZE = ("--frames", "9", "--height", "64", "--width", "64")


def prompts_of(labels: Iterable[str], count: int) -> list[Prompt]:
    """So many prompts of each label."""
    return [
        Prompt(make_clip_id(label, i), label, i, f"{label}, take {i}", {"kind": "template"})
        for label in labels
        for i in range(count)
    ]


PROMPTED = prompts_of(["fall", "rise", "zigzag"], 3)


def folder_of(folder: Path, prompts: Sequence[Prompt] = PROMPTED) -> Path:
    """The folder, with its prompts."""
    folder.mkdir(exist_ok=True)
    (folder / PROMPTS).write_text(write_lines(prompts))
    return folder


def digests(folder: Path) -> dict[str, str]:
    """Clip id -> SHA-256 of its video."""
    base = folder / "videos"
    found = (p for p in base.rglob("*.mp4") if not p.name.startswith("."))
    return {p.relative_to(base).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}


def said_of(folder: Path, prompt: Prompt) -> dict:
    """The sidecar of a clip that is there whole."""
    found = read_whole(folder, prompt.clip_id, decode=True)
    assert found is not None
    return found


def command(*arguments: str | Path, **options) -> subprocess.CompletedProcess:
    """The command, run to its end."""
    line = [sys.executable, "-P", "-c", COMMAND, "videos", *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=120, **options)
