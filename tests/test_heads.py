"""What every head can do: each in the dict goes through these tests, in the forms that differ."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small_clips import LENGTHS, padded_clips
from torch import Tensor
from torch.nn import functional as F

from longreel.errors import LongreelError
from longreel.heads import HEADS, Nonlinear, Standardised, build_head
from longreel.heads.views import masked_mean
from longreel.parts import build_part, options_of

GUIDE = (Path(__file__).parent.parent / "docs" / "heads.md").read_text()
#: forms that compute something else.
VARIANTS = [
    *HEADS,
    "cosine:learned=false",
    "netvlad:clusters=3,hidden=16",
    "netvlad-gated:released=true",
    "psa:masked=multiply",
    "aggregated:vlad=gated,order=psa-vlad",
    "knn:neighbours=3,balanced=true",
]
ONE_LAYER = {text for text in VARIANTS if text.startswith(("linear", "cosine", "netvlad", "attentive"))} | {"nonlinear"}
TRAINED = [text for text in VARIANTS if not text.startswith("knn")]


def fill(head: Any, remembered: int = 30) -> Any:
    """The head, with clips to compare with if it is one that does."""
    if not head.trainable:
        generator = torch.Generator().manual_seed(5)
        targets = F.one_hot(torch.randint(5, (remembered,), generator=generator), 5)
        head.remember(torch.randn(remembered, 8, generator=generator), targets)
    return head


def make(text: str, seed: int = 0, remembered: int = 30) -> Any:
    torch.manual_seed(seed)
    return fill(build_part("head", HEADS, text, 8, 5), remembered)


def draw_views(mask: Tensor) -> Tensor:
    """Two views, ``(2, B, T)``: the first and the last half of each clip, rounded up."""
    places, lengths = torch.arange(mask.shape[1]), mask.sum(dim=1, keepdim=True)
    return torch.stack([mask & (places < (lengths + 1) // 2), mask & (places >= lengths // 2)])


def over_frames(mask: Tensor, name: str) -> Tensor:
    """The mask, to be laid over what explains a head."""
    return mask[..., None, :] if name == "attention" else mask[..., None]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture
def clips() -> tuple[Tensor, Tensor]:
    return padded_clips(8)


def test_the_masked_mean_is_the_mean_of_the_rows_that_exist(clips):
    frames, mask = clips
    naive = [clip[:length].mean(dim=0) for clip, length in zip(frames, LENGTHS, strict=True)]
    torch.testing.assert_close(masked_mean(frames, mask), torch.stack(naive))
    torch.testing.assert_close(masked_mean(frames, None), frames.sum(dim=1) / 5)
    views = draw_views(mask)
    naive = [[clip[seen].mean(dim=0) for clip, seen in zip(frames, view, strict=True)] for view in views]
    torch.testing.assert_close(masked_mean(frames, views), torch.stack([torch.stack(view) for view in naive]))


@pytest.mark.parametrize("text", VARIANTS)
def test_every_head_gives_one_finite_logit_a_class(text, clips):
    logits = make(text).eval()(*clips)
    assert logits.shape == (3, 5)
    assert logits.isfinite().all()
    assert logits.std() > 0


@pytest.mark.parametrize("text", VARIANTS)
def test_every_head_ignores_padding(text, clips):
    frames, mask = clips
    head = make(text).eval()
    together = head(frames, mask)
    alone = [head(clip[None, :length]) for clip, length in zip(frames, LENGTHS, strict=True)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-5, atol=1e-5)
    other = torch.where(mask[..., None], frames, torch.tensor(-7.0))
    torch.testing.assert_close(head(other, mask), together, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("text", VARIANTS)
def test_every_head_takes_a_mask_of_one_frame_as_that_frame_alone(text, clips):
    frames = clips[0]
    head = make(text).eval()
    mask = F.one_hot(torch.tensor([4, 0, 1]), 5).bool()
    torch.testing.assert_close(head(frames, mask), head(frames[mask][:, None]), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("text", VARIANTS)
def test_every_head_takes_a_mask_of_only_true_as_no_mask(text, clips):
    frames = clips[0][:1]
    head = make(text).eval()
    torch.testing.assert_close(head(frames, torch.ones(1, 5, dtype=torch.bool)), head(frames))


@pytest.mark.parametrize("text", VARIANTS)
def test_views_of_every_head_equal_separate_calls(text, clips):
    frames, mask = clips
    head = make(text).eval()
    views = draw_views(mask)
    together = head.aggregate(frames, views)
    assert together.shape[:2] == (2, 3)
    if "masked=multiply" not in text:  # a mask of one view is padding there
        separate = torch.stack([head.aggregate(frames, view) for view in views])
        torch.testing.assert_close(together, separate, rtol=1e-5, atol=1e-5)
    branches = views.expand(head.branches, -1, -1, -1)
    torch.testing.assert_close(head.aggregate(frames, branches), together)
    assert head.aggregate(frames, branches[:, :1]).shape == together[:1].shape
    with pytest.raises(ValueError, match=r"branch(es)?, and its mask \(4, 2, 3, 5\) is for 4"):
        head.aggregate(frames, views.expand(4, -1, -1, -1))


@pytest.mark.parametrize("text", VARIANTS)
def test_every_head_is_classify_after_aggregate_whatever_stands_before_the_vector(text, clips):
    frames, mask = clips
    head = make(text).eval()
    pooled = head.aggregate(frames, draw_views(mask))
    found = head.classify(pooled)
    assert found.shape == (2, 3, 5)
    for view in (0, 1):
        torch.testing.assert_close(found[view], head.classify(pooled[view]), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(head.classify(head.aggregate(frames, mask)), head(frames, mask))


@pytest.mark.parametrize("text", TRAINED)
def test_every_parameter_of_every_head_gets_a_gradient(text, clips):
    frames, mask = clips
    for seen in (mask,) if "released" in text else (mask, draw_views(mask)):
        head = make(text).train()
        torch.manual_seed(0)  # of dropout
        (head.classify(head.aggregate(frames, seen)) + 1).square().sum().backward()
        for name, parameter in head.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("text", VARIANTS)
def test_every_head_scores_a_clip_alike_wherever_it_stands_in_the_batch(text, clips):
    frames, mask = clips
    head = make(text).eval()
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(head(frames[order], mask[order]), head(frames, mask)[order], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("text", VARIANTS)
def test_every_head_takes_up_a_saved_state(text, clips):
    head, other = make(text, seed=0), make(text, seed=1, remembered=7)
    head.train().aggregate(*clips)  # so that running statistics are not those of a new head
    assert not torch.equal(other.eval()(*clips), head.eval()(*clips))
    other.load_state_dict(head.state_dict())
    assert torch.equal(other(*clips), head(*clips))
    assert all(tensor.is_contiguous() for tensor in head.state_dict().values())


@pytest.mark.parametrize("text", TRAINED)
def test_the_output_of_every_head_is_its_last_layer(text, clips):
    head = make(text).eval()
    before = head(*clips)
    with torch.no_grad():
        head.output.bias += torch.arange(5.0)
    torch.testing.assert_close(head(*clips), before + torch.arange(5.0), rtol=1e-5, atol=1e-5)
    assert head.output.weight.shape == (5, head.aggregate(*clips).shape[-1] if text in ONE_LAYER else 2048)
    torch.manual_seed(9)
    head.output.reset_parameters()
    assert not torch.allclose(head(*clips), before)


@pytest.mark.parametrize("text", VARIANTS)
def test_what_explains_every_head_adds_up_to_one_and_leaves_it_as_it_was(text, clips):
    frames, mask = clips
    head = make(text).train()
    state = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    for seen, axes in ((None, (3,)), (mask, (3,)), (draw_views(mask), (2, 3))):
        for name, found in head.explain(frames, seen).items():
            frame_axis = {"attention": -1, "assignment": -2}[name]
            assert found.shape[: len(axes)] == axes
            assert found.shape[frame_axis] == 5
            hidden = torch.zeros(found.shape) if seen is None else torch.where(over_frames(seen, name), 0.0, found)
            assert hidden.abs().max() == 0
            totals = found.sum(dim=-1)
            expected = torch.ones_like(totals) if seen is None or name == "attention" else seen.float()
            if "masked=multiply" not in text:  # where frames that are zero keep a share
                torch.testing.assert_close(totals, expected)
    assert head.training
    assert all(torch.equal(state[name], tensor) for name, tensor in head.state_dict().items())


@pytest.mark.parametrize("text", VARIANTS)
def test_a_standardised_head_on_raw_features_equals_the_plain_head_on_standardised_ones(text, clips):
    frames, mask = clips
    mean, deviation = torch.arange(8.0), torch.arange(1.0, 9.0)
    head = fill(build_head(text, 8, 5, mean, deviation)).eval()
    standardised = torch.stack([torch.stack([(row - mean) / deviation for row in clip]) for clip in frames])
    plain = head.head.classify(head.head.aggregate(standardised, mask))
    torch.testing.assert_close(head(frames, mask), plain)
    views = draw_views(mask)
    torch.testing.assert_close(head.aggregate(frames, views), head.head.aggregate(standardised, views))
    assert (head.branches, head.trainable) == (head.head.branches, head.head.trainable)
    for name, found in head.explain(frames, mask).items():
        torch.testing.assert_close(found, head.head.explain(standardised, mask)[name])


@pytest.mark.parametrize("text", ["linear", "cosine", "nonlinear-early"])
def test_the_mean_of_rows_far_from_zero_keeps_its_digits_in_bfloat16(text):
    mean, deviation = torch.full((8,), 100.0), torch.ones(8)
    rows = mean + torch.randn(6, 5, 8, generator=torch.Generator().manual_seed(0))
    head = build_head(text, 8, 5, mean, deviation).eval()
    for mask in (None, torch.ones(6, 5).bool()):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = head.aggregate(rows, mask)
        torch.testing.assert_close(found.float(), rows.mean(dim=1) - mean, rtol=0.01, atol=1e-3)


@pytest.mark.parametrize("text", TRAINED)
def test_half_precision_is_for_standardised_heads(text, clips):
    frames, mask = clips[0].clamp(max=4.0), clips[1]
    head = build_head(text, 8, 5, torch.zeros(8), torch.ones(8)).eval()
    torch.testing.assert_close(head(frames.half(), mask), head(frames.half().float(), mask))
    with pytest.raises(RuntimeError):
        head.head(frames.half(), mask)


def test_zeros_and_ones_leave_the_features_as_they_are(clips):
    head = build_head("nonlinear", 8, 5, torch.zeros(8), torch.ones(8)).eval()
    assert torch.equal(head(*clips), head.head.classify(head.head.aggregate(*clips)))


def test_mean_and_deviation_are_saved_with_the_head_and_not_trained():
    inner = Nonlinear(3, 2, hidden=4)
    head = Standardised(inner, torch.arange(3.0), torch.ones(3))
    assert set(head.state_dict()) == {"mean", "deviation", *(f"head.{name}" for name in inner.state_dict())}
    assert [id(parameter) for parameter in head.parameters()] == [id(parameter) for parameter in inner.parameters()]


@pytest.mark.parametrize("name", HEADS)
def test_every_head_has_its_options_and_defaults_in_the_guide(name):
    row = next(line for line in GUIDE.splitlines() if line.startswith(f"| `{name}` |"))
    for option, default in options_of(HEADS[name]).items():
        shown = str(default).lower() if isinstance(default, bool) else f"{default:g}" if default == 10.0 else default
        assert f"`{option}={shown}`" in row


@pytest.mark.parametrize("name", [name for name in HEADS if name != "knn"])
def test_every_head_is_as_large_as_the_guide_says(name):
    with torch.device("meta"):
        head: Any = HEADS[name](2048, 1004)
    row = next(line for line in GUIDE.splitlines() if line.startswith(f"| `{name}` |"))
    said = int(row.rstrip(" |").rsplit("|", 1)[1].replace(" ", ""))
    assert sum(parameter.numel() for parameter in head.parameters()) == said


def test_an_unknown_head_is_refused_with_the_nearest_name():
    with pytest.raises(LongreelError, match=r"no head called 'nonlinar'. Did you mean 'nonlinear'"):
        build_head("nonlinar", 8, 5, torch.zeros(8), torch.ones(8))
