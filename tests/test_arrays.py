"""Reading .npy files without trusting them: numpy's own reader is the oracle."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_arrays import KINDS, npy, rows, saved

from longreel.extract.arrays import MAX_CLIP_BYTES, Unreadable, load_npy, to_clip


def test_a_header_that_lies_is_refused_before_memory_is_taken(tmp_path):
    (tmp_path / "x.npy").write_bytes(npy("'<f4'", "(1000, 1000000)", bytes(1000)))
    tracemalloc.start()
    try:
        with pytest.raises(Unreadable, match="announces 4000000"):
            load_npy(str(tmp_path / "x.npy"))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_file_too_large_for_one_clip_is_refused_by_its_size(tmp_path):
    with open(tmp_path / "x.npy", "wb") as file:
        file.write(npy("'<f4'", f"({MAX_CLIP_BYTES // 16}, 8)"))
        file.truncate(2 * MAX_CLIP_BYTES)
    with pytest.raises(Unreadable, match="cut it into spans"):
        load_npy(str(tmp_path / "x.npy"))


@given(
    shape=st.lists(st.integers(0, 5), max_size=3).map(tuple),
    kind=st.sampled_from(KINDS),
    order=st.sampled_from("CF"),
    version=st.sampled_from([(1, 0), (2, 0), (3, 0)]),
)
def test_a_file_is_read_as_numpy_reads_it(tmp_path_factory, shape, kind, order, version):
    path = tmp_path_factory.getbasetemp() / "read.npy"
    with open(path, "wb") as file:
        np.lib.format.write_array(file, np.asarray(rows(3, shape, kind), order=order), version)
    expected, found = np.load(path), load_npy(str(path)).values
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert found.tobytes() == expected.tobytes()


@settings(max_examples=300)
@given(places=st.lists(st.tuples(st.integers(0, 159), st.integers(0, 255)), min_size=1, max_size=4))
def test_a_damaged_header_is_refused_or_read_as_numpy_reads_it_if_it_does(tmp_path_factory, places):
    content = bytearray(saved(rows(1, (1, 8))))
    for place, byte in places:
        content[place] = byte
    path = tmp_path_factory.getbasetemp() / "damaged.npy"
    path.write_bytes(content)
    try:
        found = load_npy(str(path)).values
    except Unreadable:
        return
    try:
        expected = np.load(path)
    except (ValueError, UserWarning):
        assert found.tobytes() == content[-found.nbytes :], "numpy is stricter about brackets and commas"
        return
    assert (found.dtype, found.shape, found.tobytes()) == (expected.dtype, expected.shape, expected.tobytes())


@given(st.lists(st.floats(width=32), min_size=1, max_size=20))
def test_values_are_taken_exactly_where_float16_can_hold_them(values):
    array = np.array(values, dtype=np.float32)
    holds = all(np.isfinite(value) and abs(value) <= 65504 for value in values)
    try:
        assert to_clip(array, len(values), None).features.tolist() == [[float(np.float16(value)) for value in values]]
        assert holds
    except Unreadable:
        assert not holds
