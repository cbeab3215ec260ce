"""Which device trains, and trainings on a device of the tests' own."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_runs import settings_of
from typer.testing import CliRunner

from longreel.cli import app
from longreel.devices import keep_convolutions_exact, send
from longreel.errors import EnvironmentFault
from longreel.experiments.arithmetic import usual_precision
from longreel.experiments.train import train_run


def test_trainings_on_a_second_device_pass_their_tests():
    """``far_trainings.py``, in a process of its own: a device that PyTorch was told of stays for good."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "far_trainings.py"]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-5000:]
    assert int(done.stdout.split(" passed")[0].split()[-1]) > 120


def test_numbers_are_sent_to_a_gpu_from_pinned_memory_and_not_waited_for():
    """What PyTorch is asked, as there is no GPU to look at."""

    class Numbers:
        device, asked = torch.device("cpu"), []

        def pin_memory(self) -> "Numbers":
            self.asked.append("pinned")
            return self

        def to(self, device: torch.device, non_blocking: bool) -> None:
            self.asked.append((device.type, non_blocking))

    send(Numbers(), torch.device("cuda"))  # pyright: ignore[reportArgumentType]
    assert Numbers.asked == ["pinned", ("cuda", True)]


def test_what_comes_back_to_the_cpu_is_waited_for():
    numbers = torch.ones(2)
    assert send(numbers, torch.device("cpu")) is numbers
    asked = []
    numbers.to = lambda device, non_blocking: asked.append(non_blocking)  # pyright: ignore[reportAttributeAccessIssue]
    send(numbers, torch.device("cpu"))
    assert asked == [False]


@pytest.mark.parametrize(("device", "exact"), [("cuda", True), ("cpu", False)])
def test_convolutions_of_a_gpu_are_exact_and_the_same_in_each_run(device, exact, monkeypatch):
    cudnn = torch.backends.cudnn
    monkeypatch.setattr(cudnn, "allow_tf32", True)
    monkeypatch.setattr(cudnn, "deterministic", False)
    keep_convolutions_exact(torch.device(device))
    assert (cudnn.allow_tf32, cudnn.deterministic) == (not exact, exact)


def test_a_full_memory_of_a_gpu_is_said_in_one_line(made, tmp_path, monkeypatch):
    def fill(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr("longreel.experiments.training.Training.step", fill)
    words = ["train", made.store, made.manifest, "--out", tmp_path / "run"]
    done = CliRunner().invoke(app, [*map(str, words)])
    assert done.exit_code == 5
    said = " ".join(done.stderr.split())
    assert "cpu: the device's memory is full (CUDA out of memory). Take smaller batches, fewer trainings" in said


def test_trainings_keep_convolutions_exact_on_their_device(made, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("longreel.experiments.train.keep_convolutions_exact", asked.append)
    train_run(tmp_path / "run", settings_of(made))
    assert asked == [torch.device("cpu")]


@pytest.mark.parametrize("made_for_it", [True, False])
def test_a_gpu_made_for_it_computes_in_bfloat16_unless_told(made_for_it, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: made_for_it)
    assert usual_precision(torch.device("cuda")) == ("bfloat16" if made_for_it else "float32")
    assert usual_precision(torch.device("cpu")) == "float32"


def test_a_gpu_that_is_not_there_is_said_in_one_line(made, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    words = ["train", made.store, made.manifest, "--out", tmp_path / "run", "--device"]
    done = CliRunner().invoke(app, [*map(str, words), "cuda"])
    assert isinstance(done.exception, EnvironmentFault) or "torch finds no GPU" in done.stderr
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    assert "no device called 'gpu'" in CliRunner().invoke(app, [*map(str, words), "gpu"]).stderr
