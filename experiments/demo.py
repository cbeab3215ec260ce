"""The whole way in minutes: render a long-tailed set of videos, fill it up, extract, train some methods, compare."""

from collections.abc import Callable, Mapping
from itertools import product
from pathlib import Path

from ..extract import extract_clips, load_backbone
from ..generate.fill import fill_manifest
from ..generate.handwritten import Templates
from ..generate.procedural import Procedural
from ..generate.prompts import claimed, plan_prompts, write_prompts
from ..generate.videos import VideoPlan, make_videos
from ..manifest import Manifest, read_manifest
from .compare import compare_runs
from .demo_clips import COUNTS, render_demo
from .optimisation import FitSettings
from .settings import TrainSettings
from .train import train_run

#: balance and curriculum: real clips alone, mixed, and one after the other as two papers have it.
METHODS = (
    ("ce", "real"),
    ("balanced-softmax", "real"),
    ("ce", "joint"),
    ("ce", "pretrain"),
    ("balanced-softmax", "two-stage"),
)
SEEDS = 3
GENERATED = "generated"  #: folder of the generated clips.

Begin = Callable[[str, int], None]
Reach = Callable[[int], None]


def run_demo(
    folder: Path,
    seed: int,
    begin: Begin,
    reach: Reach,
    counts: Mapping[str, Mapping[str, int]] = COUNTS,
    seeds: int = SEEDS,
) -> tuple[dict, dict[str, Path]]:
    """Make the demo in ``folder``; what is there already is gone on with.

    Args:
        folder: Made if needed.
        seed: Of the videos, real and generated, and the first of the trainings' seeds.
        begin: Called at each stage with its name and number of steps.
        reach: Called with the number of steps done.
        counts: Split -> class -> number of clips.
        seeds: Trainings of each method.

    Returns:
        The comparison, and what was made: name -> path.
    """

    def rendered(done: int, total: int) -> None:
        if done == 1:
            begin("render videos", total)
        reach(done)

    real = read_manifest(render_demo(folder, seed, on_clip=rendered, counts=counts))
    filled = _fill(folder, real, seed, begin, reach)
    store = folder / "motion.store"
    extract_clips(
        filled,
        store,
        load_backbone("motion"),
        on_plan=lambda plan: begin("extract motion", len(plan.todo)),
        on_clip=_counting(reach),
    )
    runs = []
    for (balance, curriculum), number in product(METHODS, range(seed, seed + seeds)):
        fit = FitSettings(seed=number)
        begin(f"train {balance}, {curriculum}, seed {number}", fit.epochs)
        runs.append(folder / "runs" / f"{balance}-{curriculum}-{number}")
        settings = TrainSettings(store, filled.path, balance=balance, curriculum=curriculum, fit=fit)
        train_run(runs[-1], settings, on_epoch=lambda row: reach(row["epoch"]))
    made = {"videos": folder / "videos", "generated": folder / GENERATED / "videos", "manifest": filled.path}
    return compare_runs(runs), made | {"store": store, "runs": folder / "runs"}


def _fill(folder: Path, real: Manifest, seed: int, begin: Begin, reach: Reach) -> Manifest:
    """Fill every class up to the richest one with clips in another look, by the built-in generator."""
    generated, out = folder / GENERATED, folder / "filled.csv"
    with claimed(generated):
        write_prompts(generated, plan_prompts(real, generated, "max"), Templates(seed))

    def announce(plan: VideoPlan) -> None:
        begin("generate videos", plan.todo)

    make_videos(generated, Procedural(), seed=seed, on_plan=announce, on_clip=_counting(reach))
    fill_manifest(real, generated, out, fill="max")
    return read_manifest(out)


def _counting(reach: Reach) -> Callable[[str], None]:
    """What tells of each clip that one more is done."""
    done = 0

    def count(clip_id: str) -> None:
        nonlocal done
        done += 1
        reach(done)

    return count
