"""`import-skeletons`: joints to a store, and labels and splits to a manifest."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..console import Steps, printable, say
from .options import Json, print_json

SHOWN = 20  #: failures that are printed.


def import_skeletons(
    source: Annotated[Path, typer.Argument(help="HDF5 file of joints, PYSKL's pickle, or folder of .npy files.")],
    store: Annotated[Path, typer.Argument(help="Store folder to make or to go on with.")],
    manifest: Annotated[Path, typer.Option(help="Manifest to write, a .csv file.")],
    layout: Annotated[
        str | None, typer.Option(help="ntu25, kinect20, coco17, or a JSON file; by the number of joints by default.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="As the data names it: official, train_clean, lt_if10_train, xsub, xsub-lt, ...")
    ] = None,
    refresh: Annotated[bool, typer.Option(help="Import again the clips whose joints have changed.")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Read every byte and make damaged clips anew.")] = False,
    as_json: Json = False,
) -> None:
    """Write all clips of SOURCE to STORE as float32 joints, and one of its splits to a manifest.

    Another split of the same STORE is the same command again. Ends with exit code 3 when some clips could not be used.

    Example: longreel import-skeletons nw_ucla.h5 ucla.store --manifest ucla.csv --split official
    """
    from ..experiments.manifests import check_place
    from ..experiments.skeleton_splits import choose_split, find_twins, write_split
    from ..extract.skeletons import import_skeletons as run
    from ..extract.skeletons import open_skeletons
    from ..store import FeatureStore

    with open_skeletons(source, layout) as found, Steps() as steps:
        name = found.usual if split is None else split
        clips = choose_split(found.manifest.clips, found.splits, found.classes, name)
        check_place(manifest, clips)
        for note in found.notes:
            say(f"note: {note}")
        report = run(
            found,
            store,
            refresh=refresh,
            repair=repair,
            on_plan=lambda plan: _announce(steps, plan),
            on_clip=lambda clip_id: steps.advance(),
        )
    for failure in report.failures[:SHOWN]:
        say(f"failed: {failure.clip_id}: {failure.reason}")
    if len(report.failures) > SHOWN:
        say(f"... {len(report.failures) - SHOWN} more: longreel store info {store}")
    with FeatureStore(store) as features:
        twins = find_twins(features, clips)
    recipe: dict[str, object] = {"skeletons": source.name, "split": name, "layout": found.layout.name}
    made = write_split(manifest, clips, recipe, len(twins))
    if made.watermark:
        say(f"warning: {made.watermark}, such as {twins[0][1]} ({twins[0][0]} in train). See `longreel doctor`.")
    if as_json:
        print_json(asdict(report) | {"store": str(store), "manifest": str(manifest), "made": asdict(made)})
    else:
        counts = ", ".join(f"{count} {kind}" for kind, count in made.clips.items())
        print(printable(f"{report.summary()} -> {store}"))
        print(printable(f"{name}: {counts}; {made.largest} to {made.smallest} training clips a class -> {manifest}"))
    raise typer.Exit(3 if report.failures else 0)


def _announce(steps: Steps, plan) -> None:
    for line in plan.describe():
        say(line)
    steps.begin("import", len(plan.todo))
