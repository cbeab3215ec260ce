"""Exports hold what the store holds, under names that lead nowhere else, and appear whole or not at all."""

import csv
import json
import subprocess
import sys
import unicodedata
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_stores import SPEC, flip_bit, some_clip, write_shard

from longreel.errors import EnvironmentFault, LongreelError, StoreDamaged
from longreel.store import FeatureStore, export_store
from longreel.store.export import file_names

HOSTILE = [
    "../x",
    "../../../../tmp/x",
    "/abs",
    "a/../b",
    "a//b",
    "a/",
    ".",
    "..",
    ".hidden",
    "~root",
    "-rf",
    "CON",
    "nul.txt",
    "aux.tar.gz",
    "a\\b",
    "C:x",
    "x" * 300,
    "very/long/" * 200 + "id",
    "new\nline",
    "car\rriage",
    "quote\"comma,';",
    "=cmd|'/c calc'!A0",
    "tab\tesc\x1b[31m",
    "\u202eright to left",
    unicodedata.normalize("NFC", "café"),
    unicodedata.normalize("NFD", "café"),
    "Clip",
    "clip",
    "CLIP",
    "straße",
    "STRASSE",
    "file",
    "file.npy",
    "file.npy/x",
    "index.csv",
    "seconds",
    "sha256=" + "0" * 64,
    "\N{FAMILY}" * 70,
    " ",
    "trailing ",
    "trailing.",
    "%2e%2e%2fx",
    "ﬁ",
    "fi",
]
PLAIN = ["plain.mp4", "clips/a b/0817.mp4#0.5-1.0", "ünï/動画.mp4", "v_ApplyEyeMakeup_g01_c01"]


def read_npy(folder: Path) -> dict[str, np.ndarray]:
    """What a tool that knows the index alone would read."""
    with open(folder / "index.csv", encoding="utf-8", newline="") as file:
        return {row["id"]: np.load(folder / row["file"], allow_pickle=False) for row in csv.DictReader(file)}


def read_plain(file: h5py.File, name: str) -> np.ndarray:
    """A dataset that is contiguous."""
    dataset = file[name]
    assert isinstance(dataset, h5py.Dataset)
    assert dataset.chunks is None
    return dataset[:]


@pytest.fixture
def hostile(tmp_path):
    """A store of three shards with every kind of id, and what was written."""
    clips = {clip_id: some_clip(seed, 1 + seed % 5) for seed, clip_id in enumerate(HOSTILE + PLAIN)}
    names = list(clips)
    for part in range(3):
        write_shard(tmp_path / "in" / "store", {clip_id: clips[clip_id] for clip_id in names[part::3]})
    return tmp_path / "in" / "store", clips


def test_a_plain_hdf5_file_holds_every_clip(hostile, tmp_path):
    store, clips = hostile
    out = tmp_path / "out" / "all.h5"
    assert export_store(store, out) == len(clips)
    assert list(out.parent.iterdir()) == [out]
    with h5py.File(out) as file:
        features, offsets, seconds, raw = (read_plain(file, name) for name in ("features", "offsets", "seconds", "ids"))
        assert (features.dtype, raw.dtype.kind) == (np.dtype("<f2"), "S")
        ids = [text.decode() for text in raw]
        spec = {key: file.attrs[key] for key in ("backbone", "weights", "dim", "sampling", "preprocessing", "decoder")}
        assert spec == {"backbone": b"b", "weights": b"w", "dim": 4, "sampling": b"3 frames"} | {
            "preprocessing": b"none",
            "decoder": b"auto",
        }
        assert file.attrs["digest"] == FeatureStore(store).digest().encode()
    assert sorted(ids) == sorted(clips)
    assert len(features) == len(seconds) == offsets[-1] == sum(len(clip.seconds) for clip in clips.values())
    for index, clip_id in enumerate(ids):
        np.testing.assert_array_equal(features[offsets[index] : offsets[index + 1]], clips[clip_id].features)
        np.testing.assert_array_equal(seconds[offsets[index] : offsets[index + 1]], clips[clip_id].seconds)


def test_a_folder_of_npy_files_holds_every_clip_and_nothing_lies_outside(hostile, tmp_path):
    store, clips = hostile
    out = tmp_path / "in" / "out" / "npy"
    before = {path for path in tmp_path.rglob("*") if out.parent not in path.parents and path != out.parent}
    assert export_store(store, out, "npy") == len(clips)
    assert {path for path in tmp_path.rglob("*") if out.parent not in path.parents and path != out.parent} == before
    assert [path.name for path in out.parent.iterdir()] == ["npy"]
    found = read_npy(out)
    assert found.keys() == clips.keys()
    for clip_id, clip in clips.items():
        np.testing.assert_array_equal(found[clip_id], clip.features)
        assert found[clip_id].dtype == np.float16
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert len(files) == len(clips) + 3
    assert {f"clips/{clip_id}.npy" for clip_id in PLAIN} <= files
    assert json.loads((out / "spec.json").read_text())["dim"] == SPEC.dim
    seconds = np.load(out / "seconds.npy")
    np.testing.assert_array_equal(seconds, np.concatenate([clips[clip_id].seconds for clip_id in found]))


def test_ids_that_a_file_system_may_take_for_one_get_names_of_their_own():
    ids = ["Clip", "clip", "straße", "STRASSE", "ﬁ", "fi", "alone", unicodedata.normalize("NFD", "é"), "é"]
    names = file_names(ids)
    folded = {unicodedata.normalize("NFKC", name.casefold()) for name in names}
    assert len(folded) == len(ids)
    assert names[6] == "alone.npy"
    assert all(name.startswith("sha256=") for place, name in enumerate(names) if place != 6)


@pytest.mark.parametrize("clip_id", [*HOSTILE[:24], "trailing ", "trailing.", "file.npy/x", " "])
def test_an_id_that_is_no_plain_path_becomes_a_digest(clip_id):
    (name,) = file_names([clip_id])
    assert name.startswith("sha256=")
    assert len(name) == len("sha256=") + 64 + len(".npy")


@pytest.mark.parametrize("clip_id", PLAIN)
def test_an_id_that_is_a_plain_path_is_the_name(clip_id):
    assert file_names([clip_id]) == [f"{clip_id}.npy"]


@settings(deadline=None, max_examples=300)
@given(st.lists(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1), unique=True))
def test_any_ids_get_as_many_names_inside_the_folder(ids):
    names = file_names(ids)
    assert len({name.casefold() for name in names}) == len(ids)
    for name in names:
        parts = name.split("/")
        assert not {"", ".", ".."} & set(parts)
        assert all(len(part.encode()) <= 255 and part.isprintable() for part in parts)


@pytest.mark.parametrize("clip_id", ["", "a\0b"])
def test_an_id_that_is_empty_or_holds_a_nul_never_comes_into_a_store(tmp_path, clip_id):
    with pytest.raises(ValueError, match="is no clip id"):
        write_shard(tmp_path / "s", {clip_id: some_clip(1)})


@pytest.mark.parametrize("format", ["h5", "npy"])
@pytest.mark.parametrize("there", ["file", "folder", "dangling link"])
def test_nothing_is_overwritten(tmp_path, format, there):
    write_shard(tmp_path / "s", {"a": some_clip(1)})
    out = tmp_path / "out"
    {"file": out.touch, "folder": out.mkdir, "dangling link": lambda: out.symlink_to(tmp_path / "nowhere")}[there]()
    with pytest.raises(LongreelError, match="is there already"):
        export_store(tmp_path / "s", out, format)
    assert {path.name for path in tmp_path.iterdir()} == {"s", "out"}
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("format", ["h5", "npy"])
def test_a_damaged_clip_is_never_exported(tmp_path, format):
    shard = write_shard(tmp_path / "s", {"a": some_clip(1), "b": some_clip(2)})
    flip_bit(shard, FeatureStore(tmp_path / "s").shards[0].data_offset + 3 * 4 * 2)
    with pytest.raises(StoreDamaged, match=f"{shard.name}: is not a whole shard"):
        export_store(tmp_path / "s", tmp_path / "out", format)
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


EXPORT_WITH_LIMIT = """
import resource, sys
from pathlib import Path
from longreel.errors import LongreelError
from longreel.store import export_store
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]),) * 2)
try:
    export_store(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
except LongreelError as error:
    print(error)
    sys.exit(error.exit_code)
"""


@pytest.mark.parametrize(("format", "limit"), [("h5", 0), ("h5", 5000), ("h5", 70_000), ("npy", 0), ("npy", 400)])
def test_a_full_disk_leaves_nothing_behind(tmp_path, format, limit):
    write_shard(tmp_path / "s", {f"{number}": some_clip(number, 200) for number in range(10)})
    arguments = [tmp_path / "s", tmp_path / "out", format, limit]
    command = [sys.executable, "-c", EXPORT_WITH_LIMIT, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == EnvironmentFault.exit_code, done.stderr[-800:]
    assert f"{tmp_path / 'out'}: cannot be written (32000 bytes needed)" in done.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


READ_MANY = """
import resource, sys
from pathlib import Path
import numpy as np
from longreel.store import FeatureStore, RowReader, export_store, verify_store
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
store = FeatureStore(Path(sys.argv[1]))
store.read(store.ids)
sum(len(store[clip_id].seconds) for clip_id in store)
rows = RowReader(store, store.ids).read(np.arange(len(store)), np.zeros((len(store), 1), dtype=np.int64))
assert all((row[0] == store[clip_id].features[0]).all() for clip_id, row in zip(store.ids, rows))
verify_store(Path(sys.argv[1]))
print(export_store(Path(sys.argv[1]), Path(sys.argv[2])))
"""


def test_a_store_of_more_shards_than_files_may_be_open_is_read(tmp_path):
    for number in range(130):
        write_shard(tmp_path / "s", {f"{number}": some_clip(number)})
    command = [sys.executable, "-c", READ_MANY, str(tmp_path / "s"), str(tmp_path / "out.h5")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout == "130\n", done.stderr[-500:]


def test_an_unknown_format_is_refused_with_the_known_ones(tmp_path):
    write_shard(tmp_path / "s", {"a": some_clip(1)})
    with pytest.raises(LongreelError, match=r"no format called 'np'.*h5, npy"):
        export_store(tmp_path / "s", tmp_path / "out", "np")
