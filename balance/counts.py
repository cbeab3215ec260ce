"""How many real training clips each class has, and the groups of classes that results are reported for."""

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import LongreelError, unknown
from ..manifest import Manifest


@dataclass(frozen=True)
class Groups:
    """Which classes are reported together, from the richest group to the poorest."""

    rule: str  #: the rule and its bounds, as printed under every table.
    members: dict[str, list[int]]  #: group -> class indices; a group may be empty.


def count_training_clips(manifest: Manifest) -> list[int]:
    """Real training clips of each class, in the order of ``manifest.classes``. Generated clips never count."""
    found = Counter(label for clip in manifest.split("train") if clip.source == "real" for label in clip.labels)
    return [found[label] for label in manifest.classes]


def _videolt(counts: Sequence[int]) -> list[str]:
    return [("head" if n > 500 else "medium" if n > 100 else "tail") for n in counts]


def _videolt_readme(counts: Sequence[int]) -> list[str]:
    """The bounds of the table in VideoLT's README; ``_videolt`` has those of its code."""
    return [("head" if n >= 500 else "medium" if n >= 100 else "tail") for n in counts]


def _oltr(counts: Sequence[int]) -> list[str]:
    """Liu et al., "Large-Scale Long-Tailed Recognition in an Open World", CVPR 2019, section 5."""
    return [("many" if n > 100 else "medium" if n >= 20 else "few") for n in counts]


def _minikinetics(counts: Sequence[int]) -> list[str]:
    return [("head" if n > 300 else "medium" if n > 40 else "tail") for n in counts]


def _gen2balance(counts: Sequence[int]) -> list[str]:
    largest_first = sorted(range(len(counts)), key=lambda index: (-counts[index], index))
    head, held = set(), 0
    for index in largest_first:
        if 2 * held >= sum(counts):
            break
        head.add(index)
        held += counts[index]
    return ["few" if n < 20 else "head" if index in head else "tail" for index, n in enumerate(counts)]


def _thirds(counts: Sequence[int]) -> list[str]:
    """As BRL has them: what is left where three does not divide the classes goes to the tail."""
    largest_first = sorted(range(len(counts)), key=lambda index: (-counts[index], index))
    place = {index: rank for rank, index in enumerate(largest_first)}
    size = max(len(counts) // 3, 1)
    return [("head", "medium", "tail")[min(place[index] // size, 2)] for index in range(len(counts))]


#: rule -> (its function, its groups from rich to poor, its bounds in words).
RULES: dict[str, tuple[Callable[[Sequence[int]], list[str]], tuple[str, ...], str]] = {
    "gen2balance": (
        _gen2balance,
        ("head", "tail", "few"),
        "few < 20 training clips, head = largest classes with half of all clips, tail = rest",
    ),
    "videolt": (_videolt, ("head", "medium", "tail"), "head > 500 training clips, tail <= 100"),
    "videolt-readme": (_videolt_readme, ("head", "medium", "tail"), "head >= 500 training clips, tail < 100"),
    "oltr": (_oltr, ("many", "medium", "few"), "many > 100 training clips, few < 20"),
    "minikinetics": (_minikinetics, ("head", "medium", "tail"), "head > 300 training clips, tail <= 40"),
    "thirds": (_thirds, ("head", "medium", "tail"), "thirds of the classes, largest first"),
}


def make_groups(rule: str, classes: Sequence[str], counts: Sequence[int]) -> Groups:
    """Put each class into a group by its real training clips.

    Args:
        rule: A key of ``RULES``; or rising bounds such as ``20,100``, which give groups ``<=20``, ``21-100`` and
            ``>100``; or a JSON file that maps each class to its group, richest group first.
        classes: Class names.
        counts: Real training clips of each class.

    Raises:
        LongreelError: When the rule is none of these, or the file leaves a class out.
    """
    if rule in RULES:
        assign, names, words = RULES[rule]
        return Groups(f"{rule}: {words}", _gather(assign(counts), names))
    if re.fullmatch(r"\s*[0-9]+\s*(,\s*[0-9]+\s*)*", rule):
        return _by_bounds(rule, counts)
    if Path(rule).is_file():
        return _by_file(Path(rule), classes)
    error = unknown("group rule", rule, RULES)
    raise type(error)(f"{error} Bounds such as 20,100 or a JSON file of class -> group work too.")


def _gather(assigned: Sequence[str], names: Sequence[str]) -> dict[str, list[int]]:
    return {name: [index for index, group in enumerate(assigned) if group == name] for name in names}


def _by_bounds(rule: str, counts: Sequence[int]) -> Groups:
    bounds = [int(part) for part in rule.split(",")]
    if bounds != sorted(set(bounds)):
        raise LongreelError(f"group bounds {rule!r} must rise, such as 20,100.")
    lows = [0, *(bound + 1 for bound in bounds)]
    names = [
        f"<={bounds[0]}",
        *(f"{low}-{high}" for low, high in zip(lows[1:], bounds[1:], strict=False)),
        f">{bounds[-1]}",
    ]
    assigned = [names[sum(n > bound for bound in bounds)] for n in counts]
    return Groups(f"bounds on training clips: {', '.join(map(str, bounds))}", _gather(assigned, names[::-1]))


def _by_file(path: Path, classes: Sequence[str]) -> Groups:
    try:
        mapping = json.loads(path.read_text(encoding="utf-8"))
        assigned = [mapping[name] for name in classes]
    except (ValueError, TypeError) as error:
        raise LongreelError(f"{path}: is not a JSON object of class -> group ({error}).") from None
    except KeyError as error:
        raise LongreelError(f"{path}: has no group for class {error}. Add it.") from None
    if wrong := [group for group in mapping.values() if not isinstance(group, str) or not group]:
        raise LongreelError(f"{path}: {wrong[0]!r} is no name of a group. Put a text behind each class.")
    return Groups(f"groups of {path.name}", _gather(assigned, list(dict.fromkeys(mapping.values()))))
