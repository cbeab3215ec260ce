"""The nearest-neighbour head against a loop over the training clips."""

import math
from typing import Any

import pytest
import torch
from sklearn.neighbors import NearestNeighbors
from torch import Tensor
from torch.nn import functional as F

from longreel.errors import LongreelError
from longreel.heads import Neighbours, build_head

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def known() -> tuple[Tensor, Tensor]:
    """Forty training clips and their targets of four classes, of which every seventh clip has two."""
    generator = torch.Generator().manual_seed(0)
    targets = F.one_hot(torch.randint(4, (40,), generator=generator), 4).float()
    targets[::7, 3] = 1.0
    return 2 * torch.randn(40, 6, generator=generator), targets


@pytest.fixture
def queries() -> Tensor:
    return torch.randn(37, 6, generator=torch.Generator().manual_seed(1))


def vote(clip: Tensor, known: tuple[Tensor, Tensor], neighbours: int, temperature: float) -> list[float]:
    """Votes of the nearest in plain Python: cosine, sort, exponential."""
    rows = [row.tolist() for row in known[0]]
    query = clip.tolist()
    cosines = [
        sum(a * b for a, b in zip(query, row, strict=True)) / math.hypot(*query) / math.hypot(*row) for row in rows
    ]
    nearest = sorted(range(len(rows)), key=lambda place: -cosines[place])[:neighbours]
    powers = {place: math.exp(cosines[place] / temperature) for place in nearest}
    return [
        sum(power * float(known[1][place, label]) for place, power in powers.items()) / sum(powers.values())
        for label in range(4)
    ]


@pytest.mark.parametrize(("neighbours", "temperature"), [(20, 0.07), (3, 0.5), (99, 0.2)])
def test_scores_are_the_votes_of_the_nearest_clips(neighbours, temperature, known, queries):
    head = Neighbours(6, 4, neighbours=neighbours, temperature=temperature)
    head.remember(*known)
    naive = [vote(clip, known, neighbours, temperature) for clip in queries]
    torch.testing.assert_close(head.classify(queries), torch.tensor(naive), rtol=1e-4, atol=1e-5)


def test_the_nearest_are_those_of_scikit_learn(known, queries):
    head = Neighbours(6, 4, neighbours=5)
    head.remember(*known)
    found = NearestNeighbors(n_neighbors=5, metric="cosine").fit(known[0].numpy()).kneighbors(queries.numpy())[1]
    assert torch.equal(head._search(F.normalize(queries, dim=1))[1], torch.from_numpy(found))


def test_balanced_votes_are_divided_by_the_size_of_the_class(known, queries):
    plain, balanced = Neighbours(6, 4), Neighbours(6, 4, balanced=True)
    for head in (plain, balanced):
        head.remember(*known)
    sizes = [sum(float(target[label]) for target in known[1]) for label in range(4)]
    assert min(sizes) < max(sizes)
    expected = torch.tensor(
        [[score / size for score, size in zip(row, sizes, strict=True)] for row in plain.classify(queries).tolist()]
    )
    torch.testing.assert_close(balanced.classify(queries), expected)


@pytest.mark.parametrize("width", [6, 100, 2048])
def test_a_clip_has_the_same_scores_to_the_bit_in_every_batch(width):
    generator = torch.Generator().manual_seed(2)
    base = torch.randn(3000, width, generator=generator)
    base[100:160] = base[7]  # more equal neighbours than vote
    head = Neighbours(width, 5)
    head.remember(base, F.one_hot(torch.randint(5, (3000,), generator=generator), 5))
    queries = torch.randn(90, width, generator=generator)
    queries[3] = base[7]
    together = head.classify(queries)
    order = torch.randperm(90, generator=generator)
    assert torch.equal(head.classify(queries[order]), together[order])
    assert torch.equal(torch.cat([head.classify(queries[i : i + 1]) for i in range(0, 90, 11)]), together[::11])
    torch.set_num_threads(2)
    assert torch.equal(head.classify(queries[:17]), together[:17])


def test_it_loads_as_many_clips_as_were_saved(known, queries):
    head = build_head("knn", 6, 4, torch.zeros(6), torch.ones(6))
    inner: Any = head.head
    assert not head.trainable
    assert list(head.parameters()) == []
    head.remember(*known)
    other = build_head("knn", 6, 4, torch.zeros(6), torch.ones(6))
    other.load_state_dict(head.state_dict())
    assert torch.equal(other.classify(queries), head.classify(queries))
    with pytest.raises(RuntimeError, match="size mismatch for clips"):
        Neighbours(5, 4).load_state_dict(inner.state_dict())


def test_it_can_remember_in_inference_mode_and_be_loaded_later(known, queries):
    head = Neighbours(6, 4)
    with torch.inference_mode():
        head.remember(*known)
        scores = head.classify(queries)
    state = {name: tensor.clone() for name, tensor in head.state_dict().items()}
    head.load_state_dict(state)
    assert torch.equal(head.classify(queries), scores)


def test_what_it_cannot_do_is_refused_with_a_reason(known, queries):
    head = Neighbours(6, 4)
    with pytest.raises(LongreelError, match="remembers no training clips yet"):
        head.classify(queries)
    with pytest.raises(LongreelError, match="no last layer to adjust"):
        _ = head.output
    head.remember(*known)
    queries[5, 2] = math.nan
    with pytest.raises(LongreelError, match="not finite numbers"):
        head.classify(queries)
    with pytest.raises(TypeError, match="Nonlinear is trained, it remembers no clips"):
        build_head("nonlinear", 6, 4, torch.zeros(6), torch.ones(6)).remember(*known)
    for text, message in [("knn:neighbours=0", "neighbours=0 must be 1"), ("knn:temperature=0", "temperature=0 must")]:
        with pytest.raises(LongreelError, match=message):
            build_head(text, 6, 4, torch.zeros(6), torch.ones(6))
