"""Entropy and agreement of clips with class names, against scipy; class names in a tiny CLIP, against its forward."""

import math
from pathlib import Path

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
import transformers as tf
from small_generated import TEXTS_OF_CLIP, save_clip

from longreel.errors import LongreelError, StoreMismatch
from longreel.extract.backbones.folders import fingerprint_text
from longreel.generate.entropy import (
    RULES,
    Bounds,
    agreements,
    entropies,
    find_bounds,
    log_probabilities,
    margins,
    normalise,
)
from longreel.generate.texts import embed_classes, fill_template

pytestmark = pytest.mark.usefixtures("one_thread")
NAMES = ["cat", "playing_a_fl ute", "walking the dog on a beach"]


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory) -> Path:
    return save_clip(tmp_path_factory.mktemp("models") / "clip")


def unit(shape: tuple[int, int], seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).standard_normal(shape)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_entropy_agreement_and_margin_are_those_of_scipys_softmax():
    clips, texts = unit((40, 6), 0), unit((7, 6), 1)
    logs = log_probabilities(clips, texts, 14.3)
    naive = scipy.special.softmax(14.3 * (clips.astype(float) @ texts.astype(float).T), axis=1)
    np.testing.assert_allclose(np.exp(logs), naive, rtol=1e-12)
    np.testing.assert_allclose(entropies(logs), scipy.stats.entropy(naive, axis=1), rtol=1e-10)
    for line, row in enumerate(naive):
        ordered = sorted(row)
        assert margins(logs)[line] == pytest.approx(ordered[-1] - ordered[-2])
    own = np.random.default_rng(2).random((40, 7)) < 0.3
    np.testing.assert_allclose(
        agreements(logs, own), [sum(row[mask]) for row, mask in zip(naive, own, strict=True)], atol=1e-12
    )


def test_entropy_is_log_c_when_all_classes_are_alike_and_nothing_when_one_is_certain():
    texts = np.eye(5, dtype=np.float32)
    even = np.full((1, 5), 5**-0.5, dtype=np.float32)
    assert entropies(log_probabilities(even, texts, 100.0))[0] == pytest.approx(math.log(5))
    sure = entropies(log_probabilities(texts[:1], texts, 1e4))[0]
    assert sure == 0.0
    assert math.copysign(1.0, sure) == 1.0


def test_without_the_models_scale_every_clip_is_as_unsure_as_can_be():
    clips, texts = unit((50, 64), 0), unit((20, 64), 1)
    assert entropies(log_probabilities(clips, texts, 1.0)).min() > 0.99 * math.log(20)
    assert entropies(log_probabilities(clips, texts, 100.0)).max() < 0.5 * math.log(20)


def test_a_single_class_is_certain():
    logs = log_probabilities(unit((3, 4), 0), unit((1, 4), 1), 100.0)
    assert entropies(logs).tolist() == [0.0] * 3
    assert margins(logs).tolist() == [1.0] * 3


def test_min_max_spans_the_clips_and_kept_bounds_clip_later_ones():
    entropy = np.array([0.5, 2.0, 1.0])
    bounds = find_bounds(entropy, "min-max", 10)
    assert (bounds.lo, bounds.hi) == (0.5, 2.0)
    np.testing.assert_allclose(normalise(entropy, bounds), [0.0, 1.0, 1 / 3])
    np.testing.assert_allclose(normalise(np.array([0.1, 9.0]), bounds), [0.0, 1.0])


def test_log_classes_does_not_look_at_the_clips():
    assert find_bounds(np.array([0.5]), "log-classes", 8) == Bounds(0.0, math.log(8))
    with pytest.raises(LongreelError, match=r"'minmax'. Did you mean 'min-max'"):
        find_bounds(np.array([0.5]), "minmax", 8)
    assert set(RULES) == {"min-max", "log-classes"}


def test_where_all_clips_are_equally_sure_none_is_uncertain():
    assert normalise(np.array([0.7, 0.7]), Bounds(0.7, 0.7)).tolist() == [0.0, 0.0]


def test_class_names_are_put_into_the_template_as_they_are_but_for_underscores():
    assert fill_template("a {} clip", ["a_b", "{0}", "%s  x"]) == ("a a b clip", "a {0} clip", "a %s x clip")
    for wrong in ("a photo", "{} and {}"):
        with pytest.raises(LongreelError, match=r"needs one \{\}"):
            fill_template(wrong, ["a"])


def test_texts_are_those_of_the_models_own_forward_pass(clip_folder):
    found = embed_classes(clip_folder, NAMES, "a photo of a {}", f"projected, text {fingerprint_text(clip_folder)}")
    model = tf.CLIPModel.from_pretrained(clip_folder).eval()
    tokenizer = tf.CLIPTokenizer.from_pretrained(clip_folder)
    for name, row in zip(NAMES, found.rows, strict=True):
        tokens = tokenizer(f"a photo of a {name.replace('_', ' ')}", return_tensors="pt")
        with torch.inference_mode():
            output = model(pixel_values=torch.zeros(1, 3, 32, 32), **tokens)
        np.testing.assert_allclose(row, output.text_embeds[0].numpy(), atol=1e-5)
    assert found.scale == pytest.approx(math.exp(2.6592), rel=1e-4)
    assert np.abs(found.rows[0] - found.rows[1]).max() > 1e-2


def test_a_text_longer_than_the_tower_is_cut(clip_folder):
    embedding = f"projected, text {fingerprint_text(clip_folder)}"
    rows = embed_classes(clip_folder, ["x" * 500, "x" * 600], "{}", embedding).rows
    np.testing.assert_array_equal(rows[0], rows[1])


def test_more_names_than_fit_into_one_batch_are_the_same_texts(clip_folder):
    embedding = f"projected, text {fingerprint_text(clip_folder)}"
    names = [f"name {number}" for number in range(70)]
    rows = embed_classes(clip_folder, names, "{}", embedding).rows
    assert rows.shape == (70, TEXTS_OF_CLIP)
    alone = embed_classes(clip_folder, names[69:], "{}", embedding).rows
    np.testing.assert_allclose(rows[69:], alone, atol=1e-6)


def test_rows_of_another_text_side_or_of_none_are_refused(clip_folder, tmp_path):
    with pytest.raises(StoreMismatch, match=r"'pooled', which cannot be compared with texts.*--embedding projected"):
        embed_classes(clip_folder, NAMES, "{}", "pooled")
    other = save_clip(tmp_path / "other", seed=1)
    with pytest.raises(StoreMismatch, match="Give the folder of the backbone that made the store"):
        embed_classes(clip_folder, NAMES, "{}", f"projected, text {fingerprint_text(other)}")


@pytest.mark.parametrize("kind", ["siglip", "siglip2", "xclip"])
def test_models_whose_numbers_are_no_probabilities_are_refused_by_name(tmp_path, kind):
    (tmp_path / "config.json").write_text(f'{{"model_type": "{kind}"}}')
    with pytest.raises(LongreelError, match=f"{kind} gives no entropy"):
        embed_classes(tmp_path, NAMES, "{}", "projected, text 00")
