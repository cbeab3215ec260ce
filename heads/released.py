"""Checkpoints of VideoLT's and MOVE's code as heads of ours. Nothing that such a file holds is run.

Both write a pickled dict with ``torch.save`` (``ckpt.best.pth.tar``): github 17Skye17/VideoLT, base_main.py, and
wjun0830/MOVE, VideoLT/MOVE.py, base_main_Agg.py and Imbalanced-MiniKinetics200. Three models are known:

- ``NonlinearClassifier``: tensors under ``state_dict``.
- ``NetVLADModel``: likewise.
- MOVE's aggregated head: a ``NonlinearClassifier`` under ``state_dict``, NetVLAD under ``vlad``, attention under
  ``MHA``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..errors import ForeignRefused
from ..parts import build_part
from . import HEADS
from .aggregated import ORDERS
from .options import check_choice
from .pickles import read_pickle

CLASSIFIER = {"fc1.": "hidden.", "project.": "project."}
NETVLAD = {
    "bn1.": "codebook.normalise.",
    "vlad.activation_fc.": "codebook.nearness.",
    "vlad.bn1.": "codebook.normalise_nearness.",
    "vlad.gate_weight": "codebook.gate",
    "hidden_fc.": "reduce.",
    "bn2.": "normalise.",
}
ATTENTION = {"w_qs.": "query.", "w_ks.": "key.", "w_vs.": "value.", "fc.": "project.", "layer_norm.": "norm."}
MODELS = {"NonlinearClassifier": "nonlinear", "NetVLADModel": "netvlad-gated", "aggregated": "aggregated"}
FACTS = ("epoch", "feature", "best_mAP", "Acc@1", "Acc@5")


class Released(NamedTuple):
    """A released model as a head."""

    head: str  #: as ``build_head`` takes it; features are to be left as they are, not standardised.
    tensors: dict[str, Tensor]  #: for the head's ``load_state_dict``, without ``Standardised`` around it.
    facts: dict[str, str | int | float]  #: what the file says, and ``model``, ``dim`` and ``classes``.


def load_released(path: Path, order: str | None = None) -> Released:
    """Read a checkpoint.

    Args:
        path: The file.
        order: Which part of an aggregated head's vector comes first, ``vlad-psa`` or ``psa-vlad``. The file does not
            say it. Without it: MOVE's own training, which has the self-attention first, cuts off the gradient of
            NetVLAD's first normalisation; where that is as it was drawn, MOVE is taken to have trained it.

    Raises:
        ForeignRefused: When the file is none of these models, is damaged, or asks for more than tensors and numbers.
        LongreelError: When there is no such order.
    """
    if order is not None:
        check_choice("aggregated", "order", order, ORDERS)
    document = read_pickle(path)
    if not isinstance(document, dict) or not isinstance(document.get("state_dict"), dict):
        raise ForeignRefused(f"{path}: is no checkpoint of VideoLT or MOVE: it has no dict called 'state_dict'.")
    try:
        model, options, tensors = _translate(document, order)
        head = MODELS[model] + (":" if options else "") + ",".join(f"{key}={value}" for key, value in options.items())
        dim, classes = _find_sizes(model, tensors)
        _check(head, dim, classes, tensors)
    except ForeignRefused as error:
        raise ForeignRefused(f"{path}: {error}") from None
    facts = {"model": model, "dim": dim, "classes": classes} | _read_facts(document)
    return Released(head, tensors, facts)


def _translate(document: Mapping, order: str | None) -> tuple[str, Mapping[str, object], dict[str, Tensor]]:
    """The model, its head's options, and its tensors under our names."""
    state = _take(document, "state_dict")
    if "MHA" in document or "vlad" in document:
        vlad, attention = _take(document, "vlad"), _take(document, "MHA")
        tensors = _rename(state, CLASSIFIER, "classifier.")
        tensors |= _rename(vlad, NETVLAD, "aggregator.vlad.") | _rename(attention, ATTENTION, "aggregator.attention.")
        options = {"vlad": "gated", "order": order or _guess_order(tensors)}
        options |= _find_options(tensors, "aggregator.vlad.", "reduced", "classifier.hidden.weight")
        return "aggregated", options, _reorder(tensors, "aggregator.vlad.")
    if "vlad.gate_weight" in state:
        output = {name: tensor for name, tensor in state.items() if name.startswith("pred_fc.")}
        inner = {name: tensor for name, tensor in state.items() if name not in output}
        tensors = _rename(inner, NETVLAD, "aggregator.") | _rename(output, {"pred_fc.": "classifier.project."}, "")
        return "NetVLADModel", _find_options(tensors, "aggregator.", "hidden"), _reorder(tensors, "aggregator.")
    tensors = _rename(state, CLASSIFIER, "")
    return "NonlinearClassifier", _find_options(tensors, hidden_layer="hidden.weight"), tensors


def _take(document: Mapping, key: str) -> dict[str, Tensor]:
    """One of the file's dicts of tensors, without the prefix that training on several GPUs adds."""
    found = document.get(key)
    if not isinstance(found, dict):
        raise ForeignRefused(f"has no dict called {key!r}, and is none of the models {', '.join(MODELS)}.")
    for name, tensor in found.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor) or not _is_plain(tensor):
            raise ForeignRefused(f"{key}: {name!r} is no plain tensor.")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ForeignRefused(f"{key}: {name!r} claims more numbers than the file holds.")
    return {name.removeprefix("module."): tensor for name, tensor in found.items()}


def _is_plain(tensor: Tensor) -> bool:
    """Whether the tensor is a block of real numbers in memory."""
    strided = tensor.layout == torch.strided and tensor.device.type == "cpu"
    return strided and not (tensor.is_complex() or tensor.is_quantized)


def _rename(state: Mapping[str, Tensor], names: Mapping[str, str], prefix: str) -> dict[str, Tensor]:
    """Tensors in single precision under our names; the count of batches that a normalisation saw is left out."""
    renamed = {}
    for name, tensor in state.items():
        theirs = next((each for each in names if name.startswith(each)), None)
        if theirs is None:
            raise ForeignRefused(f"has a tensor {name!r}, which none of the models {', '.join(MODELS)} has there.")
        if not name.endswith(".num_batches_tracked"):
            renamed[prefix + names[theirs] + name.removeprefix(theirs)] = _copy(tensor)
    return renamed


def _copy(tensor: Tensor) -> Tensor:
    """In single precision and in memory of its own, as the file may go."""
    return tensor.detach().to(torch.float32, copy=True, memory_format=torch.contiguous_format)


def _reorder(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The reduction with centres before features: theirs has the place ``d K + k`` for ours of ``k D + d``."""
    name, gate = f"{prefix}reduce.weight", tensors.get(f"{prefix}codebook.gate")
    weight = tensors.get(name)
    if weight is None or gate is None or weight.dim() != 2 or gate.dim() != 2 or weight.shape[1] != gate.numel():
        raise ForeignRefused("has no 'hidden_fc.weight' that fits its 'vlad.gate_weight'.")
    return tensors | {name: weight.unflatten(1, gate.shape[::-1]).transpose(1, 2).flatten(1).contiguous()}


def _guess_order(tensors: Mapping[str, Tensor]) -> str:
    scale = tensors.get("aggregator.vlad.codebook.normalise.weight", torch.zeros(1))
    shift = tensors.get("aggregator.vlad.codebook.normalise.bias", torch.zeros(1))
    return "psa-vlad" if bool((scale == 1).all() and (shift == 0).all()) else "vlad-psa"


def _find_options(
    tensors: Mapping[str, Tensor], vlad: str | None = None, reduced: str = "", hidden_layer: str | None = None
) -> dict[str, int]:
    """The sizes that depart from the released scripts', under the names of the head's options."""
    found = {}
    if vlad is not None:
        found |= {"clusters": (f"{vlad}codebook.gate", 64), reduced: (f"{vlad}reduce.weight", 1024)}
    if hidden_layer is not None:
        found["hidden"] = (hidden_layer, 2048)
    sizes = {key: (len(tensors[name]) if name in tensors else usual, usual) for key, (name, usual) in found.items()}
    return {key: size for key, (size, usual) in sizes.items() if size != usual}


def _find_sizes(model: str, tensors: Mapping[str, Tensor]) -> tuple[int, int]:
    """Width of a feature row and number of classes."""
    first = {
        "NonlinearClassifier": "hidden.weight",
        "NetVLADModel": "aggregator.codebook.gate",
        "aggregated": "aggregator.vlad.codebook.gate",
    }[model]
    last = "project.weight" if model == "NonlinearClassifier" else "classifier.project.weight"
    for name in (first, last):
        if name not in tensors or tensors[name].dim() != 2:
            raise ForeignRefused(f"lacks the {model}'s {name}, or it is no matrix.")
    return tensors[first].shape[1], len(tensors[last])


def _check(head: str, dim: int, classes: int, tensors: Mapping[str, Tensor]) -> None:
    """Refuse tensors that the head cannot take, by name, shape or value."""
    with torch.device("meta"):
        built = build_part("head", HEADS, head, dim, classes)
    assert isinstance(built, torch.nn.Module)
    expected = {name: tuple(tensor.shape) for name, tensor in built.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            shapes = f"{found.get(name, 'missing')} in place of {expected.get(name, 'nothing')}"
            raise ForeignRefused(f"does not fit the head {head} on {dim} features: {name} is {shapes}.")
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise ForeignRefused(f"{name} holds numbers that are not finite.")


def _read_facts(document: Mapping) -> dict[str, str | int | float]:
    """The figures that the scripts note, as far as they are numbers or text."""
    found = {key: document[key] for key in FACTS if key in document}
    found |= {key: float(value) for key, value in found.items() if isinstance(value, Tensor) and value.numel() == 1}
    return {key: value for key, value in found.items() if isinstance(value, str | int | float)}
