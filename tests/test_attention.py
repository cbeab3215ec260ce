"""Attention heads against forms that project every frame, head by head."""

import math
from typing import Any

import pytest
import torch
from small_clips import LENGTHS, padded_clips, two_views
from torch import Tensor, nn
from torch.nn import functional as F

from longreel.errors import LongreelError
from longreel.heads import HEADS, build_head
from longreel.heads.attention import MultiHeadAttention, PrototypicalAttention
from longreel.heads.attentive import AttentivePool

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def clips() -> tuple[Tensor, Tensor]:
    return padded_clips(8, torch.float64)


@pytest.fixture
def views(clips) -> Tensor:
    return two_views(clips[1])


def double(module: nn.Module) -> Any:
    """The module in double precision, in evaluation mode, with norms that do not begin with 1 and 0."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if "norm" in name:
                parameter.add_(0.3 * torch.rand(parameter.shape, generator=generator))
    return module.double().eval()


def attend_by_head(query: Tensor, keys: Tensor, values: Tensor, heads: int) -> Tensor:
    """Ordinary attention of one query ``(D,)`` over projected frames ``(T, D)``, one head after the other."""
    width, found = len(query) // heads, []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        powers = [(query[part] @ key[part] / math.sqrt(width)).exp() for key in keys]
        weighted = [power / sum(powers) * value[part] for power, value in zip(powers, values, strict=True)]
        found.append(torch.stack(weighted).sum(dim=0))
    return torch.cat(found)


def finish(layer: Any, found: Tensor, query: Tensor) -> Tensor:
    row = layer.project.weight @ found + query
    spread = ((row - row.mean()).square().mean() + 1e-6).sqrt()
    return (row - row.mean()) / spread * layer.norm.weight + layer.norm.bias


def psa_naively(layer: PrototypicalAttention, clip: Tensor, shown: Tensor | None = None) -> Tensor:
    """The released layers: one query, and a key and a value of every row ``(T, D)``."""
    shown = clip if shown is None else shown
    prototype = clip.mean(dim=0)
    query = layer.query.weight @ prototype
    keys, values = shown @ layer.key.weight.T, shown @ layer.value.weight.T
    return finish(layer, attend_by_head(query, keys, values, layer.heads), prototype)


def msa_naively(layer: MultiHeadAttention, clip: Tensor) -> Tensor:
    query, key, value = (clip @ each.weight.T for each in (layer.query, layer.key, layer.value))
    rows = [
        finish(layer, attend_by_head(asking, key, value, layer.heads), row)
        for asking, row in zip(query, clip, strict=True)
    ]
    return torch.stack(rows).mean(dim=0)


def attentive_naively(layer: AttentivePool, clip: Tensor) -> Tensor:
    """With a bias of the keys, which does nothing."""
    rows = F.layer_norm(clip, (8,), layer.norm.weight, layer.norm.bias)
    keys = rows @ layer.key.weight.T + torch.arange(8.0)
    values = rows @ layer.value.weight.T + layer.value.bias
    query = layer.query.weight @ layer.token + layer.query.bias
    token = layer.token + layer.project(attend_by_head(query, keys, values, layer.heads))
    hidden = layer.widen(F.layer_norm(token, (8,), layer.norm_found.weight, layer.norm_found.bias))
    return token + layer.narrow(hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2)


FORMS = [
    (lambda: PrototypicalAttention(8, 4), psa_naively),
    (lambda: MultiHeadAttention(8, 4), msa_naively),
    (lambda: AttentivePool(8, 4), attentive_naively),
]


@pytest.mark.parametrize(("make", "naive"), FORMS, ids=["psa", "msa", "attentive"])
def test_without_projecting_frames_the_result_and_its_gradients_are_the_same(make, naive, clips):
    frames, mask = clips
    layer = double(make())
    frames = frames.clone().requires_grad_()
    inputs = [frames, *layer.parameters()]
    weights = torch.randn(3, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    found = layer(frames, mask)
    wanted = torch.stack([naive(layer, clip[:length]) for clip, length in zip(frames, LENGTHS, strict=True)])
    torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-8)
    for mine, theirs in zip(
        torch.autograd.grad((weights * found).sum(), inputs),
        torch.autograd.grad((weights * wanted).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize(("make", "naive"), FORMS, ids=["psa", "msa", "attentive"])
def test_a_frame_that_a_view_does_not_see_has_no_part_in_it(make, naive, clips, views):
    frames, layer = clips[0], double(make())
    found = layer(frames, views)
    for view in (0, 1):
        for clip in range(3):
            torch.testing.assert_close(found[view, clip], naive(layer, frames[clip][views[view, clip]]))


def test_keys_of_their_own_leave_the_mean_frame_as_it_is(clips, views):
    frames, layer = clips[0], double(PrototypicalAttention(8, 4))
    keys = views.flip(0)
    found = layer(frames, views, keys)
    for view in (0, 1):
        for clip in range(3):
            seen, shown = frames[clip][views[view, clip]], frames[clip][keys[view, clip]]
            torch.testing.assert_close(found[view, clip], psa_naively(layer, seen, shown))


def test_where_no_key_is_left_all_frames_get_alike(clips):
    frames, layer = clips[0][:1], double(PrototypicalAttention(8, 4))
    everything = torch.ones(2, 1, 5, dtype=torch.bool)
    found = layer(frames, everything, torch.zeros(2, 1, 5, dtype=torch.bool))
    uniform = layer.value.weight @ frames[0].mean(dim=0)
    torch.testing.assert_close(found[0, 0], finish(layer, uniform, frames[0].mean(dim=0)))


def test_multiplied_masks_make_frames_zero_that_stay_in_mean_and_softmax(clips, views):
    frames, mask = clips
    layer, plain = (double(PrototypicalAttention(8, 4, masked=masked)) for masked in ("multiply", "drop"))
    plain.load_state_dict(layer.state_dict())
    found = layer(frames, views)
    for view in (0, 1):
        zeroed = frames * views[view][..., None]
        naive = torch.stack([psa_naively(layer, clip) for clip in zeroed])
        torch.testing.assert_close(found[view], naive)
    torch.testing.assert_close(layer(frames, mask), plain(frames, mask))  # padding is no frame


def test_attention_is_what_the_frames_are_weighted_with(clips, views):
    frames = clips[0]
    layer = double(PrototypicalAttention(8, 4))
    weights = layer.explain(frames, views)["attention"]
    assert weights.shape == (2, 3, 4, 5)
    for view in (0, 1):
        for clip in range(3):
            rows = frames[clip] @ layer.value.weight.T
            parts = [weights[view, clip, head] @ rows[:, 2 * head : 2 * head + 2] for head in range(4)]
            prototype = frames[clip][views[view, clip]].mean(dim=0)
            expected = finish(layer, torch.cat(parts), prototype)
            torch.testing.assert_close(layer(frames, views)[view, clip], expected)


def test_attention_of_ordinary_self_attention_is_the_mean_over_the_frames_that_ask(clips):
    frames, mask = clips
    layer = double(MultiHeadAttention(8, 4))
    found = layer.explain(frames, mask)["attention"]
    for clip, length in enumerate(LENGTHS):
        rows = frames[clip, :length]
        for head in range(4):
            part = slice(2 * head, 2 * head + 2)
            query, key = rows @ layer.query.weight.T[:, part], rows @ layer.key.weight.T[:, part]
            wanted = (query @ key.T / math.sqrt(2)).softmax(dim=1).mean(dim=0)
            torch.testing.assert_close(found[clip, head, :length], wanted)


@pytest.mark.parametrize("make", [PrototypicalAttention, MultiHeadAttention])
def test_dropout_acts_on_attention_and_on_what_is_added(make):
    """At a rate of 0.9 the four weights of one frame are all dropped with chance 0.66, the eight sums with 0.43."""
    torch.manual_seed(0)
    layer = make(8, 4, dropout=0.9).train()
    frame = torch.randn(1, 1, 8)
    drawn = torch.cat([layer(frame) for _ in range(500)])
    untouched = (drawn - layer.norm(frame[0])).abs().amax(dim=1) < 1e-6
    expected = 1 - (1 - 0.9**4) * (1 - 0.9**8)  # 0.80
    assert float(untouched.float().mean()) == pytest.approx(expected, abs=0.06)
    assert torch.equal(layer.eval()(frame), layer(frame))


def test_psa_has_the_number_of_parameters_of_moves_code():
    with torch.device("meta"):
        for make in (PrototypicalAttention, MultiHeadAttention):
            assert sum(parameter.numel() for parameter in make(2048).parameters()) == 16_781_312
        psa: Any = HEADS["psa"](2048, 1004)
        attentive = AttentivePool(768)
    classifier = 2048 * 2048 + 2048 + 2048 * 1004 + 1004
    assert sum(parameter.numel() for parameter in psa.parameters()) == 16_781_312 + classifier
    # Four projections and two of four times the width, their biases but that of the keys, two norms, the query.
    assert sum(parameter.numel() for parameter in attentive.parameters()) == 12 * 768**2 + (3 + 5 + 4 + 1) * 768


@pytest.mark.parametrize("text", ["psa", "msa", "attentive"])
def test_float32_and_many_frames_stay_close_to_float64(text):
    torch.manual_seed(0)
    head: Any = HEADS[text](64, 5)
    head.eval()
    frames = 10 * torch.randn(4, 150, 64)
    single, exact = head(frames), head.double()(frames.double())
    torch.testing.assert_close(single.double(), exact, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("psa:heads=3", "psa: heads=3 do not share 8 numbers of a row evenly. Take heads=2"),
        ("msa:heads=0", "heads=0 must be 1 or more"),
        ("attentive:heads=16", "Take heads=8"),
        ("attentive:ratio=0", "ratio=0 must be 1 or more"),
        ("psa:dropout=1", "dropout=1 must be at least 0 and below 1"),
        ("psa:masked=zero", "no masked of psa called 'zero'"),
    ],
)
def test_options_that_cannot_be_are_refused(text, message):
    with pytest.raises(LongreelError, match=message):
        build_head(text, 8, 5, torch.zeros(8), torch.ones(8))
