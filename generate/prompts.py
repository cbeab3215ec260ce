"""The prompts of a folder of generated clips: which clips lack one, where it comes from, and what could not be had."""

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ..durable import make_folder, owned
from ..errors import LongreelError
from ..manifest import Manifest
from .clips import PROMPTS, Prompt, make_clip_id, read_prompts, write_lines
from .exemplars import check_exemplars
from .llm import Asker, Missed, Short, Talk
from .plan import count_missing, count_real, read_fill
from .responses import append, mend_tail
from .templates import names_action, normalise
from .threads import Threads

PATIENCE = 10.0  #: seconds for answers under way, once the run is stopped.
SHORTEST_PROMPT = 12  #: characters of a model's prompt; what is shorter describes no scene.


class Source(Protocol):
    """Where prompts come from. One that is ``distinct`` proposes without end, and only what is new is taken; another
    gives one for each missing index."""

    @property
    def distinct(self) -> bool: ...

    @property
    def needs_model(self) -> bool: ...

    def propose(self, label: str, missing: Sequence[int], talk: Talk | None) -> Iterator[tuple[str, dict]]: ...


@dataclass(frozen=True)
class Wanted:
    """What a class lacks."""

    label: str
    total: int  #: prompts that it shall have.
    missing: tuple[int, ...]  #: indices without one, rising.
    texts: tuple[str, ...]  #: its prompts.


@dataclass
class Filled:
    """What a class got."""

    wanted: Wanted
    prompts: list[Prompt] = field(default_factory=list)
    reason: str = ""  #: why some are missing.
    events: Counter = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)
    fault: BaseException | None = None  #: what ends the run, once the prompts are written.

    @property
    def missing(self) -> int:
        return len(self.wanted.missing) - len(self.prompts)

    def document(self) -> dict:
        """The class's line of the report."""
        events = {name: count for name, count in sorted(self.events.items()) if count}
        counts = {"wanted": self.wanted.total, "had": self.wanted.total - len(self.wanted.missing)}
        counts |= {"written": len(self.prompts), "missing": self.missing}
        return {"label": self.wanted.label, **counts, "reason": self.reason, "events": events, "notes": self.notes}


@contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Hold a folder's prompts for this process, with lines that a killed one left unfinished cut off.

    Raises:
        InUse: When another process writes prompts there.
    """
    make_folder(folder)
    with owned(folder / ".prompts.lock", str(folder)):
        mend_tail(folder / PROMPTS)
        yield


def plan_prompts(manifest: Manifest, folder: Path, fill: str) -> list[Wanted]:
    """What each class lacks, in the manifest's order: clips ``0 .. max(0, B - n_real) - 1`` without what is there.

    Raises:
        ManifestError: When the folder's prompts are damaged, or were written from clips of val or test.
    """
    real = count_real(manifest)
    totals = count_missing(real, read_fill(fill, real.values()))
    path = folder / PROMPTS
    held: dict[str, dict[int, Prompt]] = {}
    found = read_prompts(folder) if path.exists() else []
    check_exemplars(manifest, found, path)
    for prompt in found:
        held.setdefault(prompt.label, {})[prompt.index] = prompt
    wanted = []
    for label, total in totals.items():
        have = held.get(label, {})
        missing = tuple(index for index in range(total) if index not in have)
        texts = tuple(prompt.prompt for prompt in have.values())
        wanted.append(Wanted(label, total, missing, texts))
    return wanted


def bound_calls(wanted: Wanted, per_call: int) -> int:
    """Calls that a class may take where nothing is said: four times what would do, and room for profiles and faults."""
    return 4 * math.ceil(wanted.total / per_call) + 30


def write_prompts(
    folder: Path,
    plan: Sequence[Wanted],
    source: Source,
    *,
    asker: Asker | None = None,
    fallback: Source | None = None,
    calls: Callable[[Wanted], int] = lambda wanted: bound_calls(wanted, 25),
    any_wording: bool = False,
    parallel: int = 1,
    on_class: Callable[[Filled], None] = lambda filled: None,
    on_wait: Callable[[int], None] = lambda classes: None,
) -> list[Filled]:
    """Write the prompts that are missing, class by class in the plan's order, whoever is done first.

    Args:
        folder: Held by ``claimed``.
        plan: What is missing.
        source: Where prompts come from.
        asker: Of the model, for a source that needs one.
        fallback: Where prompts come from for a class whose model gives no more for good, rather than for now.
        calls: Most requests for a class.
        any_wording: Take also those prompts of a model that do not name the action.
        parallel: Classes worked on at a time.
        on_class: Is told of each class once its prompts are written.
        on_wait: Is told, where the run is stopped, how many classes' answers are waited for, some seconds at most:
            what is under way is paid for.

    Raises:
        LongreelError: What no further class could mend either; what was there by then is written.
    """
    open_classes = [wanted for wanted in plan if wanted.missing]

    def work(wanted: Wanted) -> Filled:
        filled = Filled(wanted)
        talk = None if asker is None else Talk(asker, wanted.label, calls(wanted), filled.events, filled.notes)
        try:
            _fill(filled, source, fallback, talk, any_wording)
        except BaseException as error:
            if asker is not None:
                asker.stop("stopped by another class's fault")
            filled.fault = error
        return filled

    done, threads = [], Threads(work, open_classes, parallel)
    try:
        for filled in threads.results():
            if filled.prompts:
                append(folder / PROMPTS, write_lines(filled.prompts))
            if filled.fault is not None:
                raise filled.fault
            done.append(filled)
            on_class(filled)
    except BaseException:
        if asker is not None:
            asker.stop("stopped")
            on_wait(threads.under_way)
        threads.stop(PATIENCE)
        raise
    return done


def _fill(filled: Filled, source: Source, fallback: Source | None, talk: Talk | None, any_wording: bool) -> None:
    """Take prompts until none is missing or there are no more."""
    wanted = filled.wanted
    taken = set(map(normalise, wanted.texts)) if source.distinct else set()
    try:
        for text, origin in source.propose(wanted.label, wanted.missing, talk):
            if source.distinct and not _fits(filled, taken, text, origin, any_wording):
                continue
            if source.distinct:
                taken.add(normalise(text))
            _take(filled, text, origin)
            if not filled.missing:
                return
        filled.reason = "there are no more different ones"
    except Short as error:
        filled.reason = str(error)
        return
    except Missed as error:
        filled.reason = f"{error.kind}: {error}"
        filled.events[error.kind] += error.kind == "used up"
    if fallback is not None:
        left = wanted.missing[len(filled.prompts) :]
        filled.events["fallback"] += len(left)
        for text, origin in fallback.propose(wanted.label, left, None):
            _take(filled, text, origin | {"instead": filled.reason})


def _take(filled: Filled, text: str, origin: dict) -> None:
    """Give a prompt to the next clip without one."""
    index = filled.wanted.missing[len(filled.prompts)]
    label = filled.wanted.label
    filled.prompts.append(Prompt(make_clip_id(label, index), label, index, text, origin))


def _fits(filled: Filled, taken: set[str], text: str, origin: dict, any_wording: bool) -> bool:
    """Whether a proposed prompt is taken; what it is dropped for is counted."""
    written = origin["kind"] == "llm"
    faults = {
        "too short": len(text) < (SHORTEST_PROMPT if written else 1),
        "duplicate": normalise(text) in taken,
        "without the action": written and not any_wording and not names_action(filled.wanted.label, text),
    }
    fault = next((name for name, holds in faults.items() if holds), None)
    if fault is not None:
        filled.events[fault] += 1
    return fault is None


def check_model(source: Source, name: str, asker: Asker | None) -> None:
    """A source that needs a language model has one.

    Raises:
        LongreelError: When it has none.
    """
    if source.needs_model and asker is None:
        raise LongreelError(
            f"--from {name}: needs a language model. Give --llm-url and --llm-model, or --llm-folder; "
            "`--from templates` needs none."
        )
