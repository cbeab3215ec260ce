"""Two writers of one slice: the second is told who the first is; a kill frees the slice, a stop does not."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from small_stores import some_clip, write_shard

from longreel.durable import owned
from longreel.errors import InUse, StoreInUse
from longreel.extract import extract_clips, load_backbone
from longreel.manifest import read_manifest
from longreel.slices import Slice
from longreel.store import verify_store

LONGREEL = [sys.executable, "-P", "-m", "longreel.cli"]
CLIPS = 70


@pytest.fixture(scope="module")
def manifest(tmp_path_factory, make_video) -> Path:
    """Spans of one video, enough to be busy with for some seconds."""
    folder = tmp_path_factory.mktemp("clips")
    chance = np.random.default_rng(0)
    make_video(folder / "0.mp4", list(chance.integers(0, 255, (24, 96, 128, 3), dtype=np.uint8)), fps=12)
    rows = [f"0.mp4,x,train,{number / CLIPS:.5f},{number / CLIPS + 1:.5f}" for number in range(CLIPS)]
    (folder / "clips.csv").write_text("\n".join(["path,label,split,start,end", *rows]))
    return folder / "clips.csv"


def begin(manifest: Path, store: Path) -> subprocess.Popen[str]:
    command = [*LONGREEL, "extract", str(manifest), str(store), "--backbone", "motion"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_owner(process: subprocess.Popen, store: Path) -> None:
    """Until the process holds the slice."""
    lock = store / ".writer-1of1.lock"
    while not (lock.exists() and f"process {process.pid} " in lock.read_text()):
        assert process.poll() is None
        time.sleep(0.01)


def test_the_second_writer_is_told_process_machine_and_age_also_while_the_first_is_stopped(manifest, tmp_path):
    store = tmp_path / "store"
    with begin(manifest, store) as first:
        try:
            wait_for_owner(first, store)
            first.send_signal(signal.SIGSTOP)
            time.sleep(1.2)
            second = begin(manifest, store)
            _, stderr = second.communicate(timeout=120)
            assert second.returncode == StoreInUse.exit_code == 4
            found = re.search(
                rf"error: {store} \(slice 1of1\) is in use by process {first.pid} on {re.escape(socket.gethostname())} "
                r"since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d, for (\d+) s\. Wait",
                stderr,
            )
            assert found is not None, stderr
            assert 1 <= int(found[1]) < 120
            with pytest.raises(StoreInUse):
                extract_clips(read_manifest(manifest), store, load_backbone("motion"))
            extract_clips(read_manifest(manifest), store, load_backbone("motion"), part=Slice(2, 64))
            first.send_signal(signal.SIGCONT)
            _, stderr = first.communicate(timeout=120)
            assert first.returncode == 0, stderr
        finally:
            first.kill()
    found = verify_store(store)
    assert (found.clips, found.damaged) == (CLIPS, [])


def test_the_slice_of_a_killed_writer_is_free_at_once(manifest, tmp_path):
    store = tmp_path / "store"
    with begin(manifest, store) as first:
        wait_for_owner(first, store)
        first.send_signal(signal.SIGKILL)
        first.wait()
    report = extract_clips(read_manifest(manifest), store, load_backbone("motion"))
    assert report.written + report.already == CLIPS
    assert str(os.getpid()) in (store / ".writer-1of1.lock").read_text()


RACE = """
import sys, time
from pathlib import Path
from longreel.durable import owned
from longreel.errors import StoreInUse
folder = Path(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
try:
    with owned(folder / "lock", "it", StoreInUse):
        print("won", flush=True)
        sys.stdin.readline()
except StoreInUse as error:
    print("lost", flush=True)
    sys.exit(error.exit_code)
"""


def test_of_eight_processes_that_race_for_a_slice_one_wins(tmp_path):
    command = [sys.executable, "-c", RACE, str(tmp_path)]
    racers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) for _ in range(8)
    ]
    outputs = [racer.stdout for racer in racers if racer.stdout is not None]
    inputs = [racer.stdin for racer in racers if racer.stdin is not None]
    assert [output.readline() for output in outputs] == ["ready\n"] * 8
    for stream in inputs:
        stream.write("go\n")
        stream.flush()
    assert sorted(output.readline() for output in outputs) == ["lost\n"] * 7 + ["won\n"]
    for racer in racers:
        racer.communicate(timeout=60)
    assert sorted(racer.returncode for racer in racers) == [0] + [4] * 7


def test_imports_and_merges_are_refused_beside_a_writer_too(tmp_path):
    store, arrays = tmp_path / "clips.store", tmp_path / "arrays"
    store.mkdir()
    arrays.mkdir()
    np.save(arrays / "a.npy", np.ones((2, 4), dtype=np.float32))
    write_shard(tmp_path / "source.store", {"a": some_clip(1)})
    with owned(store / ".writer-1of1.lock", "it"):
        for command in (
            ["import-features", str(arrays), str(store), "--backbone", "b"],
            ["store", "merge", str(tmp_path / "source.store"), str(store)],
        ):
            done = subprocess.run(
                [sys.executable, "-P", "-m", "longreel.cli", *command], capture_output=True, text=True
            )
            assert (done.returncode, "is in use by process" in done.stderr) == (4, True), done.stderr[-500:]


def test_a_run_folder_in_use_is_a_wrong_command_and_a_store_in_use_is_not():
    assert issubclass(StoreInUse, InUse)
    assert (InUse.exit_code, StoreInUse.exit_code) == (2, 4)
