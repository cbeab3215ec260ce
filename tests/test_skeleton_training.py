"""Trainings on joints: from a recording to figures, interrupted or side by side in the same bits."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from small_recordings import write_hdf5
from small_runs import contents, stop_at
from typer.testing import CliRunner

from longreel.balance import METHODS, SKELETON_MIXERS
from longreel.cli import app
from longreel.errors import LongreelError
from longreel.experiments.bench import check_plan, plan_runs, run_suite
from longreel.experiments.draws import Draws
from longreel.experiments.embedding import embed_run
from longreel.experiments.evaluate import evaluate_run
from longreel.experiments.optimisation import FitSettings
from longreel.experiments.runs import HEAD, load_head, read_config
from longreel.experiments.settings import TrainSettings
from longreel.experiments.suites import read_suite
from longreel.experiments.table import make_table
from longreel.experiments.train import Member, Trained, train_run, train_together
from longreel.layouts import LAYOUTS, read_layout
from longreel.store import FeatureStore

pytestmark = pytest.mark.usefixtures("one_thread")
OF_SKELETONS = [
    name
    for name, method in METHODS.items()
    if any(stage.mixer.split(":")[0] in SKELETON_MIXERS for stage in method.stages)
]


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """A store and a manifest of 60 clips, 22 and 8 of them in each split, whose classes differ in where an arm goes."""
    folder = tmp_path_factory.mktemp("recording")
    drawn, labels = np.random.default_rng(0), np.arange(60) % 4 // 3
    joints = drawn.standard_normal((60, 12, 1, 20, 3)) * 0.05 + drawn.standard_normal((20, 3))
    ways = np.linspace(0, 1, 12)[:, None, None] * np.where(labels, 1.0, -1.0)[:, None, None, None]
    joints[..., 4:8, 1] += ways
    write_hdf5(
        folder / "ucla.h5",
        60,
        joints=joints.astype(np.float32),
        lengths=5 + np.arange(60) % 8,
        labels=labels,
        split=(np.arange(60) >= 30).astype(np.int8),
    )
    words = ["import-skeletons", folder / "ucla.h5", folder / "s", "--manifest", folder / "c.csv"]
    assert CliRunner().invoke(app, list(map(str, words))).exit_code == 0
    return folder


def settings_of(recording, *, head: str = "gcn-lite:frames=6", balance: str = "ce", **fit) -> TrainSettings:
    chosen = FitSettings(**{"epochs": 4, "batch_size": 8, "learning_rate": 1e-2} | fit)
    return TrainSettings(recording / "s", recording / "c.csv", head=head, balance=balance, groups="thirds", fit=chosen)


@pytest.mark.parametrize("head", ["gcn-lite:frames=6,augment=false", "joint-mlp:frames=6,augment=false", "nonlinear"])
def test_what_the_hand_does_is_learnt_from_joints_by_every_kind_of_head(head, recording, tmp_path):
    train_run(tmp_path / "run", settings_of(recording, head=head, epochs=20))
    assert evaluate_run(tmp_path / "run")["overall"]["acc1"] >= 0.9


def test_a_runs_head_is_opened_with_the_stores_own_layout(recording, tmp_path):
    train_run(tmp_path / "run", settings_of(recording))
    config = read_config(tmp_path / "run")
    assert read_layout(config["spec"]["layout"], "it") == LAYOUTS["kinect20"]
    assert load_head(tmp_path / "run" / HEAD, config).layout == LAYOUTS["kinect20"]
    assert config["standardise"] is False
    head = load_head(tmp_path / "run" / HEAD, config).eval()
    rows = torch.from_numpy(FeatureStore(recording / "s")["clip 20"].features.copy())[None]
    with torch.inference_mode():
        torch.testing.assert_close(head(rows), head.head(rows))  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize("name", OF_SKELETONS)
@pytest.mark.parametrize("stop", [1, 3])
def test_a_method_of_skeletons_resumes_in_the_same_bits(name, stop, recording, tmp_path):
    settings = settings_of(recording, balance=name, checkpoint_seconds=0)
    train_run(tmp_path / "straight", settings)
    with pytest.raises(KeyboardInterrupt):
        train_run(tmp_path / "run", settings, on_epoch=stop_at(stop))
    train_run(tmp_path / "run", settings)
    assert contents(tmp_path / "run") == contents(tmp_path / "straight")


def test_side_by_side_each_has_the_bits_it_has_alone(recording, tmp_path):
    ways = [settings_of(recording, balance=name, seed=seed) for seed, name in enumerate(("ce", "brl", "brl-reverse"))]
    ways.append(settings_of(recording, head="gcn-lite:frames=6,stream=bone-motion", balance="brl"))
    members = [Member(tmp_path / f"together{number}", each) for number, each in enumerate(ways)]
    assert all(isinstance(outcome, Trained) for outcome in train_together(members))
    for number, each in enumerate(ways):
        train_run(tmp_path / f"alone{number}", each)
        assert contents(tmp_path / f"together{number}") == contents(tmp_path / f"alone{number}")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"head": "gcn-lite"},
            "gcn-lite takes skeletons, and the store has none. `longreel import-skeletons` makes one",
        ),
        ({"balance": "brl"}, "are for skeletons. Take a head of those, such as gcn-lite"),
    ],
)
def test_heads_and_methods_of_skeletons_on_other_features_are_refused(changed, message, made, tmp_path):
    with pytest.raises(LongreelError, match=message):
        train_run(tmp_path / "run", TrainSettings(made.store, made.manifest, **changed))
    assert not list((tmp_path / "run").glob("*.json"))


SUITE = """
title = "Joints and features"
groups = "thirds"
columns = ["acc1"]
[settings]
epochs = 3
batch_size = 8
[[rows]]
name = "linear"
head = "linear"
[[rows]]
name = "graph"
stores = ["joints"]
head = "gcn-lite:frames=6"
[[rows]]
name = "bone"
stores = ["joints"]
head = "gcn-lite:frames=6,stream=bone"
balance = "brl"
[[rows]]
name = "both"
stores = ["joints"]
fuse = ["graph", "bone"]
"""


def test_one_suite_has_rows_for_joints_and_rows_for_features(recording, tmp_path):
    train_run(tmp_path / "run", settings_of(recording))
    embed_run(tmp_path / "run", tmp_path / "features")
    assert FeatureStore(tmp_path / "features").spec.dtype == "float16"
    (tmp_path / "suite.toml").write_text(SUITE)
    suite, drawn = read_suite(str(tmp_path / "suite.toml")), Draws("test", ("acc1",), 10)
    stores = {"joints": recording / "s", "features": tmp_path / "features"}
    runs = plan_runs(suite, recording / "c.csv", stores, [0], tmp_path / "out")
    check_plan(suite, runs, "test")
    outcomes = run_suite(runs, drawn, 2)
    assert [outcome.fault for outcome in outcomes] == [None] * 5
    rows = make_table(suite, outcomes, drawn)["rows"]
    assert [(row["name"], row["store"]) for row in rows] == [
        *((name, "joints") for name in ("linear", "graph", "bone", "both")),
        ("linear", "features"),
    ]
    unfit = replace(suite, rows=tuple(replace(row, stores=()) for row in suite.rows))
    with pytest.raises(LongreelError, match="row 'graph': gcn-lite takes skeletons"):
        check_plan(unfit, plan_runs(unfit, recording / "c.csv", stores, [0], tmp_path / "out"), "test")
