"""Parts by name, with numbers of their own, such as ``focal:gamma=2,alpha=0.25``."""

import inspect
from collections.abc import Callable, Mapping
from typing import TypeVar

from .errors import LongreelError, unknown

Part = TypeVar("Part")
TRUTH = {"true": True, "false": False}


def build_part(what: str, kinds: Mapping[str, Callable[..., Part]], text: str, *arguments: object) -> Part:
    """Make the part that a text names, with what departs from its defaults.

    Args:
        what: What it is, for messages: ``loss``.
        kinds: Name -> how it is made. Its options are the parameters that have a default.
        text: ``name`` or ``name:key=value,key=value``.
        arguments: The parameters without a default.

    Raises:
        LongreelError: When a name or key is not known or comes twice, or a value is of another type than the default.
    """
    name, _, given = text.partition(":")
    if name not in kinds:
        raise unknown(what, name, kinds)
    known = options_of(kinds[name])
    options = {}
    for item in filter(None, given.split(",")):
        key, _, value = (word.strip() for word in item.partition("="))
        if not known:
            raise LongreelError(f"{what} {name} has no options. Leave out {item!r}.")
        if key not in known:
            raise unknown(f"option of {what} {name}", key, known)
        if key in options:
            raise LongreelError(f"{what} {name}: {key} is given twice. Give it once.")
        options[key] = _read_value(f"{what} {name}", key, value, known[key])
    return kinds[name](*arguments, **options)


def add_option(text: str, option: str) -> str:
    """A part's text with one more option, such as ``released=true``; what the text gives itself stays."""
    given = text.partition(":")[2].split(",")
    if any(item.partition("=")[0].strip() == option.partition("=")[0] for item in given):
        return text
    return f"{text}{',' if ':' in text else ':'}{option}"


def options_of(kind: Callable[..., object]) -> dict[str, object]:
    """The options of a part with their defaults."""
    parameters = inspect.signature(kind).parameters.values()
    return {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}


def _read_value(part: str, key: str, text: str, default: object) -> object:
    """The text as the default's type; an option without a number as its default takes numbers."""
    kind = type(default) if isinstance(default, bool | int | float | str) else float
    try:
        return TRUTH[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        expected = {bool: "true or false", int: "a whole number"}.get(kind, "a number")
        raise LongreelError(f"{part}: {key}={text!r} is not {expected}.") from None
