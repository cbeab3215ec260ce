import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from small_stores import some_clip, write_shard

from longreel.durable import owned, write_bytes
from longreel.errors import InUse, StoreDamaged
from longreel.store import Failure, append_failure, read_failures


def run_python(script: str, *arguments: object, **options) -> subprocess.CompletedProcess[str]:
    """The script in a process of its own; ``ballast`` of a test must not be inherited, so nothing is forked."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


CHILD_WITH_LIMIT = """
import resource, sys
from pathlib import Path
from longreel.durable import owned, write_bytes
from longreel.errors import EnvironmentFault
from longreel.store import Failure, append_failure
folder = Path(sys.argv[2])
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
def lock():
    with owned(folder / "lock", "the folder"):
        pass
actions = {
    "ledger": lambda: append_failure(folder, "1of1", Failure("c", "p", "r" * 100)),
    "lock": lock,
    "file": lambda: write_bytes(folder / "old.json", b"new" * 100),
}
try:
    actions[sys.argv[1]]()
except EnvironmentFault as error:
    sys.exit(error.exit_code)
"""


@pytest.mark.parametrize(("what", "limit"), [("ledger", 0), ("ledger", 30), ("lock", 0), ("file", 0), ("file", 30)])
def test_a_disk_that_is_full_for_small_files_is_an_environment_fault_too(tmp_path, what, limit):
    (tmp_path / "old.json").write_bytes(b"old")
    done = run_python(CHILD_WITH_LIMIT, what, tmp_path, limit)
    assert done.returncode == 5, done.stderr[-500:]
    assert (tmp_path / "old.json").read_bytes() == b"old"
    assert not list(tmp_path.glob(".*"))


def test_a_line_torn_by_a_crash_is_passed_over_and_cut_off(tmp_path):
    first, second = Failure("a", "a.mp4", "no video stream"), Failure("b", "b.mp4", "too large", "log", 5, 6)
    append_failure(tmp_path, "1of1", first)
    ledger = tmp_path / "failed-1of1.jsonl"
    with open(ledger, "ab") as file:
        file.write(b'{"clip_id": "x", "pa')
    assert read_failures(tmp_path) == {"a": first}
    append_failure(tmp_path, "1of1", second)
    assert read_failures(tmp_path) == {"a": first, "b": second}
    assert [json.loads(line)["clip_id"] for line in ledger.read_text().splitlines()] == ["a", "b"]


@pytest.mark.parametrize("line", ["[]", "{}", "x", '{"clip_id": [], "path": "p", "reason": "r"}'])
def test_a_ledger_line_that_is_none_is_named(tmp_path, line):
    (tmp_path / "failed-1of1.jsonl").write_text('{"clip_id": "a", "path": "p", "reason": "r"}\n' + line + "\n")
    with pytest.raises(StoreDamaged, match=r"failed-1of1\.jsonl:2: is not a ledger line"):
        read_failures(tmp_path)


HOLD_LOCK = """
import sys, time
from pathlib import Path
from longreel.durable import owned
with owned(Path(sys.argv[1]), "the store"):
    print("held", flush=True)
    time.sleep(600)
"""


def test_a_lock_refuses_a_second_process_and_is_free_after_a_kill(tmp_path):
    lock = tmp_path / "lock"
    with subprocess.Popen([sys.executable, "-c", HOLD_LOCK, str(lock)], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(InUse, match=rf"the store is in use by process {holder.pid} on .+ since 2\d\d\d-"):
                with owned(lock, "the store"):
                    pytest.fail("two own the lock")
        finally:
            holder.send_signal(signal.SIGKILL)
            holder.wait()
    with owned(lock, "the store"):
        assert str(os.getpid()) in lock.read_text()


def test_a_lock_is_free_again_after_its_block(tmp_path):
    for turn in range(2):
        with owned(tmp_path / "lock", f"the store, turn {turn}"):
            assert str(os.getpid()) in (tmp_path / "lock").read_text()


def test_a_file_is_replaced_whole_and_no_temporary_stays(tmp_path):
    write_bytes(tmp_path / "a.json", b"first")
    write_bytes(tmp_path / "a.json", b"second")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.json", b"second")]


def test_a_shard_is_synced_before_it_gets_its_name_and_its_folder_after_it(tmp_path, monkeypatch):
    """The order in which a loss of power can lose nothing; the loss itself is not tested."""
    events = []
    fsync, replace = os.fsync, os.replace

    def record_sync(descriptor: int) -> None:
        events.append(("sync", os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def record_rename(source: Path, target: Path) -> None:
        events.append(("rename", str(source)))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(os, "replace", record_rename)
    write_shard(tmp_path, {"a": some_clip(1)})
    temporary = str(tmp_path / ".open-1of1.tmp")
    renamed = events.index(("rename", temporary))
    assert ("sync", temporary) in events[:renamed]
    assert ("sync", str(tmp_path)) in events[renamed:]
