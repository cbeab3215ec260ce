"""A run that is interrupted, anywhere and however often, ends in the bits of one that was not."""

import itertools
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from safetensors import safe_open
from small_runs import FILES, RESULTS, contents, settings_of, stop_at
from test_fit import make_head, run_fit

from longreel.errors import InUse, RunMismatch
from longreel.experiments.train import train_run

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_run_interrupted_again_and_again_ends_in_the_same_bits(made, tmp_path):
    settings = settings_of(made, frames=3, checkpoint_seconds=0)
    train_run(tmp_path / "straight", settings)
    for stop in (1, 2, 2, 4):  # an epoch is saved behind its `on_epoch`
        with pytest.raises(KeyboardInterrupt):
            train_run(tmp_path / "run", settings, on_epoch=stop_at(stop))
    seen: list[int] = []
    train_run(tmp_path / "run", settings, on_epoch=lambda row: seen.append(row["epoch"]))
    assert seen == [4]
    assert contents(tmp_path / "run") == contents(tmp_path / "straight")


def test_the_time_of_a_training_goes_on_where_it_was_interrupted(made, tmp_path, monkeypatch):
    clock = SimpleNamespace(monotonic=itertools.count().__next__)  # an epoch looks at it twice
    monkeypatch.setattr("longreel.experiments.fit.time", clock)
    with pytest.raises(KeyboardInterrupt):
        train_run(tmp_path / "run", settings_of(made, checkpoint_seconds=0), on_epoch=stop_at(3))
    train_run(tmp_path / "run", settings_of(made, checkpoint_seconds=0))
    assert json.loads((tmp_path / "run" / "provenance.json").read_text())["training_seconds"] == 4.0  # epochs


@pytest.mark.parametrize("name", [*RESULTS, "provenance.json", "result.json"])
def test_a_run_that_broke_off_while_its_results_were_written_is_finished_later(name, made, tmp_path, monkeypatch):
    from longreel import durable

    train_run(tmp_path / "straight", settings_of(made, checkpoint_seconds=0))
    publish = durable.publish

    def break_off(temporary: Path, final: Path) -> None:
        if final.name == name:
            raise KeyboardInterrupt
        publish(temporary, final)

    with monkeypatch.context() as patch:
        patch.setattr(durable, "publish", break_off)
        with pytest.raises(KeyboardInterrupt):
            train_run(tmp_path / "run", settings_of(made, checkpoint_seconds=0))
    assert not (tmp_path / "run" / "result.json").exists()
    train_run(tmp_path / "run", settings_of(made, checkpoint_seconds=0))
    assert contents(tmp_path / "run") == contents(tmp_path / "straight")
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_what_a_killed_run_left_behind_is_cleared_away_by_the_next_call(made, tmp_path):
    folder = tmp_path / "run"
    train_run(folder, settings_of(made, epochs=1))
    (folder / "checkpoint.safetensors").write_bytes(b"killed between result.json and the removal")
    (folder / ".checkpoint.safetensors.123.tmp").write_bytes(b"killed while writing")
    train_run(folder, settings_of(made, epochs=1))
    assert {path.name for path in folder.iterdir()} == FILES


#: Imports once, then forks a child for each line of stdin that trains; prints its pid, and how it ended.
SERVER = """
import os, sys, torch
from pathlib import Path
from longreel.experiments.optimisation import FitSettings
from longreel.experiments.settings import TrainSettings
from longreel.experiments.train import train_run
torch.set_num_threads(1)
torch.optim.AdamW([torch.zeros(1)]).step()  # imports the rest of torch
print("ready", flush=True)
for line in sys.stdin:
    folder, store, manifest, epochs = line.rstrip("\\n").split("\\t")
    child = os.fork()
    if not child:
        fit = FitSettings(epochs=int(epochs), batch_size=8, frames=3, checkpoint_seconds=0)
        train_run(Path(folder), TrainSettings(Path(store), Path(manifest), groups="5,10", fit=fit))
        os._exit(0)
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""


class Trainer:
    """A process that trains in children of its own, one at a time."""

    def __init__(self) -> None:
        command = [sys.executable, "-P", "-c", SERVER]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.orders, self.answers = self.process.stdin, self.process.stdout

    def begin(self, made, folder: Path, epochs: int) -> int:
        """Start a training in a child; gives its pid."""
        self.orders.write("\t".join(map(str, (folder, made.store, made.manifest, epochs))) + "\n")
        self.orders.flush()
        return int(self.answers.readline())

    def end(self) -> int:
        """Wait for the child; its exit code, negative for a signal."""
        return os.waitstatus_to_exitcode(int(self.answers.readline()))


@pytest.fixture(scope="module")
def trainer():
    started = Trainer()
    with started.process:
        assert started.answers.readline() == "ready\n"
        yield started


def await_next(checkpoint: Path, before: int, pid: int) -> None:
    """Wait until the process has written a checkpoint after the one of this time, or has ended."""
    while read_time(checkpoint) <= before and Path(f"/proc/{pid}/exe").exists():
        time.sleep(0.005)


def read_time(path: Path) -> int:
    return path.stat().st_mtime_ns if path.exists() else 0


def test_a_run_killed_at_random_moments_ends_in_the_same_bits(made, tmp_path, trainer):
    epochs, dice, killed, saved = 60, random.Random(0), 0, [0]
    checkpoint = tmp_path / "run" / "checkpoint.safetensors"
    began = time.monotonic()
    trainer.begin(made, tmp_path / "straight", epochs)
    assert trainer.end() == 0
    whole = time.monotonic() - began
    for number in range(5):
        before = read_time(checkpoint)
        pid = trainer.begin(made, tmp_path / "run", epochs)
        if number != 2:  # that one is killed anywhere from its start on
            await_next(checkpoint, before, pid)
        time.sleep(dice.uniform(0, 0.1) * whole)
        os.kill(pid, signal.SIGKILL)
        killed += trainer.end() == -signal.SIGKILL
        if checkpoint.exists():
            with safe_open(checkpoint, framework="numpy") as file:
                saved.append(json.loads(file.metadata()["progress"])["epoch"])
    assert killed >= 3
    assert saved == sorted(saved)
    assert 0 < saved[-1]
    trainer.begin(made, tmp_path / "run", epochs)
    assert trainer.end() == 0
    assert contents(tmp_path / "run") == contents(tmp_path / "straight")
    assert len(contents(tmp_path / "run")) == len(RESULTS)


def test_a_folder_in_which_another_process_trains_is_refused_until_that_ends(made, tmp_path, trainer):
    pid = trainer.begin(made, tmp_path / "run", 100_000)
    while not (tmp_path / "run" / "checkpoint.safetensors").exists():
        os.kill(pid, 0)
        time.sleep(0.02)
    with pytest.raises(InUse, match=f"run is in use by process {pid} on ") as caught:
        train_run(tmp_path / "run", settings_of(made))
    assert caught.value.exit_code == 2
    os.kill(pid, signal.SIGKILL)
    assert trainer.end() == -signal.SIGKILL
    with pytest.raises(RunMismatch, match="holds another run"):  # the lock went with its holder
        train_run(tmp_path / "run", settings_of(made))


@pytest.mark.parametrize(("saving", "saved"), [(0.0, [2, 4, 6, 8, 10]), (0.25, [2, 7])])
def test_checkpoints_that_take_long_are_written_less_often(saving, saved, tmp_path, monkeypatch):
    """Two seconds apart, epochs of one second; the clock is the test's."""
    clock, epochs = [0.0], []
    monkeypatch.setattr("longreel.experiments.training.time.monotonic", lambda: clock[0])

    def save(*_: object) -> None:
        epochs.append(round(clock[0]))
        clock[0] += saving

    def pass_a_second(row: dict) -> None:
        clock[0] = row["epoch"] + saving * len(epochs)

    monkeypatch.setattr("longreel.experiments.training.save_checkpoint", save)
    run_fit(make_head(), tmp_path, epochs=11, checkpoint_seconds=2, on_epoch=pass_a_second)
    assert epochs == saved
