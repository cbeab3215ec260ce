"""Checkpoints of the released code as runs: the scores are those of the published formula, class by class."""

from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from longreel.errors import ForeignRefused, LongreelError, RunMismatch, StoreMismatch
from longreel.experiments.compare import compare_runs
from longreel.experiments.evaluate import evaluate_run, load_scored
from longreel.experiments.imported import import_checkpoint
from longreel.experiments.settings import make_settings

pytestmark = pytest.mark.usefixtures("one_thread")

NAMES = ("yak", "boat", "dog", "car")  # in the order of the checkpoint's logits


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    """VideoLT's nonlinear classifier for rows six wide, as its code saves it."""
    drawn = torch.Generator().manual_seed(0)
    shapes = {"fc1.weight": (5, 6), "fc1.bias": (5,), "project.weight": (4, 5), "project.bias": (4,)}
    state = OrderedDict((f"module.{name}", torch.randn(shape, generator=drawn)) for name, shape in shapes.items())
    torch.save({"epoch": 40, "best_mAP": 0.5, "state_dict": state}, tmp_path / "ckpt.best.pth.tar")
    (tmp_path / "names.lst").write_text("".join(f"{name} {place} 9.0\n" for place, name in enumerate(NAMES)))
    return tmp_path / "ckpt.best.pth.tar"


def bring(checkpoint: Path, made, folder: Path, names: Path | None = None) -> dict:
    return import_checkpoint(
        checkpoint, folder, make_settings(made.store, made.manifest, {"groups": "5,10"}), names=names
    )


def test_scores_are_those_of_two_layers_on_every_frame_averaged_late(checkpoint, made, tmp_path):
    facts = bring(checkpoint, made, tmp_path / "run", tmp_path / "names.lst")
    assert (facts["head"], facts["epoch"], facts["best_mAP"]) == ("nonlinear:hidden=5", 40, 0.5)
    document = evaluate_run(tmp_path / "run")
    assert "whoever trained it chose the epoch" in document["selection"]
    state = {name: value.double().numpy() for name, value in torch.load(checkpoint)["state_dict"].items()}
    scores, _, ids = load_scored(tmp_path / "run", "test")
    for score, clip in zip(scores, ids, strict=True):
        hidden = np.maximum(made.features[clip] @ state["module.fc1.weight"].T + state["module.fc1.bias"], 0)
        logits = (hidden @ state["module.project.weight"].T + state["module.project.bias"]).mean(axis=0)
        assert score.tolist() == pytest.approx([logits[NAMES.index(name)] for name in sorted(NAMES)], abs=1e-4)


def test_an_imported_run_is_compared_like_any_other_and_imported_once(checkpoint, made, tmp_path):
    bring(checkpoint, made, tmp_path / "run")
    bring(checkpoint, made, tmp_path / "run")
    assert len(compare_runs([tmp_path / "run"], draws=10)["rows"]) == 1
    with pytest.raises(RunMismatch, match="holds another run"):
        import_checkpoint(checkpoint, tmp_path / "run", make_settings(made.store, made.manifest, {"groups": "thirds"}))


def test_a_manifest_may_have_some_of_the_classes_alone(checkpoint, made, tmp_path):
    wide = torch.load(checkpoint)
    extra = {
        name: torch.cat([torch.full_like(wide["state_dict"][name][:1], 9.0), wide["state_dict"][name]])
        for name in ("module.project.weight", "module.project.bias")
    }
    torch.save({"state_dict": wide["state_dict"] | extra}, tmp_path / "five")
    (tmp_path / "five.lst").write_text("".join(f"{name} {k} 9.0\n" for k, name in enumerate(("owl", *NAMES))))
    bring(checkpoint, made, tmp_path / "four-run", tmp_path / "names.lst")
    bring(tmp_path / "five", made, tmp_path / "five-run", tmp_path / "five.lst")
    for folder in ("four-run", "five-run"):
        evaluate_run(tmp_path / folder)
    assert np.array_equal(load_scored(tmp_path / "four-run", "test")[0], load_scored(tmp_path / "five-run", "test")[0])


def test_a_folder_holds_one_checkpoint_whatever_its_name(checkpoint, made, tmp_path):
    bring(checkpoint, made, tmp_path / "run")
    other = torch.load(checkpoint)
    other["state_dict"]["module.fc1.bias"] += 1.0
    torch.save(other, checkpoint)
    with pytest.raises(RunMismatch, match=r"holds another run: imported\.digest"):
        bring(checkpoint, made, tmp_path / "run")


def test_what_does_not_fit_is_refused_before_a_folder_is_made(checkpoint, made, tmp_path, write_small_store):
    (tmp_path / "few.lst").write_text("yak 0 9\nboat 1 9\n")
    (tmp_path / "other.lst").write_text("yak 0 9\nboat 1 9\ndog 2 9\ncat 3 9\n")
    with pytest.raises(LongreelError, match=r"scores 4 classes, .*few\.lst has 2"):
        bring(checkpoint, made, tmp_path / "run", tmp_path / "few.lst")
    with pytest.raises(LongreelError, match=r"other\.lst: has no class 'car'"):
        bring(checkpoint, made, tmp_path / "run", tmp_path / "other.lst")
    state = torch.load(checkpoint)["state_dict"]
    state["module.fc1.weight"] = torch.ones(5, 7)
    torch.save({"state_dict": state}, tmp_path / "wide.pth.tar")
    with pytest.raises(StoreMismatch, match=r"takes features 7 wide, those of .* are 6 wide"):
        bring(tmp_path / "wide.pth.tar", made, tmp_path / "run")
    (tmp_path / "none.pth.tar").write_bytes(b"no checkpoint")
    with pytest.raises(ForeignRefused):
        bring(tmp_path / "none.pth.tar", made, tmp_path / "run")
    assert not (tmp_path / "run").exists()
