"""Clips turned upright, against a loop over clips and frames."""

from typing import cast

import pytest
import torch
from small_skeletons import COCO, KINECT, LENGTHS, NTU, make_joints, make_mask, naive_axes, scattered_mask
from torch import Tensor

from longreel.heads import SKELETON_HEADS
from longreel.heads.skeletal import Skeletal
from longreel.heads.streams import rotation
from longreel.layouts import Layout
from longreel.poses import as_rows, find_axes, found_joints, turn


def found_in(joints: Tensor, mask: Tensor) -> Tensor:
    return found_joints(joints) & mask[..., None, None, None]


def turned_by(joints: Tensor, angles: list[float]) -> Tensor:
    """Joints in three dimensions, every clip turned alike."""
    return joints @ rotation(torch.tensor([angles], dtype=joints.dtype))[0].T


@pytest.mark.parametrize("layout", [KINECT, NTU], ids=lambda layout: layout.name)
@pytest.mark.parametrize("mask", [make_mask(), scattered_mask()], ids=["first", "scattered"])
def test_the_axes_are_those_of_a_loop_over_the_frames_that_have_the_four_joints(layout, mask):
    joints = make_joints(layout, bodies=2)
    assert layout.upright is not None
    joints[0, 1, 0, layout.upright[2]] = 0.0  # one of the four is missing: the frame does not count
    joints[3, 2, 0, 15] = 0.0  # an ankle is none of them
    axes = find_axes(joints, found_in(joints, mask), layout)
    for clip in range(4):
        naive = naive_axes(joints[clip], mask[clip], layout)
        torch.testing.assert_close(axes[clip], naive, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layout", [KINECT, NTU], ids=lambda layout: layout.name)
def test_an_upright_body_stands_along_y_and_its_left_shoulder_at_greater_x(layout):
    joints, mask = make_joints(layout), make_mask()
    upright = turn(joints, find_axes(joints, found_in(joints, mask), layout), layout)
    for clip, length in enumerate(LENGTHS):
        mean = upright[clip, :length, 0].mean(dim=0)
        names = ("shoulder_right", "shoulder_left")
        below, above = (1, 2) if layout is KINECT else (1, 20)
        up, (right, left) = mean[above] - mean[below], (mean[layout.joints.index(name)] for name in names)
        assert up[1] > 0
        assert up[[0, 2]].abs().max() < 1e-4
        assert left[0] > right[0]
        assert abs(left[2] - right[2]) < 1e-4
    torch.testing.assert_close(
        torch.cdist(upright.flatten(0, 2), upright.flatten(0, 2))[:40, :40],
        torch.cdist(joints.flatten(0, 2), joints.flatten(0, 2))[:40, :40],
        rtol=1e-3,
        atol=1e-3,
    )


@pytest.mark.parametrize("name", SKELETON_HEADS)
def test_a_head_scores_a_turned_clip_alike_only_if_it_turns_clips_upright(name):
    joints, mask = make_joints(KINECT), make_mask()
    other = turned_by(joints, [0.4, 2.0, -0.3])
    for upright in (True, False):
        torch.manual_seed(0)
        head = cast("Skeletal", SKELETON_HEADS[name](KINECT, 60, 5, upright=upright)).eval()
        scores = [head(as_rows(given), mask) for given in (joints, other)]
        assert torch.allclose(*scores, rtol=1e-3, atol=1e-4) == upright


def test_a_mirrored_upright_clip_is_upright():
    joints, mask = make_joints(KINECT), make_mask()
    swapped = joints[..., list(KINECT.flip), :] * torch.tensor([-1.0, 1.0, 1.0])
    found = found_in(joints, mask)
    one = turn(joints, find_axes(joints, found, KINECT), KINECT)
    other = turn(swapped, find_axes(swapped, found, KINECT), KINECT)
    expected = one[..., list(KINECT.flip), :] * torch.tensor([-1.0, 1.0, 1.0])
    own = found.expand_as(one)
    torch.testing.assert_close(other[own], expected[own], rtol=1e-3, atol=1e-3)


def no_spine(joints: Tensor) -> None:
    joints[:, :, 0, 20] = joints[:, :, 0, 1]


def no_shoulders(joints: Tensor) -> None:
    joints[:, :, 0, 8] = joints[:, :, 0, 4]


def shoulders_along_the_spine(joints: Tensor) -> None:
    joints[:, :, 0, 4] = joints[:, :, 0, 8] + 0.7 * (joints[:, :, 0, 20] - joints[:, :, 0, 1])


def a_spine_that_turns_over(joints: Tensor) -> None:
    joints[:, 0::2, 0, 20] = joints[:, 0::2, 0, 1] + 0.3
    joints[:, 1::2, 0, 20] = joints[:, 1::2, 0, 1] - 0.3
    joints[:, 6] = 0.0  # as often one way as the other


def no_body(joints: Tensor) -> None:
    joints.zero_()


SPOILT = [no_spine, no_shoulders, shoulders_along_the_spine, a_spine_that_turns_over, no_body]


@pytest.mark.parametrize("spoil", SPOILT)
def test_a_clip_that_shows_no_axes_is_left_as_it_is(spoil):
    joints, mask = make_joints(NTU), torch.ones(4, 7, dtype=torch.bool)
    spoil(joints)
    axes = find_axes(joints, found_in(joints, mask), NTU)
    assert torch.equal(axes, torch.eye(3).expand(4, 3, 3))
    assert torch.equal(turn(joints, axes, NTU), joints)


@pytest.mark.parametrize("layout", [COCO, Layout("bar", ("a", "b"), (0, 0), (0, 1), (0,), (1,), 0, 0)])
def test_layouts_that_do_not_say_what_is_upright_are_left_as_they_are(layout):
    joints, mask = make_joints(layout), make_mask()
    axes = find_axes(joints, found_in(joints, mask), layout)
    assert torch.equal(turn(joints, axes, layout), joints)


def test_a_clip_with_the_lower_body_of_another_stands_as_its_upper_body_does():
    for layout in (KINECT, NTU):
        joints, mask = make_joints(layout), make_mask()
        mixed = joints.clone()
        mixed[..., list(layout.lower), :] = joints.roll(1, dims=0)[..., list(layout.lower), :] + 5.0
        found = found_in(joints, mask)
        assert torch.equal(find_axes(mixed, found, layout), find_axes(joints, found, layout))


def test_the_second_body_turns_with_the_first_and_stays_zero_where_it_is_not():
    joints, mask = make_joints(NTU, bodies=2), make_mask()
    joints[1, :, 1] = 0.0
    axes = find_axes(joints, found_in(joints, mask), NTU)
    turned = turn(joints, axes, NTU)
    assert torch.equal(axes, find_axes(joints[:, :, :1], found_in(joints[:, :, :1], mask), NTU))
    torch.testing.assert_close(turned[0, 2, 1], joints[0, 2, 1] @ axes[0].T)
    assert not turned[1, :, 1].any()


def test_in_training_a_clip_stands_upright_before_it_is_varied():
    joints, mask = make_joints(KINECT)[:1, :1].expand(400, -1, -1, -1, -1), torch.ones(400, 1, dtype=torch.bool)
    other = turned_by(joints, [0.4, 2.0, -0.3])
    for augment in (False, True):
        seen = []
        for given in (joints, other):
            torch.manual_seed(0)
            head = cast("Skeletal", SKELETON_HEADS["gcn-lite"](KINECT, 60, 5, augment=augment, normalise="none"))
            (values,), _ = head.train().aggregator.look(as_rows(given), mask)  # type: ignore[attr-defined]
            seen.append(values)
        torch.testing.assert_close(seen[0], seen[1], rtol=1e-3, atol=1e-3)
        shoulders = seen[0][:, 0, 0, 4] - seen[0][:, 0, 0, 8]
        about_y = torch.atan2(-shoulders[:, 2], shoulders[:, 0]).rad2deg().abs().max()
        assert about_y > 30 if augment else about_y < 0.1


def test_scores_do_not_turn():
    joints = make_joints(COCO)
    quarter = torch.tensor([[0.0, -1.0], [1.0, 0.0]]).expand(4, 2, 2)
    turned = turn(joints, quarter, COCO)
    assert torch.equal(turned[..., 2], joints[..., 2])
    assert torch.equal(turned[..., 0], -joints[..., 1])
    assert torch.equal(turned[..., 1], joints[..., 0])
