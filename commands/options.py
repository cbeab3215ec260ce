"""Arguments that several commands share, and how documents are printed."""

import json
from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
StoreFolder = Annotated[Path, typer.Argument(help="Store folder.")]
ManifestFile = Annotated[Path, typer.Argument(help="CSV or JSONL with path, label and split of each clip.")]
Root = Annotated[
    Path | None, typer.Option(help="Folder that the manifest's paths are relative to; its own by default.")
]
Device = Annotated[str, typer.Option(help="What trains: auto (a GPU where torch finds one), cpu or cuda.")]
KeepEpochs = Annotated[
    bool, typer.Option("--keep-epochs", help="Keep the head of every epoch that could be chosen, for `oracle`.")
]
Split = Annotated[str, typer.Option(help="val or test.")]


def print_json(document: object) -> None:
    """One JSON document on stdout."""
    print(json.dumps(document, indent=2, allow_nan=False))


def print_facts(facts: dict, as_json: bool) -> None:
    """A line each, or one JSON document."""
    if as_json:
        print_json(facts)
        return
    for key, value in facts.items():
        print(f"{key}: {value if isinstance(value, str | int | float) else json.dumps(value)}")
