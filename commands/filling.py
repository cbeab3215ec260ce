"""`generate plan` and `generate fill`: how many clips to generate, and the manifest with those that are there."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..console import print_grids, printable, say
from .options import Json, ManifestFile, Root, print_json

if TYPE_CHECKING:
    from ..generate.fill import Filled
    from ..generate.plan import Plan

SHOWN = 40  #: classes in a table on a terminal; --json and the CSV have all.
SAID = 10  #: classes that lack clips, named one by one.
LETTERS = 40


def plan(
    manifest: ManifestFile,
    fill: Annotated[
        list[str],
        typer.Option(
            help="Training clips that each class shall have, max: as the richest, or 33%; may be given again."
        ),
    ],
    seconds_per_clip: Annotated[
        float, typer.Option(help="GPU seconds a clip; Gen2Balance's Wan 2.1 14B on an H100 by default.")
    ] = 393.7,
    measured: Annotated[
        Path | None, typer.Option(help="Folder of generated clips: the seconds a clip that those took.")
    ] = None,
    cost_per_hour: Annotated[float | None, typer.Option(help="Price of a GPU hour.")] = None,
    groups: Annotated[str, typer.Option(help="Group rule, bounds such as 20,100, or a JSON file.")] = "gen2balance",
    out: Annotated[Path | None, typer.Option(help="Folder for plan.json, plan.csv and plan.svg.")] = None,
    root: Root = None,
    as_json: Json = False,
) -> None:
    """Count the clips that fill every class of MANIFEST up, and what making them costs. Nothing is made.

    Example: longreel generate plan videos.csv --fill 8 --fill max
    """
    from ..balance.counts import count_training_clips, make_groups
    from ..generate.plan import SECONDS_PER_CLIP, SOURCE, plan_fill
    from ..generate.plan_files import describe_plan, write_plans
    from ..generate.sidecars import measure_seconds
    from ..manifest import read_manifest

    source = f" ({SOURCE})" if seconds_per_clip == SECONDS_PER_CLIP else ""
    if measured is not None:
        seconds_per_clip, clips = measure_seconds(measured)
        source = f", the mean of {clips} in {measured}"
    table = read_manifest(manifest, root)
    found = make_groups(groups, table.classes, count_training_clips(table))
    group_of = {table.classes[index]: name for name, members in found.members.items() for index in members}
    options = {"seconds_per_clip": seconds_per_clip, "cost_per_hour": cost_per_hour, "groups": group_of}
    plans = [plan_fill(table, text, **options) for text in fill]
    if out is not None:
        write_plans(out, plans, table.digest)
    if as_json:
        print_json({"manifest": table.digest, "groups": found.rule, "plans": [describe_plan(each) for each in plans]})
        return
    notes = [f"GPU-hours: {seconds_per_clip:.4g} s a clip{source}"]
    if len(plans) == 1:
        notes.insert(0, f"groups: {found.rule}")
    print_grids(_to_grids(plans), notes)
    if out is not None:
        print(printable(f"plan.json, plan.csv, plan.svg -> {out}"))


def _to_grids(plans: Sequence["Plan"]) -> list:
    """One line for each plan; of a single plan the groups and the classes too."""
    from ..experiments.render import Grid

    priced = plans[0].cost is not None
    header = ["fill", "real", "generated", "total", "GPU-hours", *(["cost"] if priced else [])]
    rows = [
        [str(each.fill), str(each.real), str(each.generated), str(each.real + each.generated), f"{each.gpu_hours:.1f}"]
        + ([f"{each.cost:.2f}"] if priced else [])
        for each in plans
    ]
    grids = [Grid(f"{len(plans[0].classes)} classes", header, rows)]
    if len(plans) > 1:
        return grids
    names = list(dict.fromkeys(each.group or "" for each in plans[0].classes))
    members = {name: [each for each in plans[0].classes if (each.group or "") == name] for name in names}
    sums = [
        [name, str(len(of)), str(sum(each.real for each in of)), str(sum(each.generated for each in of))]
        for name, of in sorted(members.items(), key=lambda pair: -max(each.real for each in pair[1]))
    ]
    grids.append(Grid("by group", ["group", "classes", "real", "generated"], sums))
    listed = sorted(plans[0].classes, key=lambda each: (-each.real, each.label))
    lines = [
        [_shorten(each.label), each.group or "", *map(str, (each.real, each.generated, each.total))] for each in listed
    ]
    if len(lines) > SHOWN:
        left = f"... {len(lines) - SHOWN} more: --json or --out"
        lines[SHOWN // 2 : -SHOWN // 2] = [[left, "", "", "", ""]]
    return [*grids, Grid("by class", ["class", "group", "real", "generated", "total"], lines)]


def fill(
    manifest: ManifestFile,
    generated: Annotated[Path, typer.Argument(help="Folder of generated clips.")],
    out: Annotated[
        Path, typer.Option(help="Manifest to write, .csv or .jsonl, above the real and the generated videos.")
    ],
    fill: Annotated[
        str | None,
        typer.Option(help="Training clips that each class shall have, max, or 33%; all that are made by default."),
    ] = None,
    scores: Annotated[Path | None, typer.Option(help="CSV with clip_id and scores, of `generate inspect`.")] = None,
    keep: Annotated[
        list[str] | None,
        typer.Option(help="Rule on the scores, such as 'uncertainty<=0.5'; may be given again, all must hold."),
    ] = None,
    root: Root = None,
    as_json: Json = False,
) -> None:
    """Write a manifest of MANIFEST's clips and of the finished generated ones, which are training clips.

    Example: longreel generate fill videos.csv made --fill 5 --out filled.csv
    """
    from ..experiments.manifests import read_watermark
    from ..generate.fill import fill_manifest
    from ..manifest import read_manifest

    table = read_manifest(manifest, root)
    mark = read_watermark(table)
    made = fill_manifest(table, generated, out, fill=fill, scores=scores, keep=keep or [], watermark=mark)
    for line in _warnings(made):
        say(f"warning: {line}")
    if as_json:
        document = asdict(made) | {"asked": made.asked, "added": made.added, "missing": made.missing}
        print_json(document | {"out": str(out)})
        return
    for rule, count in made.left_out.items():
        print(printable(f"left out by {rule}: {count} clips"))
    if made.keep:
        print(f"{sum(each.left_out for each in made.classes)} clips left out, {made.in_place} others in their place")
    print(printable(f"{made.added} of {made.asked} generated clips -> {out}"))


def _warnings(made: "Filled") -> list[str]:
    """What is not as it was asked for."""
    lines = [
        f"{_shorten(each.label)!r} lacks {each.missing} clips: {each.asked} asked, {each.there} there, "
        f"{each.left_out} left out"
        for each in made.short[:SAID]
    ]
    if more := made.short[SAID:]:
        lines.append(f"and {len(more)} more classes lack {sum(each.missing for each in more)} clips")
    if made.unscored:
        lines.append(f"{made.unscored} clips are left out since a column of the rules has no number for them")
    if made.other_classes:
        lines.append(f"{made.other_classes} prompts are of classes that the manifest does not have")
    return lines


def _shorten(text: str) -> str:
    return text if len(text) <= LETTERS else text[: LETTERS - 1] + "…"
