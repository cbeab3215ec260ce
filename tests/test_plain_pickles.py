"""Pickles that want to run something, or lie of their arrays: nothing is run, and they are refused in words."""

import io
import os
import pickle
import struct
from collections import OrderedDict
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from longreel.errors import ForeignRefused
from longreel.extract.plain_pickle import Array, load_plain
from longreel.extract.skeletons import open_skeletons

DATA = {
    "texts": ["a", "ünï", b"bytes"],
    "numbers": [1, -(2**40), 2.5, None, True, (1, (2, 3), ()), {4: {5: []}}],
    "scalars": [np.float32(0.5), np.int64(-7), np.bool_(True)],
    "arrays": [
        np.arange(24, dtype=kind).reshape(2, 3, 4) for kind in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", ">f4")
    ],
    "others": [np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.zeros((0, 3), np.float32), np.array([True, False])],
}


def same(found: object, given: object) -> bool:
    """Whether what was read is what was written, arrays by their values."""
    if isinstance(given, np.ndarray):
        assert isinstance(found, Array)
        return found.values.shape == given.shape and np.array_equal(found.values, given)
    if isinstance(given, dict):
        return (
            isinstance(found, dict)
            and list(found) == list(given)
            and all(same(found[key], given[key]) for key in given)
        )
    if isinstance(given, list | tuple):
        return type(found) is type(given) and len(found) == len(given) and all(map(same, found, given))
    return found == given and type(found) in (str, bytes, int, float, bool, type(None))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_and_arrays_come_back_as_they_are(protocol):
    assert same(load_plain(io.BytesIO(pickle.dumps(DATA, protocol)), Path("x")), DATA)


class Calls:
    """Pickles as a call of anything."""

    def __init__(self, call, *arguments) -> None:
        self.made = (call, arguments)

    def __reduce__(self):
        return self.made


TOUCH = "import pathlib; pathlib.Path('touched').touch()"
PLAIN_TYPE = b"cnumpy\ndtype\n(Vf4\nI0\nI1\ntR"
HOSTILE = {
    "os.system": pickle.dumps(Calls(os.system, "touch touched")),
    "exec": pickle.dumps(Calls(exec, TOUCH)),
    "eval, old protocol": pickle.dumps(Calls(eval, f"exec({TOUCH!r})"), 0),
    "inside a clip": pickle.dumps({"annotations": [{"frame_dir": Calls(os.system, "touch touched")}]}),
    "inst": b"(S'touch touched'\nios\nsystem\n.",
    "obj": b"(cos\nsystem\nS'touch touched'\no.",
    "new": b"\x80\x02cpathlib\nPath\n(S'touched'\ntR.",
    "newobj": b"\x80\x02cpathlib\nPath\n(S'touched'\nt\x81.",
    "numpy's own loader": b"cnumpy\nload\n(S'touched'\ntR.",
    "numpy's runner": b"cnumpy.testing._private.utils\nrunstring\n(S'" + TOUCH.replace("'", '"').encode() + b"'\n}tR.",
    "getattr": b"cbuiltins\ngetattr\n(cnumpy\nndarray\nS'tofile'\ntR.",
    "a dotted name": b"\x80\x04\x8c\x05numpy\x8c\x10ndarray.__init__\x93.",
    "a module's module": b"\x80\x04\x8c\x05numpy\x8c\x02os\x93.",
    "call of the array": b"cnumpy\nndarray\n(I9\ntR.",
    "call of a call's result": PLAIN_TYPE + b"(I1\ntR.",
    "call of a text": b"S'x'\n(tR.",
    "state of a function": b"cnumpy.core.multiarray\n_reconstruct\n}S'__code__'\nNsb.",
    "state of a class": b"cnumpy\nndarray\nN}S'__setstate__'\nNs\x86b.",
    "state of a dict": b"}}S'a'\nNsb.",
    "persistent": b"Ptouched\n.",
    "binary persistent": b"\x80\x02Ntouched\x51.",
    "extension": b"\x80\x02\x82\x01.",
    "object array": pickle.dumps(np.array([{"a": 1}], dtype=object)),
    "text array": pickle.dumps(np.array(["a"])),
    "structured array": pickle.dumps(np.zeros(1, dtype="f4,f4")),
    "masked array": pickle.dumps(np.ma.array([1.0])),
    "memory map": pickle.dumps(Calls(np.memmap, "touched", "f4", "w+")),
    "OrderedDict": pickle.dumps(OrderedDict(a=1)),
    "Fraction": pickle.dumps(Fraction(1, 2)),
    "a path": pickle.dumps(Path("touched")),
    "other encoding": b"c_codecs\nencode\n(Vx\nVrot13\ntR.",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_a_pickle_that_asks_for_more_than_data_is_refused_and_nothing_is_run(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.pkl").write_bytes(content)
    with pytest.raises(ForeignRefused, match=r"no pickle, or a damaged one|and none was run"):
        open_skeletons(tmp_path / "x.pkl").__enter__()
    assert [path.name for path in tmp_path.iterdir()] == ["x.pkl"]


def test_the_hostile_pickles_would_run_in_pythons_own_reader(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("os.system", "exec", "eval, old protocol", "inside a clip", "inst", "obj"):
        pickle.loads(HOSTILE[name])
        assert (tmp_path / "touched").exists(), name
        (tmp_path / "touched").unlink()


def array_of(shape: str, content: bytes) -> bytes:
    """An array that says of itself what is not so."""
    state = (
        b"(I1\n(" + shape.encode() + b"t" + PLAIN_TYPE + b"I00\nC" + struct.pack("<B", len(content)) + content + b"t"
    )
    return b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntVb\ntR" + state + b"b."


@pytest.mark.parametrize("shape", ["I2\n", "I-1\n", "L99999999999999999999L\n", "I1\nI1\nI2\n", "V1\n", "F1.0\n", "N"])
def test_an_array_whose_shape_is_not_its_content_is_refused(shape):
    whole = load_plain(io.BytesIO(array_of("I1\n", b"\0\0\x80?")), Path("x"))
    assert isinstance(whole, Array)
    assert whole.values.tolist() == [1.0]
    with pytest.raises(ForeignRefused):
        load_plain(io.BytesIO(array_of(shape, b"\0\0\x80?")), Path("x"))


def test_no_damage_of_a_pickle_ends_in_anything_but_data_or_an_error():
    content, drawn, read, refused = pickle.dumps(DATA, 2), np.random.default_rng(0), 0, 0
    for place in drawn.integers(0, len(content), 400).tolist():
        changed = bytearray(content)
        changed[place] ^= 1 << int(drawn.integers(8))
        for damaged in (bytes(changed), content[:place]):
            try:
                load_plain(io.BytesIO(damaged), Path("x"))
                read += 1
            except ForeignRefused:
                refused += 1
    assert read + refused == 800
    assert min(read, refused) > 0  # what else is raised fails the test
