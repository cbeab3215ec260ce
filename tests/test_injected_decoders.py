"""A decoder that hangs, crashes, eats memory or is lied to, from the command to the ledger.

FFmpeg's opening of a file is replaced in the decode workers, by the file's name.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from longreel.store import FeatureStore, verify_store

INJECTED = """
import sys
if sys.orig_argv[-4:-2] == ['-m', 'longreel.extract.worker']:
    import ctypes, os, signal, time
    import av
    whole, kept = av.open, []
    def injected(path, *arguments, **options):
        name = os.path.basename(path)
        if name.startswith('hangs'):
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
            time.sleep(3600)
        elif name.startswith('crashes'):
            ctypes.string_at(0)
        elif name.startswith('eats'):
            while True:
                kept.append(bytearray(64 << 20))
        return whole(path, *arguments, **options)
    av.open = injected
"""
GOOD = ("first.mp4", "second.mp4", "third.mp4", "last.mp4")
DAY_MS = np.array(86_400_000.0, dtype=">f8").tobytes()


@pytest.fixture(scope="module")
def extracted(tmp_path_factory, make_video, moving_frames):
    """The folder in which an extraction met all of them, and how it ended."""
    folder = tmp_path_factory.mktemp("injected")
    (folder / "injection").mkdir()
    (folder / "injection" / "sitecustomize.py").write_text(INJECTED)
    names = ["first.mp4", "hangs.mp4", "second.mp4", "crashes.mp4", "eats.mp4", "third.mp4", "lies.mkv", "last.mp4"]
    for name in names:
        make_video(folder / name, moving_frames(24), fps=12, format="matroska" if name.endswith("mkv") else None)
    content = (folder / "lies.mkv").read_bytes()
    at = content.index(b"\x44\x89\x88") + 3  # Matroska's Duration
    (folder / "lies.mkv").write_bytes(content[:at] + DAY_MS + content[at + 8 :])
    (folder / "clips.csv").write_text("\n".join(["path,label,split", *(f"{name},x,train" for name in names)]))
    done = extract(folder, "clips.store", injected=True)
    return folder, done


def extract(folder: Path, store: str, *options: str, injected: bool) -> subprocess.CompletedProcess[str]:
    paths = [str(folder / "injection")] if injected else []
    named = os.pathsep.join([*paths, *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-P", "-m", "longreel.cli", "extract", "clips.csv", store, "--backbone", "motion"]
    return subprocess.run(
        [*command, "--deadline", "8", "--json", *options],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": named},
        capture_output=True,
        text=True,
        timeout=240,
    )


def test_the_run_ends_with_all_others_and_the_ledger_says_which_and_why(extracted):
    folder, done = extracted
    assert done.returncode == 3, done.stderr
    store = FeatureStore(folder / "clips.store")
    assert set(store.ids) == {*GOOD, "lies.mkv"}
    reasons = {failure.clip_id: failure.reason for failure in store.failures().values()}
    assert reasons.keys() == {"hangs.mp4", "crashes.mp4", "eats.mp4"}
    assert "passed its deadline of 8 s" in reasons["hangs.mp4"]
    assert "the decoder died of SIGSEGV, 2 times" in reasons["crashes.mp4"]
    assert "MiB of memory" in reasons["eats.mp4"]
    assert verify_store(folder / "clips.store").damaged == []


def test_the_others_are_what_they_are_without_the_injection(extracted):
    folder, _ = extracted
    whole = extract(folder, "whole.store", injected=False)
    assert whole.returncode == 0, whole.stderr
    injected, plain = FeatureStore(folder / "clips.store"), FeatureStore(folder / "whole.store")
    for name in (*GOOD, "lies.mkv"):
        np.testing.assert_array_equal(injected[name].features, plain[name].features)
    assert plain["lies.mkv"].seconds[-1] < 24 / 12  # it promises a day, and has two seconds
    assert plain.origin("lies.mkv").fraction < 0.01


def test_once_the_decoder_is_mended_the_failed_clips_are_tried_on_request_alone(extracted):
    folder, _ = extracted
    again = extract(folder, "clips.store", injected=False)
    assert json.loads(again.stdout)["written"] == 0
    retried = extract(folder, "clips.store", "--retry-failed", injected=False)
    assert retried.returncode == 0, retried.stderr
    assert json.loads(retried.stdout)["written"] == 3
    assert FeatureStore(folder / "clips.store").failures() == {}
