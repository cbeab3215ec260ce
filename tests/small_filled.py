"""A small store of real and generated clips, shared by the tests of what is learnt from them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from longreel.experiments.settings import TrainSettings, make_settings

CLASSES = {"boat": 6, "car": 3, "dog": 2}  #: real training clips; generated ones fill each to 6.


def write_filled(folder: Path, write_small_store: Callable[..., Any]) -> tuple[Any, Any]:
    """Real and generated training clips, val and test; and the same without the generated ones."""
    rows = []
    for label, count in CLASSES.items():
        for split, many in (("train", count), ("val", 3), ("test", 3)):
            rows += [row(f"{split}/{label}{n}.mp4", label, split) for n in range(many)]
        rows += [row(f"made/{label}{n}.mp4", label, "train", "generated", f"{n / 10}") for n in range(6 - count)]
    real = write_small_store(folder / "real", rows=[each for each in rows if each["source"] == "real"])
    return write_small_store(folder / "filled", rows=rows), real


def row(path: str, label: str, split: str, source: str = "real", uncertainty: str = "") -> dict[str, str]:
    """A row of a manifest."""
    return {"path": path, "label": label, "split": split, "source": source, "uncertainty": uncertainty}


def settings_of(made: Any, **given: Any) -> TrainSettings:
    """Six epochs of small batches, with what is given."""
    plain = {"epochs": 6, "batch_size": 8, "learning_rate": 1e-3, "groups": "2,4"}
    return make_settings(made.store, made.manifest, plain | given)
