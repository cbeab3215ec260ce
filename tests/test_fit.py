"""The training loop: against a loop written out, on a task it must learn, and over interruptions."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from longreel.balance import LOSSES, METHODS, SKELETON_MIXERS, Method, Stage
from longreel.experiments.checkpoint import Progress
from longreel.experiments.clips import ClipSet
from longreel.experiments.fit import fit
from longreel.experiments.metrics import evaluate_scores
from longreel.experiments.optimisation import SELECTIONS, FitSettings
from longreel.experiments.scoring import score_clips
from longreel.heads import Standardised, build_head

COUNTS = torch.tensor([12.0, 6.0, 3.0])


pytestmark = pytest.mark.usefixtures("one_thread")


#: methods that any head can be trained with.
ORDINARY = [
    name
    for name, method in METHODS.items()
    if not any(stage.mixer.partition(":")[0] in SKELETON_MIXERS for stage in method.stages)
]


def make_head(seed: int = 0) -> Standardised:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return build_head("nonlinear:hidden=16", 4, 3, torch.zeros(4), torch.ones(4))


def make_clips(seed: int, counts: tuple[int, ...] = (12, 6, 3), noise: float = 0.3) -> ClipSet:
    """Clips of one to five rows around the unit vector of their class."""
    generator = np.random.default_rng(seed)
    labels = np.repeat(np.arange(3), counts)
    lengths = generator.integers(1, 6, size=len(labels))
    rows = np.eye(4)[np.repeat(labels, lengths)] + noise * generator.standard_normal((lengths.sum(), 4))
    return ClipSet(
        ids=tuple(f"{seed}-{number}" for number in range(len(labels))),
        features=torch.from_numpy(rows.astype(np.float16)),
        offsets=torch.from_numpy(np.cumsum([0, *lengths])),
        targets=torch.from_numpy(np.eye(3, dtype=np.float32)[labels]),
        failed=(),
    )


def run_fit(
    head: Standardised, folder: Path, *, val: ClipSet | None = None, method: Method = METHODS["ce"], **settings: Any
) -> Progress:
    """``fit`` on 21 clips; gives its progress. ``on_epoch`` may be among the settings."""
    on_epoch = settings.pop("on_epoch", lambda row: None)
    chosen = FitSettings(**{"epochs": 6, "batch_size": 8, "learning_rate": 0.01} | settings)
    return fit(head, method, COUNTS, make_clips(1), val, chosen, folder / "checkpoint.safetensors", on_epoch)


def bits(head: nn.Module) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in head.state_dict().items()}


@pytest.mark.parametrize("name", ORDINARY)
@pytest.mark.parametrize("frames", [None, 3])
def test_a_separable_task_is_learnt(name, frames, tmp_path):
    head = make_head()
    progress = run_fit(head, tmp_path, method=METHODS[name], epochs=30, learning_rate=0.05, frames=frames)
    other = make_clips(3, counts=(5, 5, 5))
    assert evaluate_scores(score_clips(head, other), other.targets.numpy() > 0).overall.acc1 >= 14 / 15
    plain = METHODS[name].stages[-1].mixer == "none"  # mixed targets leave a loss that nothing can lower
    assert progress.history[-1]["loss"] < (0.5 if plain else 0.9) * progress.history[0]["loss"]


def test_the_loop_equals_one_written_out(tmp_path):
    """Full batches, so that the order does not matter; AdamW (Loshchilov and Hutter 2019) and the cosine by hand."""
    clips, epochs, rate, decay = make_clips(1), 5, 0.02, 0.3
    assert isinstance(clips.features, Tensor)
    head = build_head("linear", 4, 3, torch.zeros(4), torch.ones(4))
    means = torch.stack(
        [clips.features[a:b].double().mean(dim=0) for a, b in zip(clips.offsets[:-1], clips.offsets[1:], strict=True)]
    )
    weights = [head.output.weight.detach().double(), head.output.bias.detach().double()]
    moments = [(torch.zeros_like(weight), torch.zeros_like(weight)) for weight in weights]
    history = []
    for step in range(epochs):
        leaves = [weight.clone().requires_grad_() for weight in weights]
        chances = (means @ leaves[0].T + leaves[1]).exp()
        loss = -((chances / chances.sum(dim=1, keepdim=True)) * clips.targets).sum(dim=1).log().mean()
        history.append(float(loss.detach()))
        now = rate * (1 + math.cos(math.pi * step / epochs)) / 2
        for index, gradient in enumerate(torch.autograd.grad(loss, leaves)):
            first, second = moments[index]
            moments[index] = first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
            first, second = first / (1 - 0.9 ** (step + 1)), second / (1 - 0.999 ** (step + 1))
            weights[index] = weights[index] * (1 - now * decay) - now * first / (second.sqrt() + 1e-8)
    progress = run_fit(head, tmp_path, epochs=epochs, batch_size=21, learning_rate=rate, weight_decay=decay)
    np.testing.assert_allclose([row["loss"] for row in progress.history], history, rtol=1e-5)
    torch.testing.assert_close(head.output.weight.double(), weights[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(head.output.bias.double(), weights[1], rtol=1e-4, atol=1e-5)


def test_every_clip_is_seen_once_an_epoch_in_an_order_that_changes(tmp_path, monkeypatch):
    seen: list[list[int]] = []

    def spy(logits: Tensor, target: Tensor, counts: Tensor) -> Tensor:
        seen.append(target.argmax(dim=1).tolist())
        assert torch.equal(counts, COUNTS)
        return LOSSES["ce"]()(logits, target, counts)

    spy.needs_prior = False
    monkeypatch.setitem(LOSSES, "spy", lambda: spy)
    run_fit(make_head(), tmp_path, method=Method((Stage("spy"),)), epochs=3)
    assert [len(batch) for batch in seen] == [8, 8, 5] * 3
    epochs = [[label for batch in seen[start : start + 3] for label in batch] for start in (0, 3, 6)]
    assert [sorted(epoch) for epoch in epochs] == [[0] * 12 + [1] * 6 + [2] * 3] * 3
    assert epochs[0] != epochs[1] != epochs[2]


def test_the_loss_of_an_epoch_is_the_mean_over_clips_not_over_batches(tmp_path, monkeypatch):
    monkeypatch.setitem(LOSSES, "odd", lambda: lambda logits, target, counts: 0 * logits[:, 0] + target[:, 0])
    progress = run_fit(make_head(), tmp_path, method=Method((Stage("odd"),)))
    assert [row["loss"] for row in progress.history] == pytest.approx([12 / 21] * 6)


@pytest.mark.parametrize("frames", [None, 3])
def test_the_same_seed_gives_the_same_bits_and_another_seed_others(frames, tmp_path):
    heads = [make_head() for _ in range(3)]
    progress = [
        run_fit(head, tmp_path, val=make_clips(2), frames=frames, seed=seed)
        for head, seed in zip(heads, (4, 4, 5), strict=True)
    ]
    assert bits(heads[0]) == bits(heads[1]) != bits(heads[2])
    assert progress[0].history == progress[1].history != progress[2].history


def test_training_neither_reads_nor_moves_the_global_generator(tmp_path):
    heads = make_head(), make_head()
    for head, state in zip(heads, (1, 2), strict=True):
        torch.manual_seed(state)
        before = torch.get_rng_state()
        run_fit(head, tmp_path)
        assert torch.equal(torch.get_rng_state(), before)
    assert bits(heads[0]) == bits(heads[1])


def test_scoring_does_not_depend_on_the_batch_size_and_drops_nothing(monkeypatch):
    head, clips = make_head().train(), make_clips(2)
    scores = score_clips(head, clips)
    assert not head.training
    assert scores.shape == (21, 3)
    assert scores.dtype == np.float32
    for limit, value in (("SCORE_CLIPS", 1), ("SCORE_CLIPS", 20), ("SCORE_ROWS", 1), ("SCORE_ROWS", 9)):
        with monkeypatch.context() as patch:
            patch.setattr(f"longreel.experiments.scoring.{limit}", value)
            np.testing.assert_allclose(score_clips(head, clips), scores, rtol=1e-5, atol=1e-6)
    assert isinstance(clips.features, Tensor)
    for index in range(21):
        alone = clips.features[clips.offsets[index] : clips.offsets[index + 1]].float()
        np.testing.assert_allclose(head(alone[None]).detach()[0].numpy(), scores[index], rtol=1e-5, atol=1e-6)


def train_with_scripted_val(
    values: list[float], folder: Path, monkeypatch, val: ClipSet | None
) -> tuple[Progress, Standardised, list[dict[str, bytes]]]:
    """Progress, head, and the weights behind each epoch, when val is found to be these values in turn."""
    found = iter(values)
    monkeypatch.setitem(SELECTIONS, "map", lambda scores, targets: next(found))
    head, weights = make_head(), []
    progress = run_fit(head, folder, val=val, epochs=len(values), on_epoch=lambda row: weights.append(bits(head)))
    return progress, head, weights


@pytest.mark.parametrize(
    ("values", "best"),
    [([0.2, 0.9, 0.5], 2), ([0.2, 0.9, 0.9, 0.1], 3), ([0.1, 0.2, 0.3], 3), ([0.0, 0.0], 2), ([-1.0, -2.0], 1)],
)
def test_the_best_epoch_on_val_is_kept_and_of_equals_the_latest(values, best, tmp_path, monkeypatch):
    progress, head, weights = train_with_scripted_val(values, tmp_path, monkeypatch, make_clips(2))
    assert len({str(row) for row in weights}) == len(values)
    assert (progress.best_epoch, progress.best_value) == (best, values[best - 1])
    assert bits(head) == weights[best - 1]
    assert [row["val_map"] for row in progress.history] == values


def test_without_val_the_last_epoch_is_kept(tmp_path, monkeypatch):
    progress, head, weights = train_with_scripted_val([0.9, 0.5, 0.1], tmp_path, monkeypatch, None)
    assert progress.best_epoch == 3
    assert bits(head) == weights[2]
    assert all(set(row) == {"epoch", "loss"} for row in progress.history)


@pytest.mark.parametrize("select", SELECTIONS)
def test_the_history_has_the_selected_figure_of_val(select, tmp_path):
    head, val, found = make_head(), make_clips(2, noise=1.5), []

    def compute(row: dict) -> None:
        scores, truth = score_clips(head, val), val.targets.numpy() > 0
        hits = truth[np.arange(len(scores)), scores.argmax(axis=1)]
        averages = np.mean([hits[truth[:, c]].mean() for c in range(3)])
        precisions = []
        for c in range(3):
            ranked = truth[np.argsort(-scores[:, c]), c]
            precisions.append((np.cumsum(ranked) / np.arange(1, len(ranked) + 1))[ranked].mean())
        found.append({"acc1": hits.mean(), "class-average": averages, "map": np.mean(precisions)}[select])

    progress = run_fit(head, tmp_path, val=val, select=select, on_epoch=compute)
    assert [row[f"val_{select}"] for row in progress.history] == pytest.approx(found)
    assert progress.best_value == pytest.approx(max(found))


def test_val_is_looked_at_every_few_epochs_and_behind_the_last(tmp_path, monkeypatch):
    found = iter([0.5, 0.9, 0.1])
    monkeypatch.setitem(SELECTIONS, "map", lambda scores, targets: next(found))
    progress = run_fit(make_head(), tmp_path, val=make_clips(2), epochs=8, validate_every=3)
    assert [row["epoch"] for row in progress.history if "val_map" in row] == [3, 6, 8]
    assert (progress.best_epoch, progress.best_value) == (6, 0.9)


@pytest.mark.parametrize("with_val", [True, False], ids=["val", "no val"])
@pytest.mark.parametrize("stop", range(1, 7))
def test_a_training_resumed_from_any_epoch_ends_in_the_same_bits(stop, with_val, tmp_path):
    val = make_clips(2, noise=1.5) if with_val else None
    (tmp_path / "straight").mkdir()
    straight, resumed = make_head(), make_head()
    whole = run_fit(straight, tmp_path / "straight", val=val, frames=3)
    saved = tmp_path / "checkpoint.safetensors"

    def interrupt(row: dict) -> None:
        if row["epoch"] == stop:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_fit(resumed, tmp_path, val=val, frames=3, checkpoint_seconds=0, on_epoch=interrupt)
    assert saved.exists() == (stop > 1)  # the epoch at which it stopped was not saved
    epochs: list[int] = []
    progress = run_fit(
        make_head(seed=9) if stop > 1 else make_head(),  # the checkpoint has all of the head
        tmp_path,
        val=val,
        frames=3,
        on_epoch=lambda row: epochs.append(row["epoch"]),
    )
    assert epochs == list(range(stop, 7))
    assert progress.history == whole.history
    assert (progress.best_epoch, progress.best_value) == (whole.best_epoch, whole.best_value)
    assert {name: tensor.numpy().tobytes() for name, tensor in progress.best.items()} == bits(straight)


def test_a_checkpoint_behind_the_last_epoch_gives_the_finished_head(tmp_path):
    heads = make_head(), make_head(seed=9)
    first = run_fit(heads[0], tmp_path, checkpoint_seconds=0)
    again = run_fit(heads[1], tmp_path, on_epoch=lambda row: pytest.fail("trained again"))
    assert bits(heads[0]) == bits(heads[1])
    assert again.history == first.history


@pytest.mark.parametrize("torn", range(1, 5))
def test_a_checkpoint_torn_while_it_is_written_is_never_seen(torn, tmp_path, monkeypatch):
    """The write of checkpoint number `torn` breaks off half-way; the one before it still stands."""
    (tmp_path / "straight").mkdir()
    straight, resumed = make_head(), make_head()
    run_fit(straight, tmp_path / "straight")
    write, writes = Path.write_bytes, []

    def write_half(path: Path, content: bytes) -> int:
        writes.append(path)
        if len(writes) < torn:
            return write(path, content)
        write(path, content[: len(content) // 2])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", write_half)
        with pytest.raises(KeyboardInterrupt):
            run_fit(resumed, tmp_path, checkpoint_seconds=0)
    epochs: list[int] = []
    run_fit(
        resumed if torn > 1 else (resumed := make_head()), tmp_path, on_epoch=lambda row: epochs.append(row["epoch"])
    )
    assert epochs[0] == torn
    assert bits(resumed) == bits(straight)
