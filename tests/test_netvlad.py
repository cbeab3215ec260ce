"""NetVLAD against loops written from the papers' equations and the figures of VideoLT's code."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from small_clips import LENGTHS, padded_clips, two_views
from torch import Tensor
from torch.nn import functional as F

from longreel.errors import LongreelError
from longreel.heads import HEADS, build_head
from longreel.heads.codebook import cluster_rows, sharpness
from longreel.heads.netvlad import GatedCodebook, ResidualCodebook, netvlad, netvlad_gated, normalise_twice
from longreel.heads.rownorm import RowNorm

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def clips() -> tuple[Tensor, Tensor]:
    return padded_clips(6, torch.float64)


@pytest.fixture
def views(clips) -> Tensor:
    return two_views(clips[1])


def double(head: Any) -> Any:
    """The head in double precision, with numbers that no normalisation begins with."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for tensor in head.state_dict().values():
            tensor.add_(0.3 * torch.rand(tensor.shape, generator=generator))
    return head.double()


def residual_sums(codebook: ResidualCodebook, clip: Tensor) -> Tensor:
    """Eq. (4) of NetVLAD for the rows ``(T, D)`` of one clip, centre by centre and frame by frame."""
    sums = torch.zeros_like(codebook.centres)
    for row in clip:
        powers = [(weight @ row + bias).exp() for weight, bias in zip(*codebook.nearness.parameters(), strict=True)]
        for k, power in enumerate(powers):
            share = power / sum(powers)
            sums = sums + F.one_hot(torch.tensor(k), len(powers))[:, None] * share * (row - codebook.centres[k])
    return sums


def normalised(sums: Tensor) -> Tensor:
    rows = torch.stack([row / row.norm() for row in sums])
    return rows.flatten() / rows.norm()


def test_the_residual_form_is_equation_4_of_its_paper_also_in_its_gradients(clips):
    frames, mask = clips
    head = double(netvlad(6, 4, clusters=3, hidden=7)).eval()
    part, norm = head.aggregator, head.aggregator.normalise
    frames = frames.clone().requires_grad_()
    inputs = [frames, *head.parameters()]
    weights = torch.randn(3, 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    found = head(frames, mask)
    naive = []
    for clip, length in zip(frames, LENGTHS, strict=True):
        reduced = part.reduce.weight @ normalised(residual_sums(part.codebook, clip[:length]))
        spread = (norm.running_var + 1e-5).sqrt()
        reduced = ((reduced - norm.running_mean) / spread * norm.weight + norm.bias).clamp(0, 6)
        naive.append(head.output.weight @ reduced + head.output.bias)
    torch.testing.assert_close(found, torch.stack(naive), rtol=1e-8, atol=1e-8)
    for mine, theirs in zip(
        torch.autograd.grad((weights * found).sum(), inputs),
        torch.autograd.grad((weights * torch.stack(naive)).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-8)


def gated_sums(codebook: GatedCodebook, rows: Tensor, seen: Tensor) -> Tensor:
    """VideoLT's layers in turn: rows ``(N, T, D)`` of clips or views, and whether each is there, ``(N, T)``."""
    norms = [codebook.normalise, codebook.normalise_nearness]
    batch = F.batch_norm(rows[seen], None, None, norms[0].weight, norms[0].bias, training=True)
    nearness = F.batch_norm(batch @ codebook.nearness.weight.T, None, None, *norms[1].parameters(), training=True)
    shares, sums, place = nearness.softmax(dim=1), [], 0
    for count in seen.sum(dim=1).tolist():
        here = slice(place, place + count)
        total = sum(torch.outer(share, row) for share, row in zip(shares[here], batch[here], strict=True))
        sums.append(total / (1 + (-codebook.gate).exp()))
        place += count
    return torch.stack(sums)


def test_the_gated_form_in_training_is_its_layers_in_turn_on_the_frames_that_exist(clips):
    frames, mask = clips
    codebook = double(GatedCodebook(6, 3)).train()
    frames = frames.clone().requires_grad_()
    inputs = [frames, *codebook.parameters()]
    weights = torch.randn(3, 3, 6, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    found, naive = codebook(frames, mask)[:, 0], gated_sums(codebook, frames, mask)
    torch.testing.assert_close(found, naive, rtol=1e-8, atol=1e-8)
    for mine, theirs in zip(
        torch.autograd.grad((weights * found).sum(), inputs),
        torch.autograd.grad((weights * naive).sum(), inputs),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-8)


def test_views_in_training_are_normalised_by_the_frames_of_all_views(clips, views):
    frames = clips[0]
    codebook = double(GatedCodebook(6, 3)).train()
    found = codebook(frames, views).transpose(0, 1).flatten(0, 1)  # (V * B, K, D)
    torch.testing.assert_close(found, gated_sums(codebook, frames.repeat(2, 1, 1), views.flatten(0, 1)))


def test_as_released_views_are_zeroed_copies_of_frames_that_were_normalised_as_one_batch(clips, views):
    frames = clips[0]
    codebook = double(GatedCodebook(6, 3, released=True)).train()
    norms = [codebook.normalise, codebook.normalise_nearness]
    batch = F.batch_norm(frames.flatten(0, 1), None, None, *norms[0].parameters(), training=True).detach()
    copies = (batch.view(1, 3, 5, 6) * views[..., None]).flatten(0, 1)  # (V * B, T, D)
    nearness = copies.flatten(0, 1) @ codebook.nearness.weight.T
    shares = F.batch_norm(nearness, None, None, *norms[1].parameters(), training=True).softmax(dim=1).view(6, 5, 3)
    naive = torch.einsum("ntk,ntd->nkd", shares, copies) * codebook.gate.sigmoid()
    found = codebook(frames, views).transpose(0, 1).flatten(0, 1)
    torch.testing.assert_close(found, naive, rtol=1e-8, atol=1e-8)
    weights = torch.randn(naive.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    trained = [codebook.nearness.weight, codebook.gate, *norms[1].parameters()]
    for mine, theirs in zip(
        torch.autograd.grad((weights * found).sum(), trained, retain_graph=True),
        torch.autograd.grad((weights * naive).sum(), trained),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-6, atol=1e-8)
    found.sum().backward()
    assert norms[0].weight.grad is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_two_normalisations_in_one_pass_equal_two_also_with_an_empty_centre(dtype):
    sums = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=dtype)
    sums[0, 1], sums[1, 2] = 0.0, 1e-14
    sums.requires_grad_()
    weights = torch.randn(2, 12, generator=torch.Generator().manual_seed(1), dtype=dtype)
    naive = F.normalize(F.normalize(sums, dim=2).flatten(1), dim=1)
    found = normalise_twice(sums).flatten(1)
    torch.testing.assert_close(found, naive)
    # Where a centre is all but empty the slope is about 1e12, and nothing is compared.
    full = torch.tensor([[True, False, True], [True, True, False]])
    mine, theirs = (torch.autograd.grad((weights * each).sum(), sums)[0][full] for each in (found, naive))
    torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("weighted", [False, True])
def test_row_norm_is_batch_norm_of_rows_repeated_as_often_as_they_count(weighted):
    generator = torch.Generator().manual_seed(0)
    rows = 3 + 2 * torch.randn(7, 4, generator=generator, dtype=torch.float64)
    weights = torch.tensor([1, 0, 2, 3, 0, 1, 1]) if weighted else None
    mine, theirs = double(RowNorm(4)).train(), torch.nn.BatchNorm1d(4).double().train()
    theirs.load_state_dict(mine.state_dict(), strict=False)
    times = torch.ones(7, dtype=torch.int64) if weights is None else weights
    expected = theirs(rows.repeat_interleave(times, dim=0))
    torch.testing.assert_close(mine(rows, weights).repeat_interleave(times, dim=0), expected)
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(mine, name), getattr(theirs, name))
    torch.testing.assert_close(mine.eval()(rows), theirs.eval()(rows))


def test_padding_does_not_change_what_training_sees(clips):
    frames, mask = clips
    heads = []
    for padding in (1e3, -7.0):
        torch.manual_seed(0)
        head = netvlad_gated(6, 4, clusters=3, hidden=7).double().train()
        head(torch.where(mask[..., None], frames, padding), mask).sum().backward()
        heads.append(head)
    first, second = (head.state_dict() for head in heads)
    for name, tensor in first.items():
        torch.testing.assert_close(tensor, second[name])
    for one, other in zip(*(head.parameters() for head in heads), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


@pytest.mark.parametrize(("name", "parameters"), [("netvlad-gated", 135_515_244), ("netvlad", 135_511_084)])
def test_the_sizes_are_those_of_videolt(name, parameters):
    with torch.device("meta"):
        head: Any = HEADS[name](2048, 1004)
    assert sum(parameter.numel() for parameter in head.parameters()) == parameters
    # The paper's form has no normalisations before the sums and a bias of 64; centres stand for the gate.
    assert 135_515_244 - 135_511_084 == 2 * 2048 + 2 * 64 - 64


def make_blobs() -> Tensor:
    """300 rows around three far points, ``(300, 6)``."""
    generator = torch.Generator().manual_seed(0)
    points = 4 * torch.eye(6)[:3]
    return points.repeat(100, 1) + torch.randn(300, 6, generator=generator)


def test_k_means_centres_are_those_of_scikit_learn():
    rows = make_blobs()
    found = cluster_rows(rows, 3, seed=0)
    wanted = KMeans(3, n_init="auto", random_state=0).fit(rows.numpy()).cluster_centers_
    order = [int(np.linalg.norm(wanted - centre.numpy(), axis=1).argmin()) for centre in found]
    np.testing.assert_allclose(found.numpy(), wanted[order], atol=0.05)


def test_k_means_gives_the_same_bits_whatever_the_number_of_threads():
    rows = torch.randn(2000, 32, generator=torch.Generator().manual_seed(0))
    first = cluster_rows(rows, 8, seed=1)
    torch.set_num_threads(2)
    assert torch.equal(cluster_rows(rows, 8, seed=1), first)
    assert not torch.equal(cluster_rows(rows, 8, seed=2), first)


def test_a_codebook_of_k_means_assigns_by_distance_with_a_contrast_of_100():
    rows = make_blobs()
    head = build_head("netvlad:clusters=3,hidden=7,codebook=kmeans", 6, 4, torch.ones(6), torch.full((6,), 2.0))
    state = torch.get_rng_state()
    head.prepare(lambda: rows, seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    inner: Any = head.head
    codebook = inner.aggregator.codebook
    standardised = (rows - 1) / 2
    assert torch.equal(codebook.centres, cluster_rows(standardised, 3, seed=0))
    shares = codebook.assign(standardised[None])[0].detach().double()  # (N, K)
    centres = codebook.centres.detach()
    distances = torch.stack([(standardised - centre).square().sum(dim=1) for centre in centres], dim=1)
    assert torch.equal(shares.argmax(dim=1), distances.argmin(dim=1))
    top = shares.topk(2, dim=1).values
    assert float((top[:, 0] / top[:, 1]).log().mean().exp()) == pytest.approx(100, rel=1e-3)
    alpha = sharpness(standardised, centres)
    torch.testing.assert_close(shares, (-alpha * distances.double()).softmax(dim=1), rtol=1e-3, atol=1e-6)
    assert alpha == pytest.approx(
        math.log(100) / float(distances.topk(2, largest=False).values.diff().mean()), rel=1e-4
    )


def test_without_k_means_the_rows_change_nothing():
    head = netvlad(6, 4, clusters=3, hidden=7)
    before = {name: tensor.clone() for name, tensor in head.state_dict().items()}

    def refuse() -> Tensor:
        raise AssertionError("rows are drawn for nothing")

    head.prepare(refuse, seed=0)
    assert all(torch.equal(before[name], tensor) for name, tensor in head.state_dict().items())


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (torch.zeros(2, 6), "2 training rows are too few for 4"),
        (torch.ones(9, 6), "too alike"),
        (torch.eye(6)[:2].repeat(20, 1), "too alike"),
    ],
)
def test_rows_without_clusters_are_refused(rows, message):
    with pytest.raises(LongreelError, match=message):
        netvlad(6, 4, clusters=4, hidden=7, codebook="kmeans").prepare(lambda: rows, seed=0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("netvlad:clusters=1", "clusters=1 must be 2 or more"),
        ("netvlad:hidden=0", "hidden=0 must be 1 or more"),
        ("netvlad:codebook=kmean", "no codebook of netvlad called 'kmean'. Did you mean 'kmeans'"),
        ("aggregated:released=true", "released=true is about the gated form"),
        ("aggregated:vlad=gated,codebook=kmeans", "the gated form has no centres"),
        ("aggregated:vlad=gate", "no form of netvlad called 'gate'. Did you mean 'gated'"),
    ],
)
def test_options_that_cannot_be_are_refused(text, message):
    with pytest.raises(LongreelError, match=message):
        build_head(text, 8, 5, torch.zeros(8), torch.ones(8))
