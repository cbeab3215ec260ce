"""Small manifests for the tests of prompts, and the command that writes prompts."""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import typer
from small_llm_server import SmallServer
from typer.testing import CliRunner

from longreel.cli import Commands
from longreel.commands.prompting import prompts

COUNTS = {"BrushHair": 5, "playing guitar": 3, "archery": 1}

app = typer.Typer(cls=Commands, pretty_exceptions_enable=False)
app.command()(prompts)
app.command("other")(lambda: None)  # typer makes a lone command the whole program


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def report(self) -> dict:
        return json.loads(self.out)

    @property
    def classes(self) -> dict[str, dict]:
        return {row["label"]: row for row in self.report["classes"]}


def write_manifest(folder: Path, counts: Mapping[str, int] | None = None) -> Path:
    """A manifest of so many real training clips a class, and one of val, test and generated each."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "clips.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split", "source"])
        for place, (label, count) in enumerate((counts or COUNTS).items()):
            for number in range(count):
                writer.writerow([f"{place}/real{number}.mp4", label, "train", "real"])
            if count:
                writer.writerow([f"{place}/val.mp4", label, "val", "real"])
                writer.writerow([f"{place}/test.mp4", label, "test", "real"])
                writer.writerow([f"{place}/made.mp4", label, "train", "generated"])
    return path


def write(manifest: Path, gen: Path, fill: object, *options: object) -> Ended:
    """`longreel generate prompts`."""
    words = ["prompts", manifest, gen, "--fill", fill, "--json", *options]
    done = CliRunner().invoke(app, [str(word) for word in words])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Ended(done.exit_code, done.stdout, done.stderr)


def read_lines(gen: Path, name: str = "prompts.jsonl") -> list[dict]:
    path = gen / name
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def texts(gen: Path) -> dict[str, list[str]]:
    """The prompts of each class, by their index."""
    found: dict[str, dict[int, str]] = {}
    for line in read_lines(gen):
        found.setdefault(line["label"], {})[line["index"]] = line["prompt"]
    return {label: [numbered[index] for index in sorted(numbered)] for label, numbered in found.items()}


def options(source: str, server: SmallServer, *more: object) -> list:
    """Of the command, for a source that asks this server."""
    if source == "templates":
        return ["--from", source, *more]
    return ["--from", source, "--llm-url", server.url, "--llm-model", "small", *more]
