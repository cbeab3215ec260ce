"""`fuse` and `embed`: what is made of finished runs."""

from pathlib import Path
from typing import Annotated

import typer

from ..console import Steps, printable
from ..memory import keep_freed_memory
from .options import Json, print_json


def fuse(
    runs: Annotated[list[Path], typer.Argument(help="Finished runs of one manifest; stores and heads may differ.")],
    out: Annotated[Path, typer.Option(help="Folder of the new run.")],
    weights: Annotated[
        str | None, typer.Option(help="One a run, such as 2:2:1:1; or val, which finds them there. Equal if not given.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make a run whose probabilities are the weighted mean of those of RUNS, such as of the streams of skeletons.

    It is evaluated and compared as any other.

    Example: longreel fuse runs/ce runs/bs --weights 1:2 --out runs/both
    """
    from ..experiments.fusion import fuse_runs

    found = fuse_runs(out, runs, weights)
    if as_json:
        print_json({"run": str(out), "weights": {str(run): weight for run, weight in zip(runs, found, strict=True)}})
        return
    for run, weight in zip(runs, found, strict=True):
        print(printable(f"{weight:.4f} {run}"))
    print(printable(f"-> {out}"))


def embed(
    run: Annotated[Path, typer.Argument(help="A finished run.")],
    store: Annotated[Path, typer.Argument(help="Store folder to make or to go on with.")],
    as_json: Json = False,
) -> None:
    """Write the vector that the run's head pools each clip into to STORE: a row a clip, for any other head.

    Clips of all splits are written. Those of train were learnt from: a head on top sees them more clearly than others.

    Example: longreel embed runs/bs bs.store
    """
    keep_freed_memory()  # before torch is imported
    from ..experiments.embedding import embed_run

    with Steps() as steps:
        written = embed_run(
            run,
            store,
            on_plan=lambda count: steps.begin("embed", count),
            on_clip=lambda clip_id: steps.advance(),
        )
    if as_json:
        print_json({"store": str(store), "written": written})
    else:
        print(printable(f"{written} clips -> {store}"))
