"""The filled manifest: real rows stay as they are, generated ones are added by a rule, and nothing else happens."""

import json
import os
import shutil
from hashlib import sha256
from pathlib import Path

import pytest
from small_filling import REAL, app, fill, finish, indices, invoke, make_place, scored, write_clips, write_scores
from typer.testing import CliRunner

from longreel.balance.counts import count_training_clips
from longreel.generate.clips import Prompt, make_clip_id
from longreel.generate.fill import fill_manifest
from longreel.manifest import read_manifest


@pytest.fixture
def place(tmp_path) -> Path:
    return make_place(tmp_path)


def test_real_rows_keep_ids_labels_spans_and_unknown_columns(place):
    before, after = read_manifest(place / "real" / "m.csv"), fill(place, "--fill", "4")
    assert [clip.clip_id for clip in before.clips][1:3] == ["a/1.mp4#0.5-2", "a/1.mp4#2-3.25"]
    for old, new in zip(before.clips, after.clips, strict=False):
        kept = ("clip_id", "labels", "split", "source", "start", "end", "extra")
        assert [getattr(old, name) for name in kept] == [getattr(new, name) for name in kept]
        assert after.root / new.path == before.root / old.path
    assert after.clips[0].extra == {"note": "one, two"}
    assert count_training_clips(before) == count_training_clips(after) == [1, 3]


def test_each_class_gets_its_lowest_indices_as_training_clips_up_to_the_filling_number(place):
    manifest = fill(place, "--fill", "4")
    assert indices(manifest) == {"cat": [0, 1, 2], "dog": [0]}
    for clip in manifest.clips:
        if clip.source == "generated":
            assert clip.split == "train"
            assert (manifest.root / clip.path).read_bytes() == b"frames"
            assert clip.clip_id == make_clip_id(clip.labels[0], int(Path(clip.clip_id).stem))
    assert indices(fill(place, "--fill", "max")) == {"cat": [0, 1]}
    assert indices(fill(place)) == {"cat": list(range(6)), "dog": list(range(6))}


def test_the_order_of_the_prompts_and_one_that_is_half_written_change_nothing(place):
    fill(place, "--fill", "4")
    expected = (place / "filled.csv").read_bytes()
    path = place / "made" / "prompts.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[::-1]) + b'{"clip_id": "cat')
    fill(place, "--fill", "4", out="other.csv")
    assert (place / "other.csv").read_bytes() == expected


def test_features_of_real_clips_are_not_extracted_again(place, make_video, moving_frames):
    from longreel.extract import extract_clips, load_backbone

    for name in "0123":
        (place / "real" / "a").mkdir(exist_ok=True)
        make_video(place / "real" / "a" / f"{name}.mp4", moving_frames(100))
    model = load_backbone("motion")
    extract_clips(read_manifest(place / "real" / "m.csv"), place / "store", model, workers=1)
    for label in ("dog", "cat"):
        content = (place / "real" / "a" / "0.mp4").read_bytes()
        finish(place / "made", Prompt(make_clip_id(label, 0), label, 0, f"a {label}"), content)
    report = extract_clips(fill(place, "--fill", "4"), place / "store", model, workers=1)
    assert report.already == 5
    assert report.written == 2


@pytest.mark.parametrize(
    "damage",
    [
        lambda video: video.unlink(),
        lambda video: video.write_bytes(b""),
        lambda video: video.with_suffix(".json").unlink(),
        lambda video: video.with_suffix(".json").write_text('{"label": "dog"'),
        lambda video: video.with_suffix(".json").write_text("[" * 100_000),
        lambda video: video.with_suffix(".json").write_text("[1]"),
        lambda video: finish(video.parents[2], Prompt(make_clip_id("cat", 1), "cat", 1, ""), bytes=7),
        lambda video: video.with_suffix(".json").write_bytes(b"\xff"),
        lambda video: video.with_suffix(".json").write_text('{"label": "cat", "clip_id": "x"}'),
        lambda video: finish(video.parents[2], Prompt(make_clip_id("cat", 1), "cat", 1, ""), label="dog"),
    ],
)
def test_a_clip_without_its_video_or_its_own_sidecar_is_not_finished_and_the_next_takes_its_place(place, damage):
    damage(place / "made" / "videos" / make_clip_id("cat", 1))
    assert indices(fill(place, "--fill", "4"))["cat"] == [0, 2, 3]


def test_what_is_missing_is_told_by_class_and_is_no_failure(place):
    shutil.rmtree(place / "made")
    write_clips(place / "made", {"dog": [], "cat": [0, 4], "horse": [0]})
    done = invoke(place, "--fill", "6")
    assert done.exit_code == 0
    assert "warning: 'cat' lacks 3 clips: 5 asked, 2 there, 0 left out" in done.stderr
    assert "warning: 'dog' lacks 3 clips: 3 asked, 0 there, 0 left out" in done.stderr
    assert "6 prompts are of classes that the manifest does not have" in done.stderr
    assert "2 of 8 generated clips" in done.stdout
    document = json.loads(invoke(place, "--fill", "6", "--json").stdout)
    assert (document["asked"], document["added"], document["missing"]) == (8, 2, 6)
    assert document["classes"][0] == {
        "label": "cat", "real": 1, "asked": 5, "there": 2, "left_out": 0, "added": 2, "in_place": 0,
    }  # fmt: skip


# Where it lies, and what is there already


def test_a_file_that_does_not_lie_above_both_kinds_of_videos_is_refused_and_a_right_place_is_named(place):
    for out in ("real/filled.csv", "made/filled.csv", "made/deep/filled.csv"):
        done = invoke(place, out=out)
        assert done.exit_code == 2
        assert f"Give --out {place / 'filled.csv'}, or a folder above." in done.stderr
        assert not (place / out).exists()
    os.symlink(place, place / "real" / "up")
    assert "mp4" in fill(place, out="real/up/linked.csv").clips[0].path


def test_folders_that_are_links_lead_to_where_the_clips_are(place):
    os.rename(place / "made" / "videos", place / "disk")
    os.symlink(place / "disk", place / "made" / "videos")
    manifest = fill(place, "--fill", "4")
    assert {clip.path.split("/")[0] for clip in manifest.clips} == {"real", "disk"}
    assert all((manifest.root / clip.path).is_file() for clip in manifest.clips if clip.source == "generated")


def test_a_video_that_lies_elsewhere_is_refused_and_nothing_is_written(place, tmp_path_factory):
    video = place / "made" / "videos" / make_clip_id("cat", 0)
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "v.mp4"
    os.rename(video, elsewhere)
    os.symlink(elsewhere, video)
    done = invoke(place)
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "lies outside" in done.stderr
    assert not (place / "filled.csv").exists()


def test_the_same_input_gives_the_same_bytes_and_more_clips_replace_what_was_filled(place):
    video = place / "made" / "videos" / make_clip_id("cat", 2)
    video.unlink()
    contents = []
    for _ in range(2):
        fill(place, "--fill", "4", "--scores", scored(place), "--keep", "static<=1")
        contents.append([(place / name).read_bytes() for name in ("filled.csv", "filled.rules.json")])
    assert contents[0] == contents[1]
    video.write_bytes(b"frames")
    assert indices(fill(place, "--fill", "4")) == {"cat": [0, 1, 2], "dog": [0]}


def test_a_file_that_was_not_made_so_is_never_overwritten(place):
    for name in ("real/m.csv", "mine.csv"):
        (place / name).write_text(REAL)
        shutil.copy(place / name, place / "copy.csv")
        done = CliRunner().invoke(
            app, ["fill", str(place / "copy.csv"), str(place / "made"), "--out", str(place / "copy.csv")]
        )
        assert (done.exit_code, (place / "copy.csv").read_text()) == (2, REAL)
        assert "is there already" in done.stderr
    fill(place)
    (place / "filled.csv").write_text((place / "filled.csv").read_text() + "\n")
    assert invoke(place, "--fill", "4").exit_code == 2
    (place / "folder.csv").mkdir()
    assert invoke(place, out="folder.csv").exit_code == 2


def test_a_manifest_that_is_filled_already_is_refused(place):
    fill(place)
    done = CliRunner().invoke(
        app, ["fill", str(place / "filled.csv"), str(place / "made"), "--out", str(place / "x.csv")]
    )
    assert "has 12 generated clips already. Give the manifest of real clips." in done.stderr


def test_the_record_names_the_manifest_the_prompts_and_what_was_written(place):
    manifest = fill(place, "--fill", "4", "--scores", scored(place))
    record = json.loads((place / "filled.rules.json").read_text())
    assert record["manifest"] == read_manifest(place / "real" / "m.csv").digest
    assert record["prompts"] == sha256((place / "made" / "prompts.jsonl").read_bytes()).hexdigest()
    assert record["scores"] == sha256((place / "scores.csv").read_bytes()).hexdigest()
    assert record["sha256"] == sha256((place / "filled.csv").read_bytes()).hexdigest()
    assert (record["digest"], record["fill"]) == (manifest.digest, 4)


def test_the_watermark_of_a_protocol_goes_along(place):
    digest = read_manifest(place / "real" / "m.csv").digest
    fill(place)
    assert json.loads((place / "filled.rules.json").read_text())["watermark"] is None
    (place / "real" / "m.made.json").write_text(json.dumps({"digest": digest, "watermark": "epoch chosen on test"}))
    fill(place)
    assert json.loads((place / "filled.rules.json").read_text())["watermark"] == "epoch chosen on test"


def test_growing_the_filling_number_only_appends_to_a_class(place):
    for keep in ([], ["s>=3"]):
        scores = write_scores(place, [(make_clip_id(label, i), i) for label in ("cat", "dog") for i in range(6)], ["s"])
        before: dict[str, list[int]] = {}
        for number in range(1, 9):
            manifest = read_manifest(place / "real" / "m.csv")
            fill_manifest(manifest, place / "made", place / "g.csv", fill=str(number), scores=scores, keep=keep)
            now = indices(read_manifest(place / "g.csv"))
            assert all(now[label][: len(before[label])] == before[label] for label in before)
            before = now


def test_a_clip_of_a_prompt_that_was_changed_since_is_not_finished(place):
    path = place / "made" / "prompts.jsonl"
    path.write_text(path.read_text().replace('"a cat"', '"another cat"', 1))
    assert indices(fill(place, "--fill", "4"))["cat"] == [1, 2, 3]  # one is real


def test_a_crash_between_a_manifest_and_its_record_leaves_a_manifest_that_can_be_filled_again(place, monkeypatch):
    from longreel import durable

    fill(place, "--fill", "3")
    whole, published = durable.publish, []

    def break_off(temporary, final):
        published.append(final.name)
        if published == ["filled.rules.json", "filled.csv", "filled.rules.json"]:
            raise KeyboardInterrupt
        whole(temporary, final)

    with monkeypatch.context() as patch:
        patch.setattr(durable, "publish", break_off)
        invoke(place, "--fill", "5")
    assert published == ["filled.rules.json", "filled.csv", "filled.rules.json"]
    assert len(indices(fill(place, "--fill", "6"))["cat"]) == 5
