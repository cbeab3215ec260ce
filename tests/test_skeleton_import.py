"""Joints from PYSKL's pickles come back number by number; hostile pickles run nothing."""

import json
import pickle
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from small_recordings import draw_joints, invoke, naive_rows

from longreel.errors import ForeignRefused, LongreelError
from longreel.extract.skeletons import import_skeletons, open_skeletons
from longreel.layouts import LAYOUTS
from longreel.manifest import read_manifest
from longreel.store import FeatureStore


def ntu(count: int = 12) -> dict:
    """A small file of PYSKL's form."""
    names = [f"S{1 + n % 3:03}C{1 + n % 2:03}P{1 + n:03}R001A{1 + n % 3:03}" for n in range(count)]
    annotations = [
        {"frame_dir": name, "label": n % 3, "keypoint": draw_joints(1 + n % 2, 3 + n, 25, 3, n), "total_frames": 3 + n}
        for n, name in enumerate(names)
    ]
    split = {"xsub_train": names[:8], "xsub_val": names[8:], "xview_train": names[::2], "xview_val": names[1::2]}
    return {"split": split, "annotations": annotations}


def dump(path: Path, document: object, protocol: int = 4) -> Path:
    path.write_bytes(pickle.dumps(document, protocol))
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_pyskls_pickles_come_back_number_by_number(tmp_path, protocol):
    document = ntu()
    path = dump(tmp_path / "ntu.pkl", document, protocol)
    done = invoke("import-skeletons", path, tmp_path / "s", "--manifest", tmp_path / "c.csv", "--split", "xsub")
    assert done.exit_code == 0, done.output
    store = FeatureStore(tmp_path / "s")
    assert (store.spec.dtype, store.spec.dim, store.spec.backbone) == ("float32", 2 * 25 * 3, "skeleton ntu25")
    assert json.loads(store.spec.layout) == json.loads(json.dumps(asdict(LAYOUTS["ntu25"])))
    for entry in document["annotations"]:
        found = store[entry["frame_dir"]]
        assert found.features.tolist() == naive_rows(entry["keypoint"], 2)
        assert found.seconds.tolist() == list(range(entry["total_frames"]))
    clips = {clip.clip_id: clip for clip in read_manifest(tmp_path / "c.csv").clips}
    assert {name: clip.split for name, clip in clips.items()} == {
        **dict.fromkeys(document["split"]["xsub_train"], "train"),
        **dict.fromkeys(document["split"]["xsub_val"], "test"),
    }
    clip = clips["S002C002P002R001A002"]
    assert (clip.labels, clip.extra) == (("1",), {"setup": "2", "view": "2", "subject": "2", "trial": "1"})


def test_another_split_of_the_same_store_is_only_another_manifest(tmp_path):
    path = dump(tmp_path / "ntu.pkl", ntu())
    for split, trained in (("xsub", 8), ("xview", 6), ("xsub-lt", 8)):
        out = tmp_path / f"{split}.csv"
        done = invoke("import-skeletons", path, tmp_path / "s", "--manifest", out, "--split", split, "--json")
        document = json.loads(done.stdout)
        assert document["made"]["clips"]["train"] == trained
        assert document["already" if split != "xsub" else "written"] == 12
    refused = invoke("import-skeletons", path, tmp_path / "s", "--manifest", tmp_path / "n.csv")
    assert isinstance(refused.exception, LongreelError)
    assert "Name one with --split: xsub, xview" in str(refused.exception)


def test_poses_with_scores_have_them_as_the_third_number(tmp_path):
    entries = [
        {
            "frame_dir": f"k{n}",
            "label": n,
            "keypoint": draw_joints(3, 4, 17, 2, n).astype(np.float16),
            "total_frames": 4,
            "keypoint_score": np.random.default_rng(n).random((3, 4, 17)).astype(np.float16),
            "img_shape": (240, 320),
        }
        for n in range(3)
    ]
    document = {"split": {"train": ["k0", "k1"], "val": ["k2"]}, "annotations": entries}
    with open_skeletons(dump(tmp_path / "ucf101.pkl", document)) as found:
        assert (found.layout.name, found.bodies, found.usual) == ("coco17", 2, "official")
        assert found.notes == ["3 clips have more than 2 bodies: the first 2 are taken"]
        import_skeletons(found, tmp_path / "s")
    for entry in entries:
        whole = np.concatenate([entry["keypoint"], entry["keypoint_score"][..., None]], axis=-1)
        assert FeatureStore(tmp_path / "s")[entry["frame_dir"]].features.tolist() == naive_rows(whole, 2)


def kinetics(folder: Path) -> dict:
    """A small table of contents of PYSKL's Kinetics, and its files of poses; returns clip -> frame -> poses, scores."""
    drawn, annotations, truth = np.random.default_rng(0), [], {}
    (folder / "kpfiles").mkdir()
    for number, raw in enumerate(("data/k400/kpfiles/a.pkl", "data/k400/kpfiles/b.pkl")):
        held = {}
        for clip in (f"clip{number}", f"clip{number + 2}"):
            frames = np.array([0, 0, 0, 2, 5, 5], np.int16)  # no pose in frames 1, 3 and 4
            poses, certainty = drawn.random((6, 17, 3)).astype(np.float16), drawn.random(6).astype(np.float32)
            held[clip] = {"keypoint": poses}
            truth[clip] = [
                [poses[place] for place in sorted(np.flatnonzero(frames == frame), key=lambda n: -certainty[n])][:2]
                for frame in (0, 2, 5)
            ]
            facts = {"frame_dir": clip, "label": number, "total_frames": 9, "raw_file": raw, "frame_inds": frames}
            annotations.append(facts | {"box_score": certainty})
        dump(folder / "kpfiles" / Path(raw).name, held)
    split = {"train": ["clip0", "clip1", "clip2"], "val": ["clip3"]}
    dump(folder / "k400_hrnet.pkl", {"split": split, "annotations": annotations})
    return truth


def test_kinetics_poses_are_unfolded_from_the_files_beside(tmp_path):
    truth = kinetics(tmp_path)
    done = invoke("import-skeletons", tmp_path / "k400_hrnet.pkl", tmp_path / "s", "--manifest", tmp_path / "c.csv")
    assert done.exit_code == 0, done.output
    store = FeatureStore(tmp_path / "s")
    assert (store.spec.dim, store.spec.backbone) == (2 * 17 * 3, "skeleton coco17")
    for clip, frames in truth.items():
        expected = [
            np.concatenate([pose.ravel() for pose in [*poses, np.zeros((17, 3))][:2]]).tolist() for poses in frames
        ]
        assert store[clip].features.tolist() == expected


def test_kinetics_files_that_are_missing_or_hostile_cost_their_clips(tmp_path):
    kinetics(tmp_path)
    dump(tmp_path / "kpfiles" / "b.pkl", {"clip1": {"keypoint": Path("/")}})  # asks for more than data
    done = invoke("import-skeletons", tmp_path / "k400_hrnet.pkl", tmp_path / "s", "--manifest", tmp_path / "c.csv")
    assert done.exit_code == 3
    assert "asks for 'pathlib" in done.output
    (tmp_path / "kpfiles" / "b.pkl").unlink()
    done = invoke("import-skeletons", tmp_path / "k400_hrnet.pkl", tmp_path / "s", "--manifest", tmp_path / "c.csv")
    assert "clip1: needs 'data/k400/kpfiles/b.pkl', which is not below" in done.output
    assert sorted(FeatureStore(tmp_path / "s")) == ["clip0", "clip2"]


@pytest.mark.parametrize(
    ("split", "words"),
    [
        ({"train": ["S001C001P001R001A001", ["a"]], "val": []}, "names ['a'], which is no clip"),
        ({"xsub_val": ["S001C001P001R001A001"]}, "has no lists such as xsub_train and xsub_val. There are: 'xsub_val'"),
        ({"train": ["S001C001P001R001A001"] * 2}, "has 'S001C001P001R001A001' twice"),
        ({"train": ["S001C001P001R001A001"], "val": ["S001C001P001R001A001"]}, "twice. Each clip is in one half"),
        ({"mine": ["S001C001P001R001A001"]}, "There are: 'mine'"),
    ],
)
def test_a_split_that_is_none_is_refused_in_words(tmp_path, split, words):
    path = dump(tmp_path / "ntu.pkl", ntu() | {"split": split})
    refused = invoke("import-skeletons", path, tmp_path / "s", "--manifest", tmp_path / "c.csv")
    assert isinstance(refused.exception, ForeignRefused)
    assert words in str(refused.exception)
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("name", ["a\0b", "\udcff"])
def test_a_text_that_is_no_id_is_refused(tmp_path, name):
    document = ntu()
    document["annotations"][3]["frame_dir"] = name
    refused = invoke(
        "import-skeletons", dump(tmp_path / "n.pkl", document), tmp_path / "s", "--manifest", tmp_path / "c"
    )
    assert isinstance(refused.exception, ForeignRefused)
    assert "annotation 3" in str(refused.exception)


def test_numbered_splits_and_other_places_are_told_before_the_work(tmp_path):
    names = [entry["frame_dir"] for entry in ntu()["annotations"]]
    path = dump(tmp_path / "ucf.pkl", ntu() | {"split": {"train1": names[:8], "test1": names[8:]}})
    wrong = invoke("import-skeletons", path, tmp_path / "s", "--manifest", tmp_path / "c.txt", "--split", "1")
    assert "Give a name that ends in .csv" in str(wrong.exception)
    (tmp_path / "c.csv").write_text("mine")
    wrong = invoke("import-skeletons", path, tmp_path / "s", "--manifest", tmp_path / "c.csv", "--split", "1")
    assert "c.csv: is there already, and is not the same" in str(wrong.exception)
    wrong = invoke("import-skeletons", path, tmp_path / "s", "--manifest", tmp_path / "d.csv", "--layout", "kinect20")
    assert "kinect20 has 20 joints, these skeletons have 25. Take ntu25" in str(wrong.exception)
    assert not (tmp_path / "s").exists()
    done = invoke("import-skeletons", path, tmp_path / "s", "--manifest", tmp_path / "d.csv", "--split", "1")
    assert done.exit_code == 0, done.output


def test_a_clip_that_cannot_be_used_stands_in_the_ledger_and_stops_nothing(tmp_path):
    document = ntu(6)
    document["split"] = {"xsub_train": [entry["frame_dir"] for entry in document["annotations"]]}
    bad = document["annotations"]
    bad[0]["keypoint"][0, 0, 0, 0] = np.nan
    bad[1]["total_frames"] = 99
    bad[2]["keypoint"] = draw_joints(1, 5, 24, 3)
    bad[3]["keypoint"] = "none"
    path = dump(tmp_path / "ntu.pkl", document)
    done = invoke("import-skeletons", path, tmp_path / "s", "--manifest", tmp_path / "c.csv", "--layout", "ntu25")
    assert done.exit_code == 3
    reasons = [failure.reason for failure in FeatureStore(tmp_path / "s").failures().values()]
    assert sorted(reason[:20] for reason in reasons) == sorted(
        ["has numbers that are", "has 4 frames, 'total", "has the shape (5, 1,", "has no 'keypoint' of"]
    )
    bad[0]["keypoint"][0, 0, 0, 0] = 1.0
    assert invoke("import-skeletons", dump(path, document), tmp_path / "s", "--manifest", tmp_path / "c.csv",
                  "--layout", "ntu25").exit_code == 3  # fmt: skip
    assert len(FeatureStore(tmp_path / "s")) == 3


WRONG = {
    "is not PYSKL's form": [{}, [], {"annotations": {}}, {"annotations": []}, 3],
    "no dict with a text 'frame_dir'": [{"annotations": [{"frame_dir": 3}]}, {"annotations": [[]]}],
    "stands there twice": [{"annotations": [{"frame_dir": "a"}, {"frame_dir": "a"}]}],
    "none of its 1 clips has a 'keypoint'": [{"annotations": [{"frame_dir": "a", "label": 0}]}],
}


@pytest.mark.parametrize(("words", "document"), [(key, each) for key, all_ in WRONG.items() for each in all_])
def test_a_pickle_of_another_form_is_refused_in_words(tmp_path, words, document):
    with pytest.raises(ForeignRefused, match=words), open_skeletons(dump(tmp_path / "x.pkl", document)):
        pytest.fail("it was read")


@pytest.mark.parametrize("label", [-1, "0", None, 1.5, 10**9])
def test_a_label_that_is_no_class_is_refused(tmp_path, label):
    document = ntu(3)
    document["annotations"][1]["label"] = label
    with pytest.raises(ForeignRefused, match="has no whole number from 0 as 'label'"):
        open_skeletons(dump(tmp_path / "x.pkl", document)).__enter__()


def test_a_split_that_names_no_clip_is_refused(tmp_path):
    document = ntu(3) | {"split": {"xsub_train": ["nobody"]}}
    with pytest.raises(ForeignRefused, match="names 'nobody', which is no clip"):
        open_skeletons(dump(tmp_path / "x.pkl", document)).__enter__()
