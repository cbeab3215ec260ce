"""Folding batch norms changes rows by rounding only, and is done where the pairs are certain."""

import numpy as np
import pytest
import torch
from small_models import SIDE, SMALL, photo, shake
from torch import nn
from transformers import AutoModel, MobileNetV2Config, MobileNetV2Model

from longreel.extract.backbones import load_backbone
from longreel.extract.backbones.folding import FOLDED, fold_batch_norms
from longreel.extract.backbones.frozen import prepare


def norms(model):
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.mark.parametrize("name", sorted(FOLDED))
def test_every_batch_norm_of_a_family_is_folded_and_the_output_stays(tmp_path, name):
    model = AutoModel.from_pretrained(SMALL[name].save(tmp_path / "tiny")).eval()
    pixels = SMALL[name].pixels(np.stack([photo(SIDE, SIDE, seed)[None] for seed in range(8)]))[:, 0]
    with torch.inference_mode():
        before = model(pixels).last_hidden_state
        count = norms(model)
        assert fold_batch_norms(model) == count > 5
        after = model(pixels).last_hidden_state
    assert norms(model) == 0
    assert (after - before).abs().max() <= 1e-4 * before.abs().max()


def test_the_real_weights_give_the_same_rows_folded_and_not(shared_data):
    folder = shared_data / "weights" / "mobilenet_v2_1.0_224"
    model = AutoModel.from_pretrained(folder).eval()
    backbone = load_backbone(str(folder), device="cpu")
    frames = np.stack([photo(224, 224, seed)[None] for seed in range(8)])
    pixels = torch.from_numpy((frames[:, 0] / 127.5 - 1).astype(np.float32)).permute(0, 3, 1, 2)
    with torch.inference_mode():
        theirs = model(pixels).pooler_output.numpy()
    np.testing.assert_allclose(backbone(frames), theirs, atol=1e-4 * np.abs(theirs).max())


def test_a_norm_without_a_convolution_before_it_is_left_alone():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4)).eval()
    assert fold_batch_norms(model) == 0
    assert norms(model) == 1


def test_a_layer_without_a_norm_is_left_alone():
    torch.manual_seed(0)
    model = MobileNetV2Model(MobileNetV2Config(image_size=SIDE, depth_multiplier=0.35)).eval()
    shake(model)
    layer = model.conv_1x1
    layer.normalization = None
    weights = layer.convolution.weight.clone()
    fold_batch_norms(model)
    torch.testing.assert_close(layer.convolution.weight, weights, rtol=0, atol=0)


@pytest.mark.parametrize("name", sorted(FOLDED))
def test_convolutions_compute_with_channels_last(tmp_path, name):
    model = AutoModel.from_pretrained(SMALL[name].save(tmp_path / "tiny"))
    prepare(model, name, torch.device("cpu"), torch.float32)
    kernels = [
        module.weight for module in model.modules() if isinstance(module, nn.Conv2d) and module.weight.shape[1] > 1
    ]
    assert kernels
    assert all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)
