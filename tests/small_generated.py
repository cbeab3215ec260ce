"""A tiny CLIP with a tokenizer, and looking at generated clips, for the tests of both."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers as tf
from small_models import CLIP_LIKE, LAYERS, TEXT, save

from longreel.generate.inspection import inspect_clips
from longreel.manifest import read_manifest
from longreel.store import FeatureStore

TEXTS_OF_CLIP = 12  #: width of its embeddings.


def letters() -> dict[str, int]:
    """A vocabulary of every byte, as CLIP's begins: inside a word and at its end."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [chr(256 + number) for number in range(256 - len(plain))]
    alphabet = [*map(chr, plain), *others]
    tokens = [*alphabet, *(f"{letter}</w>" for letter in alphabet), "<|startoftext|>", "<|endoftext|>"]
    return {token: number for number, token in enumerate(tokens)}


def save_clip(folder: Path, seed: int = 0) -> Path:
    """A CLIP folder with tokenizer and preprocessor; another seed gives another model."""
    vocabulary = letters()
    ends: dict[str, Any] = {"bos_token_id": len(vocabulary) - 2, "eos_token_id": len(vocabulary) - 1}
    text = TEXT | ends | {"vocab_size": len(vocabulary)}

    def make() -> torch.nn.Module:
        torch.manual_seed(seed)
        model = tf.CLIPModel(tf.CLIPConfig(text_config=text, vision_config=LAYERS, projection_dim=TEXTS_OF_CLIP))
        for weights in (model.text_model.embeddings.token_embedding.weight, model.text_projection.weight):
            torch.nn.init.normal_(weights)  # so that names and not positions decide
        return model

    save(folder, make, CLIP_LIKE)
    tf.CLIPTokenizer(vocab=vocabulary, merges=[]).save_pretrained(folder)
    return folder


@dataclass(frozen=True)
class Folder:
    """A filled manifest and the store of its clips."""

    path: Path

    def look(self, **options) -> tuple[dict, dict[str, dict[str, str]]]:
        """The document, and the rows of scores by clip."""
        manifest = read_manifest(self.path / "clips.csv")
        with FeatureStore(self.path / "store") as store:
            document = inspect_clips(manifest, store, self.path / "out", **options)
        return document, read_rows(self.path / "out" / "scores.csv")


def read_rows(path: Path) -> dict[str, dict[str, str]]:
    return {row["clip_id"]: row for row in csv.DictReader(path.read_text().splitlines())}
