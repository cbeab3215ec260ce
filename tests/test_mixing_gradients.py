"""MOVE and FrameStack with real heads, against loops over clips, views and frames in double precision: what they
give and what they teach the head.
"""

import copy
import math
from typing import Any

import pytest
import torch
from small_mixing import COUNTS, make_batch
from torch import Tensor

from longreel.balance import Batch, Known
from longreel.balance.framestack import FrameStack
from longreel.balance.mixing import draw_beta
from longreel.balance.move import Move, draw_frames
from longreel.heads import build_head

pytestmark = pytest.mark.usefixtures("one_thread")

RUNNING_AP = (0.83, 0.47, 0.11)
CLIPS, CLASSES, DIM = 9, 3, 8


def make_head(text: str) -> Any:
    """In evaluation mode, with numbers that no normalisation begins with."""
    torch.manual_seed(0)
    head = build_head(text, DIM, CLASSES, torch.linspace(-0.4, 0.4, DIM), torch.linspace(0.7, 1.6, DIM))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for tensor in head.state_dict().values():
            tensor.add_(0.3 * torch.rand(tensor.shape, generator=generator))
    return head.eval()


def gradients(logits: Tensor, head: Any, frames: Tensor) -> dict[str, Tensor]:
    """Of a sum of the logits with random weights, for every parameter and for the frames."""
    weights = torch.randn(CLIPS, CLASSES, generator=torch.Generator().manual_seed(4)).to(logits.dtype)
    inputs = {"frames": frames, **dict(head.named_parameters())}
    found = torch.autograd.grad((weights * logits).sum(), list(inputs.values()))
    return dict(zip(inputs, found, strict=True))


def assert_close(found: dict[str, Tensor], wanted: dict[str, Tensor], tolerance: float) -> None:
    """Alike in every tensor, by the largest of its numbers."""
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        largest = float(tensor.abs().max())
        assert largest > 1e-3, name
        error = float((found[name].double() - tensor).abs().max())
        assert error <= tolerance * largest, f"{name}: {error:.2g} of {largest:.2g}"


def standardise(head: Any, batch: Batch) -> tuple[Tensor, Tensor]:
    """Frames in double precision that gradients go to, and the same as the inner head sees them."""
    frames = batch.frames.double().requires_grad_()
    return frames, (frames - head.mean) / head.deviation


def netvlad_of(part: Any, clip: Tensor) -> Tensor:
    """Rows ``(T, D)`` summed up centre by centre: NetVLAD, eq. (4), its two normalisations, and VideoLT's reduction."""
    book, norm = part.codebook, part.normalise
    sums = [torch.zeros(DIM, dtype=torch.float64) for _ in book.centres]
    for row in clip:
        powers = [(weight @ row + bias).exp() for weight, bias in zip(*book.nearness.parameters(), strict=True)]
        for k, power in enumerate(powers):
            sums[k] = sums[k] + power / sum(powers) * (row - book.centres[k])
    lengths = [each.square().sum().sqrt() for each in sums]
    joined = torch.cat([each / length for each, length in zip(sums, lengths, strict=True)])
    reduced = part.reduce.weight @ (joined / math.sqrt(len(sums)))
    shifted = (reduced - norm.running_mean) / (norm.running_var + 1e-5).sqrt() * norm.weight + norm.bias
    return shifted.clamp(0, 6)


def attention_of(part: Any, clip: Tensor) -> Tensor:
    """MOVE's self-attention: the mean row asks all rows ``(T, D)``, attention head by attention head."""
    mean, width = sum(clip) / len(clip), DIM // part.heads
    found = []
    for head in range(part.heads):
        query, key, value = (
            layer.weight[head * width : (head + 1) * width] for layer in (part.query, part.key, part.value)
        )
        powers = [((query @ mean) @ (key @ row) / math.sqrt(width)).exp() for row in clip]
        found.append(sum(power / sum(powers) * (value @ row) for power, row in zip(powers, clip, strict=True)))
    row = part.project.weight @ torch.cat(found) + mean
    spread = ((row - row.mean()).square().mean() + 1e-6).sqrt()
    return (row - row.mean()) / spread * part.norm.weight + part.norm.bias


def fewest_frames(batch: Batch) -> list[int]:
    """The lower bounds of MOVE's eq. (9), averaged over a clip's classes."""
    low, high = float(COUNTS.min()), float(COUNTS.max())
    tau = [(float(count) - low) / (high - low) for count in COUNTS]
    fewest = []
    for clip in range(CLIPS):
        length = int(batch.mask[clip].sum())
        bounds = [max(math.floor(tau[c] * length), 3) for c in range(CLASSES) if batch.targets[clip, c]]
        fewest.append(min(length, math.floor(sum(bounds) / len(bounds))))
    return fewest


def move_naively(head: Any, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Frames, logits and targets: section 3 of MOVE's paper, equation by equation, with the draws of the generator."""
    frames, rows = standardise(head, batch)
    both, classifier = head.head.aggregator, head.head.classifier
    seen = draw_frames(batch.mask, torch.tensor(fewest_frames(batch)), (2, 2), generator)
    beyond = (1 + draw_beta(2.0, (CLIPS, 1), generator)).double()
    partner = torch.randperm(CLIPS, generator=generator).tolist()
    between = draw_beta(1.0, (CLIPS, 1), generator).double()
    outside = []
    for clip in range(CLIPS):
        views = [
            torch.cat(
                [netvlad_of(both.vlad, rows[clip][summed[clip]]), attention_of(both.attention, rows[clip][asked[clip]])]
            )
            for asked, summed in zip(*seen, strict=True)
        ]
        outside.append(beyond[clip] * views[0] + (1 - beyond[clip]) * views[1])
    logits, targets = [], []
    for i, j in enumerate(partner):
        mixed = between[i] * outside[i] + (1 - between[i]) * outside[j]
        hidden = (classifier.hidden.weight @ mixed + classifier.hidden.bias).clamp(min=0)
        logits.append(classifier.project.weight @ hidden + classifier.project.bias)
        target = between[i] * batch.targets[i] + (1 - between[i]) * batch.targets[j]
        tau = (COUNTS.double() - COUNTS.min()) / (COUNTS.max() - COUNTS.min())
        targets.append((target * (1 - tau + 0.5)).clamp(max=1))
    return frames, torch.stack(logits), torch.stack(targets)


@pytest.mark.parametrize("seed", range(3))
def test_move_with_its_own_head_is_a_loop_over_clips_views_and_frames_also_in_its_gradients(seed):
    head, batch = make_head("aggregated:clusters=3,reduced=7,heads=2,hidden=11"), make_batch(seed, dim=DIM)
    frames = batch.frames.requires_grad_()
    known = Known(COUNTS, torch.tensor(RUNNING_AP), torch.Generator().manual_seed(seed))
    logits, targets = Move()(head, batch, known)
    exact = copy.deepcopy(head).double()
    double, wanted, soft = move_naively(exact, batch, torch.Generator().manual_seed(seed))
    torch.testing.assert_close(logits.double(), wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(targets.double(), soft, rtol=0, atol=1e-6)
    assert_close(gradients(logits, head, frames), gradients(wanted, exact, double), 1e-5)


def framestack_naively(head: Any, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Frames, logits and targets: VideoLT's eq. (1) to (4) for the first half of the batch, the rest as it is."""
    frames, rows = standardise(head, batch)
    inner, partner = head.head, torch.randperm(CLIPS, generator=generator).tolist()
    there, length = batch.mask.sum(dim=1).tolist(), batch.mask.shape[1]
    figures = [
        sum(ap for ap, label in zip(RUNNING_AP, labels, strict=True) if label) / sum(labels)
        for labels in batch.targets.tolist()
    ]
    logits, targets = [], []
    for i in range(CLIPS):
        picked, target = list(rows[i, : there[i]]), batch.targets[i]
        if i < CLIPS // 2:
            j = partner[i]
            beta = figures[i] / (figures[i] + figures[j])
            theirs = math.floor(beta * length)
            picked = [
                rows[clip, k * (there[clip] - 1) // (number - 1) if number > 1 else 0]
                for clip, number in ((i, length - theirs), (j, theirs))
                for k in range(number)
            ]
            target = (1 - beta) * target + beta * batch.targets[j]
        scored = []
        for row in picked:
            hidden = (inner.hidden.weight @ row + inner.hidden.bias).clamp(min=0)
            scored.append(inner.project.weight @ hidden + inner.project.bias)
        logits.append(torch.stack(scored).mean(dim=0))
        targets.append(target)
    return frames, torch.stack(logits), torch.stack(targets)


@pytest.mark.parametrize("seed", range(3))
def test_framestack_with_a_nonlinear_head_is_a_loop_over_clips_and_frames_also_in_its_gradients(seed):
    head, small = make_head("nonlinear:hidden=11").double(), make_batch(seed, dim=DIM)
    batch = Batch(small.frames.double().requires_grad_(), small.mask, small.targets.double())
    running_ap = torch.tensor(RUNNING_AP, dtype=torch.float64)
    known = Known(COUNTS.double(), running_ap, torch.Generator().manual_seed(seed))
    logits, targets = FrameStack()(head, batch, known)
    frames, wanted, soft = framestack_naively(
        head, Batch(small.frames, batch.mask, batch.targets), torch.Generator().manual_seed(seed)
    )
    torch.testing.assert_close(logits, wanted, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(targets, soft, rtol=1e-9, atol=1e-9)
    assert_close(gradients(logits, head, batch.frames), gradients(wanted, head, frames), 1e-9)
