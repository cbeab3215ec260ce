"""Trainings on a second device, which refuses to compute with what is not there: the bits of the CPU.

Run by ``test_devices.py`` in a process of its own, since a device cannot be closed again.
"""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_device import MAIN, Far, Stream, open_far, waits
from small_recordings import write_hdf5
from small_runs import contents, settings_of, stop_at
from test_fit import ORDINARY
from typer.testing import CliRunner

from longreel.balance import LOSSES, METHODS, Method, Stage, choose_method
from longreel.cli import app
from longreel.devices import send
from longreel.errors import LongreelError
from longreel.experiments.checkpoint import Progress
from longreel.experiments.clips import ClipSet, load_clips
from longreel.experiments.drawn import Drawn
from longreel.experiments.fit import fit_together
from longreel.experiments.optimisation import FitSettings
from longreel.experiments.runs import read_scores
from longreel.experiments.settings import TrainSettings
from longreel.experiments.train import Member, Trained, train_run, train_together
from longreel.experiments.training import Course, Training
from longreel.heads import build_head
from longreel.heads.dropout import Dropout
from longreel.layouts import LAYOUTS, Layout
from longreel.manifest import read_manifest
from longreel.store import FeatureStore

pytestmark = pytest.mark.usefixtures("one_thread")
HEADS = (
    *("linear", "cosine", "nonlinear:hidden=8", "nonlinear-early:hidden=8", "knn:neighbours=3"),
    *(
        "netvlad:clusters=3,hidden=5",
        "netvlad:clusters=3,hidden=5,codebook=kmeans",
        "netvlad-gated:clusters=3,hidden=5",
    ),
    *("psa:heads=2,hidden=8", "msa:heads=2,hidden=8", "attentive:heads=2"),
    "aggregated:clusters=3,reduced=4,heads=2,hidden=8",
)


@pytest.fixture
def no_dropout(monkeypatch):
    """Dropout draws otherwise on a CPU than elsewhere."""
    monkeypatch.setattr(Dropout, "forward", lambda self, input: input)


@pytest.fixture(scope="module")
def far():
    return open_far()


def strip(config: str) -> dict:
    return {key: value for key, value in json.loads(config).items() if key != "device"}


def assert_trained_alike(settings, far, tmp_path) -> None:
    train_run(tmp_path / "near", settings)
    train_run(tmp_path / "far", settings, device=far)
    near, there = (contents(tmp_path / place) for place in ("near", "far"))
    scored = [each.pop("scores-val.safetensors", None) for each in (near, there)]
    assert there == near
    if scored[0] is not None:
        scored = [read_scores(tmp_path / place / "scores-val.safetensors")[0] for place in ("near", "far")]
        np.testing.assert_allclose(scored[1], scored[0], rtol=0, atol=1e-6)  # attention is computed in another way
    configs = [(tmp_path / place / "config.json").read_text() for place in ("near", "far")]
    assert strip(configs[0]) == strip(configs[1])
    assert ["device" in json.loads(config) for config in configs] == [False, True]


def test_the_device_refuses_to_mix(far):
    there = torch.ones(3).to(far)
    assert isinstance(there + 1, Far)
    assert (there * 2).cpu().tolist() == [2, 2, 2]
    with pytest.raises(RuntimeError, match="of tensors on far and on the CPU"):
        _ = there + torch.ones(3)
    with pytest.raises(RuntimeError, match="of tensors on far and on the CPU"):
        _ = there[torch.tensor([0, 1])]


@pytest.mark.parametrize("head", HEADS)
def test_every_head_is_trained_there(head, made, far, no_dropout, tmp_path):
    assert_trained_alike(replace(settings_of(made), head=head), far, tmp_path)


@pytest.mark.parametrize("name", ORDINARY)
def test_every_method_is_trained_there(name, made, far, no_dropout, tmp_path):
    settings = replace(settings_of(made, balance=name, frames=3), head="nonlinear:hidden=8")
    assert_trained_alike(settings, far, tmp_path)


@pytest.mark.parametrize("released", ["framestack", "move"])
def test_released_forms_are_trained_there(released, made, far, no_dropout, tmp_path):
    head = "aggregated:clusters=3,reduced=4,heads=2,hidden=8"
    assert_trained_alike(replace(settings_of(made, balance=released), head=head, compat="released"), far, tmp_path)


@pytest.mark.parametrize("balance", ["brl", "temporal-reverse"])
@pytest.mark.parametrize("head", ["gcn-lite:frames=3,stream=bone-motion", "joint-mlp:frames=3"])
def test_skeletons_are_trained_there(head, balance, far, no_dropout, tmp_path):
    write_hdf5(tmp_path / "a.h5", 14)
    words = ["import-skeletons", tmp_path / "a.h5", tmp_path / "s", "--manifest", tmp_path / "c.csv"]
    assert CliRunner().invoke(app, list(map(str, words))).exit_code == 0
    fit = FitSettings(epochs=4, batch_size=8)
    settings = TrainSettings(tmp_path / "s", tmp_path / "c.csv", head=head, balance=balance, fit=fit)
    assert_trained_alike(settings, far, tmp_path)


@pytest.mark.parametrize("place", ["auto", "memory", "disk"])
def test_features_are_there_or_come_batch_by_batch(place, made, far, tmp_path):
    said = []
    settings = settings_of(made, frames=3)
    train_run(tmp_path / "near", replace(settings, head="linear"))
    train_run(tmp_path / "far", replace(settings, head="linear"), device=far, place=place, on_data=said.append)
    assert said == ["far" if place == "auto" else place]
    assert contents(tmp_path / "far") == contents(tmp_path / "near")


def test_batches_are_sent_there_while_it_computes(far):
    layout, drawn = LAYOUTS["kinect20"], torch.arange(16).split(4)
    near, there = (make_far_clips(16, layout, 1, device, "memory") for device in (torch.device("cpu"), far))
    expected = near.batches(drawn, 3, torch.Generator().manual_seed(0))
    for (rows, mask), (one, other) in zip(
        there.batches(drawn, 3, torch.Generator().manual_seed(0)), expected, strict=True
    ):
        assert torch.equal(rows.cpu(), one)
        assert torch.equal(mask.cpu(), other)
        assert isinstance(rows, Far)
        assert rows.made[0] is not MAIN


def test_what_may_not_have_come_or_may_be_given_away_is_noticed(far):
    aside, module = Stream(), torch.get_device_module(far)
    with module.stream(aside):
        numbers = torch.ones(3).to(far)
    assert isinstance(numbers, Far)
    for make_safe, fault in (
        (lambda: MAIN.wait_event(aside.record_event()), "may not have come there yet"),
        (lambda: numbers.record_stream(MAIN), "memory may be given away"),
    ):
        with pytest.raises(RuntimeError, match=fault):
            _ = numbers + 1
        make_safe()
    assert (numbers + 1).cpu().tolist() == [2, 2, 2]


def test_scales_and_rows_are_brought_back(made, far):
    store, manifest = FeatureStore(made.store), read_manifest(made.manifest)
    places = (torch.device("cpu"), far)
    near, there = (load_clips(store, manifest, "train", device=place, kinds=["all"]) for place in places)
    for mine, other in zip(near.scales["all"], there.scales["all"], strict=True):
        assert torch.equal(mine, other)
    assert torch.equal(near.draw_rows(7, 0), there.draw_rows(7, 0))
    rows, mask = there.batch(torch.tensor([2, 0]))
    assert (rows.device.type, mask.device.type) == ("far", "far")


@pytest.mark.parametrize("name", ["crt", "framestack", "lmr"])
@pytest.mark.parametrize("stop", [1, 3])
def test_interrupted_there_it_goes_on_there(name, stop, made, far, tmp_path):
    settings = settings_of(made, balance=name, checkpoint_seconds=0)  # with dropout
    train_run(tmp_path / "straight", settings, device=far)
    with pytest.raises(KeyboardInterrupt):
        train_run(tmp_path / "run", settings, device=far, on_epoch=stop_at(stop))
    with pytest.raises(LongreelError, match="holds another run: device is 'far' there, None now"):
        train_run(tmp_path / "run", settings)
    train_run(tmp_path / "run", settings, device=far)
    assert contents(tmp_path / "run") == contents(tmp_path / "straight")


def test_side_by_side_there_each_has_the_bits_it_has_alone(made, far, tmp_path):
    ways = [settings_of(made, balance=name, seed=seed) for seed, name in enumerate(("ce", "move", "mixup", "lmr"))]
    members = [Member(tmp_path / f"together{number}", each) for number, each in enumerate(ways)]
    assert all(isinstance(outcome, Trained) for outcome in train_together(members, device=far))
    for number, each in enumerate(ways):
        train_run(tmp_path / f"alone{number}", each, device=far)
        assert contents(tmp_path / f"together{number}") == contents(tmp_path / f"alone{number}")


def make_far_clips(clips: int, layout: Layout, bodies: int, device: torch.device, place: str = "far") -> ClipSet:
    """Clips of three to six rows, in four classes."""
    lengths = torch.arange(clips) % 4 + 3
    offsets = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(dim=0)])
    features = torch.randn(int(offsets[-1]), bodies * layout.size, generator=torch.Generator().manual_seed(0)).half()
    if place == "far":
        features = features.to(device)
    return ClipSet(
        tuple(map(str, range(clips))), features, offsets, torch.eye(4)[torch.arange(clips) % 4], device=device
    )


def make_far_course(head: str, method: Method, dim: int, layout: Layout, device: torch.device, **settings) -> Course:
    made = build_head(head, dim, 4, torch.zeros(dim), torch.ones(dim), layout).to(device)
    chosen = FitSettings(**{"epochs": 4, "batch_size": 8, "clip_norm": 1.0} | settings)
    return Course(made, method, chosen, Path("none"))


def step_there(head: str, method: Method, far, *, bodies: int = 1, frames: int | None = 4) -> list[str]:
    """What the training steps of all stages wait for, reading their batches from its memory included."""
    layout = LAYOUTS["kinect20"]
    clips = make_far_clips(16, layout, bodies, far)
    course = make_far_course(head, method, bodies * layout.size, layout, far)
    training, generator = Training(course, 0, torch.tensor([40.0, 20.0, 10.0, 5.0]), clips), torch.Generator()
    waited = []
    for leg in training.legs:
        training.progress.epoch = leg.first
        parts = training.begin_epoch()
        for batch in torch.arange(16).split(8) * 2:
            waits.clear()
            training.step(Drawn(*clips.batch(batch, frames, generator)), batch, parts, 0.1)
            waited += waits
    return waited


@pytest.mark.parametrize("frames", [None, 4])
@pytest.mark.parametrize(
    "head",
    [
        *(head.replace("heads=2", "heads=6") for head in HEADS if not head.startswith("knn")),
        *(
            f"{head}:frames=3,stream={stream}"
            for head in ("gcn-lite", "joint-mlp")
            for stream in ("joint", "skip-motion")
        ),
    ],
)
def test_no_step_of_a_head_waits_for_the_device(head, frames, far):
    assert step_there(head, METHODS["ce"], far, frames=frames) == []


def test_nor_does_a_step_with_the_joints_of_two_bodies(far):
    assert step_there("joint-mlp:frames=3", METHODS["brl"], far, bodies=2) == []


@pytest.mark.parametrize("method", ["move", "ldam-drw", "eql", "brl"])
def test_no_step_of_a_released_form_waits_for_the_device(method, far):
    heads = {"move": "aggregated:clusters=3,reduced=4,heads=6,hidden=8", "brl": "joint-mlp:frames=3"}
    released = choose_method(method, [40, 20, 10, 5], released=True)
    assert released != choose_method(method, [40, 20, 10, 5])
    assert step_there(heads.get(method, "linear"), released, far) == []


@pytest.mark.parametrize("method", METHODS)
def test_no_step_of_a_method_waits_for_the_device(method, far):
    head = "linear" if method in ORDINARY else "joint-mlp:frames=3"
    assert step_there(head, METHODS[method], far) == []


@pytest.mark.parametrize("loss", LOSSES)
def test_no_step_of_a_loss_waits_for_the_device(loss, far):
    assert step_there("linear", Method((Stage(loss=loss),)), far) == []


@pytest.mark.parametrize("place", ["far", "memory"])
@pytest.mark.parametrize("method", ["ce", "framestack", "lmr"])
def test_what_an_epoch_waits_for_does_not_grow_with_its_steps(method, place, far):
    """Reading, steps, running figures and the validation of whole trainings."""
    layout, waited = LAYOUTS["kinect20"], []
    for batch_size in (16, 2):
        clips = make_far_clips(16, layout, 1, far, place)
        course = make_far_course("linear", METHODS[method], layout.size, layout, far, batch_size=batch_size)
        waits.clear()
        (progress,) = fit_together([course], torch.tensor([40.0, 20.0, 10.0, 5.0]), clips, clips)
        assert isinstance(progress, Progress)
        assert progress.epoch == 4
        waited.append(list(waits))
    assert len(waited[0]) == len(waited[1]) > 0


def test_targets_are_there_once_for_all_trainings(far):
    layout, counts = LAYOUTS["kinect20"], torch.tensor([40.0, 20.0, 10.0, 5.0])
    clips = make_far_clips(16, layout, 1, far)
    course = make_far_course("linear", METHODS["ce"], layout.size, layout, far)
    one, other = (Training(course, number, counts, clips) for number in range(2))
    assert one.targets is other.targets
    assert one.targets.device.type == "far"


def test_what_waits_is_noticed(far):
    assert step_there("gcn-lite:frames=3", METHODS["ce"], far, bodies=2)  # picks the bodies that exist
    assert step_there("linear", choose_method("framestack", [40, 20, 10, 5], released=True), far)  # asks what it knows
    numbers = torch.ones(3)
    for wait in (lambda: numbers.to(far), lambda: torch.tensor([1.0, 2.0], device=far), lambda: numbers.to(far)[[0]]):
        waits.clear()
        wait()
        assert waits
    waits.clear()
    send(numbers, far)
    assert waits == []
