"""`protocol`: manifests of published benchmarks, and long tails made of balanced ones."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..console import printable, say
from .options import Json, ManifestFile, Root, print_json

if TYPE_CHECKING:
    from ..experiments.manifests import Made

Out = Annotated[Path, typer.Option(help="Manifest to write, a .csv file.")]


def list_protocols(as_json: Json = False) -> None:
    """List the benchmarks whose published lists can be made a manifest, with their rules and counts.

    Example: longreel protocol list
    """
    from ..experiments.protocols import PROTOCOLS

    if as_json:
        documents = {name: asdict(protocol) for name, protocol in PROTOCOLS.items()}
        for document in documents.values():  # an option's value is a number, a key of JSON is not
            document["published"] = [{"option": value, **counts} for value, counts in document["published"].items()]
        print_json(documents)
        return
    for name, protocol in PROTOCOLS.items():
        print(name)
        for value, published in protocol.published.items():
            form = "" if value is None else f"--{protocol.option} {value:g}: "
            clips = ", ".join(f"{count} {split}" for split, count in published.clips.items())
            groups = ", ".join(f"{count} {group}" for group, count in published.groups.items())
            print(f"  {form}{clips}; {published.classes} classes: {groups}")
        print(f"  groups {protocol.groups}; {', '.join(protocol.metrics)}; {protocol.selection}")
        print(f"  {protocol.source}")


def make(
    name: Annotated[str, typer.Argument(help="A name from `longreel protocol list`.")],
    lists: Annotated[Path, typer.Argument(help="Folder of the lists, as their authors publish them.")],
    out: Out,
    path: Annotated[
        str | None, typer.Option(help="Where a video lies under the root, with {id}, {stem}, {label} or {split}.")
    ] = None,
    ratio: Annotated[float | None, typer.Option(help="Imbalance ratio, for protocols that have several.")] = None,
    shots: Annotated[int | None, typer.Option(help="Training clips a class, for few-shot protocols.")] = None,
    draw: Annotated[int | None, typer.Option(help="Number of the published draw, for base protocols.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Of the draw, for protocols that draw clips.")] = None,
    as_json: Json = False,
) -> None:
    """Write a benchmark's manifest from its published lists, and say where its counts are not the published ones.

    Example: longreel protocol make videolt VideoLT/labels --out videolt.csv
    """
    from ..experiments.manifests import make_protocol

    options = {"ratio": ratio, "shots": shots, "draw": draw}
    _finish(make_protocol(name, lists, out, options=options, path=path, seed=seed), out, as_json)


def tail(
    manifest: ManifestFile,
    shape: Annotated[str, typer.Option(help="exponential:factor=0.01, lomax:alpha=6,minimum=5, explicit:file=F.")],
    out: Out,
    seed: Annotated[int, typer.Option(min=0, help="Which clips are drawn.")] = 0,
    keep: Annotated[str, typer.Option(help="Keep clips that are drawn, or the first of each class.")] = "drawn",
    groups: Annotated[str, typer.Option(help="Group rule, bounds such as 20,100, or a JSON file.")] = "gen2balance",
    root: Root = None,
    as_json: Json = False,
) -> None:
    """Write a manifest with a long-tailed training split out of MANIFEST; val and test stay as they are.

    Example: longreel protocol tail videos.csv --shape exponential:factor=0.5 --out tail.csv
    """
    from ..experiments.manifests import make_tail
    from ..manifest import read_manifest

    table = read_manifest(manifest, root)
    figures = make_tail(table, out, shape, seed=seed, keep=keep, groups=groups)
    if out.parent.resolve() != table.root:
        say(f"note: the paths in {out} are relative to {table.root}: give it as --root.")
    _finish(figures, out, as_json)


def _finish(figures: "Made", out: Path, as_json: bool) -> None:
    """Print what was made."""
    for warning in [*([figures.watermark] if figures.watermark else []), *figures.departures]:
        say(f"warning: {warning}")
    for note in figures.notes:
        say(f"note: {note}")
    if as_json:
        print_json(asdict(figures) | {"out": str(out)})
        return
    for split, clips in figures.clips.items():
        print(f"{split}: {clips} clips, {figures.labels[split]} labels")
    groups = ", ".join(f"{count} {group}" for group, count in figures.groups.items())
    print(printable(f"{figures.classes} classes, {figures.largest} to {figures.smallest} training clips: {groups}"))
    print(printable(f"groups: {figures.groups_rule}"))
    if "protocol" in figures.recipe and not figures.departures:
        print("counts: as published")
    print(f"{sum(figures.clips.values())} clips, {figures.multi_label:.1%} of several classes -> {out}")
