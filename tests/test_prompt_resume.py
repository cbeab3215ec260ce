"""kill -9 at random moments while prompts are written: nothing is paid for twice, and the prompts are the same."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from small_llm_server import SmallServer, small_server, wait_until
from small_prompts import read_lines, texts, write, write_manifest

KILLS = 18
PARALLEL = 3
COUNTS = {f"action {letter}": 1 + place for place, letter in enumerate("abcde")}

#: Imports once, then forks a child for each command on stdin; prints its pid, and on the next line how it ended. A
#: child that has ended is not reaped before, so that its pid is nobody else's while it may be killed.
FORKER = """
import json, os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts behind itself ignores it
import openai, openai.resources.chat.completions
import longreel.generate.profiles, longreel.generate.server, longreel.generate.prompts, longreel.generate.handwritten
from small_prompts import app
print("ready", flush=True)
for line in sys.stdin:
    child = os.fork()
    if not child:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        try:
            app(json.loads(line))
        except SystemExit as ended:
            os._exit(ended.code or 0)
        os._exit(99)
    print("pid", child, flush=True)
    sys.stdin.readline()
    print("ended", os.waitpid(child, 0)[1], flush=True)
"""


class Writer:
    """A process that writes prompts in children of its own, one at a time."""

    def __init__(self) -> None:
        command = [sys.executable, "-c", FORKER]
        where = Path(__file__).parent
        self.process = subprocess.Popen(command, cwd=where, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.orders, self.answers = self.process.stdin, self.process.stdout

    def begin(self, *words: object) -> int:
        return self._tell(json.dumps(["prompts", *map(str, words)]), "pid")

    def end(self) -> int:
        """The child's exit code, negative for a signal."""
        return os.waitstatus_to_exitcode(self._tell("end", "ended"))

    def _tell(self, order: str, expected: str) -> int:
        self.orders.write(order + "\n")
        self.orders.flush()
        name, number = self.answers.readline().split()
        assert name == expected
        return int(number)


@pytest.fixture
def writer():
    started = Writer()
    with started.process:
        assert started.answers.readline() == "ready\n"
        yield started
        started.orders.close()


@pytest.fixture
def server():
    with small_server(delay=0.01) as running:
        yield running


def words(server: SmallServer, manifest: Path, gen: Path, source: str) -> list:
    """A command of some dozens of calls."""
    more = ["--from", source, "--exemplars", 0, "--profiles", 2, "--per-call", 5, "--parallel", PARALLEL]
    return [manifest, gen, "--fill", 24, "--llm-url", server.url, "--llm-model", "small", *more]


@pytest.mark.parametrize("source", ["profiles", "enhanced"])
def test_prompts_killed_at_random_moments_are_the_same_and_paid_for_once(source, server, writer, tmp_path):
    manifest, chance = write_manifest(tmp_path / "data", COUNTS), random.Random(source)
    writer.begin(*words(server, manifest, tmp_path / "straight", source))
    assert writer.end() == 0
    straight, calls = (tmp_path / "straight" / "prompts.jsonl").read_bytes(), len(server.paid)
    kills, rounds, stages = 0, 0, set()

    def goes_on() -> bool:  # on a busy machine kills come late, and more of them are needed to see it all
        return kills < KILLS or (kills < 5 * KILLS and not many_stages(stages))

    while goes_on():  # a run that ends before its kill is looked at, and the next begins in a folder of its own
        gen, under_way, ended, rounds = tmp_path / f"killed{rounds}", Counter(), -signal.SIGKILL, rounds + 1
        with server.lock:
            server.asked.clear()
        while ended != 0:
            pid = writer.begin(*words(server, manifest, gen, source))
            if goes_on():
                kill_later(pid, server, chance)
            ended = writer.end()
            assert ended in (0, -signal.SIGKILL)
            kills += ended != 0
            time.sleep(0.05)  # the server ends what it has begun
            lost = unkept(server, gen)
            assert sum((lost - under_way).values()) <= (PARALLEL if ended else 0)
            under_way = lost
            stages.add((len(read_whole(gen / "responses.jsonl")), len(read_whole(gen / "prompts.jsonl"))))
        paid = Counter(asked.digest for asked in server.paid)
        assert len(paid) == calls
        assert all(count <= 1 + under_way[digest] for digest, count in paid.items())
        assert (gen / "prompts.jsonl").read_bytes() == straight
    assert many_stages(stages)


def many_stages(stages: set[tuple[int, int]]) -> bool:
    """Whether kills came at many different numbers of answers and of prompts."""
    answers, prompts = ({stage[place] for stage in stages} for place in (0, 1))
    return len(answers) >= 6 and len(prompts) >= 3


def kill_later(pid: int, server: SmallServer, chance: random.Random) -> None:
    """SIGKILL the process a while after some more requests, or after it has ended."""
    count = len(server.asked) + chance.randint(0, 4)
    alive = Path(f"/proc/{pid}/exe")
    wait_until(lambda: len(server.asked) >= count or not alive.exists())
    time.sleep(chance.uniform(0, 0.03))
    os.kill(pid, signal.SIGKILL)


def read_whole(path: Path) -> list[str]:
    return path.read_text().split("\n")[:-1] if path.exists() else []


def unkept(server: SmallServer, gen: Path) -> Counter:
    """Requests that were answered but whose answer is in no whole line of the folder: digest -> how many answers."""
    kept = "\n".join(read_whole(gen / "responses.jsonl"))
    return Counter(asked.digest for asked in server.paid if asked.reply_id not in kept)


def test_an_interrupted_run_ends_at_a_second_signal_whatever_the_server_does(server, writer, tmp_path):
    manifest, gen = write_manifest(tmp_path / "data", COUNTS), tmp_path / "gen"
    server.delay = 60.0
    pid = writer.begin(*words(server, manifest, gen, "profiles"))
    assert wait_until(lambda: bool(server.asked))
    began = time.monotonic()
    os.kill(pid, signal.SIGINT)
    time.sleep(1.0)
    os.kill(pid, signal.SIGINT)
    assert writer.end() == 130
    assert time.monotonic() - began < 8


def test_a_run_interrupted_by_the_keyboard_keeps_what_came(server, writer, tmp_path):
    manifest, gen = write_manifest(tmp_path / "data", COUNTS), tmp_path / "gen"
    server.delay = 0.05
    pid = writer.begin(*words(server, manifest, gen, "profiles"))
    assert wait_until(lambda: len(server.paid) > 5)
    os.kill(pid, signal.SIGINT)
    assert writer.end() == 130
    assert not unkept(server, gen)
    done = len(server.paid)
    server.delay = 0.0
    more = words(server, manifest, gen, "profiles")
    ended = write(manifest, gen, 24, *more[4:])
    assert ended.code == 0
    assert len({asked.digest for asked in server.paid}) == len(server.paid) > done
    assert {label: len(prompts) for label, prompts in texts(gen).items()} == {
        label: 24 - count for label, count in COUNTS.items()
    }
    assert len(read_lines(gen, "responses.jsonl")) == len(server.paid)
