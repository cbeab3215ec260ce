"""Every step from a long-tailed manifest to a head trained on real and generated clips, with tiny random models."""

import json
from pathlib import Path

import pytest
from small_generated import save_clip
from small_pipelines import small_pipelines  # noqa: F401  (a fixture)

from longreel.cli import app
from longreel.generate.mp4 import count_frames
from longreel.manifest import read_manifest

pytest.importorskip("accelerate", reason="diffusers loads no Wan without it")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_thread")]  # diffusers' own warnings

TRAIN = {"ball": 4, "rain": 1}


def longreel(*arguments: object) -> None:
    with pytest.raises(SystemExit) as ended:
        app([str(argument) for argument in arguments])
    assert ended.value.code == 0, arguments


@pytest.fixture
def place(tmp_path, make_video, moving_frames, monkeypatch) -> Path:
    """Real videos of two classes, one of them rich, and a tiny CLIP."""
    rows = ["path,label,split"]
    for label, count in TRAIN.items():
        for split, many in (("train", count), ("val", 2), ("test", 2)):
            for number in range(many):
                name = f"{split}-{label}{number}.mp4"
                make_video(tmp_path / name, moving_frames(12 + len(rows)), fps=12)
                rows.append(f"{name},{label},{split}")
    (tmp_path / "real.csv").write_text("\n".join(rows))
    save_clip(tmp_path / "clip")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", ["wan", "cogvideox"])
def test_plan_prompts_videos_inspection_extraction_and_training_offline(name, place, small_pipelines, capfd):  # noqa: F811
    longreel("generate", "plan", "real.csv", "--fill", "max", "--json")
    planned = json.loads(capfd.readouterr().out)["plans"][0]
    assert planned["generated"] == 3
    longreel("generate", "prompts", "real.csv", "made", "--fill", "max")
    size = ["--frames", 9, "--height", 16, "--width", 16, "--steps", 2]
    recipe = {"wan": "wan-1.3b", "cogvideox": "cogvideox-2b"}[name]
    longreel("generate", "videos", "made", "--model", small_pipelines[name], "--recipe", recipe, *size)
    assert [count_frames(path) for path in (place / "made" / "videos").rglob("*.mp4")] == [9, 9, 9]
    longreel("generate", "fill", "real.csv", "made", "--fill", "max", "--out", "filled.csv")
    longreel("extract", "filled.csv", "clip.store", "--backbone", "clip", "--embedding", "projected", "--frames", 2)
    longreel("generate", "inspect", "filled.csv", "clip.store", "--out", "looked", "--text", "clip")
    longreel("generate", "fill", "real.csv", "made", "--scores", "looked/scores.csv", "--out", "scored.csv")
    scored = read_manifest(place / "scored.csv")
    generated = [clip for clip in scored.clips if clip.source == "generated"]
    assert {clip.split for clip in generated} == {"train"}
    assert [clip.labels for clip in generated] == [("rain",)] * 3
    uncertain = sorted(float(str(clip.extra["uncertainty"])) for clip in generated)
    assert (uncertain[0], uncertain[-1]) == (0.0, 1.0)  # of the data set's least and largest entropy
    ways = ["--balance", "balanced-softmax", "--curriculum", "two-stage", "--trust", "uncertainty-smoothing"]
    longreel("train", "clip.store", "scored.csv", *ways, "--head", "linear", "--epochs", 4, "--out", "run")
    config = json.loads((place / "run" / "config.json").read_text())
    assert config["counts"] == list(TRAIN.values())  # margins: of real clips
    longreel("evaluate", "run", "--json")
    assert json.loads((place / "run" / "evaluation-test.json").read_text())["clips"] == 4
