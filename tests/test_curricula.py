"""Learning from real and generated clips: which are drawn in which stage, at which rate, and with whose counts."""

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from small_filled import row, settings_of, write_filled
from small_runs import contents, stop_at

from longreel.balance import CURRICULA, METHODS, choose_method
from longreel.errors import LongreelError
from longreel.experiments.clips import ClipSet, load_clips
from longreel.experiments.stages import lay_out
from longreel.experiments.train import Member, Trained, train_run, train_together
from longreel.manifest import read_manifest
from longreel.store import FeatureStore

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def filled(tmp_path_factory, write_small_store):
    return write_filled(tmp_path_factory.mktemp("filled"), write_small_store)


def drawn_in(made, folder, monkeypatch, **given) -> list[set[str]]:
    """The ids that each epoch of a training drew."""
    seen: list[list[int]] = []
    train_set = load_clips(FeatureStore(made.store), read_manifest(made.manifest), "train")
    batches = ClipSet.batches

    def watch(self, clips, frames=None, generator=None):
        if generator is not None:
            seen.append(torch.cat(list(clips)).tolist())
        return batches(self, clips, frames, generator)

    with monkeypatch.context() as patch:
        patch.setattr(ClipSet, "batches", watch)
        train_run(folder, settings_of(made, **given))
    return [{train_set.ids[clip] for clip in epoch} for epoch in seen]


def test_each_curriculum_draws_its_clips_in_its_stages(filled, tmp_path, monkeypatch):
    made, _ = filled
    everything = {each["path"] for each in made.rows if each["split"] == "train"}
    generated = {path for path in everything if path.startswith("made/")}
    real = everything - generated
    expected = {
        "joint": [everything] * 6,
        "real": [real] * 6,
        "generated": [generated] * 6,
        "two-stage": [everything] * 3 + [real] * 3,
        "pretrain": [generated] * 3 + [real] * 3,
    }
    assert expected.keys() == CURRICULA.keys()
    for name, epochs in expected.items():
        assert drawn_in(made, tmp_path / name, monkeypatch, curriculum=name) == epochs, name


@pytest.mark.parametrize(
    ("fill", "made_ids"), [("0", set()), ("4", {"car0", "dog0", "dog1"}), ("67%", {"car0", "dog0", "dog1"})]
)
def test_fill_takes_the_first_generated_clips_up_to_so_many_of_a_class(fill, made_ids, filled, tmp_path, monkeypatch):
    made, _ = filled
    (epoch,) = drawn_in(made, tmp_path / "run", monkeypatch, fill=fill, epochs=1)
    assert {path for path in epoch if path.startswith("made/")} == {f"made/{name}.mp4" for name in made_ids}


def test_real_clips_alone_give_the_bits_of_a_manifest_without_generated_ones(filled, tmp_path):
    made, real = filled
    for head in ("nonlinear", "netvlad:clusters=2,hidden=4,codebook=kmeans", "knn"):
        balance = {} if head == "knn" else {"balance": "balanced-softmax"}
        train_run(tmp_path / f"{head}-a", settings_of(made, curriculum="real", head=head, **balance))
        train_run(tmp_path / f"{head}-b", settings_of(real, head=head, **balance))
        assert contents(tmp_path / f"{head}-a") == contents(tmp_path / f"{head}-b"), head


def test_counts_of_margins_and_groups_are_the_real_ones_whatever_is_drawn(filled, tmp_path):
    made, _ = filled
    for given in ({}, {"fill": "4"}, {"curriculum": "generated"}, {"trust": "uncertainty-filter:most=0.1"}):
        folder = tmp_path / "-".join(map(str, given.values()))
        train_run(folder, settings_of(made, balance="balanced-softmax", epochs=1, **given))
        config = json.loads((folder / "config.json").read_text())
        assert config["counts"] == [6, 3, 2]
        assert config["groups"]["members"] == {">4": [0], "3-4": [1], "<=2": [2]}


def test_rows_are_standardised_by_real_clips_and_by_generated_ones_where_no_others_are_learnt_from(filled, tmp_path):
    made, _ = filled
    for curriculum, prefix in (("joint", "train/"), ("pretrain", "train/"), ("generated", "made/")):
        train_run(tmp_path / curriculum, settings_of(made, curriculum=curriculum, epochs=2))
        mine = [each["path"] for each in made.rows if each["path"].startswith(prefix)]
        rows = np.concatenate([made.features[path] for path in mine]).astype(np.float64)
        tensors = load_file(tmp_path / curriculum / "head.safetensors")
        np.testing.assert_allclose(tensors["mean"], rows.mean(axis=0), rtol=1e-6)
        np.testing.assert_allclose(tensors["deviation"], rows.std(axis=0), rtol=1e-5)


def test_the_second_stage_has_a_tenth_of_the_rate_a_schedule_of_its_own_and_a_new_optimiser(
    filled, tmp_path, monkeypatch
):
    """By the steps that AdamW is asked to make."""
    made, _ = filled
    asked: list[tuple[float, int]] = []
    step = torch.optim.AdamW.step

    def watch(self, closure=None):
        result = step(self, closure)
        state = next(iter(self.state.values()))
        asked.append((self.param_groups[0]["lr"], int(state["step"])))
        return result

    monkeypatch.setattr(torch.optim.AdamW, "step", watch)
    given = {"batch_size": 64, "schedule": "cosine", "curriculum": "two-stage"}  # a step an epoch
    train_run(tmp_path / "run", settings_of(made, **given))
    cosine = [0.5 * (1 + np.cos(np.pi * part / 3)) for part in range(3)]
    np.testing.assert_allclose([rate for rate, _ in asked], [1e-3 * c for c in cosine] + [1e-4 * c for c in cosine])
    assert [count for _, count in asked] == [1, 2, 3, 1, 2, 3]


def test_the_second_stage_begins_from_the_epoch_that_val_chose_in_the_first(filled, tmp_path):
    made, _ = filled
    settings = settings_of(made, curriculum="two-stage:rate=1e-30,until=0.5", schedule="constant", epochs=12)
    trained = train_run(tmp_path / "run", settings, keep_epochs=True)
    history = json.loads((tmp_path / "run" / "history.json").read_text())
    first = [line["val_map"] for line in history[:6]]
    assert {line["val_map"] for line in history[6:]} == {max(first)}  # such a rate changes nothing
    assert trained.epoch == 12


@pytest.mark.parametrize("stop", [2, 3, 4])
def test_a_curriculum_interrupted_in_either_stage_ends_in_the_same_bits(stop, filled, tmp_path):
    made, _ = filled
    settings = settings_of(made, curriculum="pretrain", balance="balanced-softmax", checkpoint_seconds=0)
    train_run(tmp_path / "straight", settings)
    with pytest.raises(KeyboardInterrupt):
        train_run(tmp_path / "run", settings, on_epoch=stop_at(stop))
    train_run(tmp_path / "run", settings)
    assert contents(tmp_path / "run") == contents(tmp_path / "straight")


def test_side_by_side_each_gets_its_own_clips_and_bits(filled, tmp_path):
    made, _ = filled
    ways = [
        {"curriculum": name, "trust": trust, "fill": fill}
        for name in ("joint", "real", "two-stage")
        for trust, fill in (("full", None), ("uncertainty-smoothing", "4"), ("uncertainty-filter:most=0.1", None))
    ]
    members = [Member(tmp_path / f"together{n}", settings_of(made, **way)) for n, way in enumerate(ways)]
    assert all(isinstance(outcome, Trained) for outcome in train_together(members))
    for number, way in enumerate(ways):
        train_run(tmp_path / f"alone{number}", settings_of(made, **way))
        assert contents(tmp_path / f"together{number}") == contents(tmp_path / f"alone{number}"), way


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if len(method.stages) > 1])
def test_a_method_of_several_stages_takes_no_curriculum_of_several(name):
    with pytest.raises(LongreelError, match=f"{name} has 2 stages of its own, so it cannot follow the 2 of two-stage"):
        choose_method(name, [3, 2], curriculum="two-stage")
    method = choose_method(name, [3, 2], curriculum="real")
    assert {stage.clips for stage in method.stages} == {"real"}


def test_a_two_stage_schedule_is_laid_out_as_asked():
    method = choose_method("balanced-softmax", [3, 2], curriculum="two-stage:until=0.25")
    assert [(leg.first, leg.end, leg.span) for leg in lay_out(method, 100)] == [(0, 25, (0, 25)), (25, 100, (25, 100))]
    assert [stage.loss for stage in method.stages] == ["balanced-softmax"] * 2


def test_a_class_without_a_real_clip_is_an_error_or_trained_without_a_prior(tmp_path, write_small_store):
    rows = [row(f"{split}/boat{n}.mp4", "boat", split) for split in ("train", "val") for n in range(3)]
    rows += [row(f"made/{label}{n}.mp4", label, "train", "generated") for label in ("boat", "car") for n in range(3)]
    only = write_small_store(tmp_path / "mixed", rows=rows)
    with pytest.raises(LongreelError, match="class 'car' has no real training clip"):
        train_run(tmp_path / "run", settings_of(only))
    zero = [each for each in rows if each["source"] == "generated"]
    zero += [row(f"test/{label}{n}.mp4", label, "test") for label in ("boat", "car") for n in range(2)]
    made = write_small_store(tmp_path / "zero", rows=zero)  # no real training clip at all: zero-shot
    with pytest.raises(LongreelError, match="balanced-softmax needs real training clips of every class"):
        train_run(tmp_path / "run", settings_of(made, balance="balanced-softmax"))
    with pytest.raises(LongreelError, match="there is no real clip to learn from"):
        train_run(tmp_path / "run", settings_of(made, curriculum="two-stage"))
    assert train_run(tmp_path / "run", settings_of(made)).epoch == 6


@pytest.mark.parametrize(
    "given", [{"curriculum": "two-stage"}, {"curriculum": "generated"}, {"fill": "5"}, {"trust": "uncertainty-filter"}]
)
def test_what_is_about_generated_clips_is_refused_where_there_are_none(given, filled, tmp_path):
    _, real = filled
    with pytest.raises(LongreelError, match=r"no generated clip|is about generated clips"):
        train_run(tmp_path / "run", settings_of(real, **given))
    assert not (tmp_path / "run").exists()
    train_run(tmp_path / "run", settings_of(real, curriculum="real", fill="0", epochs=1))
