"""`bench` and `suites`: whole tables by one command."""

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..console import Steps, print_grids, say
from ..errors import LongreelError
from ..memory import keep_freed_memory
from .options import Device, Json, KeepEpochs, ManifestFile, Root, Split, print_json

if TYPE_CHECKING:
    from ..experiments.bench import Outcome


def bench(
    suite: Annotated[str, typer.Argument(help="A name from `longreel suites`, or a TOML file.")],
    manifest: ManifestFile,
    store: Annotated[list[str], typer.Option(help="Store folder, or LABEL=FOLDER; may be given again.")],
    out: Annotated[Path, typer.Option(help="Folder for runs and tables, to make or to go on with.")],
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each row and store.")] = 3,
    first_seed: Annotated[int, typer.Option(min=0, help="The first seed; the others follow it.")] = 0,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Trainings at a time; as many as cores by default, one on a GPU.")
    ] = None,
    device: Device = "auto",
    groups: Annotated[str | None, typer.Option(help="Group rule in place of the suite's.")] = None,
    protocol: Annotated[
        str | None, typer.Option(help="Protocol in place of the suite's, such as videolt-paper.")
    ] = None,
    split: Split = "test",
    draws: Annotated[int, typer.Option(min=10, help="Of the bootstrap.")] = 1000,
    keep_epochs: KeepEpochs = False,
    root: Root = None,
    as_json: Json = False,
) -> None:
    """Train every row of SUITE on every store with every seed, and make the table; the same command goes on.

    Writes table.md, table.tex, table.csv and table.json into the folder. Ends with exit code 3 when a run failed.

    Example: longreel bench gen2balance-baselines videos.csv --store videos.store --seeds 2 --out table
    """
    keep_freed_memory()  # before torch is imported
    from ..devices import choose_device
    from ..durable import write_bytes
    from ..experiments.arithmetic import usual_precision
    from ..experiments.bench import check_plan, plan_runs, run_suite, trainings_at_once
    from ..experiments.draws import Draws
    from ..experiments.render import FORMS, footnotes, make_grids
    from ..experiments.suites import read_suite, under_protocol
    from ..experiments.table import make_table

    chosen = read_suite(suite)
    if protocol is not None:
        chosen = under_protocol(chosen, protocol)
    numbers = range(first_seed, first_seed + seeds)
    drawn, place = Draws(split, chosen.columns, draws), choose_device(device)
    labelled, precision = _label(store), usual_precision(place)
    runs = plan_runs(chosen, manifest, labelled, numbers, out, root=root, groups=groups, precision=precision)
    check_plan(chosen, runs, split)
    with Steps() as steps:
        steps.begin(f"bench {chosen.name}", len(runs))
        at_once = min(jobs or trainings_at_once(place), len(runs))
        outcomes = run_suite(runs, drawn, at_once, count_runs(steps), device=place, keep_epochs=keep_epochs)
    document = make_table(chosen, outcomes, drawn)
    for ending, write in FORMS.items():
        write_bytes(out / f"table.{ending}", write(document).encode())
    if any(row["filling"] and row["figures"] for row in document["rows"]):
        _draw_curve(document, out / "fill-curve.svg")
    if as_json:
        print_json(document)
    else:
        print_grids(make_grids(document), footnotes(document))
        print(f"{out / 'table.md'}, also as {', '.join(ending for ending in FORMS if ending != 'md')}")
    raise typer.Exit(3 if any(outcome.fault for outcome in outcomes) else 0)


def _draw_curve(document: dict, path: Path) -> None:
    from ..durable import write_bytes
    from ..experiments.figures import is_installed
    from ..experiments.fill_curve import draw_fill_curve

    if is_installed("matplotlib"):
        write_bytes(path, draw_fill_curve(document["rows"], document["columns"]))
        say(f"{path}")
    else:
        say(f"{path} is left out: it needs matplotlib. Run: pip install 'longreel[plots]', and the same command again.")


def count_runs(steps: Steps) -> Callable[["Outcome"], None]:
    """What moves the bar as each run of a suite ends, and says which one failed."""
    numbers = itertools.count(1)

    def count(outcome: "Outcome") -> None:
        steps.reach(next(numbers))
        if outcome.fault is not None:
            say(f"failed: {outcome.run.folder.name}: {outcome.fault}")

    return count


def _label(stores: list[str]) -> dict[str, Path]:
    """``LABEL=FOLDER`` or ``FOLDER``, whose name without its ending is then the label."""
    labelled: dict[str, Path] = {}
    for text in stores:
        label, _, folder = text.rpartition("=")
        if not folder:
            raise LongreelError(f"--store: {text!r} names no folder. Give LABEL=FOLDER or FOLDER.")
        path = Path(folder)
        label = label or path.name.removesuffix(".store") or path.resolve().name
        if label in labelled:
            raise LongreelError(f"--store: two stores are called {label!r}. Give each a label: LABEL=FOLDER.")
        labelled[label] = path
    return labelled


def suites(
    show: Annotated[str | None, typer.Option(help="Print the TOML of one, to start your own from.")] = None,
    as_json: Json = False,
) -> None:
    """List the suites that `bench` takes, with their source.

    Example: longreel suites --show videolt-table1
    """
    from ..experiments.suites import read_suite, read_text, suite_names

    if show is not None:
        print(read_text(show), end="")
        return
    read = {name: read_suite(name) for name in suite_names()}
    if as_json:
        print_json({name: {"title": suite.title, "source": suite.source, "rows": [row.name for row in suite.rows]}
                    for name, suite in read.items()})  # fmt: skip
        return
    for name, suite in read.items():
        print(f"{name}: {suite.title}; {len(suite.rows)} rows")
