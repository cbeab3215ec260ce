"""What an extraction does with what is there already: reuse, refresh, retry, slices."""

import shutil

import numpy as np
import pytest

from longreel.errors import LongreelError
from longreel.extract import Sampling, extract_clips, load_backbone
from longreel.manifest import read_manifest
from longreel.slices import Slice
from longreel.store import FeatureStore, verify_store


@pytest.fixture
def folder(tmp_path, make_video, moving_frames):
    """Six short videos, a manifest of them, and a file that is no video."""
    for number in range(6):
        make_video(tmp_path / f"{number}.mp4", moving_frames(12 + number), fps=12)
    (tmp_path / "bad.mp4").write_text("no video")
    write_manifest(tmp_path, [f"{number}.mp4,,," for number in range(6)])
    return tmp_path


def write_manifest(folder, rows):
    lines = [f"{row},x,train" for row in rows]
    (folder / "clips.csv").write_text("\n".join(["path,clip_id,start,end,label,split", *lines]))


def extract(folder, store="store", **options):
    plans = []
    manifest = read_manifest(folder / "clips.csv")
    report = extract_clips(manifest, folder / store, load_backbone("motion"), on_plan=plans.append, **options)
    return report, plans[0]


def test_a_second_call_does_nothing_and_a_new_row_is_all_that_is_done(folder):
    assert extract(folder)[0].written == 6
    report, plan = extract(folder)
    assert (report.written, report.already) == (0, 6)
    assert plan.describe() == ["6 clips are there, 0 failed before, 0 to do"]
    write_manifest(folder, [*(f"{number}.mp4,,," for number in range(6)), "5.mp4,again,0.25,"])
    assert extract(folder)[0].written == 1
    assert FeatureStore(folder / "store").origin("again").start == 0.25


def test_a_changed_file_is_reported_and_extracted_again_only_on_request(folder, make_video, moving_frames):
    extract(folder)
    before = FeatureStore(folder / "store")["3.mp4"].features.copy()
    make_video(folder / "3.mp4", moving_frames(30)[::-1], fps=12)
    report, plan = extract(folder)
    assert (report.written, plan.changed) == (0, ["3.mp4"])
    assert any("--refresh" in line for line in plan.describe())
    report, plan = extract(folder, refresh=True)
    assert report.written == 1
    assert "not reused: 1 clips whose files have changed" in plan.describe()
    assert FeatureStore(folder / "store")["3.mp4"].features.shape != before.shape
    assert extract(folder)[1].changed == []


def test_a_backbone_that_looks_at_movement_takes_no_keyframes_alone(folder):
    with pytest.raises(LongreelError, match="motion looks at 4 frames in a row; it cannot take keyframes alone"):
        extract(folder, sampling=Sampling(fps=1, keyframes=True))


def test_a_file_that_was_only_touched_is_the_same(folder):
    extract(folder)
    shutil.copy(folder / "2.mp4", folder / "copy")
    (folder / "copy").replace(folder / "2.mp4")
    assert extract(folder)[1].changed == []


def test_a_clip_whose_span_was_changed_is_never_reused(folder):
    write_manifest(folder, ["0.mp4,one,0,0.5"])
    extract(folder)
    write_manifest(folder, ["0.mp4,one,0.5,1"])
    report, plan = extract(folder)
    assert (report.written, plan.changed) == (1, ["one"])
    assert FeatureStore(folder / "store")["one"].seconds[0] == pytest.approx(0.5)


def test_a_failed_clip_is_tried_again_on_request_or_when_its_file_or_span_changes(folder, make_video, moving_frames):
    write_manifest(folder, ["0.mp4,,,", "bad.mp4,bad,,", "1.mp4,late,500,501"])
    assert {failure.clip_id for failure in extract(folder)[0].failures} == {"bad", "late"}
    report, plan = extract(folder)
    assert len(plan.failed) == len(report.failures) == 2
    assert plan.todo == []
    assert len(extract(folder, retry_failed=True)[1].todo) == 2
    make_video(folder / "bad.mp4", moving_frames(12), fps=12)
    write_manifest(folder, ["0.mp4,,,", "bad.mp4,bad,,", "1.mp4,late,0,1"])
    report, plan = extract(folder)
    assert (report.written, report.failures) == (2, [])
    assert FeatureStore(folder / "store").failures() == {}


def test_slices_share_a_store_and_together_equal_one_run(folder):
    extract(folder, "whole")
    written = [extract(folder, "parts", part=Slice(number, 3))[0].written for number in (1, 2, 3)]
    assert written == [2, 2, 2]
    assert verify_store(folder / "parts").digest == verify_store(folder / "whole").digest


@pytest.mark.parametrize("workers", [1, 3])
def test_decoder_and_number_of_workers_change_no_feature(folder, workers):
    extract(folder, "whole")
    extract(folder, "other", decoder="pyav", workers=workers)
    assert verify_store(folder / "other").digest == verify_store(folder / "whole").digest


def test_samplings_are_by_time_or_by_number(folder):
    extract(folder, "fps", sampling=Sampling(fps=4))
    extract(folder, "frames", sampling=Sampling(frames=3))
    with FeatureStore(folder / "fps") as by_fps, FeatureStore(folder / "frames") as by_number:
        np.testing.assert_allclose(by_fps["0.mp4"].seconds, [0.0])  # four frames make one window
        np.testing.assert_allclose(by_number["0.mp4"].seconds, [2 / 12])  # the frame shown at a sixth of a second
        assert by_fps.spec.sampling == "4 fps"
        assert by_number.spec.sampling == "3 frames"
