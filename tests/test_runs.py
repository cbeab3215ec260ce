"""Runs as folders: what they hold, what they are made of, and what is refused."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from small_runs import FILES, RESULTS, contents, settings_of, stop_at

from longreel.errors import LongreelError, ManifestError, RunMismatch
from longreel.experiments.evaluate import evaluate_run
from longreel.experiments.optimisation import FitSettings
from longreel.experiments.runs import load_head, read_config, read_scores
from longreel.experiments.settings import TrainSettings
from longreel.experiments.train import train_run
from longreel.store import FeatureStore

pytestmark = pytest.mark.usefixtures("one_thread")


def test_a_finished_run_holds_its_files_and_nothing_else(made, tmp_path):
    trained = train_run(tmp_path / "run", settings_of(made, checkpoint_seconds=0))
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == FILES
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    assert [row["epoch"] for row in history] == [1, 2, 3, 4]
    best = max(history, key=lambda row: (row["val_map"], row["epoch"]))  # of equals the later one
    assert (trained.epoch, trained.val) == (best["epoch"], best["val_map"])
    assert trained.selection == "best val map"
    assert trained.failed == {"train": 0, "val": 0}


def test_a_head_larger_than_the_machine_is_refused_before_anything_is_made(made, tmp_path):
    settings = dataclasses.replace(settings_of(made), head="netvlad:clusters=1000000,hidden=1000000")
    with pytest.raises(LongreelError, match="GiB to train, and this machine has"):
        train_run(tmp_path / "run", settings)
    assert not (tmp_path / "run").exists()


def test_the_configuration_has_every_value_resolved(made, tmp_path, monkeypatch):
    monkeypatch.chdir(made.manifest.parent)
    settings = TrainSettings(Path("toy.store"), Path("clips.csv"), groups="5,10", fit=FitSettings(epochs=1, seed=3))
    train_run(tmp_path / "run", settings)
    config = read_config(tmp_path / "run")
    assert config["store"] == str(made.store)
    assert config["manifest"] == str(made.manifest)
    assert config["root"] == str(made.manifest.parent)
    assert config["classes"] == ["boat", "car", "dog", "yak"]
    assert config["counts"] == [12, 8, 6, 3]
    assert config["groups"]["members"] == {">10": [0], "6-10": [1, 2], "<=5": [3]}
    assert (config["head"], config["balance"], config["standardise"]) == ("nonlinear", "ce", True)
    fit = dataclasses.asdict(FitSettings(epochs=1, seed=3))
    del fit["checkpoint_seconds"]  # has no part in the result
    del fit["compiled"]  # told of where heads are compiled
    assert fit.items() <= config["fit"].items()
    assert config["threads"] == 1
    assert config["spec"] == FeatureStore(made.store).spec.as_dict()
    assert len(config["manifest_digest"]) == len(config["store_digest"]) == 64


def test_the_saved_head_scores_raw_features_as_the_run_did(made, tmp_path):
    train_run(tmp_path / "run", settings_of(made))
    tensors = load_file(tmp_path / "run" / "head.safetensors")
    scores, ids = read_scores(tmp_path / "run" / "scores-val.safetensors")
    rows = np.concatenate([made.features[row["path"]] for row in made.rows if row["split"] == "train"])
    np.testing.assert_allclose(tensors["mean"], rows.astype(np.float64).mean(axis=0), rtol=1e-6)
    np.testing.assert_allclose(tensors["deviation"], rows.astype(np.float64).std(axis=0), rtol=1e-5)
    for clip_id, found in zip(ids, scores, strict=True):
        standard = (made.features[clip_id].astype(np.float64) - tensors["mean"]) / tensors["deviation"]
        hidden = np.maximum(standard @ tensors["head.hidden.weight"].T + tensors["head.hidden.bias"], 0)
        logits = hidden @ tensors["head.project.weight"].T + tensors["head.project.bias"]
        np.testing.assert_allclose(found, logits.mean(axis=0), rtol=1e-4, atol=1e-4)
    head = load_head(tmp_path / "run" / "head.safetensors", read_config(tmp_path / "run")).eval()
    alone = torch.from_numpy(made.features[ids[0]]).float()[None]
    np.testing.assert_allclose(head(alone).detach()[0].numpy(), scores[0], rtol=1e-4, atol=1e-5)


def test_without_standardising_mean_and_deviation_are_zeros_and_ones(made, tmp_path):
    train_run(tmp_path / "run", settings_of(made, standardise=False, epochs=1))
    tensors = load_file(tmp_path / "run" / "head.safetensors")
    assert (tensors["mean"] == 0).all()
    assert (tensors["deviation"] == 1).all()


def test_the_same_configuration_gives_the_same_bits_in_any_folder_and_another_seed_others(made, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(sum(name.encode()))  # what the caller did before has no part in it
        train_run(tmp_path / name, settings_of(made, seed=seed))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert all(contents(tmp_path / "a")[name] != contents(tmp_path / "c")[name] for name in RESULTS)


def test_the_order_of_the_manifests_rows_has_no_part_in_a_run(made, tmp_path, write_small_store):
    """The digest of a manifest leaves the order out, so the result must not depend on it."""
    train_run(tmp_path / "a", settings_of(made))
    write_small_store(tmp_path / "other", rows=made.rows[::-1])
    made.manifest.write_bytes((tmp_path / "other" / "clips.csv").read_bytes())
    train_run(tmp_path / "b", settings_of(made))
    assert read_config(tmp_path / "a") == read_config(tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_training_leaves_the_callers_random_state_as_it_was(made, tmp_path):
    torch.manual_seed(5)
    before = torch.get_rng_state()
    train_run(tmp_path / "run", settings_of(made, epochs=1))
    assert torch.equal(torch.get_rng_state(), before)


def test_without_a_val_split_the_last_epoch_is_kept(tmp_path, write_small_store):
    made = write_small_store(tmp_path / "data", splits=("train", "test"))
    trained = train_run(tmp_path / "run", settings_of(made))
    assert (trained.epoch, trained.val, trained.selection) == (4, None, "last epoch (no val split)")
    assert not (tmp_path / "run" / "scores-val.safetensors").exists()


def test_failed_clips_are_counted_and_left_out_of_training(made, tmp_path, write_small_store):
    failed = ["train/boat0.mp4", "train/boat5.mp4", "val/yak1.mp4"]
    other = write_small_store(tmp_path / "other", failed=failed)
    trained = train_run(tmp_path / "run", settings_of(other))
    assert trained.failed == {"train": 2, "val": 1}
    rows = [row for row in made.rows if row["split"] == "train" and row["path"] not in failed]
    mean = np.concatenate([made.features[row["path"]] for row in rows]).astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(load_file(tmp_path / "run" / "head.safetensors")["mean"], mean, rtol=1e-6)


def test_a_failed_val_clip_is_scored_lowest_when_the_epoch_is_selected(tmp_path, write_small_store):
    made = write_small_store(tmp_path / "data", failed=["val/yak1.mp4", "val/boat0.mp4"])
    trained = train_run(tmp_path / "run", settings_of(made, select="acc1"))
    assert trained.val == pytest.approx(evaluate_run(tmp_path / "run", "val")["overall"]["acc1"])


def test_a_val_split_of_which_every_clip_failed_is_refused(made, tmp_path, write_small_store):
    failed = [row["path"] for row in made.rows if row["split"] == "val"]
    other = write_small_store(tmp_path / "other", failed=failed)
    with pytest.raises(LongreelError, match="val"):
        train_run(tmp_path / "run", settings_of(other))


def test_generated_clips_are_trained_on_and_change_neither_counts_nor_groups(made, tmp_path, write_small_store):
    extra = [{"path": f"gen/yak{n}.mp4", "label": "yak", "split": "train", "source": "generated"} for n in range(9)]
    other = write_small_store(tmp_path / "other", rows=[*({**row, "source": "real"} for row in made.rows), *extra])
    for name, data in (("without", made), ("with", other)):
        train_run(tmp_path / name, settings_of(data, balance="balanced-softmax"))
    configs = [read_config(tmp_path / name) for name in ("without", "with")]
    assert configs[0]["counts"] == configs[1]["counts"] == [12, 8, 6, 3]
    assert configs[0]["groups"] == configs[1]["groups"]
    assert contents(tmp_path / "without")["head.safetensors"] != contents(tmp_path / "with")["head.safetensors"]


def test_balanced_softmax_on_generated_clips_alone_is_refused_as_there_is_no_prior(made, tmp_path, write_small_store):
    rows = [{**row, "source": "generated" if row["split"] == "train" else "real"} for row in made.rows]
    other = write_small_store(tmp_path / "other", rows=[row for row in rows if row["split"] != "val"])
    with pytest.raises(LongreelError, match="real"):
        train_run(tmp_path / "run", settings_of(other, balance="balanced-softmax"))


@pytest.mark.parametrize("splits", [("train", "val", "test"), ("train", "test")], ids=["val", "no val"])
def test_a_training_that_diverges_says_so(splits, tmp_path, write_small_store):
    made = write_small_store(tmp_path / "data", splits=splits)
    with pytest.raises(LongreelError, match="learning rate"):
        train_run(tmp_path / "run", settings_of(made, learning_rate=1e30))


def test_unknown_names_are_refused_before_a_folder_is_made(made, tmp_path):
    good = settings_of(made)
    wrong = {
        "head": "nonlinea",
        "balance": "cee",
        "groups": "videlt",
        "loss": "focl",
        "sampler": "instanc",
        "mixer": "mixxup",
        "adjustment": "tau-nrm",
    }
    for key, value in wrong.items():
        with pytest.raises(LongreelError, match="Did you mean"):
            train_run(tmp_path / key, dataclasses.replace(good, **{key: value}))
        assert not (tmp_path / key).exists(), key


def test_a_manifest_without_training_clips_is_refused(tmp_path, write_small_store):
    made = write_small_store(tmp_path / "data", splits=("val", "test"))
    with pytest.raises(ManifestError, match="has no training clips"):
        train_run(tmp_path / "run", settings_of(made))


def test_a_class_whose_training_clips_all_failed_is_refused_by_name(tmp_path, write_small_store):
    made = write_small_store(tmp_path / "data", failed=[f"train/yak{number}.mp4" for number in range(3)])
    with pytest.raises(LongreelError, match="class 'yak' has no training clip left"):
        train_run(tmp_path / "run", settings_of(made))


def test_a_finished_run_is_left_alone(made, tmp_path):
    first = train_run(tmp_path / "run", settings_of(made))

    def state() -> dict[str, tuple]:
        files = [path for path in (tmp_path / "run").iterdir() if path.name != ".lock"]
        return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}

    before = state()
    again = train_run(tmp_path / "run", settings_of(made), on_epoch=lambda row: pytest.fail("trained again"))
    assert again == first
    assert state() == before


@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("balance", {"balance": "bce"}),
        ("standardise", {"standardise": False}),
        ("groups", {"groups": "thirds"}),
        ("fit.seed", {"seed": 7}),
        ("fit.epochs", {"epochs": 5}),
        ("fit.frames", {"frames": 2}),
    ],
)
def test_another_configuration_in_an_unfinished_run_is_refused_by_its_key(key, change, made, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train_run(tmp_path / "run", settings_of(made, epochs=2), on_epoch=stop_at(1))
    before = (tmp_path / "run" / "config.json").read_bytes()
    with pytest.raises(RunMismatch, match=f"holds another run: {key}") as caught:
        train_run(tmp_path / "run", settings_of(made, **{"epochs": 2} | change))
    assert caught.value.exit_code == 2
    assert (tmp_path / "run" / "config.json").read_bytes() == before


def test_another_configuration_in_a_finished_run_is_refused_and_its_files_stay(made, tmp_path):
    train_run(tmp_path / "run", settings_of(made, epochs=1))
    before = contents(tmp_path / "run")
    with pytest.raises(RunMismatch, match=r"fit.seed is 0 there, 1 now"):
        train_run(tmp_path / "run", settings_of(made, epochs=1, seed=1))
    assert contents(tmp_path / "run") == before


def test_another_number_of_threads_is_another_configuration(made, tmp_path):
    train_run(tmp_path / "run", settings_of(made, epochs=1))
    torch.set_num_threads(2)
    with pytest.raises(RunMismatch, match="threads is 1 there, 2 now"):
        train_run(tmp_path / "run", settings_of(made, epochs=1))


def test_changed_features_are_another_configuration(made, tmp_path, write_small_store):
    train_run(tmp_path / "run", settings_of(made, epochs=1))
    write_small_store(tmp_path / "data", noise=2.0)  # newer shards in the same store
    with pytest.raises(RunMismatch, match="store_digest"):
        train_run(tmp_path / "run", settings_of(made, epochs=1))


def test_how_often_a_checkpoint_is_written_may_change_on_the_way(made, tmp_path):
    """It has no part in the result."""
    train_run(tmp_path / "straight", settings_of(made))
    with pytest.raises(KeyboardInterrupt):
        train_run(tmp_path / "run", settings_of(made, checkpoint_seconds=0), on_epoch=stop_at(3))
    train_run(tmp_path / "run", settings_of(made, checkpoint_seconds=60))
    assert contents(tmp_path / "run") == contents(tmp_path / "straight")


def test_groups_from_a_file_may_have_any_names_and_the_run_is_found_again(made, tmp_path):
    path = tmp_path / "groups.json"
    path.write_text(json.dumps({"boat": "2 many", "car": "2 many", "dog": "[/red]", "yak": "<few>"}))
    first = train_run(tmp_path / "run", settings_of(made, groups=str(path), epochs=1))
    assert train_run(tmp_path / "run", settings_of(made, groups=str(path), epochs=1)) == first


def test_a_folder_with_something_else_in_it_is_refused_and_left_as_it_is(made, tmp_path):
    folder = tmp_path / "thesis"
    folder.mkdir()
    (folder / "chapter1.tex").write_text("precious")
    with pytest.raises(RunMismatch, match=r"is not empty and no run \(chapter1.tex\)"):
        train_run(folder, settings_of(made))
    assert [path.name for path in folder.iterdir() if path.name != ".lock"] == ["chapter1.tex"]


def test_an_unfinished_run_and_a_folder_that_is_none_are_told_apart(made, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train_run(tmp_path / "run", settings_of(made), on_epoch=stop_at(2))
    with pytest.raises(RunMismatch, match=r"its training has not finished. Run the same `longreel train`"):
        read_config(tmp_path / "run")
    with pytest.raises(RunMismatch, match="is not a run"):
        read_config(made.store)


def test_a_mixer_that_cannot_train_the_head_is_refused_before_a_folder_is_made(made, tmp_path):
    settings = dataclasses.replace(settings_of(made), mixer="move:released=true")
    with pytest.raises(LongreelError, match="aggregated head alone"):
        train_run(tmp_path / "run", settings)
    assert not (tmp_path / "run").exists()
