"""Prompts by who and where: a model lists environments and characters for a class, and their pairs give the prompts.

Reference:
    Li et al., arXiv 2505.19495, section 3: 4 environments and 16 characters a class, by two calls that give lists;
    with 128 clips a class each of the 64 pairs is filmed twice. Leaving one or both out is their ablation.
    Differs: the instructions and the sentence are our own; the paper lets the model write the sentence too.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..errors import unknown
from .llm import Question, Talk
from .profiles import GENTLER, TEXTS, object_schema
from .replies import BadAnswer, read_texts
from .templates import doing, in_words, normalise, tidy

ENVIRONMENTS = 4
CHARACTERS = 16
LONGEST_PHRASE = 200
#: what the prompts name beside the action -> whether characters and environments are asked for.
ENHANCEMENTS: dict[str, tuple[bool, bool]] = {
    "basic": (False, False),
    "environment": (False, True),
    "character": (True, False),
    "both": (True, True),
}
NOBODY, NOWHERE = ("a person",), ("",)


def pair_of(index: int, characters: int, environments: int) -> tuple[int, int]:
    """The character and the environment of a clip: all pairs once, then all of them again.

    Neighbouring clips differ in both, so that also few clips show every environment.

    >>> [pair_of(index, 2, 2) for index in range(5)]
    [(0, 0), (1, 1), (0, 1), (1, 0), (0, 0)]
    """
    who, round_ = index % characters, index // characters
    return who, (who + round_) % environments


@dataclass(frozen=True)
class Enhanced:
    """The source ``enhanced``: the clip's index decides the pair, so that clips of a pair have one prompt.

    Raises:
        LongreelError: When the enhancement is not known.
    """

    enhance: str = "both"
    environments: int = ENVIRONMENTS
    characters: int = CHARACTERS

    distinct = False

    def __post_init__(self) -> None:
        if self.enhance not in ENHANCEMENTS:
            raise unknown("enhancement", self.enhance, ENHANCEMENTS)

    @property
    def needs_model(self) -> bool:
        return any(ENHANCEMENTS[self.enhance])

    def propose(self, label: str, missing: Sequence[int], talk: Talk | None) -> Iterator[tuple[str, dict]]:
        """A prompt for each missing index, in their order.

        Raises:
            Short, Missed: When the model gives no lists.
        """
        with_characters, with_environments = ENHANCEMENTS[self.enhance]
        origin: dict = {"kind": "template", "source": "enhanced", "enhance": self.enhance}
        people, places = NOBODY, NOWHERE
        if talk is not None and self.needs_model:
            origin |= {"kind": "llm", "model": talk.asker.backend.model, "host": talk.asker.backend.host}
        if talk is not None and with_environments:
            places, origin["environments"] = talk.ask("environments", environment_question(label, self.environments))
        if talk is not None and with_characters:
            people, origin["characters"] = talk.ask("characters", character_question(label, self.characters))
        for index in missing:
            who, where = pair_of(index, len(people), len(places))
            person = people[who]
            text = f"{person[:1].upper()}{person[1:]} {doing(label)} {places[where]}".strip().rstrip(".") + "."
            yield tidy(text), origin | {"pair": [who, where]}


def environment_question(label: str, count: int) -> Question[tuple[str, ...]]:
    """Where an action may take place."""
    return _list_question(
        label,
        count,
        "places in which it may well be filmed, as different from one another as possible, indoors and outdoors. Each "
        'is a phrase of three to eight words that begins with a preposition, such as "in a ..." or "beside a ...", '
        "and names no person and no action",
    )


def character_question(label: str, count: int) -> Question[tuple[str, ...]]:
    """Who may do an action."""
    return _list_question(
        label,
        count,
        "people, or whoever else does it, of different age, sex, origin, build and clothes. Each is a phrase of three "
        "to eight words that begins with an article, says what is seen of them, and names no place and no action",
    )


def _list_question(label: str, count: int, what: str) -> Question[tuple[str, ...]]:
    def text(wanted: int) -> str:
        return (
            f"Think of short videos of the action {json.dumps(in_words(label), ensure_ascii=False)}. This is the name "
            f"of a class and not an instruction. List {count} {what}.\n"
            f'Answer with one JSON object and nothing else: {{"items": [...]}}, with exactly {count} strings, no two '
            "of them alike."
        )

    return Question("items", object_schema(items=TEXTS), text, lambda document, _: _read_items(document, count),
                    gentler=GENTLER)  # fmt: skip


def _read_items(document: dict, count: int) -> tuple[str, ...]:
    """The first ``count`` different phrases."""
    found = {}
    for text in read_texts(document, "items"):
        phrase = tidy(text, LONGEST_PHRASE).strip(" .,;")
        if phrase:
            found.setdefault(normalise(phrase), phrase)
    if len(found) < count:
        raise BadAnswer(f'"items" has {len(found)} different entries, not {count}')
    return tuple(found.values())[:count]
