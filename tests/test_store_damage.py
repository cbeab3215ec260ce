import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from small_stores import some_clip, write_shard

from longreel.errors import EnvironmentFault, StoreDamaged, StoreMismatch
from longreel.store import FeatureStore, verify_store
from longreel.store.shard import hash_file


def three_clips(folder: Path) -> Path:
    return write_shard(folder, {f"clip-{seed}": some_clip(seed) for seed in range(3)})


def reseal(path: Path) -> Path:
    """Give a changed shard the name that its bytes ask for, as a forger would."""
    return path.rename(path.with_name(f"000001-{hash_file(path)}.h5"))


def run_python(script: str, *arguments: object, **options) -> subprocess.CompletedProcess[str]:
    """The script in a process of its own; ``ballast`` of a test must not be inherited, so nothing is forked."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)


#: Verifies the store given first and prints the names of the damaged shards. A broken HDF5 file can take the
#: process that opens it down, so this runs in one of its own.
VERIFY = """
import sys
from pathlib import Path
from longreel.store import verify_store
verification = verify_store(Path(sys.argv[1]))
print(verification.clips, *(entry["shard"] for entry in verification.damaged), sep="\\n")
"""


def check_that_none_is_silent(folder: Path, contents: list[bytes]) -> None:
    """Put each of the contents beside the store's one shard, under a name with its hash, and verify them all."""
    (shard,) = folder.glob("*.h5")
    copies = {f"{number:06d}-{shard.stem[7:]}.h5": content for number, content in enumerate(contents, 2)}
    for name, content in copies.items():
        (folder / name).write_bytes(content)
    done = run_python(VERIFY, folder)
    assert done.returncode == 0, f"{done.returncode}, {done.stderr[-500:]}"
    clips, *damaged = done.stdout.splitlines()
    assert clips == "3", "the whole shard is found whole"
    assert sorted(damaged) == sorted(copies)


def flip(content: bytes, byte: int, bit: int) -> bytes:
    changed = bytearray(content)
    changed[byte] ^= 1 << bit
    return bytes(changed)


def test_verification_finds_every_flipped_bit(tmp_path):
    content = three_clips(tmp_path).read_bytes()
    rng = np.random.default_rng(0)
    places = [(int(byte), int(bit)) for byte, bit in rng.integers((0, 0), (len(content), 8), size=(1000, 2))]
    features = FeatureStore(tmp_path).shards[0].data_offset
    # Then the first and last byte, the first feature, and two bits of type descriptions at which HDF5 crashes.
    places += [(0, 0), (len(content) - 1, 7), (features, 0), (849, 3), (1161, 2)]
    check_that_none_is_silent(tmp_path, [flip(content, byte, bit) for byte, bit in places])


def test_verification_finds_every_truncation(tmp_path):
    content = three_clips(tmp_path).read_bytes()
    cuts = {*np.linspace(0, len(content) - 1, 200).astype(int).tolist(), 1, 8, 95, 96, len(content) - 8}
    check_that_none_is_silent(tmp_path, [content[:cut] for cut in sorted(cuts)])


def test_verification_of_a_shard_with_an_altered_version_says_that_it_is_damaged(tmp_path):
    shard = three_clips(tmp_path)
    with h5py.File(shard, "r+") as file:
        file.attrs["version"] = 257
    assert [entry["shard"] for entry in verify_store(tmp_path).damaged] == [shard.name]


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
    with pytest.raises(StoreMismatch, match=r"store format 2, this longreel reads up to 1\. Update"):
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


@pytest.mark.parametrize("limit", [0, 100, 2000, 3000, 5000, 9000, 12000])
def test_a_full_disk_is_an_environment_fault_and_leaves_nothing_half_written(tmp_path, limit):
    """The limit on a file's size stands for the end of the disk: a write past it fails in the same place."""
    shard = three_clips(tmp_path)
    whole = write_shard(tmp_path / "free", {f"new-{n}": some_clip(n, 16) for n in range(20)}).stat().st_size
    assert limit < whole
    done = run_python(FILL_DISK, tmp_path, limit)
    assert done.returncode == EnvironmentFault.exit_code == 5, done.stderr[-800:]
    assert str(tmp_path) in done.stdout
    assert "bytes needed" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([shard.name, "free"])
    assert verify_store(tmp_path).damaged == []
    assert FeatureStore(tmp_path).ids == ("clip-0", "clip-1", "clip-2")
