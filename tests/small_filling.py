"""Small folders of generated clips, and manifests filled with them."""

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import typer
from typer.testing import CliRunner

from longreel.cli import Commands
from longreel.commands import filling
from longreel.generate.clips import Prompt, make_clip_id, write_lines
from longreel.manifest import Manifest, read_manifest

app = typer.Typer(cls=Commands, pretty_exceptions_enable=False)
app.command()(filling.plan)
app.command()(filling.fill)

REAL = """path,label,split,note,start,end
a/0.mp4,dog,train,"one, two",,
a/1.mp4,dog,train,,0.5,2
a/1.mp4,cat;dog,train,,2,3.25
a/2.mp4,cat,val,,,
a/3.mp4,dog,test,,,
"""


def write_clips(folder: Path, finished: Mapping[str, Sequence[int]], prompts: int = 6) -> Path:
    """A folder of generated clips: so many prompts a class, and the videos of the given indices."""
    listed = [Prompt(make_clip_id(label, i), label, i, f"a {label}") for label in finished for i in range(prompts)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "prompts.jsonl").write_text(write_lines(listed))
    (folder / "videos").mkdir(exist_ok=True)
    for prompt in listed:
        if prompt.index in finished[prompt.label]:
            finish(folder, prompt)
    return folder


def finish(folder: Path, prompt: Prompt, content: bytes = b"frames", **replaced: object) -> Path:
    video = folder / "videos" / prompt.clip_id
    video.parent.mkdir(parents=True, exist_ok=True)
    video.write_bytes(content)
    facts = {"format": 1, "bytes": len(content), "sha256": sha256(content).hexdigest(), "synthetic": True}
    facts["prompt_sha256"] = sha256(prompt.prompt.encode()).hexdigest()
    sidecar = facts | {"label": prompt.label, "clip_id": prompt.clip_id} | replaced
    video.with_suffix(".json").write_text(json.dumps(sidecar))
    return video


def make_place(folder: Path) -> Path:
    """A manifest of real clips, `real/m.csv`, and six finished clips of each class, `made`, in a folder."""
    (folder / "real").mkdir()
    (folder / "real" / "m.csv").write_text(REAL)
    write_clips(folder / "made", {"dog": range(6), "cat": range(6)})
    return folder


def invoke(place: Path, *arguments: str | Path, out: str = "filled.csv"):
    command = ["fill", place / "real" / "m.csv", place / "made", "--out", place / out, *arguments]
    return CliRunner().invoke(app, [str(argument) for argument in command])


def fill(place: Path, *arguments: str | Path, out: str = "filled.csv") -> Manifest:
    done = invoke(place, *arguments, out=out)
    assert done.exit_code == 0, done.stderr
    return read_manifest(place / out)


def indices(manifest: Manifest) -> dict[str, list[int]]:
    """Class -> indices of its generated clips, as their names have them."""
    found: dict[str, list[int]] = {}
    for clip in manifest.clips:
        if clip.source == "generated":
            found.setdefault(clip.labels[0], []).append(int(Path(clip.clip_id).stem))
    return found


def write_scores(place: Path, rows: Iterable[Sequence[object]], columns: Sequence[str]) -> Path:
    with (place / "scores.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["clip_id", *columns], *rows])
    return place / "scores.csv"


def scored(place: Path) -> Path:
    values = {0: ("0.9", "0"), 1: ("0.1", "True"), 2: ("0.5", "False"), 3: ("", "0"), 4: ("0.2", "0")}
    rows = [(make_clip_id("cat", i), *cells, "x,y") for i, cells in values.items()]
    return write_scores(place, rows, ["uncertainty", "static", "label"])
