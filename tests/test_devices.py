"""Which device trains, and trainings on a device of the tests' own."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from longreel.cli import app
from longreel.errors import EnvironmentFault


def test_trainings_on_a_second_device_pass_their_tests():
    """``far_trainings.py``, in a process of its own: a device that PyTorch was told of stays for good."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "far_trainings.py"]
    done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-5000:]
    assert int(done.stdout.split(" passed")[0].split()[-1]) > 80


def test_a_gpu_that_is_not_there_is_said_in_one_line(made, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is one")
    words = ["train", made.store, made.manifest, "--out", tmp_path / "run", "--device"]
    done = CliRunner().invoke(app, [*map(str, words), "cuda"])
    assert isinstance(done.exception, EnvironmentFault) or "torch finds no GPU" in done.stderr
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    assert "no device called 'gpu'" in CliRunner().invoke(app, [*map(str, words), "gpu"]).stderr
