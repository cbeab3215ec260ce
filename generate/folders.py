"""Text-to-video models as folders that diffusers saved: found, told apart, and read without running their code."""

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ..errors import EnvironmentFault, LongreelError
from ..hub import fetch_revision

#: what is fetched of a hub repository: the parts' own folders, not the single-file copies beside them.
FETCHED = ("*.json", "*/*.safetensors", "*/*.txt", "*/*.model")
NOT_FETCHED = ("*.fp16.*", "*.fp16-*", "*.bf16.*")  #: the same weights once more, in another precision.
LIBRARIES = ("diffusers", "transformers")
INSTALL = "Install what generation needs: pip install 'longreel[generate]'."
HASHED_AT_ONCE = 4


@dataclass(frozen=True)
class ModelFolder:
    """What is known of a model before it is loaded."""

    path: Path
    name: str  #: as the user gave it, without the folders above it.
    pipeline: str  #: the class of diffusers.
    parts: tuple[str, ...]  #: its folders.
    layers: int | None  #: of its transformer.


def find_model(name: str) -> ModelFolder:
    """The model in a folder, or of ``owner/model@commit``, which is fetched from the hub once.

    Raises:
        LongreelError: When it is neither, or is no pipeline, or asks for code of its own.
        EnvironmentFault: When it cannot be fetched.
    """
    if Path(name).is_dir():
        return read_model(Path(name), Path(name).resolve().name)
    if "@" not in name:
        raise LongreelError(
            f"no folder {name!r}. Expected `procedural`, the folder of a text-to-video pipeline, or owner/model@commit."
        )
    return read_model(fetch_revision(name, FETCHED, NOT_FETCHED), name)


def read_model(folder: Path, name: str) -> ModelFolder:
    """What a folder's ``model_index.json`` says.

    Raises:
        LongreelError: When there is none, or it, or a part of it, asks for code of its own.
    """
    index = _read_json(folder / "model_index.json")
    pipeline = index.get("_class_name")
    if not isinstance(pipeline, str):
        raise LongreelError(f"{folder}: its pipeline {pipeline!r} is code of its own, which is never run.")
    parts = []
    for part, kind in index.items():
        if part.startswith("_") or not isinstance(kind, list) or not all(isinstance(word, str) for word in kind):
            continue  # settings, and parts that are left out
        if kind[0] not in LIBRARIES or not (folder / part).resolve().is_relative_to(folder.resolve()):
            raise LongreelError(
                f"{folder}: its {part[:80]!r} is {str(kind)[:80]}, not of diffusers or transformers: code of its own "
                f"is never run."
            )
        parts.append(part)
    for file in (folder / part / "config.json" for part in parts):
        if file.is_file() and "auto_map" in _read_json(file):
            raise LongreelError(f"{file}: asks for code of its own, which is never run.")
    return ModelFolder(folder, name, pipeline, tuple(parts), _layers(folder / "transformer" / "config.json"))


def fingerprint_model(model: ModelFolder) -> str:
    """SHA-256 over the settings, tokenizers and weights of every part, whatever the folder is called."""
    paths = [model.path / "model_index.json", *_files(model)]
    with ThreadPoolExecutor(HASHED_AT_ONCE) as pool:  # tens of gigabytes, and hashing lets go of the interpreter
        digests = list(pool.map(_digest, paths))
    named = {path.relative_to(model.path).as_posix(): digest for path, digest in zip(paths, digests, strict=True)}
    return hashlib.sha256(json.dumps(named, sort_keys=True).encode()).hexdigest()


def check_needs(model: ModelFolder) -> None:
    """Refuse before gigabytes are read when a package is missing that the model cannot be loaded without.

    Raises:
        EnvironmentFault: As said.
    """
    if find_spec("accelerate") is None:
        raise EnvironmentFault(f"diffusers needs accelerate to load {model.name}. {INSTALL}")
    for part in model.parts:
        pieces = model.path / part / "spiece.model"
        if pieces.is_file() and not (pieces.parent / "tokenizer.json").is_file() and find_spec("sentencepiece") is None:
            raise EnvironmentFault(f"{pieces}: reading it needs sentencepiece. {INSTALL}")


def _files(model: ModelFolder) -> Iterator[Path]:
    for part in model.parts:
        for path in sorted((model.path / part).rglob("*")):
            if path.is_file() and path.suffix in (".json", ".safetensors", ".txt", ".model"):
                yield path


def _digest(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _layers(path: Path) -> int | None:
    layers = _read_json(path).get("num_layers") if path.is_file() else None
    return layers if isinstance(layers, int) else None


def _read_json(path: Path) -> dict:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(document, dict):
            raise ValueError("not an object")
        return document
    except (OSError, ValueError) as error:
        raise LongreelError(
            f"{path}: cannot be read ({error}). Expected the folder of a pipeline as diffusers saves it."
        ) from None
