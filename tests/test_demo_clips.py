import csv
import hashlib
import shutil
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from longreel.errors import EnvironmentFault, InUse, LongreelError, RunMismatch
from longreel.experiments.demo_clips import (
    BACKGROUNDS,
    CLASSES,
    COUNTS,
    SHAPES,
    draw_frames,
    draw_scene,
    render_demo,
    write_clip,
)
from longreel.manifest import read_manifest

FEW = {"train": {"slide-right": 2, "grow": 1}, "val": {"grow": 1}, "test": {"slide-right": 1}}


def digests(folder: Path) -> dict[str, str]:
    return {p.relative_to(folder).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*.mp4")}


def rows_of(manifest: Path) -> list[dict[str, str]]:
    with open(manifest, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    return render_demo(tmp_path_factory.mktemp("demo"), seed=3, counts=FEW)


@pytest.fixture
def copy(demo, tmp_path) -> Path:
    """A copy of the demo's folder, to damage."""
    return Path(shutil.copytree(demo.parent, tmp_path / "copy"))


def test_the_same_seed_gives_the_same_bytes(demo, tmp_path):
    again = render_demo(tmp_path, seed=3, counts=FEW)
    assert digests(tmp_path) == digests(demo.parent)
    assert again.read_bytes() == demo.read_bytes()


def test_another_seed_gives_other_clips(demo, tmp_path):
    render_demo(tmp_path, seed=4, counts=FEW)
    ours, others = digests(demo.parent), digests(tmp_path)
    assert ours.keys() == others.keys()
    assert not set(ours.values()) & set(others.values())


def test_a_clip_is_the_same_whatever_else_is_rendered(demo, tmp_path):
    render_demo(tmp_path, seed=3, counts={"test": {"zigzag": 1, "slide-right": 1}})
    path = "videos/slide-right/200.mp4"
    assert digests(tmp_path)[path] == digests(demo.parent)[path]


def test_an_interrupted_render_is_finished_by_the_same_call(demo, copy):
    kept, lost = copy / "videos/slide-right/000.mp4", copy / "videos/slide-right/001.mp4"
    before = kept.stat().st_mtime_ns
    lost.with_name("001.mp4.part").write_bytes(lost.read_bytes()[:500])
    lost.unlink()
    (copy / "manifest.csv").unlink()
    render_demo(copy, seed=3, counts=FEW)
    assert kept.stat().st_mtime_ns == before
    assert digests(copy) == digests(demo.parent)
    assert (copy / "manifest.csv").read_bytes() == demo.read_bytes()
    assert not list(copy.rglob("*.part"))


def test_a_clip_that_breaks_off_leaves_no_mp4_and_no_manifest(tmp_path):
    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    def broken():
        yield np.zeros((16, 16, 3), np.uint8)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render_demo(tmp_path, counts=FEW, on_clip=stop)
    assert len(digests(tmp_path)) == 2
    assert not (tmp_path / "manifest.csv").exists()
    with pytest.raises(KeyboardInterrupt):
        write_clip(tmp_path / "x.mp4", broken(), fps=10, crf=30)
    assert not (tmp_path / "x.mp4").exists()


def test_progress_counts_every_clip_also_those_that_exist(copy):
    told: list[tuple[int, int]] = []
    render_demo(copy, seed=3, counts=FEW, on_clip=lambda done, total: told.append((done, total)))
    assert told == [(1, 5), (2, 5), (3, 5), (4, 5), (5, 5)]


def test_the_manifest_lists_the_files_that_are_there(demo):
    manifest = read_manifest(demo)
    assert {clip.path for clip in manifest.clips} == set(digests(demo.parent))
    assert [(clip.labels[0], clip.split) for clip in manifest.clips] == [
        (label, split) for split, classes in FEW.items() for label, n in classes.items() for _ in range(n)
    ]
    assert all(clip.path.split("/")[1] == clip.labels[0] for clip in manifest.clips)
    assert {clip.extra["background"] for clip in manifest.clips} <= set(BACKGROUNDS)
    assert all(float(str(clip.extra["speed"])) > 0 for clip in manifest.clips)


def test_training_counts_fall_along_a_long_tail_and_the_other_splits_are_even():
    train = list(COUNTS["train"].values())
    assert list(COUNTS["train"]) == list(CLASSES)
    assert train == [round(60 * 20 ** (-rank / 9)) for rank in range(10)]
    assert all(more > fewer for more, fewer in pairwise(train))
    assert {split: set(classes.values()) for split, classes in COUNTS.items() if split != "train"} == {
        "val": {6},
        "test": {12},
    }
    assert all(classes.keys() == CLASSES.keys() for classes in COUNTS.values())
    assert 330 <= sum(sum(classes.values()) for classes in COUNTS.values()) <= 400


def test_files_are_h264_of_constant_rate_with_the_promised_frames(demo):
    for row in rows_of(demo):
        with av.open(str(demo.parent / row["path"])) as container:
            stream = container.streams.video[0]
            rate, unit = Fraction(stream.average_rate or 0), Fraction(stream.time_base or 0)
            times = [(frame.pts or 0) * unit for frame in container.decode(stream)]
            assert stream.codec_context.name == "h264"
            assert stream.codec_context.pix_fmt == "yuv420p"
            assert rate in (10, 12, 15, 20, 24, 25, 30)
            assert times == [i / rate for i in range(stream.frames)]
            assert (stream.duration or 0) * unit == stream.frames / rate
            assert 0.9 <= stream.frames / rate <= 2.1


def test_a_written_clip_decodes_to_the_frames_that_were_drawn(tmp_path):
    scene = replace(draw_scene(np.random.default_rng(5), "fall"), noise=0.0, crf=10)
    drawn = np.stack(list(draw_frames(scene)))
    write_clip(tmp_path / "a.mp4", iter(drawn), scene.fps, scene.crf)
    with av.open(str(tmp_path / "a.mp4")) as container:
        decoded = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
    assert drawn.shape == decoded.shape == (scene.frames, scene.height, scene.width, 3)
    assert np.abs(drawn.astype(float) - decoded).mean() < 4  # grey levels: what 4:2:0 colour and the codec cost


def test_decord_reads_the_same_frames_and_rate(demo):
    decord = pytest.importorskip("decord", reason="decord has no wheel for this platform")
    for row in rows_of(demo):
        path = str(demo.parent / row["path"])
        with av.open(path) as container:
            rate, frames = container.streams.video[0].average_rate, sum(1 for _ in container.decode(video=0))
        reader = decord.VideoReader(path)
        assert len(reader) == frames
        assert reader.get_avg_fps() == pytest.approx(float(rate or 0))
        assert reader.get_batch(range(frames)).shape[0] == frames


def clean_frames(label: str, seed: int, **actor: object) -> np.ndarray:
    """The frames ``(T, H, W, 3)`` of a clip without noise, texture, camera motion and distractors."""
    scene = draw_scene(np.random.default_rng(seed), label)
    clean = replace(scene, noise=0.0, background="plain", pan=(0.0, 0.0), shake=0.0, distractors=())
    return np.stack(list(draw_frames(replace(clean, actor=replace(scene.actor, **actor))))).astype(float)


def track(label: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Centroid ``(T, 2)`` in pixels and area ``(T,)`` of what differs from a plain ground, measured in the pixels."""
    frames = clean_frames(label, seed)
    change = np.abs(frames - frames[:1, :1, :1]).sum(axis=-1)  # (T, H, W); the corner shows the ground
    area = change.sum(axis=(1, 2))
    y, x = np.mgrid[: frames.shape[1], : frames.shape[2]]
    centroid = np.stack([(change * x).sum(axis=(1, 2)), (change * y).sum(axis=(1, 2))], axis=1) / area[:, None]
    return centroid, area


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("label", "axis", "sign"), [("slide-right", 0, 1), ("slide-left", 0, -1), ("fall", 1, 1), ("rise", 1, -1)]
)
def test_slides_falls_and_rises_move_the_measured_centroid_their_way(label, axis, sign, seed):
    centroid, _ = track(label, seed)
    moved = centroid[-1] - centroid[0]
    assert sign * moved[axis] > 20  # pixels; the shortest path is 0.28 of 96
    assert abs(moved[axis]) > abs(moved[1 - axis])
    assert (sign * np.diff(centroid[:, axis]) > -0.5).all()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("label", "sign"), [("orbit-clockwise", 1), ("orbit-anticlockwise", -1)])
def test_orbits_turn_the_measured_centroid_their_way(label, sign, seed):
    centroid, _ = track(label, seed)
    x, y = (centroid - centroid.mean(axis=0)).T
    swept = x[:-1] * y[1:] - x[1:] * y[:-1]  # twice the signed area; y points down, so clockwise is positive
    assert sign * swept.sum() > 0
    assert np.hypot(x, y).min() > 5


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("label", "sign"), [("grow", 1), ("shrink", -1)])
def test_growing_and_shrinking_change_the_measured_area_and_not_the_place(label, sign, seed):
    centroid, area = track(label, seed)
    assert sign * np.log(area[-1] / area[0]) == pytest.approx(4 * np.log(1.7), rel=0.15)
    assert np.abs(centroid - centroid[0]).max() < 1


@pytest.mark.parametrize("seed", range(3))
def test_a_bounce_returns_and_a_zigzag_turns_back_while_it_travels(seed):
    bounce, _ = track("bounce", seed)
    assert np.ptp(bounce[:, 1]) > 2 * np.ptp(bounce[:, 0])
    assert (np.diff(np.sign(np.diff(bounce[:, 1]))) != 0).sum() >= 2
    zigzag, _ = track("zigzag", seed)
    assert abs(zigzag[-1, 0] - zigzag[0, 0]) > 15
    assert (np.diff(np.sign(np.diff(zigzag[:, 1]))) != 0).sum() >= 2


@pytest.mark.parametrize(("label", "mirror"), [("slide-right", "slide-left"), ("fall", "rise"), ("grow", "shrink")])
def test_no_single_frame_tells_a_class_from_its_mirror(label, mirror):
    forwards, backwards = (clean_frames(name, seed=11, span=(0.0, 1.0)) for name in (label, mirror))
    assert np.abs(forwards[::-1] - backwards).max() <= 1  # grey levels: the same frames in the other order
    assert np.abs(forwards - backwards).max() > 20


def test_only_the_actors_label_tells_the_classes_of_two_equal_draws_apart():
    scenes = [draw_scene(np.random.default_rng(9), label) for label in CLASSES]
    assert {scene.actor.label for scene in scenes} == set(CLASSES)
    assert len({replace(scene, actor=replace(scene.actor, label="")) for scene in scenes}) == 1


def test_looks_vary_over_clips():
    scenes = [draw_scene(np.random.default_rng(seed), "rise") for seed in range(200)]
    assert {scene.background for scene in scenes} == set(BACKGROUNDS)
    assert {scene.actor.shape for scene in scenes} == set(SHAPES)
    assert all(scene.height % 2 == scene.width % 2 == 0 for scene in scenes)
    assert all(96 <= min(scene.height, scene.width) <= max(scene.height, scene.width) <= 192 for scene in scenes)
    assert len({(scene.height, scene.width) for scene in scenes}) > 150
    assert all(1 <= scene.frames / scene.fps <= 2 + 1 / scene.fps for scene in scenes)


def test_a_folder_of_another_seed_is_refused_before_anything_is_written(copy):
    before = digests(copy)
    with pytest.raises(RunMismatch, match=r"seed 3.*seed 4.*another folder"):
        render_demo(copy, seed=4)
    assert digests(copy) == before


def test_a_folder_with_foreign_videos_is_refused(tmp_path):
    (tmp_path / "videos").mkdir()
    with pytest.raises(RunMismatch, match="no demo"):
        render_demo(tmp_path)


def test_a_negative_seed_is_refused(tmp_path):
    with pytest.raises(LongreelError, match="-1"):
        render_demo(tmp_path, seed=-1)


def test_two_renders_into_one_folder_are_refused(tmp_path):
    def again(done: int, total: int) -> None:
        render_demo(tmp_path, counts=FEW)

    with pytest.raises(InUse, match=r"in use"):
        render_demo(tmp_path, counts=FEW, on_clip=again)


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(LongreelError, match="file"):
        render_demo(tmp_path / "file" / "demo")


def test_a_pyav_without_libx264_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(av, "codecs_available", {"h264"})
    with pytest.raises(EnvironmentFault, match="libx264"):
        render_demo(tmp_path, counts=FEW)
