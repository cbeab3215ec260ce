"""Search spaces of sweeps, read from TOML: what stays as it is in ``[settings]``, what is searched in ``[space]``.

A key is a setting of a training, or an option of a part behind a dot: ``"head.dropout"``. Its value in ``[space]`` is a
list of choices or a range: ``{ low = 1e-5, high = 1e-2, log = true }``. A range of whole numbers gives whole numbers.
"""

import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, get_args

from ..errors import LongreelError, unknown
from ..parts import add_option
from .settings import TrainSettings
from .suites import FREE, KINDS, WORDS

PARTS = ("head", "loss", "sampler", "mixer", "adjustment")  #: settings that take options behind a colon.
SEARCHED = FREE - {"select"}  #: what may be searched; the objective says what the epoch is selected by.
RANGE_KEYS = {"low", "high", "log", "step", "int"}
ADVICE = "Give a list of choices, or a range: { low = 0.1, high = 0.5 }, with log = true or step = 0.1 if wanted."

Value: TypeAlias = bool | int | float | str
Values: TypeAlias = Mapping[str, Value]


@dataclass(frozen=True)
class Choices:
    """One of some values."""

    values: tuple[Value, ...]

    @property
    def ends(self) -> tuple[Value, ...]:
        """What a check must have seen: all of them."""
        return self.values

    @property
    def points(self) -> tuple[Value, ...] | None:
        """What a grid goes through."""
        return self.values


@dataclass(frozen=True)
class Range:
    """Whole numbers if both ends are, or else any; both ends are part of it."""

    low: int | float
    high: int | float
    log: bool = False
    step: int | float | None = None

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int)

    @property
    def ends(self) -> tuple[Value, ...]:
        """What a check must have seen: of a range both ends."""
        return self.low, self.high

    @property
    def points(self) -> tuple[Value, ...] | None:
        """What a grid goes through; ``None`` for a range without steps."""
        if self.step is None:
            return None
        count = round((self.high - self.low) / self.step) + 1
        return tuple(tidy(self.low + place * self.step) for place in range(count))


Parameter: TypeAlias = Choices | Range


@dataclass(frozen=True)
class Space:
    """What the trials of a sweep have in common, and what they differ in."""

    path: Path  #: the file, for messages.
    settings: Mapping[str, Any]
    parameters: Mapping[str, Parameter]  #: in the order of the file.

    def fill(self, values: Values) -> dict[str, Any]:
        """The settings of a trial.

        Args:
            values: One for each key of ``parameters``.

        Raises:
            LongreelError: When an option has no part to stand in, or the part's text gives it already.
        """
        given = {**self.settings, **{key: value for key, value in values.items() if "." not in key}}
        for key in values:
            part, _, option = key.partition(".")
            if option:
                given[part] = self._join(key, given.get(part, getattr(TrainSettings, part)), values[key])
        return given

    def _join(self, key: str, text: str | None, value: Value) -> str:
        part, _, option = key.partition(".")
        if text is None:
            raise LongreelError(f"{self.path}: space: {key}: no {part} is named. Put one into [settings] or [space].")
        joined = add_option(text, f"{option}={str(value).lower() if isinstance(value, bool) else value}")
        if joined == text:
            raise LongreelError(f"{self.path}: space: {key}: {text!r} gives {option} already. Take it out of one.")
        return joined

    def extremes(self) -> Iterator[Values]:
        """Values in which each choice, and both ends of each range, come up; the other keys are at their first."""
        first = {key: parameter.ends[0] for key, parameter in self.parameters.items()}
        yield first
        for key, parameter in self.parameters.items():
            yield from (first | {key: value} for value in parameter.ends[1:])

    def describe(self) -> dict:
        """As JSON, the same for the same search."""
        searched = {}
        for key, parameter in self.parameters.items():
            if isinstance(parameter, Choices):
                searched[key] = list(parameter.values)
            else:
                searched[key] = {"low": parameter.low, "high": parameter.high, "log": parameter.log}
                searched[key] |= {} if parameter.step is None else {"step": parameter.step}
        return {"settings": dict(self.settings), "space": searched}


def tidy(number: int | float) -> int | float:
    """The number without what adding up steps leaves behind its twelfth digit."""
    return number if isinstance(number, int) else float(f"{number:.12g}")


def read_space(path: Path) -> Space:
    """Read a search space.

    Raises:
        LongreelError: With the file and the key that cannot be used, and what is expected.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LongreelError(f"{path}: cannot be read ({error.strerror}). Give the path of a TOML file.") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise LongreelError(f"{path}: is not TOML ({error}).") from None
    for key in document:
        if key not in ("settings", "space"):
            raise _at(path, "", unknown("table", key, ("settings", "space")))
    settings, searched = document.get("settings", {}), document.get("space", {})
    for name, table in (("settings", settings), ("space", searched)):
        if not isinstance(table, dict):
            raise LongreelError(f"{path}: {name} is no table. Write [{name}] and the keys below it.")
    if not searched:
        raise LongreelError(f"{path}: there is nothing to search. Put keys below [space]. {ADVICE}")
    for key, value in settings.items():
        if key not in FREE:
            raise _at(path, "settings: ", unknown("setting", key, FREE))
        _check_kind(path, f"settings: {key}", key, value)
    parameters = {key: _read_parameter(path, key, entry) for key, entry in searched.items()}
    if both := sorted(settings.keys() & parameters.keys()):
        raise LongreelError(f"{path}: {both[0]} is in [settings] and in [space]. Take it out of one.")
    return Space(path, settings, parameters)


def _at(path: Path, where: str, error: LongreelError) -> LongreelError:
    return type(error)(f"{path}: {where}{error}")


def _read_parameter(path: Path, key: str, entry: object) -> Parameter:
    where = f"space: {key}"
    part, _, option = key.partition(".")
    if isinstance(entry, dict) and key in PARTS:
        raise LongreelError(f'{path}: {where} is a table. Write an option of the {part} in quotes: "{part}.OPTION".')
    if option and part not in PARTS:
        raise _at(path, f"{where}: ", unknown("part with options", part, PARTS))
    if not option and key not in SEARCHED:
        if key == "select":
            raise LongreelError(f"{path}: {where}: is not searched, since the objective decides. Take it out.")
        error = unknown("setting to search", key, SEARCHED)
        raise type(error)(f'{path}: space: {error} An option of a part is written "head.dropout".')
    if isinstance(entry, list):
        return _read_choices(path, where, key, entry)
    if isinstance(entry, dict):
        return _read_range(path, where, key, entry)
    raise LongreelError(f"{path}: {where} is {entry!r}. {ADVICE} What is not searched stands in [settings].")


def _read_choices(path: Path, where: str, key: str, entry: list) -> Choices:
    for value in entry:
        if not isinstance(value, bool | int | float | str):
            raise LongreelError(f"{path}: {where}: {value!r} is no choice. Give numbers, texts, true or false.")
        if "." in key and "," in str(value):
            raise LongreelError(f"{path}: {where}: {value!r} has a comma, which ends an option. Search each by itself.")
        _check_kind(path, where, key, value)
    if len(set(map(repr, entry))) < max(2, len(entry)):
        raise LongreelError(f"{path}: {where}: give at least two choices, each once. One alone stands in [settings].")
    return Choices(tuple(entry))


def _read_range(path: Path, where: str, key: str, entry: dict) -> Range:
    for name in entry:
        if name not in RANGE_KEYS:
            raise _at(path, f"{where}: ", unknown("key of a range", name, RANGE_KEYS))
    numbers = {name: entry[name] for name in ("low", "high", "step") if name in entry}
    for name, value in numbers.items():
        if type(value) not in (int, float) or not math.isfinite(value):
            raise LongreelError(f"{path}: {where}: {name} is {value!r}, where a finite number is due.")
    for name in ("log", "int"):
        if not isinstance(entry.get(name, False), bool):
            raise LongreelError(f"{path}: {where}: {name} is {entry[name]!r}, where true or false is due.")
    if not {"low", "high"} <= numbers.keys():
        raise LongreelError(f"{path}: {where}: a range needs low and high. {ADVICE}")
    kinds = _kinds(key)
    if kinds and not {int, float} & kinds:
        raise LongreelError(f"{path}: {where}: takes no range, as {_due(kinds)} is due. Give a list of choices.")
    plain = not kinds and all(type(each) is int for each in numbers.values())
    if (int in kinds and float not in kinds) or entry.get("int", plain):
        if broken := [name for name, value in numbers.items() if value != int(value)]:
            raise LongreelError(f"{path}: {where}: {broken[0]} is {numbers[broken[0]]}, where a whole number is due.")
        numbers = {name: int(value) for name, value in numbers.items()}
    else:
        numbers = {name: float(value) for name, value in numbers.items()}
    return _check_range(f"{path}: {where}", Range(**numbers, log=entry.get("log", False)))


def _check_range(where: str, found: Range) -> Range:
    """The range, its high end on its last step."""
    if found.low >= found.high:
        raise LongreelError(f"{where}: low is {found.low} and high is {found.high}. Give a low one below the high one.")
    if found.log and found.low <= 0:
        raise LongreelError(f"{where}: low is {found.low}, and a range with log = true begins above 0.")
    if found.step is None:
        return found
    if found.log:
        raise LongreelError(f"{where}: log and step do not go together. Leave one out.")
    if not 0 < found.step <= found.high - found.low:
        raise LongreelError(f"{where}: step is {found.step}. Give one above 0 that fits between low and high.")
    steps = math.floor((found.high - found.low) / found.step + 1e-9)
    return Range(found.low, tidy(found.low + steps * found.step), step=found.step)


def _kinds(key: str) -> set[type]:
    """The types that a setting may have; none are known of a part's option."""
    return {KINDS[key], *get_args(KINDS[key])} if key in KINDS else set()


def _due(kinds: set[type]) -> str:
    return next(word for kind, word in WORDS.items() if kind in kinds)


def _check_kind(path: Path, where: str, key: str, value: object) -> None:
    kinds = _kinds(key)
    if kinds and type(value) not in kinds and not (type(value) is int and float in kinds):
        raise LongreelError(f"{path}: {where} is {value!r}, where {_due(kinds)} is due.")
