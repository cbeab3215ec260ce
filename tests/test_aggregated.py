"""The aggregated head: its parts side by side, each with the frames it is given, as MOVE's code uses them."""

from typing import Any

import pytest
import torch
from torch import Tensor

from longreel.errors import LongreelError
from longreel.heads import HEADS, build_head
from longreel.heads.aggregated import SideBySide, aggregated
from longreel.heads.attention import PrototypicalAttention
from longreel.heads.netvlad import make_netvlad

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def frames() -> Tensor:
    return torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def drawn() -> Tensor:
    """Masks ``(3, 2, 3, 5)`` for three parts and two views, each with the first frame."""
    masks = torch.rand(3, 2, 3, 5, generator=torch.Generator().manual_seed(2)) < 0.5
    masks[..., 0] = True
    return masks


def make_parts(order: str = "vlad-psa") -> SideBySide:
    torch.manual_seed(0)
    return SideBySide(
        make_netvlad("residual", 8, 4, 6, "random", False), PrototypicalAttention(8, 2, 0.1), order
    ).eval()


@pytest.mark.parametrize("order", ["vlad-psa", "psa-vlad"])
def test_both_parts_see_the_same_frames_and_stand_in_the_order_asked_for(order, frames):
    parts = make_parts(order)
    mask = torch.tensor([[True] * 3 + [False] * 2] * 3)
    vlad, attention = parts.vlad(frames, mask), parts.attention(frames, mask)
    expected = [vlad, attention] if order == "vlad-psa" else [attention, vlad]
    assert torch.equal(parts(frames, mask), torch.cat(expected, dim=1))
    torch.testing.assert_close(parts(frames), parts(frames, torch.ones(3, 5, dtype=torch.bool)))


def test_each_part_can_be_given_frames_of_its_own(frames, drawn):
    parts = make_parts()
    found = parts(frames, drawn[:2])
    for view in (0, 1):
        for clip in range(3):
            asking, summed = (frames[None, clip, drawn[part, view, clip]] for part in (0, 1))
            expected = torch.cat([parts.vlad(summed), parts.attention(asking)], dim=1)[0]
            torch.testing.assert_close(found[view, clip], expected)


def test_of_three_masks_the_first_two_are_the_attentions_query_and_keys(frames, drawn):
    parts = make_parts()
    found = parts(frames, drawn)
    expected = [parts.vlad(frames, drawn[2]), parts.attention(frames, drawn[0], drawn[1])]
    assert torch.equal(found, torch.cat(expected, dim=-1))
    assert not torch.allclose(found, parts(frames, drawn[::2]))


def test_it_explains_both_parts(frames, drawn):
    found = aggregated(8, 5, clusters=3).explain(frames, drawn[:2])
    assert found["attention"].shape == (2, 3, 4, 5)
    assert found["assignment"].shape == (2, 3, 5, 3)
    assert torch.equal(found["attention"] > 0, drawn[0][:, :, None].expand(-1, -1, 4, -1))
    assert torch.equal(found["assignment"] > 0, drawn[1][..., None].expand(-1, -1, -1, 3))


def test_its_codebook_comes_from_the_training_rows():
    built = build_head("aggregated:clusters=3,codebook=kmeans", 8, 5, torch.zeros(8), torch.ones(8))
    rows = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    inner: Any = built.head
    before = inner.aggregator.vlad.codebook.centres.clone()
    built.prepare(lambda: rows, seed=0)
    assert not torch.equal(inner.aggregator.vlad.codebook.centres, before)


def test_the_sizes_are_those_of_moves_code():
    with torch.device("meta"):
        released: Any = HEADS["aggregated"](2048, 1004, vlad="gated")
        paper: Any = HEADS["aggregated"](2048, 1004)
    assert sum(parameter.numel() for parameter in released.parameters()) == 159_618_156
    assert sum(parameter.numel() for parameter in paper.parameters()) == 159_613_996
    assert released.aggregator.width == 3072
    assert released.branches == 2


def test_a_view_of_all_frames_trains_on_the_same_statistics_as_none(frames):
    torch.manual_seed(0)
    head = aggregated(8, 5, vlad="gated", dropout=0.0)
    everything = torch.ones(2, 1, 3, 5, dtype=torch.bool)
    found = head.aggregate(frames, everything)
    torch.testing.assert_close(found[0], head.aggregate(frames))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("aggregated:order=psa", "no order of aggregated called 'psa'. There are: psa-vlad, vlad-psa"),
        ("aggregated:hidden=0", "hidden=0 must be 1 or more"),
        ("aggregated:reduced=0", "reduced=0 must be 1 or more"),
        ("aggregated:heads=3", "psa: heads=3 do not share 8 numbers"),
    ],
)
def test_options_that_cannot_be_are_refused(text, message):
    with pytest.raises(LongreelError, match=message):
        build_head(text, 8, 5, torch.zeros(8), torch.ones(8))
