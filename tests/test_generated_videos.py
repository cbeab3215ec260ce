"""Prompts to videos with the procedural generator: whole or not at all, the same in any order, on any machine."""

import hashlib
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import typer
from small_rendering import PROMPTED, SIZE, SMALL, command, digests, folder_of, prompts_of, said_of
from typer.testing import CliRunner

from longreel.commands.rendering import videos
from longreel.errors import LongreelError, RunMismatch
from longreel.generate.clips import PROMPTS, make_seed
from longreel.generate.ledger import FAILURES, Failure, append_failure, read_failures
from longreel.generate.mp4 import count_frames, read_comment
from longreel.generate.procedural import Procedural
from longreel.generate.videos import make_videos
from longreel.slices import Slice

TORN = b'{"clip_id": "a/0.mp4", "err'


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A folder with all its videos."""
    folder = folder_of(tmp_path_factory.mktemp("whole"))
    assert make_videos(folder, SMALL).made == len(PROMPTED)
    return folder


def test_every_prompt_gets_a_video_and_a_sidecar_that_says_how_it_was_made(whole):
    for prompt in PROMPTED:
        video = whole / "videos" / prompt.clip_id
        said = json.loads(video.with_suffix(".json").read_text())
        assert count_frames(video) == said["frames"] == said["frames_asked"] == 9
        assert said["sha256"] == hashlib.sha256(video.read_bytes()).hexdigest()
        assert said["bytes"] == video.stat().st_size
        assert said["synthetic"] is True
        assert read_comment(video) == {"synthetic": True, "clip_id": prompt.clip_id}
        given = ("clip_id", "label", "index", "prompt", "origin")
        assert {name: said[name] for name in given} == {name: getattr(prompt, name) for name in given}
        assert said["prompt_sha256"] == hashlib.sha256(prompt.prompt.encode()).hexdigest()
        assert (said["height"], said["width"], said["fps"], said["run_seed"]) == (64, 64, 16.0, 0)
        assert said["seed"] == make_seed(0, prompt.clip_id)
        assert {"finite", "brightness", "difference"} == said["checks"].keys()
        assert {"longreel", "numpy", "av"} <= said["versions"].keys()
        assert {"model", "weights", "pipeline", "device", "dtype", "licence", "python", "machine"} <= said.keys()


def test_order_shards_and_pauses_change_no_byte(whole, tmp_path):
    shuffled = random.Random(0).sample(PROMPTED, len(PROMPTED))
    make_videos(folder_of(tmp_path / "order", shuffled), SMALL)
    for number in (3, 1, 2):
        make_videos(folder_of(tmp_path / "shards"), SMALL, part=Slice(number, 3))
    paused = folder_of(tmp_path / "paused")
    assert [make_videos(paused, SMALL, limit=4).left for _ in range(3)] == [5, 1, 0]
    assert digests(tmp_path / "order") == digests(tmp_path / "shards") == digests(paused) == digests(whole)
    assert len(set(digests(whole).values())) == len(PROMPTED)


def test_another_seed_makes_other_clips(whole, tmp_path):
    make_videos(folder_of(tmp_path), SMALL, seed=1)
    assert digests(tmp_path).keys() == digests(whole).keys()
    assert not set(digests(tmp_path).values()) & set(digests(whole).values())


def test_prompts_that_are_appended_leave_the_clips_that_are_there_alone(tmp_path):
    make_videos(folder_of(tmp_path, PROMPTED[:4]), SMALL)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "videos").rglob("*.*")}
    report = make_videos(folder_of(tmp_path), SMALL)
    assert (report.made, report.kept) == (5, 4)
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_a_prompt_that_was_changed_is_made_anew(tmp_path):
    make_videos(folder_of(tmp_path, PROMPTED[:2]), SMALL)
    changed = replace(PROMPTED[0], prompt="other words")
    told = []
    report = make_videos(folder_of(tmp_path, [changed, PROMPTED[1]]), SMALL, on_plan=told.append)
    assert (report.made, report.kept, told[0].changed) == (1, 1, 1)
    assert said_of(tmp_path, changed)["prompt"] == "other words"


def test_a_clip_that_fails_is_in_the_ledger_and_tried_again_only_when_asked(tmp_path):
    (bad,) = prompts_of(["moonwalk"], 1)
    folder_of(tmp_path, [bad, *PROMPTED[:2]])
    first = command(tmp_path, *SIZE)
    assert first.returncode == 3
    assert "2 made, 0 already there, 1 failed" in first.stdout
    assert f"failed: {bad.clip_id}: the procedural generator knows no motion 'moonwalk'" in first.stderr
    again = command(tmp_path, *SIZE, "--json")
    assert again.returncode == 3
    assert json.loads(again.stdout)["failures"][0]["attempts"] == 1
    assert "--retry-failed" in again.stderr
    assert command(tmp_path, *SIZE, "--retry-failed").returncode == 3
    rows = [json.loads(line) for line in (tmp_path / FAILURES).read_text().splitlines()]
    assert [(row["clip_id"], row["attempts"]) for row in rows] == [(bad.clip_id, 1), (bad.clip_id, 2)]
    assert all("moonwalk" in row["error"] for row in rows)


def test_a_failure_that_was_mended_counts_no_more(tmp_path):
    folder_of(tmp_path, PROMPTED[:1])
    append_failure(tmp_path, Failure(PROMPTED[0].clip_id, "the GPU was hot", 1))
    assert make_videos(tmp_path, SMALL).made == 0
    assert make_videos(tmp_path, SMALL, retry_failed=True).made == 1
    report = make_videos(tmp_path, SMALL)
    assert (report.kept, report.failures) == (1, [])


def test_a_torn_line_of_the_ledger_loses_nothing_else(tmp_path):
    append_failure(tmp_path, Failure("a/0.mp4", "x", 1))
    with open(tmp_path / FAILURES, "ab") as file:
        file.write(TORN)
    append_failure(tmp_path, Failure("b/0.mp4", "y", 3))
    assert read_failures(tmp_path) == {
        "a/0.mp4": Failure("a/0.mp4", "x", 1),
        "b/0.mp4": Failure("b/0.mp4", "y", 3),
    }


@pytest.mark.parametrize(
    ("maker", "seed", "words"),
    [
        (SMALL, 1, "seed 0 there and 1 here"),
        (Procedural(frames=17, height=64, width=64), 0, "frames 9 there and 17 here"),
    ],
)
def test_clips_made_in_another_way_never_come_into_a_folder(whole, maker, seed, words):
    before = digests(whole)
    with pytest.raises(RunMismatch, match=words):
        make_videos(whole, maker, seed=seed)
    assert digests(whole) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--steps", "3"), "procedural has no --steps"),
        (("--recipe", "ltx"), "procedural has no --recipe"),
        (("--batch", "2"), "batch 2"),
        (("--shard", "3/2"), "i/n"),
        (("--model", "nowhere"), "no folder 'nowhere'"),
    ],
)
def test_what_cannot_be_asked_is_refused_before_anything_is_made(tmp_path, arguments, words):
    folder_of(tmp_path)
    app = typer.Typer()
    app.command()(videos)
    result = CliRunner().invoke(app, [str(tmp_path), *arguments])
    assert isinstance(result.exception, LongreelError)
    assert words in str(result.exception)
    assert {p.name for p in tmp_path.iterdir()} == {PROMPTS}


def test_a_folder_without_prompts_says_how_to_make_them(tmp_path):
    result = command(tmp_path)
    assert result.returncode == 2
    assert "generate prompts" in result.stderr
