"""Stages over the epochs of a training."""

import dataclasses

import pytest
import torch
from small_runs import contents, settings_of, stop_at
from test_fit import COUNTS, ORDINARY, bits, make_clips, make_head, run_fit
from torch import Tensor

from longreel.balance import METHODS, Method, Stage
from longreel.errors import LongreelError
from longreel.experiments.drawn import Drawn
from longreel.experiments.optimisation import FitSettings
from longreel.experiments.stages import lay_out
from longreel.experiments.train import train_run
from longreel.experiments.training import Course, Training

pytestmark = pytest.mark.usefixtures("one_thread")


def legs(method: Method, epochs: int) -> list[tuple[int, int, tuple[int, int]]]:
    return [(leg.first, leg.end, leg.span) for leg in lay_out(method, epochs)]


def test_stages_share_the_epochs_as_they_ask():
    two, three = (Stage(until=0.5), Stage()), (Stage(until=0.25), Stage(until=0.5), Stage(output_only=True))
    assert legs(Method(two), 100) == [(0, 50, (0, 100)), (50, 100, (0, 100))]
    assert legs(Method(three), 100) == [(0, 25, (0, 50)), (25, 50, (0, 50)), (50, 100, (50, 100))]
    assert legs(METHODS["crt"], 20) == [(0, 15, (0, 15)), (15, 20, (15, 20))]


@pytest.mark.parametrize("ends", [(0.01, 0.02), (0.5, 0.5), (0.98, 0.99)])
@pytest.mark.parametrize("epochs", range(3, 12))
def test_every_stage_has_an_epoch_however_few_there_are(epochs, ends):
    found = legs(Method((Stage(until=ends[0]), Stage(until=ends[1]), Stage())), epochs)
    assert [first for first, _, _ in found] == [0, *(end for _, end, _ in found[:-1])]
    assert all(end > first for first, end, _ in found)
    assert found[-1][1] == epochs


def test_fewer_epochs_than_stages_are_refused():
    with pytest.raises(LongreelError, match="1 epochs are too few for 2 stages"):
        lay_out(METHODS["crt"], 1)


def test_nothing_but_the_output_is_trained_behind_a_stage_that_chose_the_rest():
    with pytest.raises(LongreelError, match="behind one with output_only=True"):
        lay_out(Method((Stage(until=0.3), Stage(until=0.6, output_only=True), Stage())), 10)


def test_stages_that_find_no_epochs_are_refused_before_a_folder_is_made(made, tmp_path):
    with pytest.raises(LongreelError, match="1 epochs are too few"):
        train_run(tmp_path / "run", settings_of(made, balance="crt", epochs=1))
    assert not (tmp_path / "run").exists()


def test_what_a_stage_leaves_alone_keeps_no_gradients(tmp_path):
    course = Course(make_head(), METHODS["crt"], FitSettings(epochs=4, batch_size=8), tmp_path / "none")
    clips = make_clips(1)
    training = Training(course, 0, COUNTS, clips)
    parts = training.begin_epoch()
    training.step(Drawn(*clips.batch(torch.arange(8))), torch.arange(8), parts, 0.0)
    assert all(each.grad is not None for each in training.head.parameters())
    training.progress.epoch = training.legs[1].first
    training.begin_epoch()
    assert all(each.grad is None for each in training.head.parameters())


def test_a_deferred_loss_comes_in_at_its_epoch(tmp_path):
    """Until then the run is that of the first loss, to the bit."""
    weights: dict[str, list] = {"deferred": [], "plain": []}
    for name, method in {"deferred": METHODS["ldam-drw-softmax"], "plain": Method((Stage("ldam:form=ce"),))}.items():
        head = make_head()
        (tmp_path / name).mkdir()
        run_fit(head, tmp_path / name, method=method, on_epoch=lambda row, h=head, n=name: weights[n].append(bits(h)))
    same = [a == b for a, b in zip(weights["deferred"], weights["plain"], strict=True)]
    assert same == [True] * 3 + [False] * 3


def test_a_new_output_is_trained_alone_from_the_chosen_epoch_on(tmp_path):
    """Classifier re-training: the representation is that of the best epoch of the first stage."""
    head, val, seen = make_head(), make_clips(2, noise=1.5), []
    progress = run_fit(
        head, tmp_path, val=val, method=METHODS["crt"], epochs=8, on_epoch=lambda row: seen.append((row, bits(head)))
    )
    first = seen[:6]
    best = max(range(6), key=lambda epoch: (first[epoch][0]["val_map"], epoch))
    for _, weights in seen[6:]:
        for name in weights:
            assert (weights[name] == first[best][1][name]) == ("project" not in name)
    assert seen[6][1]["head.project.weight"] != seen[7][1]["head.project.weight"]
    assert progress.best_epoch in (7, 8)  # the epoch is chosen among those of the last stage


@pytest.mark.parametrize("name", ORDINARY)
@pytest.mark.parametrize("stop", range(2, 9))
def test_a_method_resumes_in_the_same_bits_from_any_epoch(name, stop, tmp_path):
    val = make_clips(2, noise=1.5)
    (tmp_path / "straight").mkdir()
    straight, resumed = make_head(), make_head(seed=9)
    options = {"val": val, "method": METHODS[name], "epochs": 8, "frames": 4}
    whole = run_fit(straight, tmp_path / "straight", **options)

    def interrupt(row: dict) -> None:
        if row["epoch"] == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_fit(make_head(), tmp_path, **options, checkpoint_seconds=0, on_epoch=interrupt)
    assert run_fit(resumed, tmp_path, **options).history == whole.history
    assert bits(resumed) == bits(straight)


@pytest.mark.parametrize("name", ["tau-norm", "post-hoc-adjusted"])
def test_an_adjustment_is_made_once_however_often_the_training_is_interrupted(name, made, tmp_path, monkeypatch):
    """Once behind an epoch, once behind the adjustment, before anything of the result is written."""
    settings = settings_of(made, balance=name, checkpoint_seconds=0)
    train_run(tmp_path / "straight", settings)
    with pytest.raises(KeyboardInterrupt):
        train_run(tmp_path / "run", settings, on_epoch=stop_at(3))

    def interrupt(*_) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("longreel.experiments.train._finish", interrupt)
        with pytest.raises(KeyboardInterrupt):
            train_run(tmp_path / "run", settings)
    train_run(tmp_path / "run", settings)
    assert contents(tmp_path / "run") == contents(tmp_path / "straight")


def test_an_adjustment_beyond_what_numbers_can_hold_is_refused(made, tmp_path):
    settings = dataclasses.replace(settings_of(made, epochs=1), adjustment="tau-norm:tau=1e9")
    with pytest.raises(LongreelError, match="tau-norm:tau=1e9: the last layer's numbers are not finite"):
        train_run(tmp_path / "run", settings)


@pytest.mark.parametrize("with_val", [True, False], ids=["val", "no val"])
@pytest.mark.parametrize("name", ["ce", "framestack"])
def test_a_training_that_diverges_says_so_and_nothing_else(name, with_val, tmp_path):
    val = make_clips(2) if with_val else None
    with pytest.raises(LongreelError, match=r"training diverged \(epoch \d, learning rate 1e\+2"):
        run_fit(make_head(), tmp_path, val=val, method=METHODS[name], learning_rate=1e25)


def test_the_running_ap_is_that_of_the_unmixed_clips_of_the_epoch_before(tmp_path, monkeypatch):
    """With one batch an epoch, the figures are those of the head as the epoch found it, ranked by hand."""
    from longreel.balance import MIXERS
    from longreel.balance.mixing import NoMixing

    told, heads, clips = [], [], make_clips(1)

    class Listening(NoMixing):
        needs_running_ap = True

        def __call__(self, head, batch, known):
            told.append(known.running_ap.clone())
            return super().__call__(head, batch, known)

    def ranked_by_hand(head) -> list[float]:
        assert isinstance(clips.features, Tensor)
        rows = [clips.features[a:b].float()[None] for a, b in zip(clips.offsets[:-1], clips.offsets[1:], strict=True)]
        with torch.no_grad():
            scores = torch.cat([head.eval()(row) for row in rows])
        found = []
        for c in range(len(COUNTS)):
            order = scores[:, c].argsort(descending=True)
            truth = clips.targets[order, c] > 0
            precision = truth.cumsum(0) / torch.arange(1, len(truth) + 1)
            found.append(float(precision[truth].mean()))
        return found

    monkeypatch.setitem(MIXERS, "listening", Listening)
    head = make_head()
    method = Method((Stage(mixer="listening"),))
    run_fit(
        head, tmp_path, method=method, epochs=3, batch_size=21, on_epoch=lambda row: heads.append(ranked_by_hand(head))
    )
    assert told[0].tolist() == [0.0, 0.0, 0.0]
    assert told[2].tolist() == pytest.approx(heads[1], abs=1e-6)
