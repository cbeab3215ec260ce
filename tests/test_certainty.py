"""Generated clips and the names of their classes: a store of features that a tiny CLIP could have made."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import scipy.special
import torch
import transformers as tf
import typer
from small_generated import Folder, save_clip
from typer.testing import CliRunner

from longreel.commands.inspecting import inspect
from longreel.errors import LongreelError, ManifestError, StoreMismatch
from longreel.extract.backbones.folders import fingerprint_text
from longreel.store import ClipFeatures, FeatureStore, Origin, ShardWriter, Spec

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def clip_model(tmp_path_factory) -> Path:
    return save_clip(tmp_path_factory.mktemp("models") / "clip")


LABELS: tuple[str, ...] = ("jumping_jack", "flute", "yak")


def texts_of(folder: Path) -> tuple[np.ndarray, float]:
    """``(3, D)`` and the scale, by the model's own forward pass."""
    model, tokenizer = tf.CLIPModel.from_pretrained(folder).eval(), tf.CLIPTokenizer.from_pretrained(folder)
    rows = []
    for name in sorted(LABELS):
        tokens = tokenizer(f"a photo of a {name.replace('_', ' ')}", return_tensors="pt")
        with torch.inference_mode():
            rows.append(model(pixel_values=torch.zeros(1, 3, 32, 32), **tokens).text_embeds[0].numpy())
    return np.stack(rows).astype(float), float(model.logit_scale.exp().detach())


def write_clips(folder: Path, clip_model: Path, generated: int, embedding: str | None = None) -> Folder:
    """24 real training and 6 test clips, and generated ones, of noise around the text of their class."""
    texts, _ = texts_of(clip_model)
    spec = Spec(
        "clip", "0", 12, "2 frames", "none", "auto", embedding or f"projected, text {fingerprint_text(clip_model)}"
    )
    shutil.rmtree(folder / "store", ignore_errors=True)
    (folder / "store").mkdir(parents=True)
    rows = []
    with ShardWriter(folder / "store", spec) as writer:
        for number in range(30 + generated):
            label = LABELS[number % 3]
            drawn = np.random.default_rng(number)
            features = 3 * (texts[sorted(LABELS).index(label)] + 0.25 * drawn.standard_normal((2, 12)))
            origin = Origin("pyav", 1.0, 1, 1, "00" * 32)
            writer.add(f"{number}.mp4", ClipFeatures(features.astype(np.float16), np.arange(2.0)), origin)
            split, source = ("test" if 24 <= number < 30 else "train"), ("generated" if number >= 30 else "real")
            rows.append(f"{number}.mp4,{label},{split},{source}")
    (folder / "clips.csv").write_text("\n".join(["path,label,split,source", *rows]))
    return Folder(folder)


def test_scores_of_texts_are_those_of_scipy_on_the_models_own_embeddings(tmp_path, clip_model):
    folder = write_clips(tmp_path, clip_model, 9)
    document, rows = folder.look(text=clip_model, picture=False)
    (texts, scale), store, entropy = texts_of(clip_model), FeatureStore(tmp_path / "store"), {}
    for clip_id, row in rows.items():
        features = store[clip_id].features.astype(float)
        mean = (features / np.linalg.norm(features, axis=1, keepdims=True)).mean(axis=0)
        chances = scipy.special.softmax(scale * texts @ mean / np.linalg.norm(mean))
        entropy[clip_id] = -sum(chance * np.log(chance) for chance in chances)
        assert float(row["entropy"]) == pytest.approx(entropy[clip_id], abs=1e-4)
        assert float(row["agreement"]) == pytest.approx(chances[sorted(LABELS).index(row["label"])], abs=1e-4)
        assert row["top"] == sorted(LABELS)[int(chances.argmax())]
        assert row["agrees"] == ("true" if row["top"] == row["label"] else "false")
        assert float(row["margin"]) == pytest.approx(np.diff(sorted(chances)[-2:])[0], abs=1e-4)
    low, high = min(entropy.values()), max(entropy.values())
    for clip_id, row in rows.items():
        assert float(row["uncertainty"]) == pytest.approx((entropy[clip_id] - low) / (high - low), abs=1e-3)
    assert document["text"]["words"] == ["a photo of a flute", "a photo of a jumping jack", "a photo of a yak"]
    assert document["text"]["scale"] == pytest.approx(scale)


def test_bounds_are_kept_when_more_clips_come_until_they_are_asked_for_anew(tmp_path, clip_model):
    few, first = write_clips(tmp_path, clip_model, 4).look(text=clip_model, picture=False)
    more, later = write_clips(tmp_path, clip_model, 40).look(text=clip_model, picture=False)
    assert more["uncertainty"] == few["uncertainty"]
    assert {name: later[name]["uncertainty"] for name in first} == {name: first[name]["uncertainty"] for name in first}
    low, high = few["uncertainty"]["lo"], few["uncertainty"]["hi"]
    outside = [row for row in later.values() if not low - 1e-6 <= float(row["entropy"]) <= high + 1e-6]
    assert len(outside) > 3
    assert {row["uncertainty"] for row in outside} <= {"0.000000", "1.000000"}
    assert any("outside the entropies" in note for note in more["notes"])
    anew, rows = Folder(tmp_path).look(text=clip_model, picture=False, refreeze=True)
    found = [float(row["entropy"]) for row in rows.values()]
    assert anew["uncertainty"]["lo"] == pytest.approx(min(found), abs=1e-6)
    assert anew["uncertainty"]["hi"] == pytest.approx(max(found), abs=1e-6)
    assert anew["uncertainty"]["clips"] == 40


def test_kept_bounds_of_other_texts_or_another_rule_are_refused(tmp_path, clip_model):
    folder = write_clips(tmp_path, clip_model, 5)
    before, _ = folder.look(text=clip_model, picture=False)
    with pytest.raises(LongreelError, match=r"settled with other rule: 'min-max', now 'log-classes'.*--refreeze"):
        folder.look(text=clip_model, rule="log-classes", picture=False)
    with pytest.raises(LongreelError, match="settled with other texts"):
        folder.look(text=clip_model, template="a video of {}", picture=False)
    without, _ = folder.look(picture=False)
    assert without["uncertainty"] == before["uncertainty"]
    document, rows = folder.look(text=clip_model, rule="log-classes", refreeze=True, picture=False)
    assert document["uncertainty"]["hi"] == pytest.approx(np.log(3))
    for row in rows.values():
        assert float(row["uncertainty"]) == pytest.approx(float(row["entropy"]) / np.log(3), abs=2e-6)


def test_one_clip_has_no_uncertainty_and_that_is_said(tmp_path, clip_model):
    document, rows = write_clips(tmp_path, clip_model, 1).look(text=clip_model, picture=False)
    assert [row["uncertainty"] for row in rows.values()] == ["0.000000"]
    assert any("one entropy" in note for note in document["notes"])


def test_a_store_of_another_text_side_and_inputs_without_generated_clips_are_refused(tmp_path, clip_model):
    with pytest.raises(StoreMismatch, match="were projected for 1234"):
        write_clips(tmp_path, clip_model, 2, "projected, text 1234").look(text=clip_model)
    with pytest.raises(ManifestError, match=r"has no generated clips. Fill it"):
        write_clips(tmp_path, clip_model, 0).look()
    folder = write_clips(tmp_path, clip_model, 0)
    with open(tmp_path / "clips.csv", "a") as file:
        file.write("\nnew.mp4,yak,train,generated")
    with pytest.raises(StoreMismatch, match=r"no usable features of any generated clip.*longreel extract"):
        folder.look()
    (tmp_path / "out").mkdir(exist_ok=True)
    (tmp_path / "out" / "inspection.json").write_text('{"uncertainty": 3}')
    with pytest.raises(LongreelError, match=r"inspection.json: is no inspection"):
        write_clips(tmp_path, clip_model, 2).look()


def test_the_command_prints_the_figures_and_json_on_request(tmp_path, clip_model):
    write_clips(tmp_path, clip_model, 9)
    app = typer.Typer()
    app.command()(inspect)
    words = [tmp_path / "clips.csv", tmp_path / "store", "--out", tmp_path / "out", "--text", clip_model]
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert re.fullmatch(r"near test: \d+ clips at cosine 0\.\d{4} or more, the 99\.9th .* of 24 real clips", lines[0])
    assert lines[-1] == f"9 generated clips scored -> {tmp_path / 'out' / 'scores.csv'}"
    assert (tmp_path / "out" / "tsne.svg").exists()
    result = CliRunner().invoke(app, [str(word) for word in [*words, "--json", "--no-picture"]])
    assert json.loads(result.stdout) == json.loads((tmp_path / "out" / "inspection.json").read_text())
