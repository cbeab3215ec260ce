"""The whole way in minutes: render a long-tailed set of videos, extract, train two methods, compare."""

from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path

from ..extract import extract_clips, load_backbone
from ..manifest import read_manifest
from .compare import compare_runs
from .demo_clips import COUNTS, render_demo
from .optimisation import FitSettings
from .settings import TrainSettings
from .train import train_run

METHODS = ("ce", "balanced-softmax")
SEEDS = 3


def run_demo(
    folder: Path,
    seed: int,
    begin: Callable[[str, int], None],
    reach: Callable[[int], None],
    counts: Mapping[str, Mapping[str, int]] = COUNTS,
) -> tuple[dict, dict[str, Path]]:
    """Make the demo in ``folder``; what is there already is gone on with.

    Args:
        folder: Made if needed.
        seed: Of the videos, and the first of the trainings' seeds.
        begin: Called at each stage with its name and number of steps.
        reach: Called with the number of steps done.
        counts: Split -> class -> number of clips.

    Returns:
        The comparison, and what was made: name -> path.
    """

    def rendered(done: int, total: int) -> None:
        if done == 1:
            begin("render videos", total)
        reach(done)

    manifest_path = render_demo(folder, seed, on_clip=rendered, counts=counts)
    manifest = read_manifest(manifest_path)
    store = folder / "motion.store"
    done = 0

    def count(clip_id: str) -> None:
        nonlocal done
        done += 1
        reach(done)

    extract_clips(
        manifest,
        store,
        load_backbone("motion"),
        on_plan=lambda plan: begin("extract motion", len(plan.todo)),
        on_clip=count,
    )
    runs = []
    for balance, number in product(METHODS, range(seed, seed + SEEDS)):
        fit = FitSettings(seed=number)
        begin(f"train {balance}, seed {number}", fit.epochs)
        runs.append(folder / "runs" / f"{balance}-{number}")
        settings = TrainSettings(store, manifest_path, balance=balance, fit=fit)
        train_run(runs[-1], settings, on_epoch=lambda row: reach(row["epoch"]))
    made = {"videos": folder / "videos", "manifest": manifest_path, "store": store, "runs": folder / "runs"}
    return compare_runs(runs), made
