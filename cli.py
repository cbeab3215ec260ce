"""The command line: its commands, and how it ends. Each command parses, calls one library function and prints."""

import errno
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from . import __version__
from .commands import (
    benches,
    derived,
    doctoring,
    features,
    filling,
    inspecting,
    prompting,
    protocols,
    rendering,
    skeletons,
    stores,
    sweeps,
    trainings,
)
from .console import say
from .errors import LongreelError

#: what a path can be wrong in besides not being there, which each command says in its own words.
OF_A_PATH = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ENOTDIR, errno.ELOOP)


class Commands(TyperGroup):
    """Ends a user's mistake in one line on stderr and its exit code; our own bugs keep their traceback."""

    def invoke(self, ctx) -> Any:
        try:
            return super().invoke(ctx)
        except LongreelError as error:
            say(f"error: {error}")
            raise typer.Exit(error.exit_code) from None
        except OSError as error:
            if error.errno not in OF_A_PATH or error.filename is None:
                raise
            say(f"error: {error.filename}: {error.strerror}. Give a path that can be reached and read.")
            raise typer.Exit(2) from None
        except KeyboardInterrupt:
            say("interrupted: run the same command again to go on.")
            raise typer.Exit(130) from None


app = typer.Typer(cls=Commands, no_args_is_help=True, pretty_exceptions_enable=False)
store_app = typer.Typer(no_args_is_help=True, help="Look into a feature store, check it, and give it in other forms.")
app.add_typer(store_app, name="store")
protocol_app = typer.Typer(
    no_args_is_help=True,
    help="Manifests of published benchmarks, and long tails. Example: longreel protocol list",
)
app.add_typer(protocol_app, name="protocol")
generate_app = typer.Typer(
    no_args_is_help=True,
    help="Generated clips for poor classes, step by step. Example: longreel generate plan videos.csv --fill max",
)
app.add_typer(generate_app, name="generate")


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


app.command()(features.extract)
app.command()(features.import_features)
app.command()(skeletons.import_skeletons)
app.command()(doctoring.doctor)
app.command()(trainings.train)
app.command()(trainings.import_checkpoint)
app.command()(trainings.evaluate)
app.command()(trainings.compare)
app.command()(derived.fuse)
app.command()(derived.embed)
app.command()(trainings.curves)
app.command()(trainings.oracle)
app.command()(benches.bench)
app.command()(benches.suites)
app.command()(sweeps.sweep)
app.command()(features.backbones)
app.command()(trainings.demo)
store_app.command()(stores.info)
store_app.command()(stores.verify)
store_app.command()(stores.export)
store_app.command()(stores.merge)
protocol_app.command("list")(protocols.list_protocols)
protocol_app.command()(protocols.make)
generate_app.command()(filling.plan)
generate_app.command()(prompting.prompts)
generate_app.command()(rendering.videos)
generate_app.command()(inspecting.inspect)
generate_app.command()(filling.fill)
protocol_app.command()(protocols.tail)


def main() -> None:
    """The `longreel` command."""
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    app()


if __name__ == "__main__":
    main()
