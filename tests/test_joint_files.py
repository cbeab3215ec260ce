"""Joints from HDF5 and from .npy files come back number by number, and the same command again writes nothing."""

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import h5py
import numpy as np
import pytest
from small_recordings import draw_joints, invoke, naive_rows, write_hdf5

from longreel.errors import LongreelError, StoreMismatch
from longreel.extract.skeletons import import_skeletons, open_skeletons
from longreel.layouts import LAYOUTS
from longreel.manifest import read_manifest
from longreel.store import FeatureStore, verify_store

UCLA = Path(__file__).parent.parent.parent / "shared" / "data" / "skeleton" / "nw_ucla.h5"


@pytest.mark.parametrize("given", [True, False])
def test_npy_files_with_a_table_and_a_layout_are_imported(tmp_path, given):
    folder = tmp_path / "poses"
    (folder / "sub").mkdir(parents=True)
    layout = asdict(LAYOUTS["kinect20"]) | {
        "name": "five",
        "joints": list("abcde"),
        "parents": [0, 0, 0, 1, 1],
        "flip": list(range(5)),
        "upper": [0, 1],
        "lower": [2, 3, 4],
        "skip": None,
        "upright": None,
        "centre": 0,
        "spine": 0,
    }
    (tmp_path / "five.json" if given else folder / "layout.json").write_text(json.dumps(layout))
    first, second = draw_joints(2, 6, 5, 3, 1).transpose(1, 0, 2, 3), draw_joints(1, 4, 5, 3, 2)[0].astype(np.float64)
    np.save(folder / "sub" / "a.npy", first)
    np.save(folder / "b.npy", second)
    (folder / "clips.csv").write_text("path,label,split,subject\nsub/a.npy,x,train,7\nb.npy,x,val,8\n")
    more = ["--layout", tmp_path / "five.json"] if given else []
    done = invoke("import-skeletons", folder, tmp_path / "s", "--manifest", tmp_path / "c.csv", *more)
    assert done.exit_code == 0, done.output
    store = FeatureStore(tmp_path / "s")
    assert store["sub/a.npy"].features.tolist() == naive_rows(first.transpose(1, 0, 2, 3), 2)
    np.testing.assert_array_equal(store["b.npy"].features[:, :15], second.reshape(4, 15).astype(np.float32))
    assert not store["b.npy"].features[:, 15:].any()
    clips = read_manifest(tmp_path / "c.csv", folder).clips
    assert [(clip.path, clip.split, clip.extra["subject"]) for clip in clips] == [
        ("sub/a.npy", "train", "7"),
        ("b.npy", "val", "8"),
    ]


def test_a_folder_without_table_and_a_file_of_another_kind_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", draw_joints(1, 2, 20, 3))
    with pytest.raises(LongreelError, match=r"has no clips\.csv"):
        open_skeletons(tmp_path).__enter__()
    with pytest.raises(LongreelError, match=r"is no \.h5 file of joints"):
        open_skeletons(tmp_path / "a.npy").__enter__()


def test_an_hdf5_file_gives_each_clip_as_long_as_it_is(tmp_path):
    path = write_hdf5(tmp_path / "small.h5")
    done = invoke("import-skeletons", path, tmp_path / "s", "--manifest", tmp_path / "c.csv")
    assert done.exit_code == 0, done.output
    with h5py.File(path) as file:
        whole, lengths = np.asarray(file["joints"]), np.asarray(file["lengths"])
    store = FeatureStore(tmp_path / "s")
    for number in range(5):
        expected = whole[number, : lengths[number], 0].reshape(lengths[number], 60)
        np.testing.assert_array_equal(store[f"clip {number}"].features, expected)
    clips = read_manifest(tmp_path / "c.csv").clips
    assert [(clip.labels[0], clip.split, clip.extra) for clip in clips] == [
        (["walk", "carry"][n % 2], "train" if n < 3 else "test", {"view": str([1, 2, 1, 3, 3][n])}) for n in range(5)
    ]
    assert verify_store(tmp_path / "s").damaged == []


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"labels": None}, "has no dataset 'labels'"),
        ({"joints": np.zeros((5, 4, 20, 3), np.float32)}, "expected .N, T, M, V, C. with N = 5"),
        ({"lengths": np.array([4, 1, 2, 3, 9])}, "lengths has 9; expected 1 to 4"),
        ({"labels": np.array([0, 1, 2, 0, 1])}, "labels has 2; expected 0 to 1"),
        ({"split": np.array([0, 0, 1])}, "split has not one number for each of the 5 names"),
        ({"names": ["a", "b", "c", "d", "a"]}, "names has an empty one, or one twice"),
        ({"labels": np.zeros(5)}, "holds float, not whole numbers"),
        ({"joints": np.zeros((5, 4, 1, 20, 3), int)}, "holds integer, not float16"),
        ({"joints": np.zeros((5, 4, 1, 21, 3), np.float32)}, "no layout called 'of 21 joints'"),
        ({"names": h5py.SoftLink("/class_names")}, "is a soft link"),
        ({"joints": h5py.ExternalLink("other.h5", "/joints")}, "is an external link"),
    ],
)
def test_an_hdf5_file_of_another_form_is_refused_in_words(tmp_path, changed, words):
    with pytest.raises(LongreelError, match=words):
        open_skeletons(write_hdf5(tmp_path / "x.h5", **changed)).__enter__()


def test_the_same_command_again_writes_nothing_and_changed_joints_are_told(tmp_path):
    path = write_hdf5(tmp_path / "small.h5")
    with open_skeletons(path) as found:
        assert import_skeletons(found, tmp_path / "s").written == 5
    digest = FeatureStore(tmp_path / "s").digest()
    with open_skeletons(path) as found:
        assert import_skeletons(found, tmp_path / "s").already == 5
    os.utime(path, ns=(1, 1))  # touched, not changed
    plans = []
    with open_skeletons(path) as found:
        import_skeletons(found, tmp_path / "s", on_plan=plans.append)
    assert (plans[0].changed, FeatureStore(tmp_path / "s").digest()) == ([], digest)
    write_hdf5(path, joints=draw_joints(5, 4, 20, 3, seed=9)[:, :, None])
    with open_skeletons(path) as found:
        assert import_skeletons(found, tmp_path / "s", refresh=True, on_plan=plans.append).written == 5
    assert len(plans[1].changed) == 5
    shutil.rmtree(tmp_path / "s")
    with open_skeletons(path) as found:
        import_skeletons(found, tmp_path / "s")
    other = write_hdf5(tmp_path / "other.h5", joints=draw_joints(5, 4, 25, 3)[:, :, None])
    with open_skeletons(other) as found, pytest.raises(StoreMismatch, match="backbone is 'skeleton kinect20'"):
        import_skeletons(found, tmp_path / "s")


@pytest.mark.skipif(not UCLA.exists(), reason=f"{UCLA} is not here")
def test_nw_ucla_comes_back_coordinate_by_coordinate(tmp_path):
    done = invoke("import-skeletons", UCLA, tmp_path / "s", "--manifest", tmp_path / "c.csv", "--json")
    assert done.exit_code == 0
    assert json.loads(done.stdout)["made"]["watermark"].startswith("95 clips")
    with h5py.File(UCLA) as file:
        whole, lengths = np.asarray(file["joints"]), np.asarray(file["lengths"])
        names = [bytes(text).decode() for text in np.asarray(file["names"])]
    store = FeatureStore(tmp_path / "s")
    assert (len(store), store.spec.dim, store.spec.dtype) == (1484, 60, "float32")
    for name, clip, length in zip(names, whole, lengths, strict=True):
        assert store[name].features.tobytes() == clip[:length, 0].tobytes()
