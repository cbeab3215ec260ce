import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from transformers import (
    AutoImageProcessor,
    AutoModel,
    CLIPConfig,
    CLIPModel,
    CLIPVisionConfig,
    CLIPVisionModel,
    ConvNextConfig,
    ConvNextModel,
    ResNetConfig,
    ResNetModel,
    ViTConfig,
    ViTForImageClassification,
    ViTModel,
)

from longreel.errors import EnvironmentFault, LongreelError
from longreel.extract import embed
from longreel.extract.backbones import load_backbone
from longreel.extract.backbones.image import read_preprocessing

GEOMETRY = {
    "do_resize": True,
    "do_normalize": True,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "resample": 3,
    "size": {"height": 32, "width": 32},
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.3, 0.4],
}
VIT = ViTConfig(
    hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=32, patch_size=8
)
CLIP_VISION: dict[str, Any] = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 32,
    "patch_size": 8,
}
CLIP_TEXT: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}


def photo(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = 127 + 90 * np.sin(x / 17 + seed)[..., None] * np.cos(y / 13)[..., None] * np.array([1, -1, 0.5])
    return np.clip(waves + rng.normal(0, 15, (height, width, 3)), 0, 255).astype(np.uint8)


def save(folder: Path, model, geometry: dict | None = None) -> Path:
    torch.manual_seed(0)
    model.save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text(json.dumps(geometry or GEOMETRY))
    return folder


#: family -> a small model with random weights, its feature width, and what of its output is the feature.
FAMILIES: dict[str, tuple[Callable[[], torch.nn.Module], int, Callable]] = {
    "vit": (lambda: ViTModel(VIT), 24, lambda out: out.pooler_output),
    "vit saved as a classifier": (
        lambda: ViTForImageClassification(VIT), 24, lambda out: out.last_hidden_state[:, 0],
    ),
    "resnet": (
        lambda: ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[16, 40], depths=[1, 1], layer_type="basic")),
        40,
        lambda out: out.pooler_output.flatten(1),
    ),
    "convnext": (
        lambda: ConvNextModel(ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 1, 1])),
        32,
        lambda out: out.pooler_output,
    ),
    "clip vision": (lambda: CLIPVisionModel(CLIPVisionConfig(**CLIP_VISION)), 24, lambda out: out.pooler_output),
}  # fmt: skip


@pytest.mark.parametrize(("make", "width", "feature"), FAMILIES.values(), ids=FAMILIES)
def test_a_folder_that_transformers_saved_gives_the_models_own_feature(tmp_path, make, width, feature):
    backbone = load_backbone(str(save(tmp_path / "tiny", make())))
    frames = np.stack([photo(32, 32, seed) for seed in range(11)])
    rows = embed(backbone, frames)
    assert (backbone.name, backbone.dim, backbone.window) == ("tiny", width, 1)
    assert (rows.dtype, rows.shape) == (np.float32, (11, width))
    model = AutoModel.from_pretrained(tmp_path / "tiny").eval()
    mean, std = torch.tensor(GEOMETRY["image_mean"]), torch.tensor(GEOMETRY["image_std"])
    pixels = ((torch.from_numpy(frames) / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.inference_mode():
        theirs = feature(model(pixel_values=pixels)).numpy()
    np.testing.assert_allclose(rows, theirs, atol=2e-5)


def test_of_a_model_of_pictures_and_text_the_projected_picture_is_taken(tmp_path):
    config = CLIPConfig(text_config=CLIP_TEXT, vision_config=CLIP_VISION, projection_dim=12)
    backbone = load_backbone(str(save(tmp_path / "clip", CLIPModel(config))))
    assert backbone.dim == 12
    model = CLIPModel.from_pretrained(tmp_path / "clip").eval()
    frame = photo(32, 32)
    mean, std = torch.tensor(GEOMETRY["image_mean"]), torch.tensor(GEOMETRY["image_std"])
    pixels = ((torch.from_numpy(frame) / 255 - mean) / std).permute(2, 0, 1)[None]
    with torch.inference_mode():
        theirs = model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output).numpy()
    np.testing.assert_allclose(embed(backbone, frame[None]), theirs, atol=2e-5)


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


CROP = {"height": 28, "width": 28}
#: processor class -> settings as found in public repositories, at a smaller size.
PROCESSORS: dict[str, dict] = {
    "vit with size as a number": {"image_processor_type": "ViTImageProcessor", "size": 32, "resample": 2},
    "clip": {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 28}, "crop_size": CROP}
    | {"do_center_crop": True},
    "clip with sizes as numbers": {"feature_extractor_type": "CLIPFeatureExtractor", "size": 28, "crop_size": 28}
    | {"do_center_crop": True},
    "dinov2": {"image_processor_type": "BitImageProcessor", "size": {"shortest_edge": 32}, "crop_size": CROP}
    | {"do_center_crop": True},
    "convnext with size as a number": {"feature_extractor_type": "ConvNextFeatureExtractor", "size": 28}
    | {"crop_pct": 0.875},
    "deit with sizes as numbers": {"feature_extractor_type": "DeiTFeatureExtractor", "size": 32, "crop_size": 28}
    | {"do_center_crop": True},
    "no crop though its size is given": {"image_processor_type": "CLIPImageProcessor", "crop_size": CROP}
    | {"size": {"height": 30, "width": 28}, "do_center_crop": False},
    "no normalisation": {"image_processor_type": "ViTImageProcessor", "do_normalize": False},
    "no resize": {"image_processor_type": "ViTImageProcessor", "do_resize": False},
}  # fmt: skip


@pytest.mark.parametrize("settings", PROCESSORS.values(), ids=PROCESSORS)
def test_preprocessing_is_that_of_transformers_or_refused(tmp_path, settings):
    config = GEOMETRY | settings
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(config))
    try:
        geometry, normalise = read_preprocessing(config, tmp_path)
    except LongreelError:
        return
    frame = photo(45, 80) // 2 + 64
    ours = normalise.apply(torch.from_numpy(geometry.apply(frame))[None])
    theirs = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")(frame, return_tensors="pt")["pixel_values"]
    assert ours.shape == theirs.shape
    level = 1.0 if not config["do_normalize"] else 1 / 0.2
    assert (ours - theirs).abs().max() <= 1.01 * level / 255


@pytest.mark.parametrize(
    "broken",
    [{"image_mean": None}, {"size": [32, 32]}, {"size": None}, {"resample": 0}, {"size": {"longest_edge": 32}}],
)
def test_settings_that_are_not_understood_are_refused(tmp_path, broken):
    with pytest.raises(LongreelError, match=r"preprocessor_config\.json"):
        read_preprocessing({**GEOMETRY, **broken}, tmp_path)


@pytest.mark.parametrize("family", ["vit", "resnet", "convnext"])
def test_a_row_depends_on_nothing_but_its_frame(tmp_path, family):
    backbone = load_backbone(str(save(tmp_path / "tiny", FAMILIES[family][0]())))
    frames = np.stack([photo(32, 32, seed) for seed in range(19)])
    rows = embed(backbone, frames)
    for first, last in ((0, 1), (3, 4), (7, 15), (18, 19)):
        np.testing.assert_array_equal(embed(backbone, frames[first:last]), rows[first:last])
    np.testing.assert_array_equal(embed(backbone, frames[::-1]), rows[::-1])


def test_the_fingerprint_changes_with_a_weight_and_with_nothing_else(tmp_path):
    model = ViTModel(VIT)
    prints = [load_backbone(str(save(tmp_path / name, model))).weights for name in ("a", "b")]
    with torch.no_grad():
        next(model.parameters()).flatten()[0] += 1
    assert prints[0] == prints[1] != load_backbone(str(save(tmp_path / "c", model))).weights


@pytest.fixture
def tiny(tmp_path) -> Path:
    return save(tmp_path / "tiny", ViTModel(VIT))


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
    other = save(tmp_path / "other", ResNetModel(ResNetConfig(embedding_size=8, hidden_sizes=[16], depths=[1])))
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


def test_a_commit_that_cannot_be_fetched_is_an_environment_fault(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(EnvironmentFault, match=r"cannot be fetched.*local folder"):
        load_backbone(f"owner/model@{'0' * 40}")
