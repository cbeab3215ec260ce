"""Heads of skeletons: what every head promises, and what training draws."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from small_skeletons import COCO, KINECT, LENGTHS, NTU, make_joints, make_mask, scattered_mask
from torch import Tensor
from torch.nn import functional as F

from longreel.errors import LongreelError
from longreel.heads import SKELETON_HEADS, build_head
from longreel.heads.skeletal import Skeletal
from longreel.heads.standardised import Standardised
from longreel.heads.streams import JITTERS, STREAMS, Jitter
from longreel.layouts import Layout
from longreel.poses import as_rows, find_origin, take_joints

CASES = [(name, layout, bodies) for name in SKELETON_HEADS for layout, bodies in ((KINECT, 1), (NTU, 2), (COCO, 2))]
IDS = [f"{name}-{layout.name}" for name, layout, _ in CASES]


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def make(name: str, layout: Layout, bodies: int, seed: int = 0, **options: Any) -> Skeletal:
    torch.manual_seed(seed)
    return cast("Skeletal", SKELETON_HEADS[name](layout, bodies * layout.size, 5, **options))


def make_rows(layout: Layout, bodies: int) -> Tensor:
    """``(4, 7, D)``; of two bodies the second is there in the first clip alone, in some of its frames."""
    joints = make_joints(layout, bodies)
    if bodies > 1:
        joints[1:, :, 1] = 0.0
        joints[0, 3:, 1] = 0.0
    return as_rows(joints)


@pytest.mark.parametrize(
    ("case", "stream"), [(case, stream) for case in CASES for stream in STREAMS if case[1].skip or "skip" not in stream]
)
def test_a_clip_is_scored_alike_alone_and_padded_beside_others(case, stream):
    name, layout, bodies = case
    head, rows, mask = make(name, layout, bodies, stream=stream).eval(), make_rows(layout, bodies), make_mask()
    together = head(rows, mask)
    alone = [head(rows[[clip], :length]) for clip, length in enumerate(LENGTHS)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-5)
    other = torch.where(mask[..., None], rows, -7.0)
    torch.testing.assert_close(head(other, mask), together)
    assert together.shape == (4, 5)
    assert together.isfinite().all()
    assert together.std(dim=0).min() > 0 or "motion" in stream


def test_joints_that_were_first_taken_for_inference_can_be_taken_for_gradients():
    values, joints = torch.ones(2, 5, 3), (4, 4, 1, 4, 0)  # joints that nothing else takes
    with torch.inference_mode():
        take_joints(values, joints)
    values.requires_grad_()
    take_joints(values, joints).sum().backward()
    assert values.grad is not None
    assert values.grad[0, :, 0].tolist() == [1, 1, 0, 0, 3]


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_a_mask_of_scattered_frames_is_the_clip_of_those_frames(case):
    name, layout, bodies = case
    head, rows, mask = (
        make(name, layout, bodies, stream="bone-motion").eval(),
        make_rows(layout, bodies),
        scattered_mask(),
    )
    alone = torch.cat([head(rows[clip, mask[clip]][None]) for clip in range(4)])
    torch.testing.assert_close(head(rows, mask), alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_views_equal_separate_calls_and_more_branches_are_refused(case):
    name, layout, bodies = case
    head, rows = make(name, layout, bodies).eval(), make_rows(layout, bodies)
    views = torch.stack([make_mask(), scattered_mask()])
    together = head.aggregate(rows, views)
    separate = torch.stack([head.aggregate(rows, view) for view in views])
    torch.testing.assert_close(together, separate, rtol=1e-5, atol=1e-5)
    assert head.classify(together).shape == (2, 4, 5)
    torch.testing.assert_close(head.aggregate(rows, views[None]), together)
    with pytest.raises(ValueError, match="this head has one branch"):
        head.aggregate(rows, views.expand(2, -1, -1, -1))


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_it_does_not_matter_where_a_body_stands(case):
    name, layout, bodies = case
    head, mask = make(name, layout, bodies).eval(), make_mask()
    joints = make_joints(layout, bodies)
    shift = torch.tensor([3.0, -2.0, 0.0 if layout.scored else 4.0])
    torch.testing.assert_close(head(as_rows(joints + shift), mask), head(as_rows(joints), mask), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_a_standardised_head_of_zero_and_one_changes_nothing(case):
    name, layout, bodies = case
    head, rows, mask = make(name, layout, bodies).eval(), make_rows(layout, bodies), make_mask()
    dim = bodies * layout.size
    wrapped = Standardised(head, torch.zeros(dim), torch.ones(dim)).eval()
    assert torch.equal(wrapped(rows, mask), head(rows, mask))
    wrapped.prepare(lambda: rows.flatten(0, 1), 0)
    assert (wrapped.branches, wrapped.trainable, wrapped.explain(rows, mask)) == (1, True, {})
    assert wrapped.output is head.output


@pytest.mark.parametrize("case", CASES, ids=IDS)
def test_every_parameter_gets_a_gradient(case):
    name, layout, bodies = case
    head, rows, mask = make(name, layout, bodies).train(), make_rows(layout, bodies), make_mask()
    torch.manual_seed(0)
    (head(rows, mask) + 1).square().sum().backward()
    for key, parameter in head.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().sum() > 0, key


@pytest.mark.parametrize("name", SKELETON_HEADS)
def test_training_draws_from_the_default_generator_and_scoring_does_not(name):
    head, rows, mask = make(name, KINECT, 1, dropout=0.0), make_rows(KINECT, 1), make_mask()
    for training in (True, False):
        head.train(training)
        found = []
        for seed in (1, 1, 2):
            torch.manual_seed(seed)
            before = torch.get_rng_state()
            found.append(torch.stack(head.aggregator.look(rows, mask)[0]))  # type: ignore[attr-defined]
            assert torch.equal(torch.get_rng_state(), before) != training
        assert torch.equal(found[0], found[1])
        assert torch.equal(found[0], found[2]) != training


def test_without_augmentation_training_sees_drawn_frames_of_the_clip_as_it_is():
    head, rows, mask = (
        make("gcn-lite", KINECT, 1, upright=False, augment=False, normalise="none"),
        make_rows(KINECT, 1),
        make_mask(),
    )
    (seen,), bodies = head.train().aggregator.look(rows, mask)  # type: ignore[attr-defined]
    assert seen.shape == (4, 24, 1, 20, 3)
    assert bodies.all()
    joints = rows.unflatten(-1, (1, 20, 3))
    for clip, length in enumerate(LENGTHS):
        own = joints[clip, :length] - joints[clip, 0, 0, KINECT.spine]
        distances = torch.cdist(seen[clip].flatten(1), own.flatten(1))
        assert distances.amin(dim=1).max() < 1e-3
        assert distances.amin(dim=0).max() < 1e-3  # 24 parts of 7 frames leave none out


def test_a_clip_that_is_scored_is_the_mean_of_what_the_network_sees_of_its_spreads():
    head = make("gcn-lite", KINECT, 1, frames=1, spreads=2, upright=False, normalise="none").eval()
    rows, mask = make_rows(KINECT, 1), make_mask()
    found = head.aggregator(rows, mask)  # type: ignore[attr-defined]
    for clip, length in enumerate(LENGTHS):
        joints = rows[clip].unflatten(-1, (1, 20, 3))
        joints = joints - joints[0, 0, KINECT.spine]
        seen = [joints[length * quarter // 4][None, None] for quarter in (1, 3)]
        vectors = [head.aggregator.network(frame, torch.ones(1, 1).bool()) for frame in seen]  # type: ignore[attr-defined]
        torch.testing.assert_close(found[clip], (vectors[0] + vectors[1])[0] / 2)


def test_training_turns_stretches_and_mirrors_each_clip_as_the_layout_says():
    assert JITTERS["kinect20"] == Jitter(turn=(15.0, 45.0, 0.0), stretch=0.5, flip=0.5)
    assert JITTERS["ntu25"] == Jitter(turn=(17.2, 17.2, 17.2), stretch=0.1, each_axis=True, flip=0.5)
    assert JITTERS["coco17"] == Jitter(flip=0.5)
    joints = make_joints(KINECT)[:1, :1].expand(400, -1, -1, -1, -1)  # a single frame, so that none is drawn
    head = make("gcn-lite", KINECT, 1, upright=False, normalise="none")
    torch.manual_seed(0)
    look = head.train().aggregator.look  # type: ignore[attr-defined]
    (seen,), _ = look(as_rows(joints), torch.ones(400, 1, dtype=torch.bool))
    own = joints[0, 0, 0] - joints[0, 0, 0, KINECT.spine]
    sizes = (seen[:, 0, 0].flatten(1).norm(dim=1) / own.norm()).sort().values
    assert 0.5 <= sizes[0] < 0.52
    assert 1.48 < sizes[-1] <= 1.5
    turned = seen[:, 0, 0] / (seen[:, 0, 0].flatten(1).norm(dim=1) / own.norm())[:, None, None]
    back = turned[:, list(KINECT.flip)] * torch.tensor([-1.0, 1.0, 1.0])  # left for right again
    both = torch.stack([turned, back])
    changes = torch.linalg.lstsq(own.expand(2, 400, -1, -1), both).solution  # what each clip was multiplied with
    wrong = (own @ changes - both).flatten(2).norm(dim=2)  # (2, 400): how far that is from what was seen
    mirrored = wrong[1] < wrong[0]
    assert wrong.amin(dim=0).max() < 1e-3
    assert 160 < mirrored.sum() < 240
    change = torch.where(mirrored[:, None, None], changes[1], changes[0]).mT  # the rotation of each clip
    assert (torch.linalg.det(change) > 0.99).all()  # no mirror is left in it
    about_y, about_x = (-change[:, 2, 0]).asin().rad2deg(), torch.atan2(change[:, 2, 1], change[:, 2, 2]).rad2deg()
    for angles, most in ((about_x, 15.0), (about_y, 45.0)):
        assert 0.9 * most < angles.abs().max() <= most * 1.001
        assert abs(float(angles.mean())) < most / 8


def test_a_clip_is_centred_on_the_first_spine_that_was_found():
    joints = make_joints(NTU, 2)[:1, :, :, :, :].clone()
    joints[0, 0] = 0.0  # nobody in the first frame
    joints[0, 1, 0, NTU.spine] = 0.0  # and no spine in the second
    origin = find_origin(joints, torch.ones(1, 7, dtype=torch.bool), NTU)
    assert torch.equal(origin.flatten(), joints[0, 2, 0, NTU.spine])
    assert torch.equal(
        find_origin(torch.zeros_like(joints), torch.ones(1, 7, dtype=torch.bool), NTU).flatten(), torch.zeros(3)
    )


@pytest.mark.parametrize("name", SKELETON_HEADS)
def test_a_batch_of_one_short_clip_or_of_nothing_but_zeros_can_be_trained(name):
    head = make(name, NTU, 2, frames=1).train()
    for rows in (torch.randn(1, 1, 150), torch.zeros(1, 3, 150), torch.zeros(2, 3, 150)):
        head(rows).sum().backward()
        assert all(parameter.grad.isfinite().all() for parameter in head.parameters() if parameter.grad is not None)


def test_a_second_body_counts_where_it_exists_and_its_absence_does_not():
    head = make("gcn-lite", NTU, 2).eval()
    both = make_joints(NTU, 2)[:1]
    one = both.clone()
    one[:, :, 1] = 0.0
    alone = make("gcn-lite", NTU, 1).eval()
    alone.load_state_dict(head.state_dict())
    torch.testing.assert_close(head(as_rows(one)), alone(as_rows(one[:, :, :1])))
    assert (head(as_rows(both)) - head(as_rows(one))).abs().max() > 1e-3


def test_the_light_head_is_light():
    size = sum(parameter.numel() for parameter in make("gcn-lite", KINECT, 1).parameters())
    assert 40_000 <= size <= 70_000


def test_the_graph_head_learns_which_way_a_hand_goes_and_keeps_it_in_a_file(tmp_path: Path):
    torch.manual_seed(0)
    body = torch.randn(20, 3)
    ways = torch.randint(2, (32,))
    joints = body.expand(32, 10, 1, 20, 3).clone() + torch.randn(32, 1, 1, 1, 3)
    joints[:, :, 0, 7, 1] += (2.0 * ways[:, None] - 1) * torch.arange(10) * 0.2
    rows = as_rows(joints)
    head = make("gcn-lite", KINECT, 1)
    optimiser = torch.optim.AdamW(head.parameters(), lr=1e-2)
    for _ in range(80):
        optimiser.zero_grad()
        F.cross_entropy(head.train()(rows), ways).backward()
        optimiser.step()
    scores = head.eval()(rows)
    assert (scores.argmax(dim=1) == ways).float().mean() > 0.95
    torch.save(head.state_dict(), tmp_path / "head.pt")
    other = make("gcn-lite", KINECT, 1, seed=9)
    other.load_state_dict(torch.load(tmp_path / "head.pt", weights_only=True))
    assert torch.equal(other.eval()(rows), scores)


@pytest.mark.parametrize("name", SKELETON_HEADS)
@pytest.mark.parametrize(
    ("layout", "options", "message"),
    [
        (KINECT, "stream=bones", r"no stream of skeletons called 'bones'\. Did you mean 'bone'"),
        (KINECT, "frames=0", r"frames=0 must be 1 or more"),
        (KINECT, "spreads=0", r"spreads=0 must be 1 or more"),
        (KINECT, "dropout=1.0", r"dropout=1 must be at least 0 and below 1"),
        (KINECT, "normalise=max", r"no normalise of skeletons called 'max'"),
        (COCO, "stream=skip", r"layout coco17 has no skip table"),
        (None, "stream=bone", r"takes skeletons, and the store has none. `longreel import-skeletons` makes one"),
    ],
)
def test_what_cannot_be_made_is_refused(name, layout, options, message):
    dim = layout.size if layout else 60
    with pytest.raises(LongreelError, match=message):
        build_head(f"{name}:{options}", dim, 5, torch.zeros(dim), torch.ones(dim), layout)
