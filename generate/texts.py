"""Class names in the text tower of a CLIP model: what clips in the same space are compared with."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import EnvironmentFault, LongreelError, StoreMismatch

TEMPLATE = "a photo of a {}"
PROJECTED = "projected, text "  #: how ``Spec.embedding`` begins where rows share a space with texts.
AT_ONCE = 64
#: models with a text side whose numbers are no probabilities over class names.
REFUSED = {
    "siglip": "it was trained with a sigmoid a pair, so a softmax over class names means nothing",
    "siglip2": "it was trained with a sigmoid a pair, so a softmax over class names means nothing",
    "xclip": "its texts change with the video they are compared with",
}


@dataclass(frozen=True)
class ClassTexts:
    """The classes as texts."""

    words: tuple[str, ...]  #: what was embedded, a text a class.
    rows: NDArray[np.float32]  #: ``(C, D)``, each of length 1.
    scale: float  #: what the model multiplies cosines with, ``exp(logit_scale)``.
    fingerprint: str  #: of the text tower, as in ``Spec.embedding``.


def fill_template(template: str, classes: Sequence[str]) -> tuple[str, ...]:
    """A text a class; underscores of class names become spaces.

    >>> fill_template("a photo of a {}", ["jumping_jack"])
    ('a photo of a jumping jack',)

    Raises:
        LongreelError: When the template has not exactly one ``{}``.
    """
    if template.count("{}") != 1:
        raise LongreelError(
            f"--template {template!r}: needs one {{}}, where the class name goes. Such as {TEMPLATE!r}."
        )
    return tuple(template.replace("{}", " ".join(name.replace("_", " ").split())) for name in classes)


def check_same_space(folder: Path, embedding: str) -> str:
    """The fingerprint of the folder's text tower, which must be the one that a store's rows were projected for.

    Raises:
        LongreelError: When the model gives no probabilities over texts, or has no text side.
        StoreMismatch: When the rows are in no space with texts, or in another one.
    """
    from ..extract.backbones.folders import fingerprint_text, read_config  # load torch

    kind = str(read_config(folder).get("model_type"))
    if kind in REFUSED:
        raise LongreelError(f"{folder}: {kind} gives no entropy: {REFUSED[kind]}. Give a CLIP folder, or no --text.")
    if not embedding.startswith(PROJECTED):
        raise StoreMismatch(
            f"the store's rows are {embedding!r}, which cannot be compared with texts. "
            f"Extract with a CLIP backbone and --embedding projected, or leave out --text."
        )
    found, wanted = fingerprint_text(folder), embedding.removeprefix(PROJECTED)
    if found != wanted:
        raise StoreMismatch(
            f"{folder}: its text side is {found[:12]}, but the store's rows were projected for {wanted[:12]}. "
            f"Give the folder of the backbone that made the store."
        )
    return found


def embed_classes(folder: Path, classes: Sequence[str], template: str, embedding: str) -> ClassTexts:
    """The class names, put into the template, in the space of a store's rows.

    Args:
        folder: A CLIP model as transformers saves it, with its tokenizer; nothing in it is run.
        classes: Names, ``C`` of them.
        template: A text with one ``{}``.
        embedding: Of the store, ``Spec.embedding``.

    Raises:
        LongreelError: When the model is of no use for this.
        StoreMismatch: When texts and rows are not in the same space.
        EnvironmentFault: When model or tokenizer cannot be loaded.
    """
    words = fill_template(template, classes)
    fingerprint = check_same_space(folder, embedding)
    model, tokenizer = _load(folder)
    rows = _embed(model, tokenizer, words)  # (C, D)
    if not np.isfinite(rows).all():
        raise EnvironmentFault(f"{folder}: a class name has no finite embedding. Are the weights whole?")
    return ClassTexts(words, rows, float(model.logit_scale.exp()), fingerprint)


def _load(folder: Path) -> tuple[Any, Any]:
    import torch
    from transformers import AutoTokenizer

    from ..extract.backbones.folders import load_model

    model: Any = load_model(folder, torch.float32, ("vision_model", "visual_projection"))[0]
    if not hasattr(model, "get_text_features") or not hasattr(model, "logit_scale"):
        raise LongreelError(f"{folder}: has no CLIP text tower. Give a folder with CLIPModel's weights.")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, RuntimeError, ImportError, KeyError, TypeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise EnvironmentFault(f"{folder}: its tokenizer cannot be loaded: {reason}") from error
    return model.eval().requires_grad_(False), tokenizer


def _embed(model: Any, tokenizer: Any, words: Sequence[str]) -> NDArray[np.float32]:
    """``(C, D)``, each of length 1; texts beyond the tower's length are cut."""
    import torch
    from torch.nn import functional as F

    longest, rows = model.config.text_config.max_position_embeddings, []
    with torch.inference_mode():
        for first in range(0, len(words), AT_ONCE):
            batch = list(words[first : first + AT_ONCE])
            tokens = tokenizer(batch, padding=True, truncation=True, max_length=longest, return_tensors="pt")
            output = model.get_text_features(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
            # transformers 5 gives an output object that has the projected vector where others have the pooled one.
            rows.append(output if isinstance(output, torch.Tensor) else output.pooler_output)
        return F.normalize(torch.cat(rows), dim=-1).numpy()
