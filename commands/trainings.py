"""`train`, `evaluate`, `compare` and `demo`: from features to tables."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..console import Steps, print_comparison, print_evaluation, print_oracle, say
from ..memory import keep_freed_memory
from .options import Device, Json, KeepEpochs, ManifestFile, Root, Split, StoreFolder, print_facts, print_json

if TYPE_CHECKING:
    from ..experiments.train import Trained


def train(
    store: StoreFolder,
    manifest: ManifestFile,
    out: Annotated[Path, typer.Option(help="Run folder to make or to go on with.")],
    head: Annotated[str, typer.Option(help="Head, with options behind a colon: netvlad:clusters=32.")] = "nonlinear",
    balance: Annotated[str | None, typer.Option(help="Balance method; ce if not given.")] = None,
    loss: Annotated[str | None, typer.Option(help="Loss in place of the method's own, such as focal:gamma=2.")] = None,
    sampler: Annotated[str | None, typer.Option(help="Sampler in place of the method's own.")] = None,
    mixer: Annotated[str | None, typer.Option(help="Mixer in place of the method's own.")] = None,
    adjustment: Annotated[str | None, typer.Option(help="What is done to the last layer in the end.")] = None,
    curriculum: Annotated[
        str | None,
        typer.Option(help="Real and generated clips: joint, if not given, real, generated, two-stage, pretrain."),
    ] = None,
    trust: Annotated[
        str | None, typer.Option(help="In generated clips: full, if not given, or uncertainty-smoothing and others.")
    ] = None,
    fill: Annotated[
        str | None,
        typer.Option(help="Generated clips up to so many of a class, or 33% of the richest; all if not given."),
    ] = None,
    compat: Annotated[
        str | None, typer.Option(help="released: the authors' code where it departs from the paper.")
    ] = None,
    protocol: Annotated[str | None, typer.Option(help="Benchmark whose rules hold unless given otherwise.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.")] = 0,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the training clips; 30 if not given.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Clips a step; 128 if not given.")] = None,
    optimiser: Annotated[str | None, typer.Option(help="adamw, if not given, or adam.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="3e-4 if not given.")] = None,
    schedule: Annotated[
        str | None, typer.Option(help="Of the rate: cosine to 0, if not given, constant, or steps:30,60.")
    ] = None,
    weight_decay: Annotated[float | None, typer.Option(help="1e-2 if not given.")] = None,
    clip_norm: Annotated[float | None, typer.Option(help="Largest L2 norm of gradients; none if not given.")] = None,
    precision: Annotated[
        str | None, typer.Option(help="Of products: float32 or bfloat16; a protocol's, else bfloat16 on a GPU.")
    ] = None,
    train_frames: Annotated[
        int | None, typer.Option(min=1, help="Rows drawn of each clip and step; all if not given.")
    ] = None,
    test_frames: Annotated[
        int | None, typer.Option(min=1, help="Rows spread over a clip that is scored; all if not given.")
    ] = None,
    groups: Annotated[
        str | None, typer.Option(help="Group rule, bounds such as 20,100, or a JSON file; gen2balance if not given.")
    ] = None,
    select: Annotated[
        str | None, typer.Option(help="Select the epoch on val by map, if not given, class-average or acc1.")
    ] = None,
    validate_every: Annotated[
        int | None, typer.Option(min=1, help="Epochs from one look at val to the next; 1 if not given.")
    ] = None,
    standardise: Annotated[
        bool | None, typer.Option("--standardise/--no-standardise", help="Standardise features by the training rows.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; another number gives other bits.")] = None,
    features: Annotated[
        str, typer.Option(help="memory, disk (as they are needed), or auto: the device or memory if they fit.")
    ] = "auto",
    device: Device = "auto",
    compiled: Annotated[
        bool | None,
        typer.Option("--compiled/--no-compiled", help="Steps through torch.compile: fewer launches on a GPU."),
    ] = None,
    checkpoint_seconds: Annotated[
        float | None,
        typer.Option(
            min=0, help="An interruption repeats about this much, or more where saving takes long; 10 if not given."
        ),
    ] = None,
    keep_epochs: KeepEpochs = False,
    root: Root = None,
    as_json: Json = False,
) -> None:
    """Train a head on STORE with the labels of MANIFEST; run it again to go on after an interruption.

    Ends with the figures on val, by which the epoch is selected. The test split is not opened.

    Example: longreel train videos.store videos.csv --balance balanced-softmax --out runs/bs
    """
    keep_freed_memory()  # before torch is imported
    import torch

    from ..devices import choose_device
    from ..experiments.arithmetic import usual_precision
    from ..experiments.evaluate import evaluate_run
    from ..experiments.settings import make_settings
    from ..experiments.train import train_run

    if threads is not None:
        torch.set_num_threads(threads)
    given = {
        "head": head,
        "balance": balance,
        "loss": loss,
        "sampler": sampler,
        "mixer": mixer,
        "adjustment": adjustment,
        "curriculum": curriculum,
        "trust": trust,
        "fill": fill,
        "compat": compat,
        "seed": seed,
        "epochs": epochs,
        "batch_size": batch_size,
        "optimiser": optimiser,
        "learning_rate": learning_rate,
        "schedule": schedule,
        "weight_decay": weight_decay,
        "clip_norm": clip_norm,
        "precision": precision,
        "compiled": compiled,
        "frames": train_frames,
        "test_frames": test_frames,
        "groups": groups,
        "select": select,
        "validate_every": validate_every,
        "standardise": standardise,
        "checkpoint_seconds": checkpoint_seconds,
    }
    place = choose_device(device)
    settings = make_settings(store, manifest, given, root=root, protocol=protocol, precision=usual_precision(place))
    for departure in settings.departures:
        say(f"warning: departs from {protocol}: {departure}.")
    epochs = settings.fit.epochs
    with Steps() as steps:
        steps.begin("train", epochs)
        trained = train_run(
            out,
            settings,
            lambda row: steps.reach(row["epoch"]),
            place=features,
            device=place,
            on_data=_say_place,
            keep_epochs=keep_epochs,
        )
    _warn_of_missing(trained, store)
    if as_json:
        print_json(asdict(trained) | {"folder": str(out)})
        return
    if trained.val is not None:
        print_evaluation(evaluate_run(out, "val"))
    print(f"epoch {trained.epoch} of {epochs}, {trained.selection} -> {out}")


def _warn_of_missing(trained: "Trained", store: Path) -> None:
    """Say which clips had no features, or partial ones."""
    for split in trained.failed:
        if trained.failed[split] or trained.partial[split]:
            counted = f"{trained.failed[split]} {split} clips have no features, {trained.partial[split]} are partial"
            say(f"warning: {counted}; see `longreel store info {store}`.")


def _say_place(place: str) -> None:
    where = {"memory": "in memory", "disk": "read from disk as they are needed"}
    say(f"features: {where.get(place, f'in the memory of {place}')}")


def import_checkpoint(
    checkpoint: Annotated[Path, typer.Argument(help="A ckpt.best.pth.tar of VideoLT's or MOVE's code.")],
    store: StoreFolder,
    manifest: ManifestFile,
    out: Annotated[Path, typer.Option(help="Run folder to make.")],
    classes: Annotated[
        Path | None,
        typer.Option(
            help="Names in the order of its logits, such as VideoLT's count-labels-train.lst; sorted if not given."
        ),
    ] = None,
    order: Annotated[
        str | None, typer.Option(help="vlad-psa or psa-vlad, for an aggregated head; guessed if not given.")
    ] = None,
    protocol: Annotated[str | None, typer.Option(help="Benchmark whose groups and test frames hold.")] = None,
    groups: Annotated[str | None, typer.Option(help="Group rule; the protocol's or gen2balance if not given.")] = None,
    test_frames: Annotated[int | None, typer.Option(min=1, help="Rows spread over a clip that is scored.")] = None,
    root: Root = None,
    as_json: Json = False,
) -> None:
    """Make a run of a checkpoint that VideoLT's or MOVE's code wrote; nothing in the file is run.

    Example: longreel import-checkpoint ckpt.best.pth.tar videos.store videos.csv --out runs/released
    """
    from ..experiments.imported import import_checkpoint
    from ..experiments.settings import make_settings

    given = {"groups": groups, "test_frames": test_frames}
    settings = make_settings(store, manifest, given, root=root, protocol=protocol)
    facts = import_checkpoint(checkpoint, out, settings, names=classes, order=order)
    print_facts(facts, as_json)


def evaluate(
    run: Annotated[Path, typer.Argument(help="A finished run.")],
    split: Split = "test",
    empty_class: Annotated[
        str, typer.Option(help="Classes without a clip in the split: left-out, or zero in class average and mAP.")
    ] = "left-out",
    as_json: Json = False,
) -> None:
    """Print a run's figures on a split, overall and by group. Opens the test split once and keeps what it found.

    Example: longreel evaluate runs/bs
    """
    from ..experiments.evaluate import evaluate_run

    document = evaluate_run(run, split, empty_class=empty_class)
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


def oracle(
    runs: Annotated[list[Path], typer.Argument(help="Finished runs that were trained with --keep-epochs.")],
    split: Split = "test",
    as_json: Json = False,
) -> None:
    """Say how much better the best epoch on the split is than the one chosen on val: a diagnostic, never a result.

    Scores the split at every kept epoch of each run, and notes each as a look at it.

    Example: longreel oracle runs/bs
    """
    from ..experiments.oracle import measure_oracle

    found = [measure_oracle(run, split) for run in runs]
    print_json(found) if as_json else print_oracle(found)


def curves(
    runs: Annotated[
        list[Path], typer.Argument(help="Finished runs; those that differ in their seed alone have one colour.")
    ],
    out: Annotated[Path, typer.Option(help="SVG file to write.")] = Path("curves.svg"),
) -> None:
    """Draw loss and val of each epoch, and which one was chosen. No split is opened.

    Example: longreel curves runs/ce runs/bs --out curves.svg
    """
    from ..durable import write_bytes
    from ..experiments.curves import draw_curves
    from ..experiments.figures import check_installed

    check_installed("a figure", "matplotlib", extra="plots")
    write_bytes(out, draw_curves(runs))
    print(out)


def demo(
    folder: Annotated[Path, typer.Argument(help="Folder to make or to go on with.")] = Path("longreel-demo"),
    seed: Annotated[int, typer.Option(help="Seed of the videos and the training.")] = 0,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each way.")] = 3,
) -> None:
    """Render a small long-tailed set of videos, extract, train two methods and compare them: the whole way in minutes.

    Example: longreel demo demo
    """
    from ..experiments.demo import run_demo

    with Steps() as steps:
        document, made = run_demo(folder, seed, steps.begin, steps.reach, seeds=seeds)
    print_comparison(document)
    for what, path in made.items():
        print(f"{what}: {path}")
