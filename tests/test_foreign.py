"""HDF5 files that others wrote: read in a process of their own, and only where everything lies plainly in the file."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from h5py import h5s, h5t
from hypothesis import HealthCheck, settings
from hypothesis import given as suppose
from hypothesis import strategies as st

from longreel.cli import app
from longreel.errors import ForeignRefused, LongreelError
from longreel.extract import Given, import_features, open_source
from longreel.store import DatasetUnreadable, FeatureStore, ForeignFile, verify_store

ROWS = np.arange(40, dtype=np.float32).reshape(5, 8)
MOST = 1 << 20


def good_file(path: Path) -> Path:
    """Datasets in every plain way of storing them."""
    with h5py.File(path, "w") as file:
        file["a/plain"] = ROWS
        file["a/row"] = ROWS[0]
        file.create_dataset("a/b/gzip", data=ROWS, chunks=(2, 8), compression="gzip", shuffle=True, fletcher32=True)
        file.create_dataset("lzf", data=ROWS.astype(">f8"), compression="lzf")
        file.create_dataset("half", data=ROWS.astype("<f2"))
    return path


GOOD = ["a/b/gzip", "a/plain", "a/row", "half", "lzf"]


def bring(path: Path, store: Path, suffix: str = "", **options):
    with open_source(path, suffix) as source:
        return import_features(source, store, Given("clip"), **options)


def test_every_dataset_becomes_a_clip_under_its_path(tmp_path):
    report = bring(good_file(tmp_path / "f.h5"), tmp_path / "store", suffix=".mp4")
    assert (report.written, report.failures) == (5, [])
    store = FeatureStore(tmp_path / "store")
    assert sorted(store) == [f"{name}.mp4" for name in GOOD]
    for clip_id in store:
        expected = ROWS[:1] if clip_id == "a/row.mp4" else ROWS
        np.testing.assert_array_equal(store[clip_id].features, expected.astype(np.float16))
    assert store.origin("lzf.mp4").decoder == "hdf5"
    assert store.origin("lzf.mp4").size == (tmp_path / "f.h5").stat().st_size


def test_datasets_come_out_as_they_lie_in_the_file(tmp_path):
    with ForeignFile(good_file(tmp_path / "f.h5")) as file:
        assert sorted(dataset.name for dataset in file.datasets) == GOOD
        for name in GOOD:
            with h5py.File(tmp_path / "f.h5") as ours:
                dataset = ours[name]
                assert isinstance(dataset, h5py.Dataset)
                expected = dataset[()]
            found = file.read(name, MOST)
            assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
            np.testing.assert_array_equal(found, expected)


def external_storage(file: h5py.File, canary: Path) -> None:
    file.create_dataset("bad", (5, 8), "<f4", external=[(str(canary), 0, h5py.h5f.UNLIMITED)])


def virtual(file: h5py.File, canary: Path) -> None:
    layout = h5py.VirtualLayout((5, 8), "<f4")
    layout[:] = h5py.VirtualSource(str(canary), "half", (5, 8))
    file.create_virtual_dataset("bad", layout)


def virtual_without_end(file: h5py.File, canary: Path) -> None:
    layout = h5py.VirtualLayout((5, 8), "<f4", maxshape=(None, 8))
    source = h5py.VirtualSource(str(canary), "half", (5, 8), maxshape=(None, 8))
    layout[: h5s.UNLIMITED, :] = source[: h5s.UNLIMITED, :]
    file.create_virtual_dataset("bad", layout)


def unknown_filter(file: h5py.File, canary: Path) -> None:
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_chunk((5, 8))
    layout.set_filter(32015, h5py.h5z.FLAG_OPTIONAL, (3,))
    created = h5py.h5d.create(file.id, b"bad", h5t.IEEE_F32LE, h5s.create_simple((5, 8)), layout)
    h5py.Dataset(created)[...] = ROWS


def named_type(file: h5py.File, canary: Path) -> None:
    file["type"] = np.dtype("<f4")
    file.create_dataset("bad", data=ROWS, dtype=file["type"])


def mostly_absent(file: h5py.File, canary: Path) -> None:
    file.create_dataset("bad", (1 << 20, 64), "<f4", chunks=(16, 64))[:16] = 1.0


def cycle(file: h5py.File, canary: Path) -> None:
    top = file.create_group("x")
    top.create_group("y")["bad"] = top


def diamonds(file: h5py.File, canary: Path) -> None:
    """2 ** 40 ways to one dataset."""
    at = file.create_group("bad")
    for _ in range(40):
        below = at.create_group("left")
        at["right"] = below
        at = below
    at["x"] = ROWS


def through_a_group(link: Callable[[Path], object]) -> Callable[[h5py.File, Path], None]:
    """The dataset lies in a group that a link leads to."""

    def forge(file: h5py.File, canary: Path) -> None:
        file["real/x"] = ROWS
        file["bad"] = link(canary)

    return forge


#: what is wrong -> how to make it, and words of the refusal.
FORGERIES: dict[str, tuple[Callable[[h5py.File, Path], object], str]] = {
    "external link": (through_a_group(lambda canary: h5py.ExternalLink(str(canary), "half")), "an external link"),
    "external link to a group": (through_a_group(lambda canary: h5py.ExternalLink(str(canary), "/a")), "external link"),
    "soft link": (through_a_group(lambda canary: h5py.SoftLink("/real/x")), "a soft link"),
    "soft link to a group": (through_a_group(lambda canary: h5py.SoftLink("/real")), "a soft link"),
    "soft link to nothing": (through_a_group(lambda canary: h5py.SoftLink("/nowhere")), "a soft link"),
    "external storage": (external_storage, "has external storage"),
    "virtual dataset": (virtual, "a virtual dataset"),
    "virtual dataset without end": (virtual_without_end, "a virtual dataset"),
    "unknown filter": (unknown_filter, "has the filter 32015"),
    "filter of the library": (
        lambda file, canary: file.create_dataset("bad", data=ROWS.astype("i4"), scaleoffset=8) and None,
        "has the filter 6",
    ),
    "8 TB declared": (
        lambda file, canary: file.create_dataset("bad", (1 << 40, 2), "<f4") and None,
        "declares 8796093",
    ),
    "a million times the stored": (mostly_absent, "declares 268435456 bytes"),
    "huge chunks": (
        lambda file, canary: file.create_dataset("bad", (4, 8), "f4", chunks=(1 << 24, 8), maxshape=(None, 8)) and None,
        "has chunks of more than",
    ),
    "named type": (named_type, "named type"),
    "group in itself": (cycle, "has two names"),
    "2 ** 40 ways": (diamonds, "has two names or lies too deep"),
}


@pytest.mark.parametrize("wrong", FORGERIES)
def test_a_file_that_leads_out_of_itself_or_lies_is_refused_and_nothing_else_is_opened(tmp_path, watch_opens, wrong):
    forge, words = FORGERIES[wrong]
    canary, path = good_file(tmp_path / "canary.h5"), good_file(tmp_path / "f.h5")
    with h5py.File(path, "r+") as file:
        forge(file, canary)
    opened = watch_opens(canary)
    with pytest.raises(ForeignRefused, match=words) as caught:
        ForeignFile(path)
    assert str(path) in str(caught.value)
    assert "'bad" in str(caught.value) or "'type'" in str(caught.value) or "'x/" in str(caught.value)
    assert not opened()
    canary.read_bytes()
    assert opened()


def test_once_the_file_is_open_its_reader_can_open_no_other(tmp_path):
    script = (
        "import sys; from longreel.store.foreign import open_alone\n"
        "root = open_alone(sys.argv[1])\n"
        "try:\n    open(sys.argv[2])\nexcept OSError as error:\n    print(error.errno, root.valid)"
    )
    paths = [str(good_file(tmp_path / name)) for name in ("f.h5", "canary.h5")]
    done = subprocess.run([sys.executable, "-P", "-c", script, *paths], capture_output=True, text=True, timeout=60)
    assert done.stdout == "24 1\n", done.stderr  # EMFILE


def test_what_holds_no_floats_or_was_never_written_is_noted_and_the_rest_imported(tmp_path):
    with h5py.File(good_file(tmp_path / "f.h5"), "r+") as file:
        file["labels"] = np.arange(3)
        file["names"] = np.array(["a", "b"], dtype=object)
        file["text"] = "x"
        file["scalar"] = 1.0
        file["empty"] = h5py.Empty("f4")
        file["none"] = np.zeros((0, 8), "f4")
        file.create_dataset("ref", data=[file["half"].ref], dtype=h5py.ref_dtype)
        file.create_dataset("ragged", (2,), h5py.vlen_dtype("f4"))[0] = [1.0]
        file["pair"] = np.zeros(3, [("a", "f4"), ("b", "f4")])
        file.create_dataset("unwritten", (5, 8), "f4")
        file.create_dataset("half written", (5, 8), "f4", chunks=(1, 8))[:2] = 1.0
        file["nan"] = ROWS * np.nan
        file["wide"] = np.ones((5, 9))
    report = bring(tmp_path / "f.h5", tmp_path / "store")
    assert report.written == 5
    reasons = {failure.clip_id: failure.reason for failure in report.failures}
    assert reasons == {
        **{name: f"holds {kind}, not float16, float32 or float64" for name, kind in KINDS.items()},
        "scalar": "has the shape (); expected (T, D) or (D,)",
        "empty": "has the shape (); expected (T, D) or (D,)",
        "none": "is empty: its shape is (0, 8)",
        "unwritten": "was declared but never written",
        "half written": "was only partly written",
        "nan": "has values that are not finite (NaN or infinity)",
        "wide": "is 9 wide, the store holds 8",
    }


KINDS = {
    "labels": "integer",
    "names": "string",
    "text": "string",
    "ref": "reference",
    "ragged": "vlen",
    "pair": "compound",
}


def test_a_dataset_larger_than_asked_for_is_not_read(tmp_path):
    with (
        ForeignFile(good_file(tmp_path / "f.h5")) as file,
        pytest.raises(DatasetUnreadable, match="has 160 bytes, more than"),
    ):
        file.read("a/plain", 159)


def test_files_that_are_no_whole_hdf5_file_are_refused_in_one_line(tmp_path, capfd):
    whole = good_file(tmp_path / "f.h5").read_bytes()
    for number, content in enumerate([b"", b"text", np.random.default_rng(0).bytes(5000), whole[:-100], whole[:100]]):
        path = tmp_path / f"{number}.h5"
        path.write_bytes(content)
        with pytest.raises(ForeignRefused, match="is not a whole HDF5 file"):
            ForeignFile(path)
    with pytest.raises(SystemExit) as ended:
        app(["import-features", str(tmp_path / "1.h5"), str(tmp_path / "store"), "--backbone", "x"])
    assert ended.value.code == 2
    assert capfd.readouterr().err.count("\n") == 1
    with pytest.raises(LongreelError, match="no such file"):
        ForeignFile(tmp_path / "nowhere.h5")


def test_flipped_bits_end_in_a_refusal_or_a_note_and_never_take_us_along(tmp_path):
    whole = good_file(tmp_path / "f.h5").read_bytes()
    places = np.random.default_rng(0).integers((0, 0), (2500, 8), size=(24, 2)).tolist()
    ends = set()
    for place, bit in [*places, (849, 3), (1161, 2)]:
        content = bytearray(whole)
        content[place] ^= 1 << bit
        (tmp_path / "g.h5").write_bytes(content)
        try:
            with ForeignFile(tmp_path / "g.h5", patience=20.0) as file:
                for dataset in file.datasets:
                    try:
                        file.read(dataset.name, MOST)
                        ends.add("read")
                    except DatasetUnreadable:
                        ends.add("noted")
        except ForeignRefused:
            ends.add("refused")
    assert "read" in ends
    assert "refused" in ends


@pytest.mark.parametrize(("blow", "words"), [(signal.SIGSEGV, "died of SIGSEGV"), (signal.SIGSTOP, "more than 1 s")])
def test_a_reader_that_crashes_or_hangs_costs_one_dataset(tmp_path, blow, words):
    with ForeignFile(good_file(tmp_path / "f.h5"), patience=1.0) as file:
        assert file._reader is not None
        os.kill(file._reader._process.pid, blow)
        with pytest.raises(DatasetUnreadable, match=words):
            file.read("half", MOST)
        file._patience = 60.0
        np.testing.assert_array_equal(file.read("half", MOST), ROWS)


def test_a_reader_that_crashes_while_it_lists_the_file_is_one_error(tmp_path, monkeypatch):
    from longreel.child import Child

    send = Child.send

    def crash(reader, **task):
        send(reader, **task)
        os.kill(reader._process.pid, signal.SIGSEGV)

    monkeypatch.setattr(Child, "send", crash)
    with pytest.raises(ForeignRefused, match=r"f\.h5: the HDF5 library died of SIGSEGV"):
        ForeignFile(good_file(tmp_path / "f.h5"))


def test_a_second_call_imports_what_was_added_and_nothing_else(tmp_path):
    path = good_file(tmp_path / "f.h5")
    bring(path, tmp_path / "store")
    assert bring(path, tmp_path / "store").already == 5
    with h5py.File(path, "r+") as file:
        file["new"] = ROWS + 1
        half = file["half"]
        assert isinstance(half, h5py.Dataset)
        half[0, 0] = 7.0
    plans = []
    report = bring(path, tmp_path / "store", on_plan=plans.append)
    assert (report.written, plans[0].changed) == (1, ["half"])
    assert bring(path, tmp_path / "store", refresh=True).written == 1
    assert FeatureStore(tmp_path / "store")["half"].features[0, 0] == 7.0


SLOW_AND_LARGE = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
#: A name in an HDF5 file: no slash, no NUL, no lone surrogate, and not the dot that means "here".
NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=30).filter(
    lambda name: name != "."
)


@settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)
@suppose(names=st.sets(st.tuples(NAMES, NAMES), min_size=100, max_size=100))
def test_a_thousand_ids_come_back_as_they_were_and_never_become_paths(tmp_path_factory, names):
    work = tmp_path_factory.mktemp("ids")
    odd = {("..", ".."), ("..", "canary.txt"), ("C:", "nul"), ("é", "e\u0301"), ("é", "\u00e9")}  # composed or not
    with h5py.File(work / "f.h5", "w") as file:
        for group, name in names | odd:
            there = group.encode() in file.id
            at = h5py.h5g.open(file.id, group.encode()) if there else h5py.h5g.create(file.id, group.encode())
            created = h5py.h5d.create(at, name.encode(), h5t.IEEE_F32LE, h5s.create_simple((2,)))
            h5py.Dataset(created)[...] = [len(group), len(name)]
    report = bring(work / "f.h5", work / "inside" / "store")
    assert report.failures == []
    store = FeatureStore(work / "inside" / "store")
    assert set(store) == {f"{group}/{name}" for group, name in names | odd}
    for group, name in names | odd:
        assert store[f"{group}/{name}"].features.tolist() == [[len(group), len(name)]]
    assert {path.name for path in work.iterdir()} == {"f.h5", "inside"}
    assert all(path.suffix in (".h5", ".lock") for path in (work / "inside" / "store").iterdir())
    assert verify_store(work / "inside" / "store").damaged == []
