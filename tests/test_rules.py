"""What benchmarks fix of an extraction: the rules, what they leave open, and what a store says of them."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_models import SMALL

from longreel.errors import LongreelError, StoreMismatch
from longreel.extract import RULES, Rule, Sampling, embed, extract_clips, load_backbone, with_rule
from longreel.manifest import read_manifest
from longreel.store import FeatureStore

GUIDES = [(Path(__file__).parent.parent / "docs" / name).read_text() for name in ("cli.md", "backbones.md")]


@pytest.fixture
def folder(tmp_path, make_video, moving_frames):
    """A tiny ResNet, a tiny ViT, and a video of 200 frames at a frame a second."""
    SMALL["resnet"].save(tmp_path / "tiny")
    SMALL["vit"].save(tmp_path / "vit")
    make_video(tmp_path / "long.mp4", moving_frames(200), fps=1)
    (tmp_path / "clips.csv").write_text("path,label,split\nlong.mp4,x,train\n")
    return tmp_path


def run(folder, *choices):
    command = [sys.executable, "-P", "-m", "longreel.cli", "extract", "clips.csv", "store", "--backbone", "tiny"]
    return subprocess.run([*command, *choices], cwd=folder, capture_output=True, text=True, timeout=200)


def test_videolt_is_a_frame_a_second_of_short_side_256_and_at_most_150_of_them():
    assert RULES["videolt"] == Rule(Sampling(fps=1, at_most=150), 256, None)
    assert str(RULES["videolt"]) == "1 fps, at most 150 frames, short side 256, centre crop of the model's own size"


def test_gen2balance_takes_every_fourth_frame_of_a_file_of_30_fps(tmp_path, make_video, moving_frames):
    """As the store has it: the times of the rows are those of frames 0, 4, 8, ..."""
    SMALL["resnet"].save(tmp_path / "tiny")
    make_video(tmp_path / "a.mp4", moving_frames(60), fps=30)
    (tmp_path / "clips.csv").write_text("path,label,split\na.mp4,x,train\n")
    assert run(tmp_path, "--rule", "gen2balance").returncode == 0
    seconds = FeatureStore(tmp_path / "store")["a.mp4"].seconds
    assert seconds.tolist() == pytest.approx([frame / 30 for frame in range(0, 60, 4)], abs=1e-3)


@pytest.mark.parametrize("name", RULES)
def test_every_rule_is_in_the_guides_and_in_the_help(name):
    assert all(f"`{name}`" in guide for guide in GUIDES)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "longreel.cli", "extract", "--help"], capture_output=True, text=True, timeout=60
    )
    assert name in done.stdout


def test_what_a_rule_leaves_open_is_taken_from_what_was_given():
    assert with_rule(None, Rule(crop=128)) == Rule(crop=128)
    assert with_rule("videolt", Rule(crop=128)) == Rule(Sampling(fps=1, at_most=150), 256, 128)
    assert with_rule("videolt", Rule()) == RULES["videolt"]


@pytest.mark.parametrize(
    ("name", "given", "says"),
    [
        ("videolt", Rule(Sampling(fps=2)), "Leave out --fps, --frames and --max-frames, or the rule"),
        ("videolt", Rule(short_side=256), "--rule videolt means 1 fps, .*Leave out --short-side, or"),
        ("minikinetics200", Rule(short_side=1, crop=1), "150 frames, .*224x224. Leave out --short-side and --crop"),
        ("vidoelt", Rule(), "no rule called 'vidoelt'. Did you mean 'videolt'"),
    ],
)
def test_what_a_rule_fixes_cannot_be_given_too(name, given, says):
    with pytest.raises(LongreelError, match=says):
        with_rule(name, given)


def test_the_command_line_extracts_by_a_rule_and_a_store_holds_to_it(folder, moving_frames):
    done = run(folder, "--rule", "videolt")
    assert done.returncode == 0, done.stderr
    with FeatureStore(folder / "store") as store:
        spec, clip = store.spec, store["long.mp4"]
    assert spec.sampling == "1 fps, at most 150 frames"
    assert spec.preprocessing.startswith("bicubic to short side 256, centre 32x32; ")
    places = [int((2 * number + 1) * 200 / 300) for number in range(150)]
    np.testing.assert_allclose(clip.seconds, places)
    backbone = load_backbone(str(folder / "tiny"), device="cpu", short_side=256)
    frames = np.stack([backbone.preprocessing.apply(moving_frames(200)[place]) for place in places[::25]])
    theirs, ours = embed(backbone, frames), clip.features[::25]
    cosine = theirs @ ours.T / np.linalg.norm(theirs, axis=1)[:, None] / np.linalg.norm(ours, axis=1)
    assert np.diag(cosine).min() > 0.97  # the codec changes the pixels a little
    assert cosine.argmax(axis=1).tolist() == list(range(6))
    other = run(folder, "--rule", "minikinetics200", "--shard", "1/2")
    assert other.returncode == 2
    assert "sampling is '1 fps, at most 150 frames', not '150 frames'" in other.stderr
    assert (
        run(folder, "--fps", "1", "--max-frames", "150", "--short-side", "256").returncode == 0
    )  # the same, spelt out
    cropped = run(folder, "--rule", "videolt", "--crop", "64")
    assert "preprocessing is 'bicubic to short side 256, centre 32x32" in cropped.stderr


def test_a_store_of_other_sizes_is_another_store(folder):
    clips = read_manifest(folder / "clips.csv")
    few = Sampling(frames=2)
    extract_clips(clips, folder / "store", load_backbone(str(folder / "tiny"), device="cpu"), sampling=few)
    for crop in (None, 40):
        other = load_backbone(str(folder / "tiny"), device="cpu", short_side=48, crop=crop)
        with pytest.raises(StoreMismatch, match=r"preprocessing is 'bicubic to short side 36, centre 32x32.*48"):
            extract_clips(clips, folder / "store", other, sampling=few)
    same = load_backbone(str(folder / "tiny"), device="cpu", short_side=36, crop=32)  # the model's own
    assert extract_clips(clips, folder / "store", same, sampling=few).already == 1


@pytest.mark.parametrize(
    ("choices", "says"),
    [
        (["--max-frames", "9"], "--max-frames 9 goes with --fps"),
        (["--frames", "9", "--max-frames", "9"], "--max-frames 9 goes with --fps"),
        (["--crop", "64"], "a centre of 64x64 cannot be cut out of frames whose shorter side is 36"),
        (
            ["--backbone", "vit", "--short-side", "64", "--crop", "40"],
            "Check the size in its preprocessor file, or --crop",
        ),
        (["--rule", "videolt", "--fps", "1"], "Leave out --fps"),
        (["--backbone", "motion", "--rule", "videolt"], "Leave out --embedding"),
        (["--backbone", "clips.csv"], "clips.csv: cannot be read as a ResNet of the temporal shift module"),
    ],
)
def test_the_command_line_refuses_what_cannot_be_meant_in_one_line(folder, choices, says):
    done = run(folder, *choices)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert says in done.stderr
    assert not (folder / "store").exists()
