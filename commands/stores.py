"""`store`: look into a feature store."""

from dataclasses import asdict

import typer

from .options import Json, StoreFolder, print_facts


def info(store: StoreFolder, as_json: Json = False) -> None:
    """Print how a store was made and what it holds.

    Example: longreel store info videos.store
    """
    from ..store import describe_store

    print_facts(describe_store(store), as_json)


def verify(store: StoreFolder, as_json: Json = False) -> None:
    """Check every byte of a store; ends with exit code 4 when something is damaged, and names it.

    Example: longreel store verify videos.store
    """
    from ..store import verify_store

    verification = verify_store(store)
    print_facts(asdict(verification), as_json)
    raise typer.Exit(4 if verification.damaged else 0)
