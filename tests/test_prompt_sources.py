"""Profiles from real training clips, lists of environments and characters, and models in folders."""

import base64
import io
import itertools
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_llm_server import small_server
from small_prompts import options, read_lines, texts, write, write_manifest
from small_speakers import save_speaker

from longreel.generate.enhance import ENHANCEMENTS, pair_of
from longreel.generate.exemplars import FrameReader, decode_images, draw_exemplars
from longreel.generate.llm import Message, Rejected, Request
from longreel.generate.local import LocalModel
from longreel.manifest import Clip, Manifest, read_manifest


@pytest.fixture
def server():
    with small_server() as running:
        yield running


@pytest.fixture
def manifest(tmp_path) -> Path:
    return write_manifest(tmp_path / "data")


@pytest.fixture(scope="module")
def colourful(tmp_path_factory, make_video) -> Path:
    """A manifest whose clips have a colour each: red 200 for train, 0 else; green 100 for generated; blue the class."""
    folder = tmp_path_factory.mktemp("colourful")
    path = write_manifest(folder, {"archery": 7, "BrushHair": 2})
    for line in path.read_text().splitlines()[1:]:
        name, label, split, source = line.split(",")
        (folder / name).parent.mkdir(exist_ok=True)
        colour = (200 * (split == "train"), 100 * (source == "generated"), 200 * (label == "archery"))
        make_video(folder / name, [np.full((48, 64, 3), colour, np.uint8)] * 12)
    return path


# Profiles.


def colour(address: str) -> np.ndarray:
    """The mean colour of a data address."""
    assert address.startswith("data:image/jpeg;base64,")
    image = Image.open(io.BytesIO(base64.b64decode(address.split(",")[1])))
    assert image.format == "JPEG"
    return np.asarray(image.convert("RGB"), dtype=float).mean((0, 1))


def test_profiles_are_made_from_real_training_clips_alone(server, colourful, tmp_path):
    ended = write(colourful, tmp_path / "gen", 9, *options("profiles", server, "--frames", 3))
    assert ended.code == 0
    shown = [asked for asked in server.asked if asked.images]
    assert Counter(len(asked.images) for asked in shown) == {5 * 3: 5, 2 * 3: 5}
    for asked in shown:
        blue = 200 if asked.label == "archery" else 0
        for address in asked.images:
            np.testing.assert_allclose(colour(address), [200, 0, blue], atol=12)
    train = {clip.clip_id for clip in read_manifest(colourful).split("train") if clip.source == "real"}
    book = json.loads((tmp_path / "gen" / "profiles.json").read_text())["classes"]
    draws = [tuple(entry["made_from"]["exemplars"]) for entry in book["archery"]]
    assert len(set(draws)) == 5
    assert set(itertools.chain(*draws)) <= train
    assert ended.classes["BrushHair"]["notes"] == ["profiles from 2 exemplars"]
    for line in read_lines(tmp_path / "gen"):
        made_from = book[line["label"]][line["origin"]["profile"]]["made_from"]
        assert line["origin"]["exemplars"] == made_from["exemplars"]


def test_growing_neither_decodes_nor_asks_for_profiles_again(server, colourful, tmp_path, monkeypatch):
    write(colourful, tmp_path / "gen", 9, *options("profiles", server, "--frames", 1, "--per-call", 4))
    asked = len(server.asked)
    monkeypatch.setattr(FrameReader, "read", lambda self, clip: pytest.fail("decoded"))
    ended = write(colourful, tmp_path / "gen", 20, *options("profiles", server, "--frames", 1, "--per-call", 4))
    assert ended.code == 0
    assert not any(each.images for each in server.asked[asked:])


def test_every_profile_is_used(server, colourful, tmp_path):
    write(colourful, tmp_path / "gen", 60, *options("profiles", server, "--frames", 1, "--per-call", 2))
    used = Counter(line["origin"]["profile"] for line in read_lines(tmp_path / "gen") if line["label"] == "archery")
    assert set(used) == set(range(5))
    order = [(line["origin"]["call"], line["origin"]["place"]) for line in read_lines(tmp_path / "gen")]
    assert order[: len(order) // 2] == sorted(order[: len(order) // 2])


def test_exemplars_that_give_no_frames_are_left_out_and_said(server, tmp_path, make_video, moving_frames):
    manifest = write_manifest(tmp_path, {"archery": 3})
    (tmp_path / "0").mkdir()
    make_video(tmp_path / "0" / "real0.mp4", moving_frames(9))
    (tmp_path / "0" / "real1.mp4").write_bytes(b"no video")
    ended = write(manifest, tmp_path / "gen", 6, *options("profiles", server, "--profiles", 1, "--frames", 2))
    assert ended.code == 0
    assert [len(asked.images) for asked in server.asked] == [2, 0]
    assert {line["origin"]["exemplars"][0] for line in read_lines(tmp_path / "gen")} == {"0/real0.mp4"}
    notes = " ".join(ended.classes["archery"]["notes"])
    assert "profiles from 3 exemplars" in notes
    assert "exemplar 0/real1.mp4 is left out: [Errno" in notes
    assert "exemplar 0/real2.mp4 is left out: [Errno 2] No such file" in notes


def test_a_class_without_exemplars_gets_its_profile_from_the_name(server, manifest, tmp_path):
    ended = write(manifest, tmp_path / "gen", 6, *options("profiles", server, "--profiles", 1))  # there are no videos
    assert ended.code == 0
    assert all("There are no example images" in asked.text for asked in server.asked if "Describe" not in asked.text)


def test_prompts_written_from_a_clip_that_is_now_in_test_are_refused(server, colourful, tmp_path):
    write(colourful, tmp_path / "gen", 9, *options("profiles", server, "--frames", 1))
    moved = colourful.read_text().replace("0/real3.mp4,archery,train", "0/real3.mp4,archery,test")
    other = tmp_path / "moved.csv"
    other.write_text(moved)
    ended = write(other, tmp_path / "gen", 12, *options("profiles", server), "--root", colourful.parent)
    assert ended.code == 2
    assert "was written from '0/real3.mp4'" in ended.err
    assert "as a real clip in test" in ended.err


def test_a_reader_shows_no_clip_of_val_test_or_generated(colourful):
    manifest = read_manifest(colourful)
    with FrameReader(manifest) as reader:
        for clip in manifest.clips:
            if clip.split != "train" or clip.source != "real":
                with pytest.raises(AssertionError):
                    reader.read(clip)


def test_draws_hardly_change_when_a_clip_joins(colourful):
    clips = read_manifest(colourful)
    many = [Clip(f"c{n}", f"c{n}.mp4", ("a",), "train") for n in range(200)]
    before, after = (Manifest(clips.path, clips.root, tuple(each)) for each in (many[:-1], many))
    for profile in range(20):
        one, other = (draw_exemplars(each, "a", profile, 5, 0) for each in (before, after))
        assert len(set(map(id, one)) & set(map(id, other))) >= 4
    drawn = Counter(clip.clip_id for profile in range(400) for clip in draw_exemplars(after, "a", profile, 5, 0))
    assert len(drawn) > 190  # of 200, each expected ten times
    assert max(drawn.values()) < 30


def test_frames_are_evenly_spaced_over_the_span_of_a_clip(tmp_path, make_video):
    levels = [np.full((48, 64, 3), 2 * number, np.uint8) for number in range(100)]
    path = str(make_video(tmp_path / "grey.mp4", levels, fps=10))
    shown = [np.asarray(Image.open(io.BytesIO(image))).mean() / 2 for image in decode_images(path, None, None, 4)]
    np.testing.assert_allclose(shown, [12.5, 37.5, 62.5, 87.5], atol=2)
    shown = [np.asarray(Image.open(io.BytesIO(image))).mean() / 2 for image in decode_images(path, 5.0, 6.0, 2)]
    np.testing.assert_allclose(shown, [52.5, 57.5], atol=2)
    assert len(decode_images(path, 0.0, 0.3, 8)) <= 4


def test_frames_are_made_small_enough(tmp_path, make_video):
    path = str(make_video(tmp_path / "wide.mp4", [np.zeros((360, 1280, 3), np.uint8)] * 3))
    assert Image.open(io.BytesIO(decode_images(path, None, None, 1)[0])).size == (448, 126)


# Environments and characters.


def test_every_pair_comes_once_before_any_comes_again():
    pairs = [pair_of(index, 16, 4) for index in range(128)]
    assert len(set(pairs[:64])) == 64
    assert Counter(pairs) == dict.fromkeys(pairs, 2)
    assert {where for _, where in pairs[:4]} == set(range(4))


@pytest.mark.parametrize(
    ("enhance", "different", "calls"), [("basic", 1, 0), ("environment", 4, 1), ("character", 16, 1), ("both", 64, 2)]
)
def test_an_enhancement_names_what_it_says(enhance, different, calls, server, tmp_path):
    manifest = write_manifest(tmp_path, {"archery": 2})
    more = [] if enhance == "basic" else options("enhanced", server)[2:]
    ended = write(manifest, tmp_path / "gen", 130, "--from", "enhanced", "--enhance", enhance, *more)
    assert ended.code == 0
    assert len(server.asked) == calls
    counted = Counter(texts(tmp_path / "gen")["archery"])
    assert len(counted) == different
    assert set(counted.values()) == {128 // different}
    assert all("performing archery" in prompt for prompt in counted)
    assert any("dancer" in prompt for prompt in counted) is ENHANCEMENTS[enhance][0]
    assert any("hall" in prompt for prompt in counted) is ENHANCEMENTS[enhance][1]


def test_a_list_that_is_too_short_or_repeats_itself_is_asked_for_again(server, tmp_path):
    answers = [["in a hall"] * 4, ["in a hall", "In a hall!", "on a sea", "by a wall"], ["by a wall"]]
    completions = [lambda asked, items=items: said(items) for items in answers]
    server.script = completions
    manifest = write_manifest(tmp_path, {"archery": 2})
    ended = write(manifest, tmp_path / "gen", 9, *options("enhanced", server, "--enhance", "environment"))
    assert ended.code == 0
    assert ['"items" has ' in asked.text for asked in server.asked] == [False, True, True, True]
    assert '"items" has 3 different entries, not 4' in server.asked[2].text


def said(items: list[str]) -> dict:
    content = json.dumps({"items": items})
    return {"choices": [{"message": {"role": "assistant", "content": content}, "finish_reason": "stop"}]}


# Models in a folder.

SAID = {
    "action_definition": "Somebody does archery.",
    "key_visual_elements": ["a bow"],
    "common_mistakes_to_avoid": ["no bow"],
    "prompts": [f"A person does archery in place {number}." for number in range(3)],
}


@pytest.fixture(scope="module", params=[True, False], ids=["with eyes", "without"])
def speaker(request, tmp_path_factory) -> Path:
    return save_speaker(tmp_path_factory.mktemp("model") / "speaker", SAID, sees=request.param)


@pytest.mark.filterwarnings("ignore:.*requires torchvision")
def test_a_model_in_a_folder_writes_prompts(speaker, colourful, tmp_path):
    more = ["--from", "profiles", "--llm-folder", speaker, "--max-calls", 8, "--frames", 1]
    ended = write(colourful, tmp_path / "gen", 9, *more)
    assert texts(tmp_path / "gen") == {"archery": SAID["prompts"][:2]}  # it says the same to all, so BrushHair is short
    assert ended.code == 3
    assert ended.classes["BrushHair"]["events"]["without the action"] > 0
    line = read_lines(tmp_path / "gen")[0]
    assert line["origin"]["host"] == "local"
    assert line["origin"]["model"].startswith("speaker@")
    sees = "vision_config" in (speaker / "config.json").read_text()
    assert len(line["origin"]["exemplars"]) == (5 if sees else 0)
    assert ("takes no images" in str(ended.classes["archery"]["notes"])) is not sees
    asked = len(read_lines(tmp_path / "gen", "responses.jsonl"))
    write(colourful, tmp_path / "gen", 9, *more)
    assert len(read_lines(tmp_path / "gen", "responses.jsonl")) == asked


@pytest.mark.filterwarnings("ignore:.*requires torchvision")
def test_a_request_that_a_model_in_a_folder_cannot_take_is_rejected(speaker):
    model = LocalModel(speaker)
    with pytest.raises(Rejected, match="the model takes 4096"):
        model.ask(Request((Message("user", "word " * 5000),), "n", {}, 10, 1.0, 0))
    if model.sees:
        with pytest.raises(Rejected, match="cannot read the request"):
            model.ask(Request((Message("user", "the class <image>"),), "n", {}, 10, 1.0, 0))
