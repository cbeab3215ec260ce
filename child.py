"""A child process that may hang, crash or run out of memory without taking us along, and the connection to it.

Both sides are here: ``Child`` is what the parent holds, ``serve`` what the child's ``main`` calls. Messages are JSON;
one that announces numbers is followed by their bytes. Nothing is pickled.
"""

import ctypes
import json
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing.connection import Connection

PR_SET_PDEATHSIG = 1
STALL_SECONDS = 20  #: that a message which has begun may stand still; the child sends whole messages without a pause.
STDERR_KEPT = 2000
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


class Lost(Exception):
    """The child is dead or does not go on; the text says how. ``signal_name`` is what it died of, if of a signal."""

    def __init__(self, reason: str, signal_name: str | None = None) -> None:
        super().__init__(reason)
        self.signal_name = signal_name


class Overdue(Lost):
    """The child has not answered within the patience."""


class Child:
    """A module of this package run as a process of its own; end it, also after it was lost."""

    def __init__(self, module: str, *arguments: str, environment: dict[str, str] | None = None) -> None:
        ours, theirs = socket.socketpair()
        with ExitStack() as undo, theirs:
            undo.enter_context(ours)
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("ll", STALL_SECONDS, 0))
            self._stderr = undo.enter_context(tempfile.TemporaryFile())
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, str(theirs.fileno()), *arguments],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._stderr,
                stderr=self._stderr,
                env=os.environ | ONE_THREAD | (environment or {}),
            )
            undo.pop_all()
        self._connection = Connection(ours.detach())

    def alive(self) -> bool:
        """It has not ended."""
        return self._process.poll() is None

    def send(self, **message: object) -> None:
        """Give it a task; what it wrote to stderr before is forgotten.

        Raises:
            Lost: When it is dead.
        """
        self._stderr.seek(0)
        self._stderr.truncate()
        try:
            send_message(self._connection, **message)
        except OSError:
            raise self._death() from None

    def receive(self, patience: float, stopped: Callable[[], bool] = lambda: False) -> tuple[bytes, float]:
        """Its next message, and the seconds of patience that are left: waiting for it is all that costs any.

        Raises:
            Lost: When it is dead or ``stopped`` says so.
            Overdue: When the patience is over.
        """
        begun = time.monotonic()
        try:
            while not self._connection.poll(0.2):
                if stopped():
                    raise Lost("stopped")
                if time.monotonic() - begun > patience:
                    raise Overdue("does not answer")
            return self._connection.recv_bytes(), patience - (time.monotonic() - begun)
        except BlockingIOError:
            raise Lost("stopped in the middle of a message") from None
        except (EOFError, OSError):
            raise self._death() from None

    def stderr_tail(self) -> str:
        """The last of what it wrote during its task."""
        self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, self._stderr.tell() - STDERR_KEPT))
        return self._stderr.read().decode(errors="replace").strip()

    def end(self) -> None:
        """End the process, whatever it is doing; it may have ended before."""
        self._process.kill()
        self._process.wait()
        self._connection.close()
        self._stderr.close()

    def _death(self) -> Lost:
        try:
            code = self._process.wait(timeout=5.0)
        except subprocess.TimeoutExpired:
            return Lost("closed its connection")
        if code >= 0:
            return Lost(f"ended with status {code}")
        name = signal.Signals(-code).name
        return Lost(f"died of {name}", name)


def end_with_parent() -> None:
    """In a child: also hung inside a library it does not outlive its parent, where the system is Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def serve(answer: Callable[[Connection, dict], bool], memory_bytes: int) -> None:
    """The child's side: answer tasks, until the parent closes the connection or an answer is false.

    The connection's descriptor is the first argument of the process. It ends with its parent and leaves Ctrl-C to it.
    """
    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_DATA, (memory_bytes, memory_bytes))
    connection = Connection(int(sys.argv[1]))
    while True:
        try:
            task = json.loads(connection.recv_bytes())
        except EOFError:
            return
        if not answer(connection, task):
            return


def send_message(connection: Connection, **message: object) -> None:
    """One JSON message."""
    connection.send_bytes(json.dumps(message).encode())
