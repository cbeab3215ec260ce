"""Compiled trainings: what plain ones learn, the same bits alone, beside others and after an interruption."""

import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import contents, settings_of, stop_at
from test_fit import COUNTS, bits, make_clips
from torch import nn
from torch._dynamo.backends.common import aot_autograd
from torch._dynamo.utils import counters
from torch._functorch._aot_autograd.utils import make_boxed_func
from torch._inductor.utils import get_first_incompatible_cudagraph_node
from torch.fx import GraphModule
from typer.testing import CliRunner

from longreel.balance import METHODS
from longreel.cli import app
from longreel.errors import EnvironmentFault, LongreelError, RunMismatch
from longreel.experiments.arithmetic import PRECISIONS, products_in
from longreel.experiments.checkpoint import Progress
from longreel.experiments.compiling import Compiled, compiling
from longreel.experiments.fit import fit_together
from longreel.experiments.optimisation import FitSettings
from longreel.experiments.settings import describe
from longreel.experiments.train import train_run
from longreel.experiments.training import Course
from longreel.heads import Nonlinear, build_head
from longreel.heads.dropout import Dropout

PLAIN_HEADS = (
    "linear",
    "cosine",
    "nonlinear:hidden=8",
    "netvlad:clusters=2,hidden=8",
    "msa:heads=2",
    "attentive:heads=2",
)
pytestmark = [
    pytest.mark.usefixtures("one_thread"),
    # where torch compiles, it warns of parts of its own
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf Tensor:UserWarning"),
    pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++"),
]


@pytest.fixture
def graphs():
    """How many graphs were compiled since."""
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


def keeping(graphs: list[GraphModule]) -> Callable[..., Any]:
    """A backend that runs graphs, those of gradients too, by torch's own kernels and keeps them."""

    def keep(graph: GraphModule, _: object) -> Callable[..., Any]:
        graphs.append(graph)
        return make_boxed_func(graph.forward)

    return aot_autograd(fw_compiler=keep, bw_compiler=keep)


@pytest.mark.parametrize("text", [*PLAIN_HEADS, "aggregated:clusters=2,reduced=8,hidden=8"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_every_head_is_one_graph_with_the_same_vectors_scores_and_gradients(text, precision, monkeypatch):
    """The graph as torch traces it: what is made of it takes long, and others test it."""
    compile_, graphs = torch.compile, []
    monkeypatch.setattr(torch, "compile", lambda call, mode, **more: compile_(call, backend=keeping(graphs), **more))
    plain, copy = (make_course(text, "ce", Path(), compiled=True).head.train() for _ in range(2))
    for dropout in [each for head in (plain, copy) for each in head.modules() if isinstance(each, nn.Dropout)]:
        dropout.p = 0.0
    generator = torch.Generator().manual_seed(0)
    rows, mask = torch.randn(6, 5, 4, generator=generator), torch.rand(2, 6, 5, generator=generator) < 0.6
    mask[..., 0] = True
    found = []
    with compiling(True), products_in(precision, rows.device):
        for head in (plain, Compiled(copy)):
            pooled = head.aggregate(rows, mask)
            scores = head.classify(pooled)
            scores.float().square().sum().backward()
            found.append([pooled.detach(), scores.detach()])
    rtol, atol = (1e-4, 1e-5) if precision == "float32" else (0.05, 0.05)
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one, rtol=rtol, atol=atol)
    for one, other in zip(plain.parameters(), copy.parameters(), strict=True):
        scale = 1.0 if one.grad is None else float(one.grad.abs().max()) or 1.0
        assert (one.grad is None) == (other.grad is None)
        if one.grad is not None and other.grad is not None:
            torch.testing.assert_close(other.grad / scale, one.grad / scale, rtol=rtol, atol=atol)
    assert len(graphs) >= 3  # of scores and their gradients, and of vectors, with gradients where they are learnt
    assert [get_first_incompatible_cudagraph_node(graph) for graph in graphs] == [None] * len(graphs)


def test_what_a_cuda_graph_cannot_hold_is_noticed():
    graphs: list[GraphModule] = []
    with torch._dynamo.config.patch(capture_dynamic_output_shape_ops=True):
        torch.compile(lambda rows: rows[rows > 0], backend=keeping(graphs))(torch.randn(4))
    assert [get_first_incompatible_cudagraph_node(graph) for graph in graphs] != [None] * len(graphs)


def test_compiled_dropout_keeps_the_share_it_is_to_keep():
    head = build_head("nonlinear:hidden=64,dropout=0.3", 4, 3, torch.zeros(4), torch.ones(4)).train()
    with torch.no_grad(), compiling(True):
        inner = head.head
        assert isinstance(inner, Nonlinear)
        inner.hidden.weight.zero_()
        inner.hidden.bias.fill_(1.0)
        rows = Compiled(head).aggregate(torch.zeros(500, 1, 4))  # one frame: each hidden number is 0 or 1 / 0.7
    assert sorted({round(value, 4) for value in rows.flatten().tolist()}) == [0.0, round(1 / 0.7, 4)]
    assert float((rows > 0).float().mean()) == pytest.approx(0.7, abs=5 * math.sqrt(0.21 / rows.numel()))


def test_more_shapes_than_torch_compiles_by_itself_are_all_compiled(graphs):
    head = build_head("linear", 4, 3, torch.zeros(4), torch.ones(4))
    with compiling(True):
        compiled = Compiled(head)
        for clips in range(2, 14):
            rows = torch.randn(clips, 3, 4)
            torch.testing.assert_close(compiled.classify(compiled.aggregate(rows)), head(rows))
    assert graphs() == 24


def test_beyond_the_limit_nothing_goes_on_uncompiled(monkeypatch):
    monkeypatch.setattr("longreel.experiments.compiling.VARIANTS", 2)
    compiled = Compiled(build_head("linear", 4, 3, torch.zeros(4), torch.ones(4)))
    with compiling(True):
        for clips in (2, 3):
            compiled.aggregate(torch.randn(clips, 3, 4))
        with pytest.raises(EnvironmentFault, match="compiled: the head cannot be compiled here"):
            compiled.aggregate(torch.randn(4, 3, 4))


@pytest.mark.parametrize("head", ["knn", "gcn-lite"])
def test_heads_that_are_not_made_for_it_are_refused(head, made, tmp_path):
    with pytest.raises(LongreelError, match=f"compiled: {head} is not made for it"):
        train_run(tmp_path / "run", replace(settings_of(made, compiled=True), head=head))
    assert not (tmp_path / "run").exists()


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


def test_the_command_notes_that_it_compiled_and_says_where_it_cannot(made, tmp_path):
    words = [
        "train",
        made.store,
        made.manifest,
        "--head",
        "linear",
        "--epochs",
        "2",
        "--threads",
        "1",
        "--compiled",
        "--out",
    ]
    done = CliRunner().invoke(app, [*map(str, words), str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    assert json.loads((tmp_path / "run" / "config.json").read_text())["fit"]["compiled"] is True
    environment = os.environ | {"CXX": "no-such-compiler", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "longreel.cli", *map(str, words), str(tmp_path / "other")]
    failed = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert failed.returncode == 5
    assert "error: compiled: the head cannot be compiled here (" in failed.stderr
    assert "It takes a C++ compiler, g++ or what CXX names" in failed.stderr
    assert "Traceback" not in failed.stderr
    # where it can be compiled, the same command goes on
    done = CliRunner().invoke(app, [*map(str, words), str(tmp_path / "other")])
    assert done.exit_code == 0, done.output


def test_a_plain_run_is_described_and_named_as_before_heads_were_compiled(made, tmp_path):
    plain, compiled = (settings_of(made, compiled=each) for each in (False, True))
    assert "compiled" not in describe(plain)["fit"]
    assert describe(compiled)["fit"]["compiled"] is True
    train_run(tmp_path / "run", plain)
    with pytest.raises(RunMismatch, match=r"fit\.compiled is None there, True now"):
        train_run(tmp_path / "run", compiled)
