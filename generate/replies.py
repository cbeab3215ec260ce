"""What a language model's answer says, checked by our own rules; nothing in it is ever repaired."""

import json
import re
from collections.abc import Callable, Iterator
from typing import TypeVar

SHOWN = 2000  #: characters of a faulty answer that the model is shown again.
BEGINS = 50  #: places in an answer at which a JSON object is looked for.
APOLOGY = re.compile(
    r"^\W*(i'?m sorry|i am sorry|sorry,|i can(?:no|'|\u2019)t|i am unable|i'?m unable|i'?m not able|i won'?t|"
    r"as an ai\b|unfortunately, i)",
    re.IGNORECASE,
)

Value = TypeVar("Value")


class Cut(Exception):
    """The answer was cut off by its length."""


class Declined(Exception):
    """There is no answer: a refusal, a content filter, or nothing at all."""


class BadAnswer(Exception):
    """An answer that cannot be used; the text is told to the model. ``answer`` is what it said."""

    def __init__(self, fault: str, answer: str = "") -> None:
        super().__init__(fault)
        self.answer = answer

    def request(self) -> str:
        """What the model is asked then."""
        return f"That answer cannot be used: {self}. Answer again, with one JSON object of the form asked for only."


def read_answer(raw: str, read: Callable[[dict], Value]) -> Value:
    """The checked value of a chat completion, as the server sent it.

    Raises:
        Cut, Declined, BadAnswer: When it holds none.
    """
    text = _read_text(raw)
    fault = "it holds no JSON object"
    for document in _objects(text):
        try:
            return read(document)
        except BadAnswer as error:
            fault = str(error)
    if "{" not in text and APOLOGY.match(text):
        raise Declined("a refusal in words")
    raise BadAnswer(fault, text[:SHOWN])


def read_texts(document: dict, key: str, *, least: int = 1) -> list[str]:
    """A list of texts.

    Raises:
        BadAnswer: When there is none under this key, or it is shorter.
    """
    found = document.get(key)
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise BadAnswer(f'"{key}" is not a list of strings')
    if len(found) < least:
        raise BadAnswer(f'"{key}" has {len(found)} entries, not {least}')
    return found


def _read_text(raw: str) -> str:
    """What the model said, without its thoughts."""
    try:
        choice = json.loads(raw)["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason")
        refusal, content = message.get("refusal"), message.get("content")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise BadAnswer("the server's answer is no chat completion") from None
    if finish == "length":
        raise Cut
    if finish == "content_filter":
        raise Declined("content filter")
    if refusal:
        raise Declined("a refusal")
    if isinstance(content, list):  # some servers give parts
        content = "".join(str(part.get("text") or "") for part in content if isinstance(part, dict))
    text = re.sub(r"(?s)^\s*<think>.*?</think>", "", content) if isinstance(content, str) else ""
    if not text.strip():
        raise Declined("an empty answer")
    return text.encode("utf-8", "replace").decode()  # halves of characters cannot be sent back


def _objects(text: str) -> Iterator[dict]:
    """The whole JSON objects in a text, one within another left out; a fence or words around them do not matter."""
    decoder, place = json.JSONDecoder(), -1
    for _ in range(BEGINS):
        place = text.find("{", place + 1)
        if place < 0:
            return
        try:
            document, end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            continue
        place = end - 1
        yield document
