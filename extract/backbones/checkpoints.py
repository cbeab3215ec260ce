"""Checkpoints of the temporal shift module as its authors publish them, read as tensors alone and never run.

They are ``torch.save`` files of a dict whose ``state_dict`` has torchvision's names: ``module.base_model.`` before
them, ``.net`` behind each convolution whose input is shifted, and a classifier that is left out
(github mit-han-lab/temporal-shift-module, ``ops/temporal_shift.py`` and ``test_models.py``).
"""

import hashlib
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import LongreelError
from .shifting import step_of

PREFIX = re.compile(r"(module\.)?base_model\.")
HEAD = re.compile(r"(module\.)?(new_fc|base_model\.fc)\.(weight|bias)")
STEM = re.compile(r"(conv|bn)1\.(\w+)")
BLOCK = re.compile(r"layer([1-9])\.(0|[1-9]\d{0,3})\.(?:(conv|bn)([123])(\.net)?|downsample\.([01]))\.(\w+)")
PARTS = {"conv": "convolution", "bn": "normalization", "0": "convolution", "1": "normalization"}


def read_checkpoint(path: Path) -> Any:
    """The checkpoint's network as a ``ResNetModel`` of transformers, with ``temporal_shift`` in its configuration.

    The division of the shift is that in the file's name (``shift8``), 8 where it names none.

    Raises:
        LongreelError: When it is no such checkpoint, or asks for more than tensors; no code of it is run.
    """
    weights, shifted = {}, set()
    for name, tensor in _read_tensors(path).items():
        if HEAD.fullmatch(name) or name.endswith(".num_batches_tracked"):
            continue
        renamed, block = _rename(path, name)
        weights[renamed] = tensor
        shifted |= block
    config = _describe(path, weights)
    _check_shifts(path, config, shifted)
    return _fill(path, config, weights)


def division_of(path: Path) -> int:
    """The part of the channels that is shifted each way, as its name says: 8 of ``..._shift8_blockres_...``."""
    found = re.search(r"shift([1-9]\d?)_", path.name)
    return int(found[1]) if found else 8


def fingerprint_checkpoint(path: Path) -> str:
    """SHA-256 of the file, and the shift, which only the file's name says."""
    with open(path, "rb") as file:
        return f"{hashlib.file_digest(file, 'sha256').hexdigest()}, shift 1/{division_of(path)}"


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        document = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile pickle raises anything
        # Not in PyTorch's words, which advise to switch its check off.
        wanted = re.search(r"GLOBAL (\S+)", str(error))
        reason = f"it asks for {wanted[1]}, which was not run" if wanted else f"damaged: {type(error).__name__}"
        raise _refused(path, reason) from None
    tensors = document.get("state_dict") if isinstance(document, dict) else None
    if not isinstance(tensors, dict) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in tensors.items()
    ):
        raise _refused(path, "it has no state_dict of named tensors")
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_complex() or tensor.is_quantized:
            raise _refused(path, f"{name!r} is no plain tensor")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise _refused(path, f"{name!r} claims more numbers than the file holds")
        if not tensor.isfinite().all():
            raise _refused(path, f"{name!r} holds numbers that are not finite")
    return tensors


def _rename(path: Path, name: str) -> tuple[str, set[tuple[int, int]]]:
    """transformers' name of a tensor, and the stage and block whose input it says is shifted."""
    inner = PREFIX.sub("", name, count=1)
    if stem := STEM.fullmatch(inner):
        return f"embedder.embedder.{PARTS[stem[1]]}.{stem[2]}", set()
    if not (block := BLOCK.fullmatch(inner)) or (block[5] and (block[3], block[4]) != ("conv", "1")):
        raise _refused(path, f"no ResNet with blockres shifts has a tensor {name!r}")
    stage, number = int(block[1]) - 1, int(block[2])
    part = f"shortcut.{PARTS[block[6]]}" if block[6] else f"layer.{int(block[4]) - 1}.{PARTS[block[3]]}"
    return f"encoder.stages.{stage}.layers.{number}.{part}.{block[7]}", {(stage, number)} if block[5] else set()


def _describe(path: Path, weights: dict[str, Tensor]) -> Any:
    """The network's configuration from the names and shapes of its tensors."""
    from transformers import ResNetConfig

    blocks = {tuple(map(int, found)) for name in weights for found in re.findall(r"stages\.(\d+)\.layers\.(\d+)", name)}
    depths = [sum(stage == each for each, _ in blocks) for stage in range(len({stage for stage, _ in blocks}))]
    bottleneck = any(".layer.2." in name for name in weights)
    last = 2 if bottleneck else 1
    try:
        stem = weights["embedder.embedder.convolution.weight"]
        ends = [weights[f"encoder.stages.{n}.layers.0.layer.{last}.convolution.weight"] for n in range(len(depths))]
    except KeyError as error:
        raise _refused(path, f"it lacks {error}") from None
    if not ends or any(end.ndim != 4 or not len(end) for end in ends):
        raise _refused(path, "it has no residual blocks, or their convolutions are none")
    if stem.ndim != 4 or stem.shape[1] != 3 or not len(stem):
        raise _refused(path, f"its first convolution is {tuple(stem.shape)}, which does not take RGB frames")
    config = {"embedding_size": len(stem), "hidden_sizes": [len(end) for end in ends], "depths": depths}
    config |= {"layer_type": "bottleneck" if bottleneck else "basic", "temporal_shift": division_of(path)}
    return ResNetConfig.from_dict(config)


def _fill(path: Path, config: Any, weights: dict[str, Tensor]) -> Any:
    """The network with these weights. Names and sizes are compared before any memory is taken for it."""
    from transformers import ResNetModel

    with torch.device("meta"):
        expected = {name: tensor.shape for name, tensor in ResNetModel(config).state_dict().items()}
    expected = {name: shape for name, shape in expected.items() if not name.endswith(".num_batches_tracked")}
    if odd := sorted(weights.keys() ^ expected.keys()):
        raise _refused(path, f"{len(odd)} tensors are missing or too many, such as {odd[0]}")
    for name, tensor in weights.items():
        if tensor.shape != expected[name]:
            shapes = f"{tuple(tensor.shape)}, not {tuple(expected[name])}"
            raise _refused(path, f"size mismatch: {name} is {shapes}")
    model = ResNetModel(config)
    model.load_state_dict(weights, strict=False)  # it may lack the counts of batches that norms have seen
    return model


def _check_shifts(path: Path, config: Any, shifted: set[tuple[int, int]]) -> None:
    if config.temporal_shift < 2:
        raise _refused(path, "its name asks for a shift of all channels")
    expected = {(stage, n) for stage, depth in enumerate(config.depths) for n in range(0, depth, step_of(config))}
    if shifted != expected:
        stage, number = min(shifted ^ expected)
        state = "should not be" if (stage, number) in shifted else "should be"
        raise _refused(path, f"the input of layer{stage + 1}.{number}.conv1 {state} shifted")


def _refused(path: Path, reason: str) -> LongreelError:
    return LongreelError(
        f"{path}: cannot be read as a ResNet of the temporal shift module ({reason}). Expected a file as its authors "
        f"publish it, such as TSM_kinetics_RGB_resnet50_shift8_blockres_avg_segment8_e50.pth. Of a transformers model, "
        f"give the folder."
    )
