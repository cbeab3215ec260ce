"""Full disks, folders that may not be written, strange places, and changed bytes met by a reader: nothing is silent."""

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest
from small_stores import flip_bit, some_clip, write_shard, write_shards

from longreel.store import ClipFeatures, FeatureStore, Spec, export_store, merge_stores, verify_store


def run_python(script: str, *arguments: object, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


#: For each place (byte, bit): a child reads the store with that bit flipped. Prints how each child ended.
READ_EACH = """
import json, os, sys
from pathlib import Path
import numpy as np
from longreel.errors import LongreelError
from longreel.store import FeatureStore
folder = Path(sys.argv[1])
(shard,) = folder.glob("*.h5")
whole = shard.read_bytes()
store = FeatureStore(folder)
ids, (features, offsets) = store.ids, store.read(store.ids)
seconds = [store[clip_id].seconds for clip_id in ids]

def read():
    store = FeatureStore(folder)
    found = store.read(ids)
    times = [store[clip_id].seconds for clip_id in ids]
    assert np.array_equal(found[0], features) and np.array_equal(found[1], offsets)
    assert all(map(np.array_equal, times, seconds)) and store.ids == ids

for byte, bit in json.loads(sys.argv[2]):
    content = bytearray(whole)
    content[byte] ^= 1 << bit
    shard.write_bytes(content)
    child = os.fork()
    if not child:
        sys.stderr = open(os.devnull, "w")
        try:
            read()
            os._exit(0)
        except (LongreelError, KeyError):  # a clip whose id has changed is not there
            os._exit(3)
        except BaseException:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    print("right" if code == 0 else "noticed" if code == 3 or code < 0 else f"WRONG at {byte}, {bit}", flush=True)
"""


def test_a_reader_gives_what_was_written_or_an_error_whatever_bit_has_flipped(tmp_path):
    """Verification finds all of them (test_store_damage.py). A few bits crash HDF5, which is no silence either."""
    shard = write_shard(tmp_path, {f"clip-{seed}": some_clip(seed) for seed in range(3)})
    rng = np.random.default_rng(1)
    places = rng.integers((0, 0), (shard.stat().st_size, 8), size=(400, 2)).tolist()
    features = FeatureStore(tmp_path).shards[0].data_offset
    places += [[features + byte, byte % 8] for byte in range(72)]
    done = run_python(READ_EACH, tmp_path, json.dumps(places))
    assert done.returncode == 0, done.stderr[-500:]
    answers = done.stdout.splitlines()
    assert len(answers) == 472
    assert set(answers) == {"right", "noticed"}
    assert set(answers[400:]) == {"noticed"}, "every bit of a feature counts"


def test_a_shard_that_was_cut_off_anywhere_is_refused_by_the_reader(tmp_path):
    shard = write_shard(tmp_path, {f"clip-{seed}": some_clip(seed) for seed in range(3)})
    script = """
import sys
from pathlib import Path
from longreel.errors import StoreDamaged
from longreel.store import FeatureStore
shard, content = Path(sys.argv[1]), Path(sys.argv[1]).read_bytes()
for cut in range(0, len(content), len(content) // 200):
    shard.write_bytes(content[:cut])
    try:
        FeatureStore(shard.parent)
        print("silent at", cut)
    except StoreDamaged:
        print("refused")
"""
    done = run_python(script, shard)
    assert done.returncode == 0, done.stderr[-500:]
    assert len(done.stdout.splitlines()) >= 200
    assert set(done.stdout.splitlines()) == {"refused"}


#: Fills a disk of 300 kB in a mount namespace of its own, makes room, goes on. Prints the digest at the end.
FILL_SMALL_DISK = """
import os, sys
from pathlib import Path
import numpy as np
from longreel.errors import EnvironmentFault
from longreel.store import *
disk = Path(sys.argv[1])
spec = Spec("b", "w", 64, "s", "p", "auto")
def clip(number):
    return ClipFeatures(np.full((16, 64), number, np.float16), np.arange(16.0))
def fails(action):
    try:
        action()
    except EnvironmentFault as error:
        assert "No space left" in str(error) and str(disk) in str(error), error
        return True
    return False
(disk / "ballast").write_bytes(bytes(150_000))
store = disk / "store"
store.mkdir()
full = 0
while len(FeatureStore(store) if list(store.glob("*.h5")) else ()) < 64:
    done = len(FeatureStore(store)) if list(store.glob("*.h5")) else 0
    def write():
        with ShardWriter(store, spec) as writer:
            for number in range(done, min(done + 16, 64)):
                writer.add(str(number), clip(number), Origin("pyav", 1.0, 1, 1, "00" * 32))
    if fails(write):
        full += 1
        assert verify_store(store).damaged == [] and verify_store(store).clips == done > 0
        assert not list(store.glob(".open*")), "nothing half-written stays"
        (disk / "ballast").unlink()
assert full == 1, full
assert fails(lambda: export_store(store, disk / "all.h5"))
assert fails(lambda: export_store(store, disk / "npy", "npy"))
assert fails(lambda: merge_stores([store], disk / "merged", limits=SealLimits(clips=20)))
assert verify_store(disk / "merged").damaged == []
assert {path.name for path in disk.iterdir()} == {"store", "merged"}
with open(disk / "rest", "wb", buffering=0) as file:
    try:
        while file.write(bytes(4096)): pass
    except OSError:
        pass
    assert fails(lambda: append_failure(store, "1of1", Failure("c", "p", "r" * 9000)))
print(verify_store(store).digest)
"""


def test_a_disk_that_is_really_full_breaks_nothing_and_the_work_goes_on_when_there_is_room(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=300k none "$0" && exec "$@"', str(disk)]
    try:
        probe = subprocess.run([*mounted, "true"], capture_output=True, text=True, timeout=60)
    except FileNotFoundError:
        pytest.skip("needs unshare")
    if probe.returncode:
        pytest.skip(f"needs the right to mount: {probe.stderr.strip()}")
    command = [*mounted, sys.executable, "-c", FILL_SMALL_DISK, str(disk)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-1500:]
    clips = {str(n): ClipFeatures(np.full((16, 64), n, np.float16), np.arange(16.0)) for n in range(64)}
    expected = write_shard(tmp_path / "expected", clips, Spec("b", "w", 64, "s", "p", "auto"))
    assert done.stdout.strip() == verify_store(expected.parent).digest


#: Does each thing with a store, and prints how it ended.
WITHOUT_PERMISSION = """
import os, sys
from pathlib import Path
import numpy as np
from longreel.durable import owned
from longreel.errors import LongreelError
from longreel.store import *
store, elsewhere = map(Path, sys.argv[1:])
def write():
    with ShardWriter(store, FeatureStore(store).spec) as writer:
        writer.add("new", FeatureStore(store)["0a"], FeatureStore(store).origin("0a"))
def lock():
    with owned(store / "lock", "it"): pass
actions = {
    "read": lambda: FeatureStore(store).read(FeatureStore(store).ids),
    "verify": lambda: verify_store(store),
    "export": lambda: export_store(store, elsewhere / "all.h5"),
    "merge": lambda: merge_stores([store], elsewhere / "merged"),
    "write": write,
    "lock": lock,
    "ledger": lambda: append_failure(store, "1of1", Failure("c", "p", "r")),
    "set aside": lambda: set_damaged_aside(store),
    "export into it": lambda: export_store(store, store / "all.h5"),
    "merge into it": lambda: merge_stores([store], store / "merged"),
}
for name, action in actions.items():
    try:
        action()
        print(f"{name}: 0")
    except LongreelError as error:
        assert str(store) in str(error), error
        print(f"{name}: {error.exit_code}")
"""


@pytest.fixture
def powerless() -> dict:
    """Options of `subprocess.run` for a process to which permissions apply, as they do not to root."""
    if os.geteuid():
        return {}
    libc = ctypes.CDLL(None, use_errno=True)

    def drop() -> None:
        for capability in (1, 2):  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH; 24 is PR_CAPBSET_DROP
            libc.prctl(24, capability, 0, 0, 0)

    script = "print(int(open('/proc/self/status').read().split('CapEff:')[1].split()[0], 16) & 6)"
    probe = run_python(script, preexec_fn=drop)
    if probe.stdout != "0\n":
        pytest.skip("is root and may not give up root's rights")
    return {"preexec_fn": drop}


@pytest.fixture
def folder(tmp_path) -> Iterator[Path]:
    """A folder whose contents can be removed again whatever the test does to their permissions."""
    yield tmp_path
    for path in [tmp_path, *tmp_path.rglob("*")]:
        path.chmod(0o755)


@pytest.mark.parametrize("damaged", [False, True])
def test_a_store_that_may_only_be_read_is_read_and_never_half_written(folder, powerless, damaged):
    store, elsewhere = folder / "store", folder / "elsewhere"
    elsewhere.mkdir()
    first, *_ = write_shards(store, 3)
    if damaged:
        with h5py.File(first) as file:  # what only `verify`, which hashes whole files, can notice
            place = file["file_size"].id.get_offset()
        flip_bit(first, place)
    for path in store.iterdir():
        path.chmod(0o444)
    store.chmod(0o555)
    before = sorted(path.name for path in store.iterdir())
    done = run_python(WITHOUT_PERMISSION, store, elsewhere, **powerless)
    assert done.returncode == 0, done.stderr[-800:]
    answers = dict(line.split(": ") for line in done.stdout.splitlines())
    copied, written = ("4", "4") if damaged else ("0", "5")  # what is damaged is not copied
    assert answers == {
        **{"read": "0", "verify": "0", "export": copied, "merge": copied, "write": "5", "lock": "5", "ledger": "5"},
        **{"set aside": "5" if damaged else "0", "export into it": written, "merge into it": written},
    }
    assert sorted(path.name for path in store.iterdir()) == before


@pytest.mark.parametrize("mode", [0o000, 0o111])
def test_a_shard_that_may_not_be_read_is_not_taken_for_a_damaged_one(folder, powerless, mode):
    store, elsewhere = folder / "store", folder / "elsewhere"
    elsewhere.mkdir()
    write_shards(store, 2)[1].chmod(mode)
    done = run_python(WITHOUT_PERMISSION, store, elsewhere, **powerless)
    answers = dict(line.split(": ") for line in done.stdout.splitlines())
    assert {answers[name] for name in ("read", "verify", "set aside")} == {"5"}, done.stderr[-800:]
    assert not list(store.glob("damaged-*"))


PLACES = ["with space", "ünï 動画 ß", "x" * 255, "é" * 127, "-rf", "a'b\"c;d", "new\nline", "%s {x} [y] *?", "store.h5"]


@pytest.mark.parametrize("name", PLACES)
def test_a_store_works_in_a_folder_of_any_name_and_through_a_link(tmp_path, name):
    shards = write_shards(tmp_path / name, 3)
    digest = verify_store(tmp_path / name).digest
    (tmp_path / "link").symlink_to(tmp_path / name)
    assert FeatureStore(tmp_path / "link").digest() == digest
    assert merge_stores([tmp_path / "link"], tmp_path / "out" / name).digest == digest
    assert export_store(tmp_path / name, tmp_path / "h5" / name) == 6
    assert export_store(tmp_path / "link", tmp_path / "npy" / name, "npy") == 6
    flip_bit(shards[0], shards[0].stat().st_size - 1)
    assert [entry["clips"] for entry in verify_store(tmp_path / name).damaged] == [["0a", "0b"]]


def test_commands_need_no_home(tmp_path):
    write_shards(tmp_path / "s", 2)
    bare = {key: os.environ[key] for key in ("PATH", "PYTHONPATH") if key in os.environ}
    for arguments in (["verify", "s"], ["info", "s"], ["export", "s", "s.h5"], ["merge", "s", "t"]):
        command = [sys.executable, "-P", "-m", "longreel.cli", "store", *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=bare, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
