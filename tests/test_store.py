import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from longreel.durable import owned, write_bytes
from longreel.errors import EnvironmentFault, InUse, StoreDamaged, StoreMismatch
from longreel.store import (
    ClipFeatures,
    Failure,
    FeatureStore,
    Origin,
    ShardWriter,
    Spec,
    append_failure,
    describe_store,
    read_failures,
    verify_store,
)
from longreel.store.shard import hash_file

SPEC = Spec(backbone="b", weights="w", dim=4, sampling="3 frames", preprocessing="none", decoder="auto")
ORIGIN = Origin(decoder="pyav", fraction=1.0, size=7, mtime_ns=9, sha256="ab" * 32)
IDS = ("clips/a.mp4", "ünï/動画 ß (1).mp4", "../../x", "a b#1-2", "=cmd|'/c calc'!A0", "\N{FAMILY}" * 70)


def some_clip(seed: int, frames: int = 3, dim: int = 4) -> ClipFeatures:
    rng = np.random.default_rng(seed)
    return ClipFeatures(rng.normal(size=(frames, dim)).astype(np.float16), np.arange(frames) / 2)


def write_store(folder: Path, clips: dict[str, ClipFeatures], spec: Spec = SPEC) -> Path:
    """One shard with these clips; gives its path."""
    folder.mkdir(parents=True, exist_ok=True)
    before = set(folder.glob("*.h5"))
    with ShardWriter(folder, spec) as writer:
        for clip_id, clip in clips.items():
            writer.add(clip_id, clip, ORIGIN)
    (made,) = set(folder.glob("*.h5")) - before
    return made


def three_clips(folder: Path) -> Path:
    return write_store(folder, {f"clip-{seed}": some_clip(seed) for seed in range(3)})


def reseal(path: Path) -> Path:
    """Give a changed shard the name that its bytes ask for, as a forger would."""
    return path.rename(path.with_name(f"000001-{hash_file(path)}.h5"))


def run_python(script: str, *arguments: object, **options) -> subprocess.CompletedProcess[str]:
    """The script in a process of its own; ``ballast`` of a test must not be inherited, so nothing is forked."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


def test_clips_come_back_as_they_were_written(tmp_path):
    clips = {clip_id: some_clip(seed, frames=seed + 1) for seed, clip_id in enumerate(IDS)}
    write_store(tmp_path / "s", clips)
    with FeatureStore(tmp_path / "s") as store:
        assert store.spec == SPEC
        assert store.ids == tuple(store) == IDS
        assert len(store) == len(IDS)
        assert "clips/b.mp4" not in store
        for clip_id, clip in clips.items():
            np.testing.assert_array_equal(store[clip_id].features, clip.features)
            np.testing.assert_array_equal(store[clip_id].seconds, clip.seconds)
            assert store.origin(clip_id) == ORIGIN


def test_ids_never_become_names_of_files_or_hdf5_objects(tmp_path):
    shard = write_store(tmp_path / "s", {clip_id: some_clip(1) for clip_id in IDS})
    assert [path.name for path in tmp_path.rglob("*")] == ["s", shard.name]
    with h5py.File(shard) as file:
        names: list[str] = []
        file.visit(names.append)
    assert not any(part in name for name in names for part in ("clip", "x", "cmd", "動画", "/"))


def test_plain_h5py_opens_a_shard_and_sees_one_contiguous_float16_dataset(tmp_path):
    clips = {"a": some_clip(1, 5), "b": some_clip(2, 2)}
    shard = write_store(tmp_path, clips)
    with h5py.File(shard) as file:
        features = file["features"]
        assert isinstance(features, h5py.Dataset)
        assert (features.dtype, features.shape, features.chunks) == (np.float16, (7, 4), None)
        np.testing.assert_array_equal(features[:], np.concatenate([clip.features for clip in clips.values()]))
        assert json.loads(str(file.attrs["spec"]))["backbone"] == "b"
        with FeatureStore(tmp_path) as store:
            mapped = store.shards[0].features
            assert isinstance(mapped, np.memmap)
            np.testing.assert_array_equal(mapped, features[:])


def test_reading_many_clips_at_once_gives_their_rows_in_the_order_asked_for(tmp_path):
    clips = {name: some_clip(seed, seed + 1) for seed, name in enumerate("abcd")}
    write_store(tmp_path, clips)
    rows, offsets = FeatureStore(tmp_path).read(["d", "a", "c"])
    assert offsets.tolist() == [0, 4, 5, 8]
    np.testing.assert_array_equal(rows, np.concatenate([clips[name].features for name in "dac"]))


def test_the_digest_depends_neither_on_the_order_nor_on_the_shards(tmp_path):
    clips = {name: some_clip(seed) for seed, name in enumerate("abcde")}
    write_store(tmp_path / "one", clips)
    for name in "ecadb":
        write_store(tmp_path / "five", {name: clips[name]})
    one, five = FeatureStore(tmp_path / "one"), FeatureStore(tmp_path / "five")
    assert (len(one.shards), len(five.shards)) == (1, 5)
    assert one.digest() == five.digest() == verify_store(tmp_path / "five").digest
    assert one.digest(["b", "a"]) == five.digest(["a", "b"]) != one.digest()


@pytest.mark.parametrize("change", ["id", "feature", "time"])
def test_the_digest_changes_with_the_id_a_feature_or_a_time(tmp_path, change):
    clip = some_clip(1)
    features, seconds = clip.features.copy(), clip.seconds.copy()
    features[2, 3] += change == "feature"
    seconds[2] += change == "time"
    other = ClipFeatures(features, seconds).digest("b" if change == "id" else "a")
    assert other != clip.digest("a") == ClipFeatures(clip.features.copy(), clip.seconds.copy()).digest("a")


def test_of_a_clip_written_twice_the_newest_counts(tmp_path):
    write_store(tmp_path, {"a": some_clip(1), "b": some_clip(2)})
    write_store(tmp_path, {"a": some_clip(3, frames=6)})
    store = FeatureStore(tmp_path)
    assert len(store) == 2
    np.testing.assert_array_equal(store["a"].features, some_clip(3, frames=6).features)
    assert verify_store(tmp_path).digest == store.digest()


def test_the_tenth_shard_comes_after_the_ninth_and_the_millionth_after_all(tmp_path):
    for sequence, seed in ((999_999, 1), (1_000_000, 2)):
        shard = write_store(tmp_path, {"a": some_clip(seed)})
        shard.rename(shard.with_name(f"{sequence:06d}-{shard.name.split('-')[1]}"))
    np.testing.assert_array_equal(FeatureStore(tmp_path)["a"].features, some_clip(2).features)


def test_a_whole_store_passes_verification(tmp_path):
    three_clips(tmp_path)
    found = verify_store(tmp_path)
    assert (found.shards, found.clips, found.damaged) == (1, 3, [])
    assert found.digest == FeatureStore(tmp_path).digest() == describe_store(tmp_path)["digest"]


#: Verifies the shard given first after each change of its bytes, and says what it found. A broken HDF5 file can
#: take the process down with it, so this runs in one of its own.
VERIFY_EACH = """
import json, sys
from pathlib import Path
from longreel.errors import StoreDamaged
from longreel.store import verify_store
shard = Path(sys.argv[1])
whole = shard.read_bytes()
for change in json.loads(sys.argv[2]):
    cut, byte, bit = change
    content = bytearray(whole[:cut])
    if byte is not None:
        content[byte] ^= 1 << bit
    shard.write_bytes(content)
    print(json.dumps(change), end=" ", flush=True)
    try:
        print("found" if verify_store(shard.parent).damaged else "silent", flush=True)
    except StoreDamaged:
        print("found", flush=True)
"""


def verify_each(shard: Path, changes: list) -> None:
    done = run_python(VERIFY_EACH, shard, json.dumps(changes))
    assert done.returncode == 0, f"at {done.stdout.splitlines()[-1:]}: {done.returncode}, {done.stderr[-500:]}"
    answers = [line.rpartition(" ") for line in done.stdout.splitlines()]
    assert len(answers) == len(changes)
    assert [change for change, _, answer in answers if answer != "found"] == []


def test_verification_finds_every_flipped_bit(tmp_path):
    shard = three_clips(tmp_path)
    size = shard.stat().st_size
    rng = np.random.default_rng(0)
    places = [(int(byte), int(bit)) for byte, bit in zip(rng.integers(size, size=150), rng.integers(8, size=150))]
    features = FeatureStore(tmp_path).shards[0].data_offset
    # Then the first and last byte, the first feature, and two bits of type descriptions at which HDF5 crashes.
    places += [(0, 0), (size - 1, 7), (features, 0), (849, 3), (1161, 2)]
    verify_each(shard, [[size, byte, bit] for byte, bit in places])


def test_verification_finds_every_truncation(tmp_path):
    shard = three_clips(tmp_path)
    size = shard.stat().st_size
    cuts = sorted({*np.linspace(0, size - 1, 36).astype(int).tolist(), 1, 8, 95, 96, size - 8})
    verify_each(shard, [[cut, None, None] for cut in cuts])


def test_verification_of_a_shard_with_an_altered_version_says_that_it_is_damaged(tmp_path):
    shard = three_clips(tmp_path)
    with h5py.File(shard, "r+") as file:
        file.attrs["version"] = 257
    assert [entry["shard"] for entry in verify_store(tmp_path).damaged] == [shard.name]


def test_a_damaged_clip_is_named_and_the_others_still_count(tmp_path):
    shard = three_clips(tmp_path)
    begin = FeatureStore(tmp_path).shards[0].data_offset
    content = bytearray(shard.read_bytes())
    content[begin + 3 * 4 * 2] ^= 1  # the second clip's first feature
    shard.write_bytes(content)
    found = verify_store(tmp_path)
    assert [(entry["shard"], entry["clips"]) for entry in found.damaged] == [(shard.name, ["clip-1"])]
    assert found.clips == 2
    store = FeatureStore(tmp_path)
    store.read(["clip-0", "clip-2"])
    with pytest.raises(StoreDamaged, match="clip-1"):
        store.read(["clip-0", "clip-1"])


def test_a_folder_without_shards_is_no_store(tmp_path):
    (tmp_path / ".open-1of1.tmp").write_bytes(b"half")
    (tmp_path / "notes.h5").write_bytes(b"not a shard")
    for check in (FeatureStore, verify_store):
        with pytest.raises(StoreMismatch, match="longreel extract MANIFEST"):
            check(tmp_path)


def test_two_ways_of_extraction_in_one_folder_are_refused(tmp_path):
    write_store(tmp_path, {"a": some_clip(1)})
    write_store(tmp_path, {"b": some_clip(2)}, Spec("b", "w", 4, "2 fps", "none", "auto"))
    with pytest.raises(StoreMismatch, match="sampling is '3 frames', not '2 fps'"):
        FeatureStore(tmp_path)


def test_a_clip_of_another_width_is_refused_when_it_is_added(tmp_path):
    with ShardWriter(tmp_path, SPEC) as writer, pytest.raises(ValueError, match="5 wide"):
        writer.add("a", some_clip(1, dim=5), ORIGIN)
    assert list(tmp_path.iterdir()) == []


def replace_dataset(file: h5py.File, name: str, value: object) -> None:
    del file[name]
    file[name] = value


def virtual(file: h5py.File, canary: Path) -> None:
    layout = h5py.VirtualLayout((9, 4), "<f2")
    layout[:] = h5py.VirtualSource(str(canary), "features", (9, 4))
    del file["features"]
    file.create_virtual_dataset("features", layout)


def external_storage(file: h5py.File, canary: Path) -> None:
    del file["features"]
    file.create_dataset("features", (9, 4), "<f2", external=[(str(canary), 0, h5py.h5f.UNLIMITED)])


def link_through_a_link(file: h5py.File, canary: Path) -> None:
    file["way"] = h5py.ExternalLink(str(canary), "/")
    replace_dataset(file, "features", h5py.SoftLink("/way/features"))


def soft_link(file: h5py.File, canary: Path) -> None:
    file.move("features", "elsewhere")
    file["features"] = h5py.SoftLink("/elsewhere")


def chunked(file: h5py.File, canary: Path) -> None:
    rows = np.ones((9, 4), "<f2")
    del file["features"]
    file.create_dataset("features", data=rows, chunks=(3, 4))


def compact(file: h5py.File, canary: Path) -> None:
    del file["features"]
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_layout(h5py.h5d.COMPACT)
    space = h5py.h5s.create_simple((9, 4))
    h5py.h5d.create(file.id, b"features", h5py.h5t.IEEE_F16LE, space, layout)


def declared(rows: int) -> Callable[[h5py.File, Path], None]:
    def change(file: h5py.File, canary: Path) -> None:
        del file["features"]
        file.create_dataset("features", (rows, 4), "<f2")

    return change


FORGERIES: dict[str, Callable[[h5py.File, Path], None]] = {
    "an external link": lambda file, canary: replace_dataset(
        file, "features", h5py.ExternalLink(str(canary), "features")
    ),
    "an external link to the ids": lambda file, canary: replace_dataset(
        file, "ids", h5py.ExternalLink(str(canary), "ids")
    ),
    "a soft link": soft_link,
    "a soft link through an external link": link_through_a_link,
    "a virtual dataset": virtual,
    "external storage": external_storage,
    "a chunked dataset": chunked,
    "a compact dataset": compact,
    "features that were never written": declared(9),
    "8 TB declared": declared(2**40),
    "more declared than 64 bits can count": declared(2**62),
    "a group for features": lambda file, canary: replace_dataset(file, "features", np.dtype("f2")),
    "numbers for ids": lambda file, canary: replace_dataset(file, "ids", np.arange(3)),
    "a table of ids": lambda file, canary: replace_dataset(file, "ids", np.array([[b"a"], [b"b"], [b"c"]])),
    "offsets that overrun": lambda file, canary: replace_dataset(file, "offsets", np.array([0, 3, 6, 10])),
    "offsets that go back": lambda file, canary: replace_dataset(file, "offsets", np.array([0, 6, 3, 9])),
    "one time too few": lambda file, canary: replace_dataset(file, "seconds", np.arange(8.0)),
    "a spec that is a list": lambda file, canary: file.attrs.update({"spec": "[]"}),
    "no format": lambda file, canary: file.attrs.pop("format"),
}


@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES)
def test_a_shard_that_is_not_plain_is_refused_and_nothing_else_is_opened(tmp_path, watch_opens, forge):
    canary = three_clips(tmp_path / "secret")
    shard = three_clips(tmp_path / "s")
    with h5py.File(shard, "r+") as file:
        forge(file, canary)
    shard = reseal(shard)
    opened = watch_opens(canary)
    with pytest.raises(StoreDamaged, match=shard.name):
        FeatureStore(tmp_path / "s")
    assert [entry["shard"] for entry in verify_store(tmp_path / "s").damaged] == [shard.name]
    assert not opened()
    canary.read_bytes()
    assert opened()


def test_a_decoder_name_that_is_no_text_does_not_end_in_a_traceback(tmp_path):
    shard = three_clips(tmp_path)
    with h5py.File(shard, "r+") as file:
        names = file["decoder"]
        assert isinstance(names, h5py.Dataset)
        names[1] = b"\xff\xfe"
    store = FeatureStore(tmp_path)
    assert store.origin("clip-0").decoder == "pyav"
    store.origin("clip-1")


def test_a_shard_of_a_newer_format_asks_for_an_update(tmp_path):
    shard = three_clips(tmp_path)
    with h5py.File(shard, "r+") as file:
        file.attrs["version"] = 2
    reseal(shard)
    with pytest.raises(StoreMismatch, match="store format 2, this longreel reads up to 1. Update"):
        FeatureStore(tmp_path)


FILL_DISK = """
import os, sys
from pathlib import Path
import numpy as np
from longreel.errors import LongreelError
from longreel.store import ClipFeatures, Origin, ShardWriter, Spec
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]),) * 2)
clip = ClipFeatures(np.ones((16, 4), np.float16), np.arange(16.0))
try:
    with ShardWriter(Path(sys.argv[1]), Spec("b", "w", 4, "3 frames", "none", "auto")) as writer:
        for number in range(20):
            writer.add(f"new-{number}", clip, Origin("pyav", 1.0, 1, 1, "00" * 32))
except LongreelError as error:
    print(len(os.listdir("/dev/fd")), error)
    sys.exit(error.exit_code)
"""


@pytest.mark.parametrize("limit", [0, 100, 2000, 3000, 5000, 9000, 13000])
def test_a_full_disk_is_an_environment_fault_and_leaves_nothing_half_written(tmp_path, limit):
    """The limit on a file's size stands for the end of the disk: a write past it fails in the same place."""
    shard = three_clips(tmp_path)
    whole = write_store(tmp_path / "free", {f"new-{n}": some_clip(n, 16) for n in range(20)}).stat().st_size
    assert limit < whole
    done = run_python(FILL_DISK, tmp_path, limit)
    assert done.returncode == EnvironmentFault.exit_code == 5, done.stderr[-800:]
    assert str(tmp_path) in done.stdout
    assert "bytes needed" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([shard.name, "free"])
    assert verify_store(tmp_path).damaged == []
    assert FeatureStore(tmp_path).ids == ("clip-0", "clip-1", "clip-2")


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


def test_the_last_failure_of_a_clip_counts_and_an_extracted_clip_is_no_failure(tmp_path):
    write_store(tmp_path, {"a": some_clip(1)})
    for clip_id, reason in (("a", "old"), ("b", "old"), ("b", "new")):
        append_failure(tmp_path, "1of2", Failure(clip_id, clip_id, reason))
    append_failure(tmp_path, "2of2", Failure("c\u2028\n", "c", "why"))
    assert {clip_id: failure.reason for clip_id, failure in FeatureStore(tmp_path).failures().items()} == {
        "b": "new",
        "c\u2028\n": "why",
    }


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
    for _ in range(2):
        with owned(tmp_path / "lock", "the store"):
            pass


def test_a_file_is_replaced_whole_and_no_temporary_stays(tmp_path):
    write_bytes(tmp_path / "a.json", b"first")
    write_bytes(tmp_path / "a.json", b"second")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a.json", b"second")]


def test_a_store_in_a_place_that_is_no_folder_is_an_environment_fault(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(EnvironmentFault, match="cannot be written"), ShardWriter(tmp_path / "file", SPEC) as writer:
        writer.add("a", some_clip(1), ORIGIN)
