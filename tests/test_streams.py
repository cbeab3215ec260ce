"""Streams, normalisation, random views and frames against loops over clips, frames and joints."""

import math
from collections import Counter
from fractions import Fraction
from itertools import pairwise

import pytest
import torch
from small_skeletons import COCO, KINECT, LENGTHS, NTU, make_joints, make_mask, scattered_mask
from torch import Tensor

from longreel.errors import LongreelError
from longreel.heads.streams import (
    JITTERS,
    STREAMS,
    Jitter,
    derive,
    draw_places,
    jitter,
    min_max,
    mirror,
    motion,
    rotation,
    spread_places,
)
from longreel.layouts import Layout
from longreel.poses import find_origin, found_joints, move

MASKS = {"first": make_mask(), "scattered": scattered_mask()}


def existing(mask: Tensor) -> list[list[int]]:
    """The frames of each clip that exist."""
    return [[frame for frame, there in enumerate(row) if there] for row in mask.tolist()]


def naive_less(joints: Tensor, table: tuple[int, ...], layout: Layout) -> Tensor:
    """Each joint less the one in the table, number by number; scores are averaged."""
    out = torch.zeros_like(joints)
    for joint, other in enumerate(table):
        for place in range(layout.channels):
            a, b = joints[..., joint, place], joints[..., other, place]
            out[..., joint, place] = (a + b) / 2 if place >= layout.coordinates else a - b
    return out


def naive_motion(values: Tensor, mask: Tensor, layout: Layout) -> Tensor:
    out = torch.zeros_like(values)
    for clip, frames in enumerate(existing(mask)):
        for now, following in pairwise(frames):
            a, b = values[clip, now], values[clip, following]
            out[clip, now] = b - a
            if layout.scored:
                out[clip, now, ..., -1] = (a[..., -1] + b[..., -1]) / 2
    return out


def naive_stream(joints: Tensor, mask: Tensor, layout: Layout, stream: str) -> Tensor:
    name = stream.split("-")[0]
    table = {"bone": layout.parents, "skip": layout.skip}.get(name)
    values = joints if table is None else naive_less(joints, table, layout)
    return naive_motion(values, mask, layout) if "-" in stream else values


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("stream", STREAMS)
@pytest.mark.parametrize("layout", [KINECT, NTU, COCO], ids=lambda layout: layout.name)
def test_streams_and_their_gradients_are_those_of_loops(layout, stream, mask):
    if layout is COCO and "skip" in stream:
        with pytest.raises(LongreelError, match="layout coco17 has no skip table"):
            derive(make_joints(layout), mask, layout, stream)
        return
    joints = make_joints(layout, bodies=2, dtype=torch.float64)
    weights = torch.randn(joints.shape, dtype=torch.float64) * mask[..., None, None, None]
    found = []
    for function in (derive, naive_stream):
        leaf = joints.clone().requires_grad_()
        values = function(leaf, mask, layout, stream)
        (values * weights).sum().backward()
        found.append((values.detach()[mask], leaf.grad))
    torch.testing.assert_close(found[0], found[1])


def test_the_root_has_no_bone_and_bones_add_up_to_joints():
    joints = make_joints(NTU)
    bones = derive(joints, make_mask(), NTU, "bone")
    root = 20
    assert not bones[..., root, :].any()
    tip, path = 23, [23, 24, 11, 10, 9, 8]  # fingers, hand, wrist, elbow, shoulder, and then the root
    torch.testing.assert_close(bones[..., path, :].sum(dim=-2), joints[..., tip, :] - joints[..., root, :])


def test_motion_of_an_even_walk_is_the_pace_and_the_last_frame_rests():
    steps = torch.arange(5.0)[None, :, None, None, None] * torch.tensor([1.0, -2.0, 0.5])
    joints = steps.expand(1, 5, 1, 20, 3)
    mask = torch.tensor([[True, False, True, True, False]])
    moved = motion(joints, mask, KINECT)[0, :, 0, 0]
    torch.testing.assert_close(moved[0], 2 * torch.tensor([1.0, -2.0, 0.5]))  # from frame 0 to frame 2
    torch.testing.assert_close(moved[2], torch.tensor([1.0, -2.0, 0.5]))
    assert not moved[[1, 3, 4]].any()


@pytest.mark.parametrize("stream", STREAMS)
def test_nothing_beyond_the_clip_shows_in_its_frames(stream):
    mask, joints = make_mask(), make_joints(NTU, bodies=2)
    other = torch.where(mask[..., None, None, None], joints, -7.0)
    assert torch.equal(derive(joints, mask, NTU, stream)[mask], derive(other, mask, NTU, stream)[mask])


def test_a_moved_clip_has_its_first_spine_at_the_origin_and_missing_joints_stay_zero():
    mask, joints = scattered_mask(), make_joints(NTU, bodies=2)
    joints[:, :, 1, 3:] = 0.0  # of the second body
    joints[2, 3] = 0.0
    found = found_joints(joints) & mask[..., None, None, None]
    moved = move(joints, -find_origin(joints, mask, NTU), found)
    for clip, frames in enumerate(existing(mask)):
        spine = joints[clip, frames[0], 0, NTU.spine]
        for frame in range(7):
            for body in range(2):
                for joint in range(25):
                    own = joints[clip, frame, body, joint]
                    there = frame in frames and bool((own != 0).any())
                    expected = own - spine if there else torch.zeros(3)
                    torch.testing.assert_close(moved[clip, frame, body, joint], expected)


def test_scores_do_not_move():
    mask, joints = make_mask(), make_joints(COCO)
    moved = move(joints, -find_origin(joints, mask, COCO), found_joints(joints) & mask[..., None, None, None])
    assert torch.equal(moved[mask][..., 2], joints[mask][..., 2])
    assert not moved[:, 0, 0, COCO.spine, :2].any()


@pytest.mark.parametrize("layout", [KINECT, COCO], ids=lambda layout: layout.name)
def test_min_max_stretches_each_axis_over_the_joints_that_were_found(layout):
    mask, joints = make_mask(), make_joints(layout)
    joints[:, :, :, 4] = 0.0
    joints[3, ..., 1] = 2.5  # no extent
    joints[3, :, :, 4] = 0.0
    found = found_joints(joints) & mask[..., None, None, None]
    scaled = min_max(joints, found, layout)
    for clip, length in enumerate(LENGTHS):
        for axis in range(layout.coordinates):
            own = [
                float(joints[clip, t, 0, v, axis]) for t in range(length) for v in range(len(layout.joints)) if v != 4
            ]
            low, high = min(own), max(own)
            for frame in range(length):
                for joint in range(len(layout.joints)):
                    value = float(joints[clip, frame, 0, joint, axis])
                    flat = joint == 4 or low == high
                    expected = 0.0 if flat else 2 * (value - low) / (high - low) - 1
                    assert float(scaled[clip, frame, 0, joint, axis]) == pytest.approx(expected, abs=1e-5)
    if layout.scored:
        assert torch.equal(scaled[..., 2], joints[..., 2])


def test_min_max_of_a_clip_without_any_joint_is_zero():
    joints = torch.zeros(1, 3, 1, 20, 3)
    assert not min_max(joints, torch.zeros(1, 3, 1, 20, 1, dtype=torch.bool), KINECT).any()


def test_rotations_turn_about_x_then_y_then_z():
    angles = torch.tensor([[0.3, -1.1, 2.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    for row, found in zip(angles.tolist(), rotation(angles), strict=True):
        product = torch.eye(3, dtype=torch.float64)
        for axis, angle in enumerate(row):
            a, b = [place for place in range(3) if place != axis]
            single = torch.eye(3, dtype=torch.float64)
            single[a, a] = single[b, b] = math.cos(angle)
            single[b, a] = math.sin(angle) * (-1) ** axis
            single[a, b] = -single[b, a]
            product = single @ product
        torch.testing.assert_close(found, product)
        torch.testing.assert_close(found @ found.T, torch.eye(3, dtype=torch.float64))
        assert float(torch.linalg.det(found)) == pytest.approx(1.0)


def lengths_of(joints: Tensor, layout: Layout) -> Tensor:
    return torch.linalg.vector_norm(derive(joints, make_mask(), layout, "bone")[..., : layout.coordinates], dim=-1)


@pytest.mark.parametrize("layout", [KINECT, COCO], ids=lambda layout: layout.name)
def test_turning_keeps_the_length_of_every_bone_and_stretching_multiplies_it(layout):
    torch.manual_seed(0)
    joints = make_joints(layout)
    turned = jitter(joints, layout, Jitter(turn=(180.0, 90.0, 45.0)))
    torch.testing.assert_close(lengths_of(turned, layout), lengths_of(joints, layout), rtol=1e-4, atol=1e-4)
    assert (turned - joints).abs().amax(dim=(1, 2, 3, 4)).min() > 0.01
    stretched = jitter(joints, layout, Jitter(turn=(10.0, 10.0, 10.0), stretch=0.5))
    bones = [place for place, parent in enumerate(layout.parents) if parent != place]
    factors = (lengths_of(stretched, layout) / lengths_of(joints, layout))[..., bones]  # (B, T, M, bones)
    own = factors[:, :1, :, :1].flatten()
    for clip, length in enumerate(LENGTHS):
        torch.testing.assert_close(factors[clip, :length] / own[clip], torch.ones(length, 1, len(bones)))
    assert ((own > 0.5) & (own < 1.5)).all()
    assert own.std() > 0.05  # of each clip its own


@pytest.mark.parametrize("layout", [KINECT, NTU, COCO], ids=lambda layout: layout.name)
def test_a_mirror_twice_is_none_and_once_swaps_left_and_right(layout):
    joints = make_joints(layout)
    once = mirror(joints, layout)
    assert torch.equal(mirror(once, layout), joints)
    left = next(place for place, name in enumerate(layout.joints) if name.endswith("_left"))
    right = layout.joints.index(layout.joints[left].replace("left", "right"))
    torch.testing.assert_close(once[..., left, :], joints[..., right, :] * torch.tensor([-1.0, 1.0, 1.0]))


@pytest.mark.parametrize(("chance", "share"), [(0.0, 0.0), (1.0, 1.0), (0.5, 0.5)])
def test_clips_are_mirrored_with_the_chance_given(chance, share):
    torch.manual_seed(0)
    joints = make_joints(KINECT)[:1].expand(1000, -1, -1, -1, -1)
    found = jitter(joints, KINECT, Jitter(flip=chance))
    mirrored = torch.isclose(found, mirror(joints, KINECT)).flatten(1).all(dim=1)
    kept = torch.isclose(found, joints).flatten(1).all(dim=1)
    assert (mirrored ^ kept).all()
    assert abs(float(mirrored.float().mean()) - share) < 5 * math.sqrt(share * (1 - share) / 1000) + 1e-9


@pytest.mark.parametrize("layout", [KINECT, NTU, COCO], ids=lambda layout: layout.name)
def test_a_seed_decides_the_view_and_zeros_and_scores_stay(layout):
    joints = make_joints(layout, bodies=2)
    joints[:, :, 1] = 0.0
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(jitter(joints, layout, JITTERS[layout.name]))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert not found[0][:, :, 1].any()
    if layout.scored:
        plain, swapped = joints[..., 2], joints[..., list(layout.flip), 2]
        same = (found[0][..., 2] == plain).flatten(1).all(dim=1) | (found[0][..., 2] == swapped).flatten(1).all(dim=1)
        assert same.all()


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("frames", [1, 3, 24])
@pytest.mark.parametrize("spreads", [1, 2, 4])
def test_frames_lie_in_the_middle_of_equal_parts_and_of_parts_of_those(mask, frames, spreads):
    found = spread_places(mask, frames, spreads)
    assert len(found) == spreads
    for spread, places in enumerate(found):
        share = Fraction(2 * spread + 1, 2 * spreads)
        for row, there in zip(places.tolist(), existing(mask), strict=True):
            assert row == [there[math.floor((part + share) * len(there) / frames)] for part in range(frames)]


@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS)
def test_drawn_frames_exist_are_in_order_and_repeat_where_there_are_few(mask):
    torch.manual_seed(0)
    places = draw_places(mask, 24).tolist()
    for row, there in zip(places, existing(mask), strict=True):
        assert set(row) == set(there)  # 24 parts of 7 frames at most: none is left out
        assert row == sorted(row)


def test_one_frame_is_drawn_evenly_of_each_part():
    torch.manual_seed(0)
    places = draw_places(torch.ones(3000, 12, dtype=torch.bool), 4)
    for part in range(4):
        times = Counter(places[:, part].tolist())
        assert sorted(times) == [3 * part, 3 * part + 1, 3 * part + 2]
        assert all(abs(count - 1000) < 5 * math.sqrt(3000 * 2 / 9) for count in times.values())
    torch.manual_seed(0)
    assert torch.equal(places, draw_places(torch.ones(3000, 12, dtype=torch.bool), 4))
