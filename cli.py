"""The command line: parse, call one library function, print. Heavy imports happen inside the commands."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from . import __version__
from .console import Steps, print_comparison, print_evaluation, say
from .errors import LongreelError


class Commands(TyperGroup):
    """Ends a user's mistake in one line on stderr and its exit code; our own bugs keep their traceback."""

    def invoke(self, ctx) -> Any:
        try:
            return super().invoke(ctx)
        except LongreelError as error:
            say(f"error: {error}")
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt:
            say("interrupted: run the same command again to go on.")
            raise typer.Exit(130) from None


app = typer.Typer(cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False)
store_app = typer.Typer(no_args_is_help=True, help="Look into a feature store.")
app.add_typer(store_app, name="store")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout.")]
StoreFolder = Annotated[Path, typer.Argument(help="Store folder.")]
Root = Annotated[
    Path | None, typer.Option(help="Folder that the manifest's paths are relative to; its own by default.")
]


def _show_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def longreel(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Long-tailed video recognition at feature level: clips to features, features to heads, heads to tables."""


@app.command()
def extract(
    manifest: Annotated[Path, typer.Argument(help="CSV or JSONL with path, label and split of each clip.")],
    store: Annotated[Path, typer.Argument(help="Store folder to make or to go on with.")],
    backbone: Annotated[
        str, typer.Option(help="A name from `longreel backbones`, a model folder, or owner/model@commit.")
    ],
    fps: Annotated[float | None, typer.Option(help="Frames a second.")] = None,
    frames: Annotated[int | None, typer.Option(help="Evenly spaced frames a clip.")] = None,
    root: Root = None,
    decoder: Annotated[str, typer.Option(help="auto (the file decides), decord or pyav.")] = "auto",
    shard: Annotated[str, typer.Option(help="Part i/n of the clips, for several machines, i from 1.")] = "1/1",
    workers: Annotated[int | None, typer.Option(min=1, help="Decode processes; one a core by default.")] = None,
    refresh: Annotated[bool, typer.Option(help="Extract again the clips whose file has changed.")] = False,
    retry_failed: Annotated[bool, typer.Option(help="Try again the clips that failed before.")] = False,
    as_json: Json = False,
) -> None:
    """Write the features of every clip in MANIFEST to STORE; run it again to go on after an interruption.

    Ends with exit code 3 when some clips could not be decoded; the store's ledger has their reasons.

    Example: longreel extract videos.csv videos.store --backbone motion
    """
    from .extract import Plan, Sampling, extract_clips, load_backbone, parse_slice
    from .manifest import read_manifest

    sampling = None if fps is None and frames is None else Sampling(fps, frames)
    part = parse_slice(shard)
    clips = read_manifest(manifest, root)
    model = load_backbone(backbone)
    with Steps() as steps:

        def begin(plan: Plan) -> None:
            for line in plan.describe():
                say(line)
            steps.begin("extract", len(plan.todo))

        report = extract_clips(
            clips,
            store,
            model,
            sampling=sampling,
            decoder=decoder,
            part=part,
            workers=workers,
            refresh=refresh,
            retry_failed=retry_failed,
            on_plan=begin,
            on_clip=lambda clip_id: steps.advance(),
        )
    for failure in report.failures:
        say(f"failed: {failure.clip_id}: {failure.reason}")
    if as_json:
        _print_json(asdict(report) | {"store": str(store)})
    else:
        print(f"{report.summary()} -> {store}")
    raise typer.Exit(3 if report.failures else 0)


@app.command()
def train(
    store: StoreFolder,
    manifest: Annotated[Path, typer.Argument(help="CSV or JSONL with path, label and split of each clip.")],
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

    from .experiments.evaluate import evaluate_run
    from .experiments.fit import FitSettings
    from .experiments.runs import TrainSettings, train_run

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
        _print_json(asdict(trained) | {"folder": str(out)})
        return
    if trained.val is not None:
        print_evaluation(evaluate_run(out, "val"))
    print(f"epoch {trained.epoch} of {epochs}, {trained.selection} -> {out}")


@app.command()
def evaluate(
    run: Annotated[Path, typer.Argument(help="A finished run.")],
    split: Annotated[str, typer.Option(help="val or test.")] = "test",
    as_json: Json = False,
) -> None:
    """Print a run's figures on a split, overall and by group. Opens the test split once and keeps what it found.

    Example: longreel evaluate runs/bs
    """
    from .experiments.evaluate import evaluate_run

    document = evaluate_run(run, split)
    _print_json(document) if as_json else print_evaluation(document)


@app.command()
def compare(
    runs: Annotated[
        list[Path], typer.Argument(help="Finished runs; those that differ in their seed alone make one row.")
    ],
    split: Annotated[str, typer.Option(help="val or test.")] = "test",
    force: Annotated[
        bool, typer.Option(help="Compare runs on different clips, classes or groups, and mark the table.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Print runs side by side with intervals, and each row's paired difference from the first.

    Example: longreel compare runs/ce runs/bs
    """
    from .experiments.compare import compare_runs

    document = compare_runs(runs, split, force=force)
    _print_json(document) if as_json else print_comparison(document)


@app.command()
def backbones(as_json: Json = False) -> None:
    """List the backbones.

    Example: longreel backbones
    """
    from .extract import BACKBONES

    listed = {name: words for name, (_, words) in BACKBONES.items()} | {
        "FOLDER": "an image model as transformers saves it: config.json, preprocessor_config.json, model.safetensors",
        "OWNER/MODEL@COMMIT": "the same from the hub, pinned by its full commit hash",
    }
    if as_json:
        _print_json(listed)
    else:
        for name, words in listed.items():
            print(f"{name:20}{words}")


@store_app.command()
def info(store: StoreFolder, as_json: Json = False) -> None:
    """Print how a store was made and what it holds.

    Example: longreel store info videos.store
    """
    from .store import describe_store

    _print_facts(describe_store(store), as_json)


@store_app.command()
def verify(store: StoreFolder, as_json: Json = False) -> None:
    """Check every byte of a store; ends with exit code 4 when something is damaged, and names it.

    Example: longreel store verify videos.store
    """
    from .store import verify_store

    verification = verify_store(store)
    _print_facts(asdict(verification), as_json)
    raise typer.Exit(4 if verification.damaged else 0)


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Folder to make or to go on with.")] = Path("longreel-demo"),
    seed: Annotated[int, typer.Option(help="Seed of the videos and the training.")] = 0,
) -> None:
    """Render a small long-tailed set of videos, extract, train two methods and compare them: the whole way in minutes.

    Example: longreel demo demo
    """
    from .experiments.demo import run_demo

    with Steps() as steps:
        document, made = run_demo(folder, seed, steps.begin, steps.reach)
    print_comparison(document)
    for what, path in made.items():
        print(f"{what}: {path}")


def _print_json(document: object) -> None:
    print(json.dumps(document, indent=2, allow_nan=False))


def _print_facts(facts: dict, as_json: bool) -> None:
    if as_json:
        _print_json(facts)
        return
    for key, value in facts.items():
        print(f"{key}: {value if isinstance(value, str | int | float) else json.dumps(value)}")


def main() -> None:
    """The `longreel` command."""
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    app()


if __name__ == "__main__":
    main()
