"""HDF5 files that others wrote: read in a process of their own, and only where everything lies plainly in the file."""

import os
import signal
from pathlib import Path

import h5py
import numpy as np
import pytest
from h5py import h5s, h5t
from hypothesis import HealthCheck, settings
from hypothesis import given as suppose
from hypothesis import strategies as st
from small_foreign import GOOD, ROWS, good_file

from longreel.cli import app
from longreel.errors import ForeignRefused, LongreelError
from longreel.extract import Given, import_features, open_source
from longreel.store import DatasetUnreadable, FeatureStore, ForeignFile, verify_store

MOST = 1 << 20


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
