"""A temporal shift written as loops, and a tiny network with the names and shapes of the authors' checkpoints."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import transformers as tf
from numpy.typing import NDArray
from small_models import CONVNEXT_LIKE, MEAN, SIDE, STD, photo, save
from torch import Tensor
from torch.nn import functional as F

SETTINGS = CONVNEXT_LIKE  #: of the tiny folders: frames of 32 x 32.
Weights = dict[str, Tensor]


def shift_by_loops(hidden: Tensor, division: int) -> Tensor:
    """``(T, C, H, W)``, one channel of one frame at a time; outside the clip everything is zero."""
    frames, channels = hidden.shape[:2]
    moved = torch.zeros_like(hidden)
    for frame in range(frames):
        for channel in range(channels):
            source = frame
            if channel < channels // division:
                source = frame + 1
            elif channel < 2 * (channels // division):
                source = frame - 1
            if 0 <= source < frames:
                moved[frame, channel] = hidden[source, channel]
    return moved


def save_shifted(folder: Path, depths: Sequence[int] = (2, 1), layer_type: str = "bottleneck", shift: int = 8) -> Path:
    """A tiny ResNet's folder whose configuration asks for a shift."""
    sizes = [16, 40, 48, 56][: len(depths)]
    config = {"embedding_size": 8, "hidden_sizes": sizes, "depths": list(depths), "layer_type": layer_type}
    config = tf.ResNetConfig.from_dict(config | {"temporal_shift": shift})
    return save(folder, lambda: tf.ResNetModel(config), SETTINGS)


def clip_of(frames: int, side: int = SIDE) -> NDArray[np.uint8]:
    """``(T, side, side, 3)``, no two frames alike."""
    return np.stack([photo(side, side, seed) for seed in range(frames)])


def pixels_of(frames: NDArray[np.uint8], mean: Sequence[float] = MEAN, std: Sequence[float] = STD) -> Tensor:
    """``(T, 3, H, W)``, normalised in numpy."""
    normal = (frames / 255.0 - np.array(mean)) / np.array(std)
    return torch.from_numpy(normal.transpose(0, 3, 1, 2).astype(np.float32))


def rows_of_folder(folder: Path, frames: NDArray[np.uint8], division: int = 8, step: int = 1) -> NDArray[np.float32]:
    """The model's own forward on all frames of a clip at once, with loops before the first convolutions."""
    model = tf.AutoModel.from_pretrained(folder).eval()
    for stage in model.encoder.stages:
        for layer in stage.layers[::step]:
            layer.layer.register_forward_pre_hook(lambda _, given: (shift_by_loops(given[0], division),))
    with torch.inference_mode():
        return model(pixels_of(frames)).pooler_output.flatten(1).numpy()


def official_weights(depths: Sequence[int], bottleneck: bool = True, step: int = 1, colours: int = 3) -> Weights:
    """Random tensors as the authors' training saves them: torchvision's names, DataParallel's prefix, a classifier."""
    torch.manual_seed(0)
    weights: Weights = {}

    def convolution(name: str, into: int, out: int, size: int) -> None:
        weights[f"module.base_model.{name}.weight"] = torch.randn(out, into, size, size) * (2 / into / size**2) ** 0.5

    def norm(name: str, width: int) -> None:
        for kind, values in {
            "weight": 0.5 + torch.rand(width),
            "bias": 0.3 * torch.randn(width),
            "running_mean": 0.3 * torch.randn(width),
            "running_var": 0.5 + torch.rand(width),
            "num_batches_tracked": torch.tensor(7),
        }.items():
            weights[f"module.base_model.{name}.{kind}"] = values

    width, grown = 8, 4 if bottleneck else 1
    convolution("conv1", colours, width, 7)
    norm("bn1", width)
    for stage, depth in enumerate(depths):
        planes = 8 + 4 * stage
        for number in range(depth):
            block = f"layer{stage + 1}.{number}"
            first = f"{block}.conv1" + ".net" * (number % step == 0)
            convolution(first, width, planes, 1 if bottleneck else 3)
            norm(f"{block}.bn1", planes)
            convolution(f"{block}.conv2", planes, planes, 3)
            norm(f"{block}.bn2", planes)
            if bottleneck:
                convolution(f"{block}.conv3", planes, 4 * planes, 1)
                norm(f"{block}.bn3", 4 * planes)
            if number == 0 and (stage > 0 or width != grown * planes):
                convolution(f"{block}.downsample.0", width, grown * planes, 1)
                norm(f"{block}.downsample.1", grown * planes)
            width = grown * planes
    weights["module.new_fc.weight"], weights["module.new_fc.bias"] = torch.randn(5, width), torch.randn(5)
    return weights


def save_official(path: Path, weights: Weights, zipped: bool = True) -> Path:
    """The file that the authors' training writes, in the newer or the older of torch's two formats."""
    rates = {"state": {}, "param_groups": [{"lr": 0.02, "params": [0], "name": "first_conv_weight"}]}
    document = {"epoch": 50, "arch": "resnet50", "state_dict": weights, "optimizer": rates}
    document["best_prec1"] = torch.tensor(71.2)
    torch.save(document, path, _use_new_zipfile_serialization=zipped)
    return path


def rows_of_checkpoint(weights: Weights, pixels: Tensor, division: int = 8) -> NDArray[np.float32]:
    """The network's vectors before the classifier, ``(T, 3, H, W)`` -> ``(T, D)``, block by block from the names."""
    named = {name.removeprefix("module.base_model."): tensor for name, tensor in weights.items()}

    def norm(hidden: Tensor, name: str) -> Tensor:
        mean, variance, weight, bias = (
            named[f"{name}.{kind}"][:, None, None] for kind in ("running_mean", "running_var", "weight", "bias")
        )
        return (hidden - mean) / (variance + 1e-5).sqrt() * weight + bias

    hidden = F.conv2d(pixels, named["conv1.weight"], stride=2, padding=3)
    hidden = F.max_pool2d(norm(hidden, "bn1").relu(), 3, stride=2, padding=1)
    stage = 1
    while f"layer{stage}.0.conv2.weight" in named:
        number = 0
        while f"layer{stage}.{number}.conv2.weight" in named:
            block = f"layer{stage}.{number}"
            stride = 2 if stage > 1 and number == 0 else 1
            bottleneck = f"{block}.conv3.weight" in named
            shortcut = hidden
            if f"{block}.downsample.0.weight" in named:
                shortcut = F.conv2d(hidden, named[f"{block}.downsample.0.weight"], stride=stride)
                shortcut = norm(shortcut, f"{block}.downsample.1")
            if f"{block}.conv1.net.weight" in named:
                branch = F.conv2d(
                    shift_by_loops(hidden, division),
                    named[f"{block}.conv1.net.weight"],
                    stride=1 if bottleneck else stride,
                    padding=0 if bottleneck else 1,
                )
            else:
                assert bottleneck
                branch = F.conv2d(hidden, named[f"{block}.conv1.weight"])
            branch = norm(branch, f"{block}.bn1").relu()
            branch = F.conv2d(branch, named[f"{block}.conv2.weight"], stride=stride if bottleneck else 1, padding=1)
            branch = norm(branch, f"{block}.bn2")
            if bottleneck:
                branch = norm(F.conv2d(branch.relu(), named[f"{block}.conv3.weight"]), f"{block}.bn3")
            hidden = (branch + shortcut).relu()
            number += 1
        stage += 1
    return hidden.mean(dim=(2, 3)).numpy()
