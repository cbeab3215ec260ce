"""A real HTTP server on loopback that speaks OpenAI's chat completions, and misbehaves as it is told to.

Its answers depend on the request alone, so that a run that is killed and one that is not are told the same.
"""

import hashlib
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PLACES = ("in a barn", "on a pier", "under a bridge", "in a lift", "on a hill", "in a tent", "by a fountain")


@dataclass
class Asked:
    """One request as it came."""

    body: dict
    headers: dict[str, str]
    digest: str  #: of the body's bytes.
    reply_id: str
    answered: bool = False  #: with status 200, to the last byte.

    @property
    def text(self) -> str:
        """All words of the talk."""
        contents = [message["content"] for message in self.body["messages"]]
        texts = [content if isinstance(content, str) else content[0]["text"] for content in contents]
        return "\n".join(texts)

    @property
    def images(self) -> list[str]:
        """The addresses of the images."""
        contents = [message["content"] for message in self.body["messages"]]
        parts = [part for content in contents if isinstance(content, list) for part in content]
        return [part["image_url"]["url"] for part in parts if part["type"] == "image_url"]

    @property
    def form(self) -> str:
        return self.body.get("response_format", {"type": "text"})["type"]

    @property
    def label(self) -> str:
        found = re.search(r'(?:action|name is) ("(?:[^"\\]|\\.)*")', self.text)
        assert found is not None, self.text
        return json.loads(found[1])


def good_document(asked: Asked) -> dict:
    """What a model that does as it is told answers."""
    mark = asked.digest[:8]
    if found := re.search(r"Describe (\d+) short", asked.text):
        return {"prompts": [scene(asked.label, f"{mark} {number}", number) for number in range(int(found[1]))]}
    if found := re.search(r"List (\d+) (places|people)", asked.text):
        begin = "in a hall numbered" if found[2] == "places" else "a dancer numbered"
        return {"items": [f"{begin} {number} {mark}" for number in range(int(found[1]))]}
    texts = [f"{word} of {asked.label} {mark}" for word in ("hands", "tools")]
    definition = f"Somebody does {asked.label} {mark}."
    return {"action_definition": definition, "key_visual_elements": texts, "common_mistakes_to_avoid": texts}


def scene(words: str, mark: str, number: int) -> str:
    return f"A person {words} {PLACES[number % len(PLACES)]} while take {mark} is recorded."


def completion(content: object, finish: str = "stop", **message: object) -> dict:
    message = {"role": "assistant", "content": content, **message}
    return {"object": "chat.completion", "model": "small", "choices": [{"message": message, "finish_reason": finish}]}


def good(asked: Asked) -> dict:
    return completion(json.dumps(good_document(asked)))


def prompts_only(change: Callable[[list[str], Asked], object]) -> Callable[[Asked], dict]:
    """Answers as told, but for the list of prompts."""

    def answer(asked: Asked) -> dict:
        document = good_document(asked)
        if "prompts" in document:
            document["prompts"] = change(document["prompts"], asked)
        return completion(json.dumps(document))

    return answer


def cut_before(text: str, letters: int) -> str:
    return text[: len(text) - letters]


def failing(code: int, body: object = None, **headers: str) -> Callable[[Asked], tuple]:
    """An answer with another status than 200."""
    error = {"error": {"message": f"status {code}", "type": "error", "param": None, "code": None}}
    return lambda asked: (code, error if body is None else body, headers)


#: name -> what is answered: a completion, (status, body, headers), or bytes.
BEHAVIOURS: dict[str, Callable[[Asked], Any]] = {
    "good": good,
    "fenced": lambda a: completion(f"Here you are:\n```json\n{json.dumps(good_document(a), indent=1)}\n```\nEnjoy!"),
    "thinking": lambda a: completion(f'<think>maybe {{"prompts": 1}}?</think>{json.dumps(good_document(a))}'),
    "in parts": lambda a: completion([{"type": "text", "text": json.dumps(good_document(a))}]),
    "cut by length": lambda a: completion(cut_before(json.dumps(good_document(a)), 40), "length"),
    "whole but cut by length": lambda a: completion(json.dumps(good_document(a)), "length"),
    "cut yet stopped": lambda a: completion(cut_before(json.dumps(good_document(a)), 40)),
    "another schema": lambda a: completion('{"answers": ["a person"]}'),
    "a list of numbers": lambda a: completion('{"prompts": [1, 2, 3]}'),
    "prose": lambda a: completion("A person waves at the camera for a while."),
    "deep": lambda a: completion("[" * 5000 + '{"a":' * 50000),
    "refusal": lambda a: completion(None, refusal="No."),
    "apology": lambda a: completion("I'm sorry, but I can't help with that."),
    "empty": lambda a: completion(""),
    "no content": lambda a: completion(None),
    "content filter": lambda a: completion("", "content_filter"),
    "filter by status": failing(400, {"error": {"message": "filtered", "code": "content_filter", "param": "prompt"}}),
    "too few": prompts_only(lambda prompts, a: prompts[:2]),
    "too many": prompts_only(lambda p, a: [*p, *(scene(a.label, f"{a.digest[:8]} more {n}", n) for n in range(9))]),
    "without the action": prompts_only(lambda p, a: ["Somebody looks at the sea in the evening." for _ in p]),
    "the same again": prompts_only(lambda p, a: [f"A  person, {a.label.upper()} in a barn{'!' * n}" for n in range(5)]),
    "hostile": prompts_only(
        lambda p, a: [f"\x1b[2J{t}\x00\ud800\u202e[red]{'very ' * 400}" if n == 0 else t for n, t in enumerate(p)]
    ),
    "no completion": lambda a: {"choices": []},
    "html": lambda a: b"<html>welcome to the hotel network</html>",
    "garbage": lambda a: bytes(range(256)) * 4,
    "busy": failing(429, **{"Retry-After": "0.01"}),
    "busy for long": failing(429, **{"Retry-After": "3600"}),
    "no quota": failing(429, {"error": {"message": "you have no quota", "code": "insufficient_quota"}}),
    "broken": failing(500),
    "overloaded": failing(503, {"detail": "loading"}),
    "wrong request": failing(400),
    "too large": failing(413),
    "unauthorised": failing(401),
    "forbidden": failing(403),
    "not found": failing(404),
}


@dataclass
class SmallServer:
    """``script`` has what to do with the next requests, ``always`` with those behind. Both name behaviours, or are
    functions; and there are ``hang``, ``drip``, ``reset`` and ``endless``, which are no answers."""

    url: str = ""
    script: list[Any] = field(default_factory=list)
    always: Any = "good"
    delay: float = 0.0
    asked: list[Asked] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    closing: threading.Event = field(default_factory=threading.Event)

    @property
    def paid(self) -> list[Asked]:
        with self.lock:
            return [asked for asked in self.asked if asked.answered]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    state: SmallServer

    def do_POST(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"]))
        state = self.state
        with state.lock:
            number = len(state.asked)
            digest = hashlib.sha256(content).hexdigest()
            asked = Asked(
                json.loads(content),
                {name.title(): value for name, value in self.headers.items()},
                digest,
                f"reply-{number}-",
            )
            state.asked.append(asked)
            behaviour = state.script.pop(0) if state.script else state.always
        state.closing.wait(state.delay)
        if behaviour in ("hang", "drip", "reset", "endless"):
            getattr(self, f"be_{behaviour}")()
            return
        answer = BEHAVIOURS[behaviour] if isinstance(behaviour, str) else behaviour
        found = answer(asked)
        code, body, headers = found if isinstance(found, tuple) else (200, found, {})
        if isinstance(body, dict) and code == 200:
            body = {"id": asked.reply_id, **body}
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(code)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(payload)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(payload)
        self.wfile.flush()
        asked.answered = code == 200

    def be_hang(self) -> None:
        self.state.closing.wait(30)
        self.close_connection = True

    def be_drip(self) -> None:
        self.begin(1000)
        while not self.state.closing.wait(0.05):
            self.wfile.write(b" ")
            self.wfile.flush()

    def be_reset(self) -> None:
        self.begin(1000)
        self.wfile.write(b'{"choices": [')
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def be_endless(self) -> None:
        self.begin(1 << 40)
        while not self.state.closing.is_set():
            self.wfile.write(b" " * (1 << 20))

    def begin(self, size: int) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(size))
        self.end_headers()
        self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        pass


class QuietServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients are killed here, and hang up."""


@contextmanager
def small_server(**settings) -> Iterator[SmallServer]:
    """A server of its own, for as long as the block lasts."""
    state = SmallServer(**settings)
    server = QuietServer(("127.0.0.1", 0), type("Bound", (Handler,), {"state": state}))
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield state
    finally:
        state.closing.set()
        server.shutdown()
        thread.join()
        server.server_close()


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(true: Callable[[], bool], seconds: float = 30.0) -> bool:
    """Whether it came true in time."""
    until = time.monotonic() + seconds
    while not true():
        if time.monotonic() > until:
            return False
        time.sleep(0.002)
    return True
