"""Compiled trainings: what plain ones learn, the same bits alone, beside others and after an interruption."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from small_runs import contents, settings_of, stop_at
from test_fit import COUNTS, bits, make_clips
from torch._dynamo.utils import counters
from typer.testing import CliRunner

from longreel.balance import METHODS
from longreel.cli import app
from longreel.errors import RunMismatch
from longreel.experiments.compiling import Compiled
from longreel.experiments.fit import fit_together
from longreel.experiments.optimisation import FitSettings
from longreel.experiments.train import train_run
from longreel.experiments.training import Course, Progress
from longreel.heads import build_head
from longreel.heads.dropout import Dropout

pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("default"),  # torch.compile warns of itself
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++"),
]


@pytest.fixture
def graphs():
    """How many graphs were compiled since."""
    torch.compiler.reset()
    counters.clear()
    return lambda: counters["stats"]["unique_graphs"]


def make_course(text: str, method: str, folder: Path, *, compiled: bool, rate: float = 0.01) -> Course:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        head = build_head(text, 4, 3, torch.zeros(4), torch.ones(4))
    settings = FitSettings(epochs=4, batch_size=8, learning_rate=rate, compiled=compiled)
    return Course(head, METHODS[method], settings, folder / "none.safetensors")


def train(*courses: Course) -> list[Progress]:
    found = fit_together(courses, COUNTS, make_clips(1), make_clips(2, noise=1.5))
    assert all(isinstance(progress, Progress) for progress in found)
    return [progress for progress in found if isinstance(progress, Progress)]


@pytest.mark.parametrize(
    ("head", "method"),
    [
        ("linear", "crt"),
        ("nonlinear:hidden=8", "framestack"),
        ("aggregated:clusters=2,reduced=8,hidden=8", "move"),
    ],
)
def test_it_learns_what_a_plain_training_learns(head, method, tmp_path):
    plain, compiled = (make_course(head, method, tmp_path, compiled=each) for each in (False, True))
    for dropout in [
        each for course in (plain, compiled) for each in course.head.modules() if isinstance(each, Dropout)
    ]:
        dropout.p = 0.0
    (expected,), (found,) = train(plain), train(compiled)
    for mine, other in zip(found.history, expected.history, strict=True):
        assert mine == pytest.approx(other, rel=1e-3)
    for name, tensor in plain.head.state_dict().items():
        torch.testing.assert_close(compiled.head.state_dict()[name], tensor, rtol=1e-3, atol=1e-4)


def test_each_shape_is_compiled_once_for_all_heads_and_epochs(graphs, tmp_path):
    rates = (0.01, 0.02, 0.03)
    courses = [make_course("nonlinear:hidden=8", "ce", tmp_path, compiled=True, rate=rate) for rate in rates]
    train(*courses)
    assert graphs() == 4  # aggregate and classify, of batches of 8 and of 5; clips of one to five rows are padded alike
    assert len({str(bits(course.head)) for course in courses}) == 3


def test_more_shapes_than_torch_compiles_by_itself_are_all_compiled(graphs):
    head = build_head("linear", 4, 3, torch.zeros(4), torch.ones(4))
    compiled = Compiled(head)
    for clips in range(2, 14):
        rows = torch.randn(clips, 3, 4)
        torch.testing.assert_close(compiled.classify(compiled.aggregate(rows)), head(rows))
    assert graphs() == 24


def test_beside_others_it_has_the_bits_it_has_alone(tmp_path):
    def make() -> list[Course]:
        kinds = (("nonlinear:hidden=8", True), ("nonlinear:hidden=8", False), ("linear", True))
        return [make_course(text, "mixup", tmp_path, compiled=compiled) for text, compiled in kinds]

    together = make()
    train(*together)
    for alone, beside in zip(make(), together, strict=True):
        train(alone)
        assert bits(alone.head) == bits(beside.head)
    assert bits(together[0].head) != bits(together[1].head)


def test_interrupted_it_ends_in_the_same_bits(made, tmp_path):
    settings = settings_of(made, compiled=True, checkpoint_seconds=0)
    train_run(tmp_path / "straight", settings)
    with pytest.raises(KeyboardInterrupt):
        train_run(tmp_path / "run", settings, on_epoch=stop_at(2))
    train_run(tmp_path / "run", settings)
    assert contents(tmp_path / "run") == contents(tmp_path / "straight")


def test_the_command_says_what_is_missing_and_notes_that_it_compiled(made, tmp_path, monkeypatch):
    words = ["train", made.store, made.manifest, "--head", "linear", "--epochs", "2", "--compile", "--out"]
    done = CliRunner().invoke(app, [*map(str, words), str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    assert '"compiled": true' in (tmp_path / "run" / "config.json").read_text()
    monkeypatch.setenv("CXX", "no-such-compiler")
    done = CliRunner().invoke(app, [*map(str, words), str(tmp_path / "other")])
    assert done.exit_code == 5
    assert "there is no no-such-compiler. Install a C++ compiler" in done.stderr
    assert not (tmp_path / "other").exists()


def test_a_run_from_before_heads_were_compiled_is_a_plain_one(made, tmp_path):
    train_run(tmp_path / "run", settings_of(made))
    path = tmp_path / "run" / "config.json"
    config = json.loads(path.read_text())
    del config["fit"]["compiled"]
    path.write_text(json.dumps(config))
    with pytest.raises(RunMismatch, match="compiled is False there, True now"):
        train_run(tmp_path / "run", settings_of(made, compiled=True))
    assert train_run(tmp_path / "run", settings_of(made)).folder == tmp_path / "run"
