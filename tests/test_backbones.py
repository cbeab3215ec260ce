"""Model folders: what is refused, what is never run, and what tells two of them apart."""

import json
import pickle
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_models import LAYERS, PLAIN, SMALL, TEXT, clip_model, photo, save
from transformers import (
    AutoImageProcessor,
    AutoModel,
    ChineseCLIPConfig,
    ChineseCLIPModel,
    CLIPForImageClassification,
    ViTConfig,
    ViTModel,
    ViTMSNConfig,
    ViTMSNModel,
)

from longreel.errors import EnvironmentFault, LongreelError
from longreel.extract import embed
from longreel.extract.backbones import load_backbone


def vit() -> ViTModel:
    return ViTModel(ViTConfig(**LAYERS))


def test_features_of_real_weights_are_those_of_transformers_own_pipeline(shared_data):
    folder = shared_data / "weights" / "mobilenet_v2_1.0_224"
    backbone = load_backbone(str(folder))
    assert backbone.dim == 1280
    processor = AutoImageProcessor.from_pretrained(folder, backend="pil")
    model = AutoModel.from_pretrained(folder).eval()
    for number, frame in enumerate([photo(240, 320), photo(360, 202, 1), photo(720, 1280, 2)]):
        ours = embed(backbone, backbone.preprocessing.apply(frame)[None])[0]
        with torch.inference_mode():
            theirs = model(**processor(frame, return_tensors="pt")).pooler_output[0].flatten().numpy()
        cosine = ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs)
        assert cosine > 0.999, (number, cosine)


def test_the_fingerprint_changes_with_a_weight_and_with_nothing_else(tmp_path):
    model = vit()
    prints = [load_backbone(str(save(tmp_path / name, lambda: model, PLAIN))).weights for name in ("a", "b")]
    with torch.no_grad():
        next(model.parameters()).flatten()[0] += 1
    assert prints[0] == prints[1] != load_backbone(str(save(tmp_path / "c", lambda: model, PLAIN))).weights


def text_of(folder):
    return load_backbone(str(folder), embedding="projected").embedding


def test_projected_rows_name_the_text_side_and_nothing_else(tmp_path):
    torch.manual_seed(0)
    model = clip_model()
    first = text_of(save(tmp_path / "a", lambda: model, SMALL["clip"].settings))
    assert re.fullmatch("projected, text [0-9a-f]{64}", first)
    for name, same in (
        ("vision_model.post_layernorm.bias", True),
        ("visual_projection.weight", True),
        ("text_model.embeddings.token_embedding.weight", False),
        ("text_projection.weight", False),
    ):
        weights = model.get_parameter(name)
        with torch.no_grad():
            weights.flatten()[0] += 1
        assert (text_of(save(tmp_path / name, lambda: model, SMALL["clip"].settings)) == first) == same
        with torch.no_grad():
            weights.flatten()[0] -= 1


def test_the_text_side_is_the_same_in_one_file_or_in_several_and_changes_with_its_tokenizer(tmp_path):
    torch.manual_seed(0)
    model = clip_model()
    whole = save(tmp_path / "whole", lambda: model, SMALL["clip"].settings)
    parts = shutil.copytree(whole, tmp_path / "parts")
    (parts / "model.safetensors").unlink()
    model.save_pretrained(parts, max_shard_size="20KB")  # pyright: ignore[reportCallIssue]
    assert len(list(parts.glob("*.safetensors"))) > 1
    assert text_of(parts) == text_of(whole)
    (parts / "merges.txt").write_text("a b")
    assert text_of(parts) != text_of(whole)


def test_a_classifier_made_from_a_model_with_text_has_pooled_rows_alone(tmp_path):
    config = clip_model().config
    folder = save(tmp_path / "tiny", lambda: CLIPForImageClassification(config), SMALL["clip"].settings)  # pyright: ignore[reportArgumentType]
    assert load_backbone(str(folder)).dim == 24
    with pytest.raises(LongreelError, match="the weights lack"):
        load_backbone(str(folder), embedding="projected")


def test_a_model_without_text_is_not_projected(tmp_path):
    for name in ("vit", "clip vision", "videomae"):
        folder = SMALL[name].save(tmp_path / name)
        with pytest.raises(LongreelError, match=r"has no text side.*--embedding pooled"):
            load_backbone(str(folder), embedding="projected")


def test_of_an_unknown_model_of_pictures_and_text_only_the_projected_picture_is_known(tmp_path):
    config = ChineseCLIPConfig(text_config=TEXT, vision_config=LAYERS, projection_dim=12)
    folder = save(tmp_path / "tiny", lambda: ChineseCLIPModel(config), SMALL["clip"].settings)
    backbone = load_backbone(str(folder))
    assert (backbone.dim, backbone.embedding[:10]) == (12, "projected,")
    with pytest.raises(LongreelError, match="--embedding projected"):
        load_backbone(str(folder), embedding="pooled")


def test_an_unknown_image_model_gives_its_class_token(tmp_path):
    config = ViTMSNConfig(**LAYERS)
    folder = save(tmp_path / "tiny", lambda: ViTMSNModel(config), PLAIN)
    frame = photo(32, 32)
    with torch.inference_mode():
        model = ViTMSNModel.from_pretrained(folder).eval()
        theirs = model(SMALL["vit"].pixels(frame[None, None])[:, 0]).last_hidden_state[:, 0].numpy()
    np.testing.assert_allclose(embed(load_backbone(str(folder), device="cpu"), frame[None]), theirs, atol=2e-5)


def test_a_size_that_the_model_does_not_take_is_refused(tmp_path):
    folder = save(tmp_path / "tiny", vit, PLAIN | {"size": {"height": 40, "width": 40}})
    with pytest.raises(LongreelError, match=r"cannot take windows of \(1, 40, 40, 3\)"):
        load_backbone(str(folder))


@pytest.mark.parametrize("choice", [{"embedding": "poold"}, {"precision": "float64"}, {"device": "gpu"}])
def test_a_misspelt_choice_gets_the_list(tiny, choice):
    with pytest.raises(LongreelError, match="There are: "):
        load_backbone(str(tiny), **choice)


def test_what_is_built_in_has_no_choices():
    assert load_backbone("motion", device="auto").embedding == "descriptor"
    choices: list[dict[str, Any]] = [{"embedding": "pooled"}, {"precision": "bfloat16"}, {"device": "tpu"}]
    for choice in choices:
        with pytest.raises(LongreelError, match="built in"):
            load_backbone("motion", **choice)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_an_environment_fault(tiny):
    with pytest.raises(EnvironmentFault, match="torch finds no GPU"):
        load_backbone(str(tiny), device="cuda")
    assert load_backbone(str(tiny), device="auto").device == "cpu"


@pytest.fixture
def tiny(tmp_path) -> Path:
    return save(tmp_path / "tiny", vit, PLAIN)


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("model_type", ["vit", "hostile"])
def test_code_in_the_folder_is_never_run(tiny, tmp_path, model_type):
    canary = tmp_path / "canary"
    code = f"open({str(canary)!r}, 'w').close()\nfrom transformers import ViTModel as Hostile, ViTConfig as Config\n"
    (tiny / "modeling_hostile.py").write_text(code)
    own = {"AutoModel": "modeling_hostile.Hostile", "AutoConfig": "modeling_hostile.Config"}
    edit(tiny / "config.json", auto_map=own, model_type=model_type)
    with pytest.raises(LongreelError, match="never run"):
        load_backbone(str(tiny))
    edit(tiny / "config.json", auto_map=None)
    edit(tiny / "preprocessor_config.json", auto_map={"AutoImageProcessor": "modeling_hostile.Hostile"})
    with pytest.raises(LongreelError, match="never run"):
        load_backbone(str(tiny))
    assert not canary.exists()


class Canary:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_weights_in_a_pickle_are_never_read(tiny, tmp_path):
    (tiny / "model.safetensors").unlink()
    (tiny / "pytorch_model.bin").write_bytes(pickle.dumps(Canary(tmp_path / "canary")))
    with pytest.raises(EnvironmentFault, match="tiny: transformers cannot load it"):
        load_backbone(str(tiny))
    assert not (tmp_path / "canary").exists()
    pickle.loads((tiny / "pytorch_model.bin").read_bytes())
    assert (tmp_path / "canary").exists()


@pytest.mark.parametrize("keep", [0, 5, 100, -4])
def test_weights_cut_short_are_an_environment_fault(tiny, keep):
    weights = tiny / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:keep])
    with pytest.raises(EnvironmentFault, match="tiny"):
        load_backbone(str(tiny))


def test_weights_of_another_model_are_refused(tiny, tmp_path):
    other = SMALL["resnet"].save(tmp_path / "other")
    shutil.copy(other / "model.safetensors", tiny)
    with pytest.raises(EnvironmentFault, match=r"lack \d+ of the model's tensors"):
        load_backbone(str(tiny))


@pytest.mark.parametrize("name", ["config.json", "preprocessor_config.json"])
@pytest.mark.parametrize("content", [None, "{", "[]", "3"])
def test_a_folder_without_readable_settings_is_no_model(tiny, name, content):
    (tiny / name).unlink() if content is None else (tiny / name).write_text(content)
    with pytest.raises(LongreelError, match=name.replace(".", r"\.")):
        load_backbone(str(tiny))


def test_a_misspelt_name_gets_the_nearest_one():
    with pytest.raises(
        LongreelError, match=r"no backbone called 'motoin'\. Did you mean 'motion'\?.*owner/model@commit"
    ):
        load_backbone("motoin")


def test_a_folder_that_is_not_there_is_named():
    with pytest.raises(LongreelError, match=r"weights/none: no such folder\."):
        load_backbone("weights/none")


@pytest.mark.parametrize("revision", ["main", "v1.0", "0123abc", "A" * 40, ""])
def test_a_revision_that_may_change_is_refused(revision):
    with pytest.raises(LongreelError, match=r"is not a commit\. Pin one"):
        load_backbone(f"owner/model@{revision}")


def test_a_commit_in_the_hubs_cache_is_loaded_and_named_by_it(tiny, tmp_path, monkeypatch):
    """The cache as the hub's client lays it out, without a network."""
    commit = "0123456789" * 4
    (tmp_path / "hub" / "models--owner--model" / "snapshots").mkdir(parents=True)
    tiny.rename(tmp_path / "hub" / "models--owner--model" / "snapshots" / commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    found = load_backbone(f"owner/model@{commit}")
    assert (found.name, found.dim) == (f"owner/model@{commit}", 24)


def test_a_name_too_long_for_any_file_is_no_backbone():
    with pytest.raises(LongreelError, match="no backbone called"):
        load_backbone("x" * 5000)


def test_a_commit_that_cannot_be_fetched_is_an_environment_fault(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(EnvironmentFault, match=r"cannot be fetched.*local folder"):
        load_backbone(f"owner/model@{'0' * 40}")
