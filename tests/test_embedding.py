"""Embedded stores: each row against the head asked for one clip at a time, and what is done with a store of them."""

import numpy as np
import pytest
import torch
from small_runs import settings_of, stop_at
from typer.testing import CliRunner

from longreel.cli import app
from longreel.errors import RunMismatch, StoreMismatch
from longreel.experiments.embedding import embed_run
from longreel.experiments.evaluate import evaluate_run
from longreel.experiments.runs import HEAD, load_head, read_config
from longreel.experiments.train import train_run
from longreel.manifest import read_manifest
from longreel.store import FeatureStore, read_failures, verify_store

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    "head",
    [
        *("linear", "cosine", "nonlinear:hidden=16", "nonlinear-early:hidden=16", "attentive:heads=2"),
        *("netvlad:clusters=3,hidden=8", "netvlad-gated:clusters=3,hidden=8", "psa:heads=2", "msa:heads=2"),
        "aggregated:clusters=3,reduced=4,heads=2",
    ],
)
def test_each_row_is_what_the_head_makes_of_the_clip_alone(made, head, tmp_path):
    settings = settings_of(made)
    settings = type(settings)(**vars(settings) | {"head": head})
    train_run(tmp_path / "run", settings)
    written = embed_run(tmp_path / "run", tmp_path / "s")
    store, features = FeatureStore(tmp_path / "s"), FeatureStore(made.store)
    trained = load_head(tmp_path / "run" / HEAD, read_config(tmp_path / "run")).eval()
    assert written == len(store) == len(read_manifest(made.manifest).clips)
    for clip_id in store:
        with torch.inference_mode():
            vector = trained.aggregate(torch.from_numpy(features[clip_id].features.astype(np.float32))[None])[0]
            again = trained.classify(torch.from_numpy(store[clip_id].features.astype(np.float32)))[0]
            scores = trained(torch.from_numpy(features[clip_id].features.astype(np.float32))[None])[0]
        assert store[clip_id].features.shape == (1, store.spec.dim)
        np.testing.assert_allclose(store[clip_id].features[0], vector, rtol=2e-3, atol=2e-3)
        torch.testing.assert_close(again, scores, rtol=2e-2, atol=2e-2)
        assert store.origin(clip_id) == features.origin(clip_id)
    assert verify_store(tmp_path / "s").damaged == []
    assert embed_run(tmp_path / "run", tmp_path / "s") == 0


def test_every_other_head_runs_on_it_and_failed_clips_stay_failed(write_small_store, tmp_path):
    failed = ("train/boat0.mp4", "test/car0.mp4")
    made = write_small_store(tmp_path / "data", failed=failed)
    train_run(tmp_path / "run", settings_of(made))
    embed_run(tmp_path / "run", tmp_path / "s")
    assert set(read_failures(tmp_path / "s")) == set(failed)
    settings = settings_of(made, balance="balanced-softmax")
    settings = type(settings)(**vars(settings) | {"store": tmp_path / "s", "head": "linear"})
    assert train_run(tmp_path / "top", settings).failed == {"train": 1, "val": 0}
    assert evaluate_run(tmp_path / "top")["failed"] == 1


def test_interrupted_the_same_call_goes_on_and_ends_in_the_same_digest(made, tmp_path):
    train_run(tmp_path / "run", settings_of(made))
    embed_run(tmp_path / "run", tmp_path / "whole")
    ids = iter(range(1000))

    def interrupt(clip_id: str) -> None:
        if next(ids) == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed_run(tmp_path / "run", tmp_path / "s", on_clip=interrupt)
    assert len(FeatureStore(tmp_path / "s")) == 21
    assert embed_run(tmp_path / "run", tmp_path / "s") == len(FeatureStore(tmp_path / "whole")) - 21
    assert FeatureStore(tmp_path / "s").digest() == FeatureStore(tmp_path / "whole").digest()


def test_another_runs_store_and_an_unfinished_run_are_refused(made, tmp_path):
    train_run(tmp_path / "run", settings_of(made))
    train_run(tmp_path / "other", settings_of(made, seed=1))
    embed_run(tmp_path / "run", tmp_path / "s")
    with pytest.raises(StoreMismatch, match="s: is another store: weights is"):
        embed_run(tmp_path / "other", tmp_path / "s")
    with pytest.raises(KeyboardInterrupt):
        train_run(tmp_path / "half", settings_of(made, checkpoint_seconds=0), on_epoch=stop_at(2))
    with pytest.raises(RunMismatch, match="its training has not finished"):
        embed_run(tmp_path / "half", tmp_path / "t")


def test_both_commands(made, tmp_path):
    for seed in range(2):
        train_run(tmp_path / f"r{seed}", settings_of(made, seed=seed))
    fused = CliRunner().invoke(app, ["fuse", str(tmp_path / "r0"), str(tmp_path / "r1"), "--out", str(tmp_path / "f")])
    assert (fused.exit_code, fused.stdout.splitlines()[0]) == (0, f"0.5000 {tmp_path / 'r0'}")
    embedded = CliRunner().invoke(app, ["embed", str(tmp_path / "r0"), str(tmp_path / "s"), "--json"])
    assert embedded.exit_code == 0
    refused = CliRunner().invoke(app, ["embed", str(tmp_path / "f"), str(tmp_path / "t")])
    assert refused.exit_code == 2
    assert "is fused of others" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
