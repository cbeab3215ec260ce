"""What a user asks of a training, resolved: a protocol's rules where one is named, then what was given beside it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ..errors import unknown
from ..parts import add_option
from .optimisation import FitSettings
from .protocols import PROTOCOLS


@dataclass(frozen=True)
class TrainSettings:
    """Everything that a run's result depends on."""

    store: Path
    manifest: Path
    root: Path | None = None
    head: str = "nonlinear"  #: with options behind a colon, as in ``netvlad:clusters=32``; so are the next five.
    balance: str = "ce"
    loss: str | None = None  #: in place of the balance method's own, and so on.
    sampler: str | None = None
    mixer: str | None = None
    adjustment: str | None = None
    curriculum: str = "joint"  #: which of the real and generated clips are learnt from, and when.
    trust: str = "full"  #: in the labels of generated clips.
    fill: str | None = None  #: up to how many clips of a class generated ones are used: a number, or ``33%``; all.
    compat: str | None = None  #: ``released``: the authors' code where it departs from the paper.
    groups: str = "gen2balance"
    standardise: bool = True
    protocol: str | None = None
    departures: tuple[str, ...] = ()  #: what was asked for otherwise than the protocol has it.
    fit: FitSettings = field(default_factory=FitSettings)


FIT = {each.name for each in fields(FitSettings)}
OWN = {each.name for each in fields(TrainSettings)} - {"store", "manifest", "root", "protocol", "departures", "fit"}


def describe(settings: TrainSettings) -> dict:
    """Names and values for a file; those of a run that is not compiled are those of versions that compiled none."""
    document = asdict(settings)
    if not settings.fit.compiled:
        del document["fit"]["compiled"]
    return document


def make_settings(
    store: Path,
    manifest: Path,
    given: Mapping[str, Any],
    *,
    root: Path | None = None,
    protocol: str | None = None,
    precision: str = "float32",
) -> TrainSettings:
    """The settings of a training.

    Args:
        store, manifest, root: What to train on.
        given: Fields of ``TrainSettings`` and ``FitSettings`` by name; ``None`` is not given.
        protocol: Its rules come first; whatever is given otherwise is noted as a departure.
        precision: Of products, if neither a protocol nor what is given has one.

    Raises:
        LongreelError: When a name is not known or a value cannot be used.
    """
    given = {key: value for key, value in given.items() if value is not None}
    for key in given:
        if key not in FIT | OWN:
            raise unknown("setting", key, FIT | OWN)
    plain = TrainSettings(store, manifest, root, protocol=protocol, fit=FitSettings(precision=precision))
    ruled = plain if protocol is None else _apply_protocol(plain, protocol)
    fit = replace(ruled.fit, **{key: given[key] for key in given.keys() & FIT})
    asked = replace(ruled, fit=fit, **{key: given[key] for key in given.keys() & OWN})
    if asked.compat not in (None, "released"):
        raise unknown("compat", asked.compat, ["released"])
    if asked.compat == "released":
        asked = replace(asked, head=_released_head(asked.head))
    return asked if protocol is None else replace(asked, departures=tuple(_differences(ruled, asked)))


def _released_head(text: str) -> str:
    """The head as the authors' code has it; a head that they did not release stays."""
    name = text.partition(":")[0]
    if name == "aggregated":
        for option in ("vlad=gated", "order=psa-vlad", "released=true"):
            text = add_option(text, option)
        return text
    return "netvlad-gated" + text.removeprefix("netvlad") if name == "netvlad" else text


def _apply_protocol(settings: TrainSettings, name: str) -> TrainSettings:
    if name not in PROTOCOLS:
        raise unknown("protocol", name, PROTOCOLS)
    protocol = PROTOCOLS[name]
    by_file = protocol.groups.endswith(".json")  # `longreel protocol make` writes them beside the manifest
    return replace(
        settings,
        balance=protocol.balance,
        groups=str(settings.manifest.with_suffix(".groups.json")) if by_file else protocol.groups,
        standardise=protocol.standardise,
        fit=protocol.fit or settings.fit,
    )


def _differences(ruled: TrainSettings, asked: TrainSettings) -> list[str]:
    """What breaks the protocol's rules. Head, method and seed are what it compares."""
    free = {"seed", "checkpoint_seconds", "compiled"}
    pairs = [(key, getattr(ruled.fit, key), getattr(asked.fit, key)) for key in sorted(FIT - free)]
    pairs += [(key, getattr(ruled, key), getattr(asked, key)) for key in ("groups", "standardise")]
    return [f"{key} {mine} ({rule})" for key, rule, mine in pairs if rule != mine]
