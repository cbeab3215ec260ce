"""Asking a language model for structured answers: one small protocol, and what is done when it goes wrong.

An answer is kept as it came before anybody looks into it. Everything that follows from answers, such as asking again
with the fault named, is decided from the kept ones alone: an interrupted run replays them and goes on where it was.
"""

import hashlib
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from ..errors import EnvironmentFault
from .replies import BadAnswer, Cut, Declined, read_answer
from .responses import Responses, make_key

SCHEMA_VERSION = 1  #: of instructions and answers; another one is another question.
FAULTS_TOLD = 3  #: times a call asks again with the fault of the last answer named.
ATTEMPTS = FAULTS_TOLD + 5  #: of a call: its first, and one behind each fault, refusal and cut that lets it go on.
LOST_IN_A_ROW = 3  #: classes, after which the server counts as gone.

Value = TypeVar("Value")


@dataclass(frozen=True)
class Message:
    """One turn of the talk."""

    role: str  #: ``user`` or ``assistant``.
    text: str
    images: tuple[bytes, ...] = ()  #: JPEG files.


@dataclass(frozen=True)
class Request:
    """What one call of a backend is about."""

    messages: tuple[Message, ...]
    name: str  #: of the schema.
    schema: dict  #: JSON schema of the answer; a backend that cannot hold a model to it may leave it out.
    max_tokens: int
    temperature: float
    seed: int

    def key(self, backend: "Backend") -> str:
        """The hash that the answer is kept by; not over how the schema was asked for."""
        messages = [
            [each.role, each.text, [hashlib.sha256(image).hexdigest() for image in each.images]]
            for each in self.messages
        ]
        settings = [self.max_tokens, self.temperature, self.seed]
        asked = {"messages": messages, "schema": self.schema, "version": SCHEMA_VERSION, "settings": settings}
        return make_key({"model": backend.model, "host": backend.host} | asked)


class Backend(Protocol):
    """A language model. ``ask`` gives the answer in the JSON of OpenAI's chat completions, as text.

    Raises:
        Busy, Gone, Rejected: When there is no answer this time, nobody there, or none to this request.
        LongreelError: When no request will ever be answered.
    """

    model: str  #: its name, and for a folder the fingerprint of its weights.
    host: str  #: where it runs; ``local`` on this machine.
    sees: bool  #: it takes images.

    def ask(self, request: Request) -> str: ...


class Busy(Exception):
    """No answer now: too many requests, an error of the server, a time-out. ``wait`` is what it asked for."""

    def __init__(self, text: str, wait: float | None = None) -> None:
        super().__init__(text)
        self.wait = wait


class Gone(Exception):
    """Nobody answers at the address."""


class Rejected(Exception):
    """The server takes the request in no form."""


class Short(Exception):
    """A class gets no more prompts from the model in this run, though it may in a later one; the text says why."""


class Missed(Exception):
    """One call gave nothing that can be used; others may. ``kind`` is ``refused``, ``unusable`` or ``used up``."""

    def __init__(self, text: str, kind: str) -> None:
        super().__init__(text)
        self.kind = kind


@dataclass(frozen=True)
class Question(Generic[Value]):
    """What a call wants to know."""

    name: str  #: of the schema.
    schema: dict
    text: Callable[[int], str]  #: the instructions, for an answer of so many items.
    read: Callable[[dict, int], Value]  #: the answer's document, checked; raises ``BadAnswer``.
    count: int = 1
    images: tuple[bytes, ...] = ()
    gentler: str = ""  #: added to the instructions once the model has declined.


@dataclass
class Asker:
    """Asks one backend for all classes, within bounds.

    Args:
        backend: The model.
        responses: Where its answers are kept.
        seed: The run's seed; each request has one of its own.
        max_tokens: Of an answer; doubled for one that was cut off.
        temperature: Of the sampling.
        calls_in_all: Most requests that are really sent in this run; ``None`` sets no bound.
        tries: How often a request is sent that is not answered.
        first_wait: Seconds before the second try, doubled each time, unless the server asks for more.
        longest_wait: Seconds beyond which a server that asks to wait is left alone.
    """

    backend: Backend
    responses: Responses
    seed: int = 0
    max_tokens: int = 4096
    temperature: float = 1.0
    calls_in_all: int | None = None
    tries: int = 5
    first_wait: float = 1.0
    longest_wait: float = 120.0
    sent: int = 0
    _stopped: threading.Event = field(default_factory=threading.Event)
    _reason: str = ""
    _lost: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def send(self, request: Request, about: dict) -> str:
        """The raw answer to a request that has none yet, kept before it is given.

        Raises:
            Short: When the bounds are reached, or the server does not answer, or not this.
            LongreelError: When it never will.
        """
        with self._lock:
            if self.calls_in_all is not None and self.sent >= self.calls_in_all:
                raise Short(f"the {self.calls_in_all} calls of this run are used up (--max-calls-in-all)")
            self.sent += 1
        try:
            raw = self._try(request)
        except (Busy, Rejected) as error:
            self._count_lost()
            raise Short(str(error)) from None
        self._lost = 0
        self.responses.keep(request.key(self.backend), raw, about)
        return raw

    def _try(self, request: Request) -> str:
        wait = self.first_wait
        for left in reversed(range(self.tries)):
            if self._stopped.is_set():
                raise Short(self._reason)
            try:
                return self.backend.ask(request)
            except Busy as error:
                needed = max(wait, error.wait or 0.0)
                if needed > self.longest_wait:
                    raise Busy(f"{error}, which asks to wait {needed:.0f} s; run the same command later") from None
                if not left:
                    raise Busy(f"{error}, {self.tries} times; run the same command later") from None
            except Gone as error:
                needed = wait
                if not left:
                    raise EnvironmentFault(
                        f"{error}. Start the server or correct --llm-url, then run the same command: what is done is "
                        "kept."
                    ) from None
            self._stopped.wait(needed)
            wait *= 2
        raise AssertionError("the last try has raised")

    def stop(self, reason: str) -> None:
        """Send nothing any more; what is kept is still given."""
        self._reason = self._reason or reason
        self._stopped.set()

    def _count_lost(self) -> None:
        with self._lock:
            self._lost += 1
            if self._lost >= LOST_IN_A_ROW:
                self.stop(f"the server failed {self._lost} times in a row; run the same command later")


@dataclass
class _Turn:
    """How the next attempt of a call differs from its first; each way to go on ends."""

    count: int
    tokens: int
    gentler: str = ""
    told: tuple[Message, ...] = ()
    cuts: int = 0
    faults: int = 0

    def after_cut(self) -> None:
        """More room, then fewer items. What was cut off is not repaired, as nobody can tell what it lacks."""
        self.cuts, self.told = self.cuts + 1, ()
        if self.cuts == 1:
            self.tokens *= 2
        elif self.cuts == 2 and self.count > 1:
            self.count //= 2
        else:
            raise Missed("the answer is cut off by its length, also with more room", "unusable")

    def after_refusal(self, error: Declined, gentler: str) -> None:
        """The same once more in other words."""
        if self.gentler or not gentler:
            raise Missed(f"the model declines ({error})", "refused")
        self.gentler, self.told = gentler, ()

    def after_fault(self, error: BadAnswer) -> None:
        """The same again with the fault named."""
        self.faults += 1
        if self.faults > FAULTS_TOLD:
            raise Missed(f"{self.faults} faulty answers, the last: {error}", "unusable")
        self.told = (Message("assistant", error.answer), Message("user", error.request())) if error.answer else ()


@dataclass
class Talk:
    """The calls about one class, one after the other, and what happened in them."""

    asker: Asker
    label: str
    most: int  #: requests, those of earlier runs included.
    events: Counter = field(default_factory=Counter)  #: what happened -> how often.
    notes: list[str] = field(default_factory=list)  #: what a person should know.
    calls: int = 0

    def ask(self, name: str, question: Question[Value]) -> tuple[Value, str]:
        """The checked answer to one call, and the hash of the request that brought it.

        Raises:
            Missed: When the model declines twice, is cut off, or makes faults again and again.
            Short: When there is no answer in this run.
            LongreelError: When there never will be.
        """
        turn = _Turn(question.count, self.asker.max_tokens)
        for attempt in range(ATTEMPTS):
            begin = Message("user", question.text(turn.count) + turn.gentler, question.images)
            request = self._make(name, attempt, question, (begin, *turn.told), turn.tokens)
            raw = self._answer(request, name, attempt)
            count = turn.count
            try:
                value = read_answer(raw, lambda document: question.read(document, count))  # noqa: B023
                return value, request.key(self.asker.backend)
            except Cut:
                self.events["cut off"] += 1
                turn.after_cut()
            except Declined as error:
                self.events["refused"] += 1
                turn.after_refusal(error, question.gentler)
            except BadAnswer as error:
                self.events["faulty"] += 1
                turn.after_fault(error)
        raise AssertionError("there are fewer ways to go on than attempts")

    def _make(self, name: str, attempt: int, question: Question, messages: tuple[Message, ...], tokens: int) -> Request:
        digest = hashlib.blake2b(
            f"{self.asker.seed}:{self.label}:{name}:{attempt}".encode("utf-8", "surrogatepass"), digest_size=4
        ).digest()
        seed = int.from_bytes(digest, "big") >> 1  # servers take 31 bits
        return Request(messages, question.name, question.schema, tokens, self.asker.temperature, seed)

    def _answer(self, request: Request, name: str, attempt: int) -> str:
        """From what is kept, or asked for."""
        if self.calls >= self.most:
            raise Missed(f"{self.calls} calls are used up (--max-calls)", "used up")
        self.calls += 1
        if (raw := self.asker.responses.find(request.key(self.asker.backend))) is not None:
            self.events["kept"] += 1
            return raw
        self.events["sent"] += 1
        about = {"label": self.label, "call": name, "attempt": attempt, "model": self.asker.backend.model}
        return self.asker.send(request, about | {"host": self.asker.backend.host})
