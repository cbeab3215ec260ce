"""`store`: look into a feature store."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from ..console import Steps, printable
from ..errors import LongreelError
from .options import Json, StoreFolder, print_facts, print_json


def info(store: StoreFolder, as_json: Json = False) -> None:
    """Print how a store was made and what it holds.

    Example: longreel store info videos.store
    """
    from ..store import describe_store

    print_facts(describe_store(store), as_json)


def verify(
    store: StoreFolder,
    full: Annotated[bool, typer.Option("--full", help="Read every byte; this is the default.")] = False,
    sample: Annotated[str | None, typer.Option(help="Read a random part of the shards only, such as 5%.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Draw the same part as an earlier check.")] = None,
    as_json: Json = False,
) -> None:
    """Check every byte of a store; ends with exit code 4 when something is damaged, and names it and the lost clips.

    Nothing is changed: `longreel extract` with `--repair` makes the lost clips anew.

    Example: longreel store verify videos.store
    """
    from ..store import parse_sample, verify_store

    if full and sample is not None:
        raise LongreelError("--full reads all shards and --sample a part of them. Give one of the two.")
    if seed is not None and sample is None:
        raise LongreelError("--seed draws a sample. Give --sample too, such as --sample 5%.")
    part = None if sample is None else parse_sample(sample)
    verification = verify_store(store, sample=part, seed=seed)
    facts = asdict(verification)
    if as_json:
        print_json(facts)
    else:
        damaged = facts.pop("damaged")
        print_facts({key: value for key, value in facts.items() if value not in (None, [])}, False)
        for entry in damaged:
            lost = ", ".join(map(repr, entry["clips"])) or "none that is known"
            print(f"damaged: {entry['shard']}: {printable(entry['problem'])}; lost: {lost}")
        if damaged:
            print("The command that made the store, with --repair, makes its clips anew.")
    raise typer.Exit(4 if verification.damaged else 0)


def export(
    store: StoreFolder,
    out: Annotated[Path, typer.Argument(help="File or folder to make; must not exist.")],
    format: Annotated[str, typer.Option(help="h5 (one plain HDF5 file) or npy (a folder, one file a clip).")] = "h5",
    as_json: Json = False,
) -> None:
    """Write a store as plain files for other tools.

    Example: longreel store export videos.store videos.h5
    """
    from ..store import export_store

    clips = export_store(store, out, format)
    if as_json:
        print_json({"clips": clips, "out": str(out), "format": format})
    else:
        print(f"{clips} clips -> {out}")


def merge(
    sources: Annotated[list[Path], typer.Argument(help="Store folders, made in the same way.")],
    out: Annotated[Path, typer.Argument(help="Store folder to make, or to go on with after an interruption.")],
    newest: Annotated[
        bool, typer.Option("--newest", help="Of clips that differ between the sources take the one written last.")
    ] = False,
    clips_per_shard: Annotated[
        int | None, typer.Option(min=1, help="A shard is full with so many clips (1024 if not given), ...")
    ] = None,
    bytes_per_shard: Annotated[
        int | None, typer.Option(min=1, help="... or so many bytes of features (512 MiB if not given).")
    ] = None,
    as_json: Json = False,
) -> None:
    """Merge stores into one of large shards; the sources are left as they are. One source alone is made compact.

    Example: longreel store merge videos.store compact.store
    """
    from ..store import LARGE, merge_stores

    with Steps() as steps:

        def show(done: int, total: int) -> None:
            if done == 1:
                steps.begin("merge", total)
            steps.reach(done)

        limits = replace(LARGE, clips=clips_per_shard or LARGE.clips, size=bytes_per_shard or LARGE.size)
        merged = merge_stores(sources, out, newest=newest, on_clip=show, limits=limits)
    if as_json:
        print_json(asdict(merged) | {"out": str(out)})
    else:
        print(f"{merged.clips} clips in {merged.shards} shards, {merged.written} written now -> {out}")
