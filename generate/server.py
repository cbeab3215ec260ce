"""Any server that speaks OpenAI's chat completions, through the ``openai`` package.

The key comes from the environment alone. It is in no text, file or error of ours: answers and error texts are cleared
of it before anybody sees them, since servers repeat it in both.
"""

import base64
import math
import os
import time
from email.utils import parsedate_to_datetime
from importlib.util import find_spec
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from ..errors import EnvironmentFault, LongreelError
from .llm import Busy, Gone, Message, Rejected, Request

KEYS = ("LONGREEL_LLM_KEY", "OPENAI_API_KEY")
NO_KEY = "none"  #: is sent where there is no key, as the client wants one.
SHORTEST_SECRET = 8  #: a shorter key, such as ``none``, is a placeholder and might be a word of any text.
LARGEST_ANSWER = 8 << 20  #: bytes.
ERROR_SHOWN = 300
FORMS = ("json_schema", "json_object", "text")


class Server:
    """A model behind a URL such as ``http://127.0.0.1:8000/v1``, in a ``with`` block. Several threads may ask.

    It first asks for the schema, then for JSON, then for text, as far as the server refuses the earlier ones; it leaves
    out the parameters that the server refuses by name.

    Args:
        url: Base URL, without a user, password or query.
        model: The model's name there.
        timeout: Seconds that an answer may take.

    Raises:
        EnvironmentFault: When the ``openai`` package is missing.
        LongreelError: When the URL is none or holds secrets, or there is no key for a server elsewhere.
    """

    def __init__(self, url: str, model: str, *, timeout: float = 300.0) -> None:
        if find_spec("openai") is None:
            raise EnvironmentFault("--llm-url needs openai, which is not installed. Run: pip install 'longreel[llm]'")
        self.model, self.host, self.sees = model, _check_url(url), True
        self._key = _find_key()
        if not self._key and not _is_loopback(self.host):
            raise LongreelError(
                f"--llm-url: {self.host} needs a key. Set the environment variable {KEYS[0]}, to 'none' where it does "
                "not."
            )
        #: the key goes to another machine in the clear.
        self.exposed = bool(self._key) and urlsplit(url).scheme == "http" and not _is_loopback(self.host)
        self._timeout, self._form, self._left_out = timeout, 0, frozenset[str]()
        self._client = self._connect(url)

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def ask(self, request: Request) -> str:
        """The server's answer as it came, without the key.

        Raises:
            Busy: At 408, 409, 429, 5xx and time-outs, with the seconds of Retry-After.
            Gone: When nobody answers at the address.
            Rejected: When the request is refused in every form.
            LongreelError: At 401, 402, 403, 404, and where the account has no quota left.
        """
        from openai import APIConnectionError, APIError, APIStatusError, APITimeoutError

        form, left_out = self._form, self._left_out
        while True:
            try:
                raw = self._send(_wire(request, self.model, FORMS[form], left_out))
            except APITimeoutError:
                raise Busy(f"no answer within {self._timeout:g} s") from None
            except APIStatusError as error:
                text = f"HTTP {self._show(error.message)}"
                if _filtered(error.body):
                    return '{"choices": [{"message": {"content": null}, "finish_reason": "content_filter"}]}'
                if error.status_code not in (400, 422):
                    raise self._judge(error, text) from None
                named = _named(error.body, text) - left_out
                if not named and form + 1 == len(FORMS):
                    raise Rejected(f"the server takes the request in no form ({text})") from None
                left_out, form = left_out | named, form + (not named)
            except APIConnectionError as error:
                if not _unreachable(error):
                    raise Busy(f"the connection broke ({type(error.__cause__).__name__})") from None
                raise Gone(f"no server answers at {self.host} ({type(error.__cause__).__name__})") from None
            except APIError as error:
                raise Busy(self._show(str(error))) from None
            else:
                self._form, self._left_out = form, left_out
                return raw

    def _connect(self, url: str) -> Any:
        import openai

        seconds = openai.Timeout(self._timeout, connect=min(10.0, self._timeout))
        return openai.OpenAI(base_url=url, api_key=self._key or NO_KEY, max_retries=0, timeout=seconds)

    def _send(self, wire: dict) -> str:
        """One request; an answer that is endless or does not end in time is given up."""
        from openai import APIConnectionError, APITimeoutError

        until, parts, size = time.monotonic() + self._timeout, [], 0
        with self._client.chat.completions.with_streaming_response.create(**wire) as response:
            try:
                for part in response.iter_bytes():
                    parts.append(part)
                    size += len(part)
                    if size > LARGEST_ANSWER:
                        return f'{{"error": "more than {LARGEST_ANSWER} bytes"}}'
                    if time.monotonic() > until:
                        raise APITimeoutError(response.http_request)
            except APIConnectionError:
                raise
            except Exception as error:  # the HTTP library's own: of another name in each version of the client
                if type(error).__module__.partition(".")[0] not in ("httpx", "httpx2", "httpcore", "httpcore2"):
                    raise
                slow = "Timeout" in type(error).__name__
                kind = APITimeoutError if slow else APIConnectionError
                raise kind(request=response.http_request) from error
        return self._clear(b"".join(parts).decode("utf-8", "replace"))

    def _clear(self, text: str) -> str:
        return text.replace(self._key, "***") if len(self._key) >= SHORTEST_SECRET else text

    def _show(self, text: str) -> str:
        """The begin of an error's text on one line; cleared first, as a cut could leave half a key."""
        line = " ".join(self._clear(text).split())
        return line.removeprefix("Error code: ")[:ERROR_SHOWN]

    def _judge(self, error: Any, text: str) -> Exception:
        """What a status other than 400 means."""
        body = error.body if isinstance(error.body, dict) else {}
        if error.status_code in (401, 402, 403) or "insufficient_quota" in (body.get("code"), body.get("type")):
            return LongreelError(
                f"{self.host} refuses us ({text}). Check {' or '.join(KEYS)} and the account, then run the same "
                "command: what is done is kept."
            )
        if error.status_code in (404, 405):
            return LongreelError(
                f"{self.host} knows no such model or path ({text}). Check --llm-model {self.model!r} and --llm-url, "
                "which usually ends in /v1."
            )
        if error.status_code in (408, 409, 425, 429) or error.status_code >= 500:
            return Busy(text, _read_wait(error.response.headers.get("retry-after")))
        return Rejected(text)


def _find_key() -> str:
    """The key of the environment, or nothing.

    Raises:
        LongreelError: When it cannot be sent in a header; its text is not shown.
    """
    for name in KEYS:
        if key := os.environ.get(name, "").strip():
            if not (key.isascii() and key.isprintable()) or " " in key:
                raise LongreelError(f"{name}: holds blanks or characters that no key has. Set it again.")
            return key
    return ""


def _check_url(url: str) -> str:
    """The host of a base URL."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not host:
        raise LongreelError("--llm-url: is no address. Give a base URL such as http://127.0.0.1:8000/v1.")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise LongreelError(
            f"--llm-url: holds a user, a password or a query. Give the key in the environment variable {KEYS[0]}."
        )
    return host


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _wire(request: Request, model: str, form: str, left_out: frozenset[str]) -> dict:
    """The request in OpenAI's terms."""
    wire: dict[str, Any] = {"model": model, "messages": [_write_message(each) for each in request.messages]}
    settings = {"temperature": request.temperature, "seed": request.seed, "max_tokens": request.max_tokens}
    wire |= {key: value for key, value in settings.items() if key not in left_out}
    if "max_tokens" in left_out and "max_completion_tokens" not in left_out:  # its newer name
        wire["max_completion_tokens"] = request.max_tokens
    if form == "json_schema":
        schema = {"name": request.name, "schema": request.schema, "strict": True}
        wire["response_format"] = {"type": form, "json_schema": schema}
    elif form == "json_object":
        wire["response_format"] = {"type": form}
    return wire


def _write_message(message: Message) -> dict:
    if not message.images:
        return {"role": message.role, "content": message.text}
    parts: list[dict] = [{"type": "text", "text": message.text}]
    for image in message.images:
        address = f"data:image/jpeg;base64,{base64.b64encode(image).decode()}"
        parts.append({"type": "image_url", "image_url": {"url": address}})
    return {"role": message.role, "content": parts}


def _named(body: object, text: str) -> frozenset[str]:
    """The parameters that a refusal is about."""
    parameter = body.get("param") if isinstance(body, dict) else None
    names = ("temperature", "seed", "max_tokens", "max_completion_tokens")
    if isinstance(parameter, str):
        return frozenset({parameter} & set(names))
    if "response_format" in text or "schema" in text:
        return frozenset()
    return frozenset(name for name in names[:3] if f"'{name}'" in text)


def _filtered(body: object) -> bool:
    """A content filter that answers with an error."""
    return isinstance(body, dict) and "content_filter" in (body.get("code"), body.get("type"))


def _unreachable(error: BaseException) -> bool:
    """No connection came about, rather than one that broke."""
    return type(error.__cause__).__name__ in ("ConnectError", "UnsupportedProtocol", "ProxyError")


def _read_wait(text: str | None) -> float | None:
    """The seconds of a Retry-After header, which gives a number or a date."""
    if not text:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(text).timestamp() - time.time()
        except (ValueError, OverflowError):
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None
