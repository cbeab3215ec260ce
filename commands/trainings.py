"""`train`, `evaluate`, `compare` and `demo`: from features to tables."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..console import Steps, print_comparison, print_evaluation, say
from .options import Json, ManifestFile, Root, Split, StoreFolder, print_json


def train(
    store: StoreFolder,
    manifest: ManifestFile,
    out: Annotated[Path, typer.Option(help="Run folder to make or to go on with.")],
    head: Annotated[str, typer.Option(help="Head.")] = "nonlinear",
    balance: Annotated[str, typer.Option(help="Balance method: ce, bce or balanced-softmax.")] = "ce",
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training clips.")] = 30,
    batch_size: Annotated[int, typer.Option(min=1, help="Clips a step.")] = 128,
    learning_rate: Annotated[float, typer.Option(help="AdamW's, falling to 0 along a cosine.")] = 3e-4,
    weight_decay: Annotated[float, typer.Option(help="AdamW's.")] = 1e-2,
    train_frames: Annotated[
        int | None, typer.Option(min=1, help="Rows drawn of each clip and step; all by default.")
    ] = None,
    groups: Annotated[str, typer.Option(help="Group rule, bounds such as 20,100, or a JSON file.")] = "gen2balance",
    select: Annotated[str, typer.Option(help="Select the epoch on val by map, class-average or acc1.")] = "map",
    standardise: Annotated[bool, typer.Option(help="Standardise features by the training rows.")] = True,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; another number gives other bits.")] = None,
    checkpoint_seconds: Annotated[float, typer.Option(min=0, help="An interruption repeats at most this much.")] = 10.0,
    root: Root = None,
    as_json: Json = False,
) -> None:
    """Train a head on STORE with the labels of MANIFEST; run it again to go on after an interruption.

    Ends with the figures on val, by which the epoch is selected. The test split is not opened.

    Example: longreel train videos.store videos.csv --balance balanced-softmax --out runs/bs
    """
    import torch

    from ..experiments.evaluate import evaluate_run
    from ..experiments.fit import FitSettings
    from ..experiments.runs import TrainSettings, train_run

    if threads is not None:
        torch.set_num_threads(threads)
    fit = FitSettings(
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        weight_decay=weight_decay,
        frames=train_frames,
        select=select,
        seed=seed,
        checkpoint_seconds=checkpoint_seconds,
    )
    how = {"head": head, "balance": balance, "groups": groups}
    settings = TrainSettings(store=store, manifest=manifest, root=root, standardise=standardise, fit=fit, **how)
    with Steps() as steps:
        steps.begin("train", epochs)
        trained = train_run(out, settings, on_epoch=lambda row: steps.reach(row["epoch"]))
    for split in trained.failed:
        if trained.failed[split] or trained.partial[split]:
            counted = f"{trained.failed[split]} {split} clips have no features, {trained.partial[split]} are partial"
            say(f"warning: {counted}; see `longreel store info {store}`.")
    if as_json:
        print_json(asdict(trained) | {"folder": str(out)})
        return
    if trained.val is not None:
        print_evaluation(evaluate_run(out, "val"))
    print(f"epoch {trained.epoch} of {epochs}, {trained.selection} -> {out}")


def evaluate(
    run: Annotated[Path, typer.Argument(help="A finished run.")],
    split: Split = "test",
    as_json: Json = False,
) -> None:
    """Print a run's figures on a split, overall and by group. Opens the test split once and keeps what it found.

    Example: longreel evaluate runs/bs
    """
    from ..experiments.evaluate import evaluate_run

    document = evaluate_run(run, split)
    print_json(document) if as_json else print_evaluation(document)


def compare(
    runs: Annotated[
        list[Path], typer.Argument(help="Finished runs; those that differ in their seed alone make one row.")
    ],
    split: Split = "test",
    force: Annotated[
        bool, typer.Option(help="Compare runs on different clips, classes or groups, and mark the table.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Print runs side by side with intervals, and each row's paired difference from the first.

    Example: longreel compare runs/ce runs/bs
    """
    from ..experiments.compare import compare_runs

    document = compare_runs(runs, split, force=force)
    print_json(document) if as_json else print_comparison(document)


def demo(
    folder: Annotated[Path, typer.Argument(help="Folder to make or to go on with.")] = Path("longreel-demo"),
    seed: Annotated[int, typer.Option(help="Seed of the videos and the training.")] = 0,
) -> None:
    """Render a small long-tailed set of videos, extract, train two methods and compare them: the whole way in minutes.

    Example: longreel demo demo
    """
    from ..experiments.demo import run_demo

    with Steps() as steps:
        document, made = run_demo(folder, seed, steps.begin, steps.reach)
    print_comparison(document)
    for what, path in made.items():
        print(f"{what}: {path}")
