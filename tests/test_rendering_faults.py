"""Making videos while processes are killed, files break, disks fill up and texts mean harm."""

import json
import random
import resource
import signal
import subprocess
import sys
import time

import pytest
from small_rendering import COMMAND, PROMPTED, SIZE, SMALL, command, digests, folder_of, prompts_of, said_of

from longreel.errors import ManifestError
from longreel.generate.clips import PROMPTS, Prompt, make_clip_id
from longreel.generate.ledger import FAILURES
from longreel.generate.motions import CLASSES
from longreel.generate.procedural import Procedural
from longreel.generate.sidecars import read_whole
from longreel.generate.videos import make_videos

DAMAGES = {
    "truncated": lambda video: video.write_bytes(video.read_bytes()[:-50]),
    "flipped": lambda video: video.write_bytes(bytes([*video.read_bytes()[:-9], 7, *video.read_bytes()[-8:]])),
    "empty": lambda video: video.write_bytes(b""),
    "gone": lambda video: video.unlink(),
    "no sidecar": lambda video: video.with_suffix(".json").unlink(),
    "half a sidecar": lambda video: video.with_suffix(".json").write_text('{"format": 1, "clip'),
    "deep sidecar": lambda video: video.with_suffix(".json").write_text("[" * 100_000),
    "another's sidecar": lambda video: video.with_suffix(".json").write_bytes(
        video.with_name("00002.json").read_bytes()
    ),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_clip_that_is_not_whole_is_made_again_and_the_others_are_kept(tmp_path, damage):
    prompts = PROMPTED[:3]
    make_videos(folder_of(tmp_path, prompts), SMALL)
    good = digests(tmp_path)
    damage(tmp_path / "videos" / prompts[0].clip_id)
    assert read_whole(tmp_path, prompts[0].clip_id) is None
    report = make_videos(tmp_path, SMALL)
    assert (report.made, report.kept) == (1, 2)
    assert digests(tmp_path) == good
    assert all(read_whole(tmp_path, prompt.clip_id, decode=True) for prompt in prompts)


def test_killed_at_any_moment_nothing_half_made_counts_and_the_end_is_the_same(tmp_path):
    prompts = prompts_of(CLASSES, 6)
    straight = folder_of(tmp_path / "straight", prompts)
    make_videos(straight, Procedural(frames=9, height=64, width=64))
    killed, generator = folder_of(tmp_path / "killed", prompts), random.Random(1)
    partial = 0
    for _ in range(4):
        line = [sys.executable, "-P", "-c", COMMAND, "videos", killed, *SIZE]
        process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before, deadline = len(digests(killed)), time.monotonic() + 30
        while len(digests(killed)) == before and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(generator.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        process.wait()
        for clip_id in digests(killed):
            document = json.loads((killed / "videos" / clip_id).with_suffix(".json").read_text())
            assert document["synthetic"] is True
            assert read_whole(killed, clip_id, decode=True) == document
        partial += 0 < len(digests(killed)) < len(prompts)
    assert partial >= 2  # else nothing was tested
    assert command(killed, *SIZE).returncode == 0
    assert digests(killed) == digests(straight)
    assert not [p for p in killed.rglob(".*") if p.suffix in (".part", ".tmp")]


def test_what_a_killed_process_left_unfinished_is_swept_up_and_nothing_else(tmp_path):
    clip = tmp_path / "videos" / PROMPTED[0].clip_id
    clip.parent.mkdir(parents=True)
    left = [clip.with_name(f".{clip.name}.part"), clip.with_name(f".{clip.stem}.json.123.tmp")]
    others = [clip.with_name("notes.txt"), clip.with_name(".00009.mp4.part")]
    for path in (*left, *others):
        path.write_bytes(b"half")
    make_videos(folder_of(tmp_path, PROMPTED[:1]), SMALL)
    assert [path.exists() for path in (*left, *others)] == [False, False, True, True]


HOSTILE = {
    "path": "../../../etc/passwd",
    "absolute": "/etc/passwd",
    "nul": "a\0b",
    "long": "x" * 10_000,
    "emoji": "🤸 cartwheel 🤸🏽‍♀️",
    "markup": "[bold red]</x> [/] <script>alert(1)</script>",
    "terminal": "\x1b[2J\x1b]0;owned\x07\r\n",
    "surrogate": "\ud800 half",
    "right to left": "\u202egnp.exe",
    "empty": "",
    "dots": "..",
}


def test_hostile_labels_and_prompts_make_no_file_elsewhere_and_no_traceback(tmp_path):
    labels = [*HOSTILE.values()]
    hostile = [Prompt(make_clip_id(label, 0), label, 0, label) for label in labels]
    moving = [Prompt(make_clip_id("fall", i), "fall", i, text) for i, text in enumerate(labels)]
    home = tmp_path / "home"
    folder_of(tmp_path / "gen", [*hostile, *moving])
    home.mkdir()
    result = command(tmp_path / "gen", *SIZE, cwd=home)
    assert result.returncode == 3
    assert f"{len(moving)} made, 0 already there, {len(hostile)} failed" in result.stdout
    assert "Traceback" not in result.stderr
    assert "\x1b" not in result.stderr + result.stdout
    assert "\x07" not in result.stderr + result.stdout
    assert not list(home.iterdir())
    assert {p.name for p in tmp_path.iterdir()} == {"gen", "home"}
    for prompt in moving:
        assert said_of(tmp_path / "gen", prompt)["prompt"] == prompt.prompt


@pytest.mark.parametrize(
    "clip_id",
    [
        "../../x.mp4", "/tmp/x.mp4", "a/../../b.mp4", "a\0b.mp4", "a/b.json", ".hidden.mp4", "a/.b.mp4", "a//b.mp4", "",
        "x" * 300 + ".mp4", "a/b.mp4\n", "a\\b.mp4", 7, None,
    ],
)  # fmt: skip
def test_ids_that_lead_elsewhere_are_refused_before_anything_is_made(tmp_path, clip_id):
    rows = [{"clip_id": each, "label": "fall", "index": 0, "prompt": "x"} for each in (PROMPTED[0].clip_id, clip_id)]
    (tmp_path / PROMPTS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(ManifestError, match=r"prompts\.jsonl"):
        make_videos(tmp_path, SMALL)
    assert {p.name for p in tmp_path.iterdir()} == {PROMPTS}


def test_an_id_that_comes_twice_is_refused(tmp_path):
    with pytest.raises(ManifestError, match="stands there twice"):
        make_videos(folder_of(tmp_path, [PROMPTED[0], PROMPTED[0]]), SMALL)


def test_a_disk_that_is_full_ends_the_run_and_fails_no_clip(tmp_path):
    folder_of(tmp_path)

    def small_disk():
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))

    result = command(tmp_path, *SIZE, preexec_fn=small_disk)
    assert result.returncode == 5
    assert "Traceback" not in result.stderr
    assert "cannot be written" in result.stderr
    assert not (tmp_path / FAILURES).exists()
    assert not digests(tmp_path)
    assert command(tmp_path, *SIZE).returncode == 0
