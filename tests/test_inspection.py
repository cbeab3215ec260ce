"""Generated clips looked at: real videos, a real store of them, and planted copies."""

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from small_generated import Folder, save_clip

from longreel.errors import StoreMismatch
from longreel.extract import extract_clips, load_backbone
from longreel.manifest import read_manifest
from longreel.store import FeatureStore

pytestmark = pytest.mark.usefixtures("one_thread")
SIDE = 64


def scene(seed: int, count: int = 16) -> list[np.ndarray]:
    """A video of its own: a few blobs of random colours that move through a random picture."""
    drawn = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    base = drawn.integers(0, 255, (4, 4, 3)).repeat(SIDE // 4, 0).repeat(SIDE // 4, 1).astype(float)
    blobs = [(drawn.uniform(0, SIDE, 2), drawn.uniform(-3, 3, 2), drawn.integers(0, 255, 3)) for _ in range(4)]
    frames = []
    for step in range(count):
        picture = base.copy()
        for start, speed, colour in blobs:
            where = (start + step * speed) % SIDE
            picture[(x - where[0]) ** 2 + (y - where[1]) ** 2 < 90] = colour
        frames.append(picture.astype(np.uint8))
    return frames


@pytest.fixture(scope="module")
def videos(tmp_path_factory, make_video) -> Path:
    """Real clips of three classes, and generated ones: among these a copy, a twin, a black one and a still one.

    Real ones stand for themselves. `g/leak.mp4` is test clip 40, encoded anew and cropped by three pixels; `g/copy.mp4`
    is train clip 3 in the same way; `g/twin.mp4` is `g/0.mp4` at another quality; `g/broken.mp4` is no video.
    """
    folder = tmp_path_factory.mktemp("filled")
    (folder / "g").mkdir()
    (folder / "r").mkdir()
    rows = []
    for number in range(54):
        split = "train" if number < 36 else "test" if number < 48 else "val"
        make_video(folder / "r" / f"{number}.mp4", scene(number), fps=12)
        rows.append(f"r/{number}.mp4,{'abc'[number % 3]},{split},real")
    generated = {str(number): scene(100 + number) for number in range(6)}
    cropped = {"leak": scene(40), "copy": scene(3)}
    generated |= {name: [frame[3:-3, 3:-3] for frame in frames] for name, frames in cropped.items()}
    generated |= {"black": [np.zeros((SIDE, SIDE, 3), np.uint8)] * 16, "still": [scene(200)[0]] * 16}
    for name, frames in generated.items():
        make_video(folder / "g" / f"{name}.mp4", frames, fps=12)
    make_video(folder / "g" / "twin.mp4", generated["0"], fps=12, options={"crf": "30"})
    (folder / "g" / "broken.mp4").write_bytes(b"no video")
    rows += [f"g/{name}.mp4,{'abc'[place % 3]},train,generated" for place, name in enumerate(generated)]
    rows += ["g/twin.mp4,a,train,generated", "g/broken.mp4,b,train,generated"]
    (folder / "clips.csv").write_text("\n".join(["path,label,split,source", *rows]))
    extract_clips(read_manifest(folder / "clips.csv"), folder / "store", load_backbone("motion"), workers=1)
    return folder


@pytest.fixture
def filled(videos, tmp_path) -> Folder:
    shutil.copytree(videos, tmp_path / "filled")
    return Folder(tmp_path / "filled")


def test_a_cropped_copy_of_a_test_clip_is_found_among_generated_ones(filled):
    document, rows = filled.look(picture=False)
    assert rows["g/leak.mp4"]["test_clip"] == "r/40.mp4"
    assert [name for name, row in rows.items() if row["near_test"] == "true"] == ["g/leak.mp4"]
    assert "near-test" in rows["g/leak.mp4"]["flags"]
    assert document["near"]["test"]["too_near"] == 1
    assert document["near"]["test"]["real_clips"] == 36


def test_a_copy_of_a_training_clip_and_a_twin_within_the_class_are_found(filled):
    _, rows = filled.look(picture=False)
    assert rows["g/copy.mp4"]["train_clip"] == "r/3.mp4"
    assert [name for name, row in rows.items() if row["near_train"] == "true"] == ["g/copy.mp4"]
    assert rows["g/twin.mp4"]["class_clip"] == "g/0.mp4"
    assert {name for name, row in rows.items() if row["near_class"] == "true"} == {"g/twin.mp4", "g/0.mp4"}
    assert float(rows["g/1.mp4"]["val_cosine"]) < 1.0


def test_thresholds_are_those_of_a_loop_over_real_clips(filled):
    document, _ = filled.look(picture=False)
    store, manifest = FeatureStore(filled.path / "store"), read_manifest(filled.path / "clips.csv")

    def direction(clip) -> np.ndarray:
        rows = store[clip.clip_id].features.astype(float)
        mean = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).mean(axis=0)
        return mean / np.linalg.norm(mean)

    splits = {name: [clip for clip in manifest.split(name) if clip.source == "real"] for name in ("train", "test")}
    best = [max(float(direction(one) @ direction(other)) for other in splits["test"]) for one in splits["train"]]
    low, high = sorted(best)[-2:]
    place = 0.999 * (len(best) - 1)
    assert document["near"]["test"]["threshold"] == pytest.approx(low + (high - low) * (place % 1), abs=1e-5)


def test_black_still_and_broken_videos_are_flagged_and_nothing_is_deleted(filled):
    before = sorted(filled.path.rglob("*.mp4"))
    document, rows = filled.look(picture=False)
    assert sorted(filled.path.rglob("*.mp4")) == before
    assert len(rows) == 12
    assert [name for name, row in rows.items() if row["black"] == "true"] == ["g/black.mp4"]
    assert {name for name, row in rows.items() if row["static"] == "true"} == {"g/black.mp4", "g/still.mp4"}
    assert {"undecodable", "no-features"} <= set(rows["g/broken.mp4"]["flags"].split(";"))
    assert rows["g/broken.mp4"]["test_cosine"] == rows["g/broken.mp4"]["brightness"] == ""
    assert document["flags"]["undecodable"] == document["flags"]["black"] == 1
    seen = np.stack(scene(101)).astype(float)
    assert float(rows["g/1.mp4"]["brightness"]) == pytest.approx(seen.mean(), abs=3)
    assert float(rows["g/1.mp4"]["difference"]) == pytest.approx(np.abs(np.diff(seen, axis=0)).mean(), abs=3)


def test_a_sidecar_is_believed_and_a_foreign_one_is_not(filled):
    checks = {"checks": {"finite": False, "brightness": 2.0, "difference": 9.0}}
    (filled.path / "g" / "1.json").write_text(json.dumps(checks))
    (filled.path / "g" / "2.json").write_text("[]")
    (filled.path / "g" / "3.mp4").unlink()
    document, rows = filled.look(picture=False)
    assert set(rows["g/1.mp4"]["flags"].split(";")) >= {"non-finite", "black"}
    assert rows["g/1.mp4"]["brightness"] == "2.000000"
    assert float(rows["g/2.mp4"]["brightness"]) > 8
    assert rows["g/3.mp4"]["decodes"] == rows["g/3.mp4"]["brightness"] == ""
    assert any("1 generated clips have no video to look at" in note for note in document["notes"])


def test_a_video_that_is_not_the_one_of_its_sidecar_is_looked_at_itself(filled):
    video = filled.path / "g" / "1.mp4"
    checks = {"checks": {"finite": True, "brightness": 99.0, "difference": 9.0}, "bytes": video.stat().st_size}
    video.with_suffix(".json").write_text(json.dumps(checks))
    assert filled.look(picture=False)[1]["g/1.mp4"]["brightness"] == "99.000000"
    video.write_bytes(video.read_bytes()[:100])
    row = filled.look(picture=False)[1]["g/1.mp4"]
    assert (row["decodes"], row["brightness"]) == ("false", "")
    assert "undecodable" in row["flags"]


def test_without_a_text_tower_the_rest_is_there_and_what_is_left_out_is_said(filled):
    document, rows = filled.look(picture=False)
    assert document["uncertainty"] is document["text"] is None
    assert any("no entropy and no agreement" in note for note in document["notes"])
    assert any("of 36 real clips" in note for note in document["notes"])
    assert any("no usable features of 2 of 12 generated clips" in note for note in document["notes"])
    assert rows["g/1.mp4"]["entropy"] == rows["g/1.mp4"]["uncertainty"] == rows["g/1.mp4"]["agrees"] == ""
    assert set(document["davies_bouldin"]) == {"real", "generated", "both"}
    assert document["mmd"]["halves"]["n"] == [10, 10]
    with pytest.raises(StoreMismatch, match="descriptor"):
        filled.look(text=save_clip(filled.path / "clip"))


def test_the_same_command_again_gives_the_same_files(filled):
    filled.look(seed=1)
    before = {path.name: path.read_bytes() for path in (filled.path / "out").glob("[!.]*")}
    filled.look(seed=1)
    assert {path.name: path.read_bytes() for path in (filled.path / "out").glob("[!.]*")} == before
    assert set(before) == {"scores.csv", "inspection.json", "tsne.svg"}
    picture = ElementTree.fromstring(before["tsne.svg"])
    circles = picture.findall(".//{*}circle/{*}title")
    assert len(circles) == 36
    assert sum("g/" in (title.text or "") for title in picture.iter("{http://www.w3.org/2000/svg}title")) == 10
