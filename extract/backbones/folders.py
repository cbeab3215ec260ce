"""Model folders as transformers saves them: read without running their code, without pickles, and told apart."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from ...errors import EnvironmentFault, LongreelError
from .presets import describe_presets

#: what is fetched of a hub repository: settings, weights and tokenizers.
FETCHED = ("*.json", "*.safetensors", "*.txt", "*.model")
TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "vocab.txt", "merges.txt", "spiece.model", "tokenizer.model",
)  # fmt: skip


def read_config(folder: Path) -> dict:
    """A folder's ``config.json``.

    Raises:
        LongreelError: When it is not there, not readable, or asks for code of its own.
    """
    config = _read_json(folder / "config.json")
    if "auto_map" in config:
        raise LongreelError(
            f"{folder}: config.json asks for code of its own, which is never run. Use a model that transformers knows."
        )
    return config


def read_processor(folder: Path, video: bool, model_type: str) -> tuple[dict, Path]:
    """The preprocessing settings of a folder, and the file they were in.

    Video models may have them in a file of their own, and transformers 5 may have put them into
    ``processor_config.json``.

    Raises:
        LongreelError: When there are none, or they cannot be read.
    """
    names = ["video_preprocessor_config.json"] * video + ["preprocessor_config.json"]
    for name in names:
        if (folder / name).exists():
            return _read_json(folder / name), folder / name
    whole = folder / "processor_config.json"
    if whole.exists():
        document = _read_json(whole)
        for part in ["video_processor"] * video + ["image_processor"]:
            if isinstance(document.get(part), dict):
                return document[part], whole
    raise LongreelError(
        f"{folder}: has no {' or '.join(names)}. Expected a folder as transformers saves it, with that file."
        f"{describe_presets(model_type, folder.resolve().name)}"
    )


def load_model(folder: Path, dtype: torch.dtype, unused: tuple[str, ...]) -> tuple[nn.Module, bool]:
    """The model, and whether the weights have all of its tensors.

    Tensors that have one of the ``unused`` words in their name may be missing.

    Raises:
        EnvironmentFault: When the weights cannot be loaded, or lack other tensors.
    """
    try:
        model, info = _load_quietly(folder, dtype)
    except (OSError, ValueError, RuntimeError, ImportError, SafetensorError) as error:
        raise EnvironmentFault(
            f"{folder}: transformers cannot load it: {' '.join(str(error).split())[:400]}"
        ) from error
    missing = sorted(info["missing_keys"])
    if unfilled := [key for key in missing if not any(word in key for word in unused)]:
        raise EnvironmentFault(
            f"{folder}: the weights lack {len(unfilled)} of the model's tensors, such as {unfilled[0]!r}."
        )
    return model, not missing


def _load_quietly(folder: Path, dtype: torch.dtype) -> tuple[nn.Module, dict]:
    """The model and what of its tensors the weights did not fill; tensors we have no use for are not worth a report."""
    from transformers import AutoModel
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        return AutoModel.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            dtype=dtype,
        )
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def fingerprint_weights(folder: Path) -> str:
    """SHA-256 over the configuration and every weight file."""
    total = hashlib.sha256()
    for path in [folder / "config.json", *_weight_files(folder)]:
        with open(path, "rb") as file:
            total.update(hashlib.file_digest(file, "sha256").digest())
    return total.hexdigest()


def fingerprint_text(folder: Path) -> str:
    """SHA-256 over what embeds a text: the text tower's tensors, its projection and the files of the tokenizer.

    Text embeddings may be compared with projected rows exactly when both have this fingerprint. How the tensors are
    spread over files does not matter.

    Raises:
        LongreelError: When the folder has no text tower.
    """
    tensors = {name: digest for path in _weight_files(folder) for name, digest in _text_tensors(path)}
    if not tensors:
        raise LongreelError(f"{folder}: its weights have no text side. Use --embedding pooled.")
    files = {}
    for name in TOKENIZER:
        if (folder / name).is_file():
            with open(folder / name, "rb") as file:
                files[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256(json.dumps([tensors, files], sort_keys=True).encode()).hexdigest()


def _text_tensors(path: Path) -> Iterator[tuple[str, str]]:
    """Name and digest of each tensor of the text side; X-CLIP's prompts are part of it."""
    with safe_open(path, framework="pt") as weights:
        for name in weights.keys():
            if any(part.startswith(("text_", "prompts_")) for part in name.split(".")):
                tensor = weights.get_tensor(name).contiguous()
                head = json.dumps([str(tensor.dtype), list(tensor.shape)]).encode()
                content = tensor.reshape(-1).view(torch.uint8).numpy().data
                yield name, hashlib.sha256(head + bytes(content)).hexdigest()


def _weight_files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def _read_json(path: Path) -> dict:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(document, dict):
            raise ValueError("not an object")
        return document
    except (OSError, ValueError) as error:
        raise LongreelError(
            f"{path}: cannot be read ({error}). Expected a folder as transformers saves it, with that file."
        ) from None
