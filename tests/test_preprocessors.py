"""Processor files of published checkpoints, against transformers' own processors on Pillow."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from small_models import MEAN, PLAIN, STD, photo
from transformers import AutoImageProcessor

from longreel.errors import LongreelError
from longreel.extract.backbones.folders import read_processor
from longreel.extract.backbones.preprocessors import read_preprocessing

CROP = {"height": 28, "width": 28}
SHORT = {"size": {"shortest_edge": 32}, "crop_size": CROP, "do_center_crop": True}
#: a family's processor class and settings, as its public repositories have them, at a smaller size.
PROCESSORS: dict[str, dict] = {
    "vit": {"image_processor_type": "ViTImageProcessor", "resample": 2},
    "vit with size as a number": {"feature_extractor_type": "ViTFeatureExtractor", "size": 32, "resample": 2},
    "vit, fast": {"image_processor_type": "ViTImageProcessorFast", "resample": 2},
    "mobilenet_v2": SHORT | {"image_processor_type": "MobileNetV2ImageProcessor", "resample": 2},
    "mobilenet_v2 with sizes as numbers": {"feature_extractor_type": "MobileNetV2FeatureExtractor", "size": 32}
    | {"crop_size": 28, "do_center_crop": True, "resample": 2},
    "resnet with size as a number": {"feature_extractor_type": "ConvNextFeatureExtractor", "size": 28}
    | {"crop_pct": 0.875},
    "resnet": {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 28}, "crop_pct": 0.875},
    "convnext without its share": {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 30}},
    "convnext at 384": {"image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 384}}
    | {"crop_pct": 1.0},
    "clip": SHORT | {"image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 28}},
    "clip with sizes as numbers": {"feature_extractor_type": "CLIPFeatureExtractor", "size": 28, "crop_size": 28}
    | {"do_center_crop": True},
    "clip, fast": SHORT | {"image_processor_type": "CLIPImageProcessorFast"},
    "dinov2": SHORT | {"image_processor_type": "BitImageProcessor"},
    "siglip": {"image_processor_type": "SiglipImageProcessor"},
    "levit": SHORT | {"image_processor_type": "LevitImageProcessor", "size": {"shortest_edge": 28}},
    "videomae": SHORT | {"image_processor_type": "VideoMAEImageProcessor", "size": {"shortest_edge": 28}}
    | {"resample": 2},
    "timesformer with sizes as numbers": {"feature_extractor_type": "VideoMAEFeatureExtractor", "size": 28}
    | {"crop_size": 28, "do_center_crop": True, "resample": 2},
    "vivit": SHORT | {"image_processor_type": "VivitImageProcessor", "resample": 2, "rescale_factor": 1 / 127.5}
    | {"offset": True},
    "vivit without offset": SHORT | {"image_processor_type": "VivitImageProcessor", "resample": 2, "offset": False},
    "no crop though its size is given": {"image_processor_type": "CLIPImageProcessor", "crop_size": CROP}
    | {"size": {"height": 30, "width": 28}, "do_center_crop": False},
    "no normalisation": {"image_processor_type": "ViTImageProcessor", "do_normalize": False},
    "no rescaling": {"image_processor_type": "ViTImageProcessor", "do_rescale": False},
}  # fmt: skip
LEFT_OUT = {
    "CLIPImageProcessor": SHORT,
    "BitImageProcessor": SHORT,
    "MobileNetV2ImageProcessor": SHORT,
    "ViTImageProcessor": {},
    "SiglipImageProcessor": {},
    "VideoMAEImageProcessor": SHORT,
    "VivitImageProcessor": SHORT,
}


def difference(config, folder, frame):
    """The largest difference from transformers' own, in grey levels."""
    (folder / "preprocessor_config.json").write_text(json.dumps(config))
    geometry, normalise = read_preprocessing(config, folder / "preprocessor_config.json")
    ours = normalise.apply(torch.from_numpy(geometry.apply(frame)))
    theirs = AutoImageProcessor.from_pretrained(folder, backend="pil")(frame, return_tensors="pt")["pixel_values"]
    theirs = theirs.reshape(theirs.shape[-3:])
    assert ours.shape == theirs.shape
    level = normalise.rescale * (1 / torch.tensor(normalise.std))
    return ((ours - theirs).abs() / level[:, None, None]).max()


@pytest.mark.parametrize(("height", "width"), [(45, 80), (80, 33), (24, 24)])
@pytest.mark.parametrize("settings", PROCESSORS.values(), ids=PROCESSORS)
def test_preprocessing_is_that_of_transformers_within_a_grey_level(tmp_path, settings, height, width):
    assert difference(PLAIN | settings, tmp_path, photo(height, width) // 2 + 64) <= 1.01


@pytest.mark.parametrize("name", LEFT_OUT)
def test_what_the_file_leaves_out_is_what_the_class_does(tmp_path, name):
    config = {key: value for key, value in PLAIN.items() if key not in ("resample", "rescale_factor")}
    config |= LEFT_OUT[name] | {"image_processor_type": name}
    assert difference(config, tmp_path, photo(45, 80) // 2 + 64) <= 1.01


def by_pillow(frame, size, crop):
    """Resize with Pillow's bilinear filter to ``(width, height)``, cut out the centre, normalise."""
    image = Image.fromarray(frame).resize(size, Image.Resampling.BILINEAR)
    left, top = (image.width - crop) // 2, (image.height - crop) // 2
    pixels = np.asarray(image.crop((left, top, left + crop, top + crop))) / 255
    return torch.from_numpy(((pixels - MEAN) / STD).transpose(2, 0, 1))


#: of processors that need torchvision: settings, and the resize of an 80 x 45 frame and the crop that they mean.
WITHOUT_TWIN: dict[str, tuple[dict, tuple[int, int], int]] = {
    "dinov3": ({"image_processor_type": "DINOv3ViTImageProcessorFast"}, (32, 32), 32),
    "vjepa2": (
        {"video_processor_type": "VJEPA2VideoProcessor", "size": {"shortest_edge": 32}, "crop_size": CROP},
        (56, 32),
        28,
    ),
    "vjepa2 whose size is not that of its crop": (
        {"video_processor_type": "VJEPA2VideoProcessor", "size": {"shortest_edge": 99}, "crop_size": 28},
        (56, 32),
        28,
    ),
    "videomae as a video processor": (
        {"video_processor_type": "VideoMAEVideoProcessor", "size": {"shortest_edge": 36}, "crop_size": CROP}
        | {"do_center_crop": True},
        (64, 36),
        28,
    ),
    "siglip2 of any size": (
        {"image_processor_type": "Siglip2ImageProcessor", "size": None, "patch_size": 8, "max_num_patches": 17},
        (32, 32),
        32,
    ),
}


@pytest.mark.parametrize(("settings", "size", "crop"), WITHOUT_TWIN.values(), ids=WITHOUT_TWIN)
def test_processors_that_need_torchvision_are_read_too(tmp_path, settings, size, crop):
    frame = photo(45, 80) // 2 + 64
    geometry, normalise = read_preprocessing(PLAIN | {"resample": 2} | settings, tmp_path / "x.json")
    ours = normalise.apply(torch.from_numpy(geometry.apply(frame)))
    assert (ours - by_pillow(frame, size, crop)).abs().max() <= 1.01 / 255 / min(STD)


@pytest.mark.parametrize(
    "broken",
    [
        {"image_mean": None},
        {"image_std": 0.5},
        {"size": [32, 32]},
        {"size": None},
        {"resample": 0},
        {"resample": None},
        {"size": {"longest_edge": 32}},
        {"size": {"shortest_edge": 32}},
        {"size": {"height": 40, "width": 40}, "crop_size": CROP, "do_center_crop": True},
        {"do_resize": False},
        {"do_pad": True},
        {"crop_pct": 0.9},
        {"do_flip_channel_order": True},
        {"image_processor_type": "MobileViTImageProcessor"},
        {"image_processor_type": "ConvNextImageProcessor", "size": {"height": 32, "width": 32}},
        {"video_processor_type": "VJEPA2VideoProcessor"},
    ],
    ids=str,
)
def test_settings_that_are_not_understood_are_refused(tmp_path, broken):
    with pytest.raises(LongreelError, match=r"preprocessor_config\.json.*Expected|three numbers each"):
        read_preprocessing({**PLAIN, **broken}, tmp_path / "preprocessor_config.json")


def test_a_processor_whose_filter_is_not_known_must_name_it(tmp_path):
    config = {key: value for key, value in PLAIN.items() if key != "resample"} | {"image_processor_type": "Other"}
    with pytest.raises(LongreelError, match="resample None"):
        read_preprocessing(config, tmp_path / "preprocessor_config.json")


def test_video_models_take_their_own_file_first_and_image_models_never(tmp_path):
    for name in ("preprocessor_config.json", "video_preprocessor_config.json"):
        (tmp_path / name).write_text(json.dumps({"from": name}))
    assert read_processor(tmp_path, True, "vjepa2")[0] == {"from": "video_preprocessor_config.json"}
    assert read_processor(tmp_path, False, "vit")[0] == {"from": "preprocessor_config.json"}


def test_settings_that_transformers_5_put_into_one_file_are_found(tmp_path):
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": {"size": 3}, "other": 1}))
    assert read_processor(tmp_path, False, "clip") == ({"size": 3}, tmp_path / "processor_config.json")
    assert read_processor(tmp_path, True, "xclip")[0] == {"size": 3}


def test_the_error_of_a_known_model_without_its_file_says_what_was_published(tmp_path):
    (tmp_path / "dinov2-large").mkdir()
    with pytest.raises(LongreelError, match=r"facebook/dinov2-large has .*224x224.*0\.485"):
        read_processor(tmp_path / "dinov2-large", False, "dinov2")
    with pytest.raises(LongreelError, match=r"microsoft/xclip-base-patch32 has"):
        read_processor(tmp_path, True, "xclip")
    with pytest.raises(LongreelError, match=r"with that file\.$"):
        read_processor(tmp_path, False, "beit")
