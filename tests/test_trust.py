"""What generated clips count for, and that real ones always count in full."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_filled import row, settings_of, write_filled
from small_runs import contents

from longreel.balance import LOSSES, TRUSTS
from longreel.errors import LongreelError, ManifestError
from longreel.experiments.train import train_run
from longreel.parts import build_part

GENERATED = torch.tensor([False, True, True, False, True])
UNCERTAINTY = torch.tensor([math.nan, 0.0, 0.5, math.nan, 1.0])
LABELS = [0, 1, 2, 2, 3]
TARGETS = torch.eye(4)[LABELS]


@pytest.mark.parametrize("name", TRUSTS)
def test_real_clips_keep_their_labels_weights_and_places(name):
    trusted = build_part("trust", TRUSTS, name)(TARGETS, GENERATED, UNCERTAINTY)
    torch.testing.assert_close(trusted.targets[~GENERATED], TARGETS[~GENERATED])
    if trusted.weights is not None:
        assert trusted.weights[~GENERATED].tolist() == [1.0, 1.0]
    if trusted.kept is not None:
        assert trusted.kept[~GENERATED].all()


@pytest.mark.parametrize(
    ("text", "eps"),
    [("smoothing:eps=0.2", [0.2, 0.2, 0.2]), ("uncertainty-smoothing", [0.0, 0.15, 0.3]), ("full", [0.0, 0.0, 0.0])],
)
def test_a_label_is_worth_one_less_eps_and_every_other_class_its_share_of_eps(text, eps):
    trusted = build_part("trust", TRUSTS, text)(TARGETS, GENERATED, UNCERTAINTY)
    for clip, share in zip(GENERATED.nonzero()[:, 0].tolist(), eps, strict=True):
        expected = [1 - share if index == LABELS[clip] else share / 3 for index in range(4)]
        np.testing.assert_allclose(trusted.targets[clip].numpy(), expected, rtol=1e-6)
        assert float(trusted.targets[clip].sum()) == pytest.approx(1.0)
    assert trusted.weights is trusted.kept is None


def test_weights_fall_and_filters_close_with_uncertainty():
    weighed = build_part("trust", TRUSTS, "uncertainty-weighting:w=0.8")(TARGETS, GENERATED, UNCERTAINTY)
    assert weighed.weights is not None
    np.testing.assert_allclose(weighed.weights.numpy(), [1.0, 1.0, 0.6, 1.0, 0.2], rtol=1e-6)
    kept = build_part("trust", TRUSTS, "uncertainty-filter")(TARGETS, GENERATED, UNCERTAINTY).kept
    assert kept is not None
    assert kept.tolist() == [True, True, True, True, False]


@pytest.mark.parametrize("name", ["ce", "balanced-softmax", "logit-adjusted", "bce", "focal"])
def test_losses_take_the_soft_labels(name):
    """Of a softmax loss, the mean of its values for each class, weighted by the labels."""
    logits, counts = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([9.0, 5, 3, 1])
    soft = build_part("trust", TRUSTS, "uncertainty-smoothing")(TARGETS, GENERATED, UNCERTAINTY).targets
    loss = build_part("loss", LOSSES, name)
    found = loss(logits, soft, counts)
    assert found.isfinite().all()
    torch.testing.assert_close(found[~GENERATED], loss(logits, TARGETS, counts)[~GENERATED])
    if name in ("ce", "balanced-softmax", "logit-adjusted"):
        each = torch.stack([loss(logits, torch.eye(4)[index].expand(5, 4), counts) for index in range(4)], dim=1)
        torch.testing.assert_close(found, (soft * each).sum(dim=1))


@pytest.mark.parametrize("text", ["smoothing:eps=1.5", "uncertainty-smoothing:w=-1", "uncertainty-filter:most=nan"])
def test_shares_outside_of_0_to_1_are_refused(text):
    with pytest.raises(LongreelError, match="must lie between 0 and 1"):
        build_part("trust", TRUSTS, text)


def test_a_clip_of_weight_zero_has_no_part_in_the_weights(tmp_path, write_small_store):
    """The labels of such clips may be anything."""
    made, _ = write_filled(tmp_path / "data", write_small_store)
    changed = [each | {"uncertainty": "1"} if each["source"] == "generated" else each for each in made.rows]
    header = ",".join(changed[0])
    heads = {}
    for name, label in (("as they are", None), ("called boats", "boat")):
        rows = [each | ({"label": label} if label and each["source"] == "generated" else {}) for each in changed]
        manifest = made.manifest.with_name(f"{name}.csv")
        manifest.write_text("\n".join([header, *(",".join(each.values()) for each in rows)]))
        settings = settings_of(made, head="linear", trust="uncertainty-weighting")
        train_run(tmp_path / name, replace(settings, manifest=manifest))
        heads[name] = contents(tmp_path / name, ["head.safetensors"])
    assert heads["as they are"] == heads["called boats"]


@pytest.mark.parametrize("value", ["-0.1", "1.5", "nan", "much"])
def test_an_uncertainty_that_is_none_is_named_with_its_clip(value, tmp_path, write_small_store):
    rows = [row("train/boat0.mp4", "boat", "train"), row("made/boat1.mp4", "boat", "train", "generated", value)]
    made = write_small_store(tmp_path / "data", rows=rows)
    with pytest.raises(
        ManifestError, match=f"clip 'made/boat1.mp4': uncertainty '{value}' is no number between 0 and 1"
    ):
        train_run(tmp_path / "run", settings_of(made, groups="2"))


def test_without_uncertainties_what_goes_by_them_is_refused(tmp_path, write_small_store):
    rows = [row("train/boat0.mp4", "boat", "train"), row("made/boat1.mp4", "boat", "train", "generated")]
    made = write_small_store(tmp_path / "data", rows=rows)
    for name, make in TRUSTS.items():
        if make().needs_uncertainty:
            with pytest.raises(LongreelError, match=f"trust {name} goes by the uncertainty .* 1 have none"):
                train_run(tmp_path / "run", settings_of(made, groups="2", trust=name))
    assert not (tmp_path / "run").exists()


def test_another_uncertainty_is_another_manifest_and_a_note_beside_it_is_not(tmp_path, write_small_store):
    from longreel.manifest import read_manifest

    digests = []
    for number, (uncertainty, note) in enumerate([("0.5", "a"), ("0.5", "b"), ("0.6", "a")]):
        rows = [
            row("train/boat0.mp4", "boat", "train"),
            row("made/boat1.mp4", "boat", "train", "generated", uncertainty),
        ]
        made = write_small_store(tmp_path / str(number), rows=[each | {"note": note} for each in rows])
        digests.append(read_manifest(made.manifest).digest)
    assert digests[0] == digests[1] != digests[2]


def test_only_clips_that_are_drawn_need_an_uncertainty(tmp_path, write_small_store):
    rows = [row("train/boat0.mp4", "boat", "train"), row("train/boat1.mp4", "boat", "train")]
    rows += [
        row("made/boat2.mp4", "boat", "train", "generated", "0.5"),
        row("made/boat3.mp4", "boat", "train", "generated"),
    ]
    made = write_small_store(tmp_path / "data", rows=rows)
    for name, given in {"real": {"curriculum": "real"}, "filled": {"fill": "3"}}.items():
        train_run(tmp_path / name, settings_of(made, groups="2", trust="uncertainty-smoothing", epochs=1, **given))
    with pytest.raises(LongreelError, match=r"1 have none .* such as 'made/boat3.mp4'"):
        train_run(tmp_path / "all", settings_of(made, groups="2", trust="uncertainty-smoothing", epochs=1))
