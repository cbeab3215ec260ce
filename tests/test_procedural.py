"""The generator without weights: the demo's motions in another look."""

import numpy as np
import pytest

from longreel.errors import LongreelError
from longreel.experiments.demo_clips import draw_frames, draw_scene
from longreel.generate.clips import Prompt
from longreel.generate.making import check_frames
from longreel.generate.motions import CLASSES
from longreel.generate.mp4 import count_frames, read_comment, write_mp4
from longreel.generate.procedural import Procedural


def draw(label: str, seed: int, **settings) -> np.ndarray:
    """Frames ``(T, H, W, 3)``."""
    (made,) = Procedural(**settings).make([Prompt("a/0.mp4", label, 0, "words")], [seed])
    return made.frames


def track(label: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Centroid ``(T, 2)`` and extent ``(T,)`` in pixels of what glows in each frame: it is brighter than any ground."""
    bright = draw(label, seed).max(axis=-1) > 200
    places = [np.argwhere(frame)[:, ::-1] for frame in bright]
    return np.stack([found.mean(axis=0) for found in places]), np.array(
        [np.ptp(found, axis=0).max() for found in places]
    )


def test_the_same_seed_draws_the_same_frames_and_another_seed_others():
    assert np.array_equal(draw("zigzag", 5), draw("zigzag", 5))
    assert not np.array_equal(draw("zigzag", 5), draw("zigzag", 6))


def test_clips_drawn_together_are_those_drawn_alone():
    prompts = [Prompt(f"a/{label}.mp4", label, 0, "") for label in ("fall", "rise")]
    together = Procedural().make(prompts, [1, 2])
    assert np.array_equal(together[0].frames, draw("fall", 1))
    assert np.array_equal(together[1].frames, draw("rise", 2))


@pytest.mark.parametrize("label", CLASSES)
def test_every_motion_of_the_demo_is_drawn_in_the_size_that_was_asked(label):
    frames = draw(label, 3, frames=9, height=64, width=96)
    assert frames.shape == (9, 64, 96, 3)
    assert frames.dtype == np.uint8
    assert len(np.unique(frames, axis=0)) == 9  # something moves all the time


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("label", "axis", "sign"), [("slide-right", 0, 1), ("slide-left", 0, -1), ("fall", 1, 1), ("rise", 1, -1)]
)
def test_slides_falls_and_rises_go_their_way(label, axis, sign, seed):
    centroid, _ = track(label, seed)
    moved = centroid[-1] - centroid[0]
    assert sign * moved[axis] > 30  # pixels; the shortest path is 0.44 of 128
    assert abs(moved[axis]) > 2 * abs(moved[1 - axis])


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("label", "sign"), [("orbit-clockwise", 1), ("orbit-anticlockwise", -1)])
def test_orbits_turn_their_way(label, sign, seed):
    centroid, _ = track(label, seed)
    x, y = (centroid - centroid.mean(axis=0)).T
    assert sign * (x[:-1] * y[1:] - x[1:] * y[:-1]).sum() > 0  # y points down


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("label", "sign"), [("grow", 1), ("shrink", -1)])
def test_growing_and_shrinking_change_the_size_and_not_the_place(label, sign, seed):
    centroid, extent = track(label, seed)
    assert sign * np.log(extent[-1] / extent[0]) > 0.8  # of 2 log 1.8
    assert np.abs(centroid - centroid.mean(axis=0)).max() < 6


def test_the_look_is_not_the_demos():
    for seed in range(6):
        ours = draw("fall", seed)
        demo = np.stack(list(draw_frames(draw_scene(np.random.default_rng(seed), "fall"))))
        assert ours.mean() < 75 < demo.mean()  # dark grounds against middling ones
        assert (ours.max(axis=-1) > 250).mean() < 0.15  # lines, not filled shapes
    assert Procedural().fps not in (10, 12, 15, 20, 24, 25, 30)


def test_a_label_without_a_motion_is_refused_with_those_there_are():
    with pytest.raises(LongreelError, match=r"no motion 'moonwalk'.*slide-right"):
        draw("moonwalk", 0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"height": 63}, "63x160"),
        ({"width": 30}, "128x30"),
        ({"frames": 1}, "1 frames"),
        ({"fps": 0.0}, "0 a second"),
        ({"batch": 2}, "batch 2"),
    ],
)
def test_sizes_that_cannot_be_drawn_are_refused(settings, words):
    with pytest.raises(LongreelError, match=words):
        Procedural(**settings)


def test_checks_are_what_a_plain_loop_finds():
    frames = np.random.default_rng(0).random((4, 6, 8, 3))
    changes = [abs(frames[t + 1, y, x, c] - frames[t, y, x, c]) for t, y, x, c in np.ndindex(3, 6, 8, 3)]
    found = check_frames(frames)
    assert found["finite"] is True
    assert found["brightness"] == pytest.approx(255 * sum(frames.ravel()) / frames.size, abs=1e-3)
    assert found["difference"] == pytest.approx(255 * sum(changes) / len(changes), abs=1e-3)


def test_black_still_and_not_finite_clips_are_told_by_their_figures():
    assert check_frames(np.zeros((3, 2, 2, 3))) == {"finite": True, "brightness": 0.0, "difference": 0.0}
    assert check_frames(np.ones((1, 2, 2, 3)))["difference"] == 0.0
    assert check_frames(np.full((3, 2, 2, 3), np.nan)) == {"finite": False, "brightness": 0.0, "difference": 0.0}


def test_a_video_says_that_it_is_synthetic_and_decodes_to_what_was_drawn(tmp_path, make_video):
    frames = draw("fall", 1)
    write_mp4(tmp_path / "a.mp4", frames, 16.0, "fall-1/00000.mp4")
    assert read_comment(tmp_path / "a.mp4") == {"synthetic": True, "clip_id": "fall-1/00000.mp4"}
    assert count_frames(tmp_path / "a.mp4") == len(frames)
    import av

    with av.open(str(tmp_path / "a.mp4")) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        assert container.streams.video[0].average_rate == 16
        decoded = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert np.abs(decoded.astype(float) - frames).mean() < 3  # grey levels: what 4:2:0 colour and the codec cost
    assert read_comment(make_video(tmp_path / "plain.mp4", list(frames))) == {}


@pytest.mark.parametrize("kept", [0, 100, 3000])
def test_a_video_that_breaks_off_has_no_frames(tmp_path, kept):
    write_mp4(tmp_path / "a.mp4", draw("fall", 1), 16.0, "a")
    (tmp_path / "b.mp4").write_bytes((tmp_path / "a.mp4").read_bytes()[:kept])
    assert count_frames(tmp_path / "b.mp4") == 0
