"""What choosing the epoch on val costs: the gap to the epoch that a look at the split itself would have chosen."""

from collections.abc import Mapping
from pathlib import Path

import torch

from ..durable import owned, write_json
from ..errors import LongreelError, RunMismatch
from ..manifest import Manifest
from .adjust import adjust_output
from .clips import load_clips
from .epochs import EPOCHS, kept_epochs
from .evaluate import log_look, open_same_store, read_same_manifest
from .optimisation import SELECTIONS
from .runs import load_head, read_config, read_document
from .scoring import score_clips


def measure_oracle(folder: Path, split: str = "test") -> dict:
    """Score a split with the head of every epoch that could have been chosen: a diagnostic, never a result.

    Each epoch is a look at the split, noted in ``looks.jsonl`` and counted in every table of the run. What is found is
    kept in the run's folder, and the split is not opened again for it.

    Args:
        folder: A finished run that kept its epochs.
        split: ``val`` or ``test``.

    Returns:
        The document that ``longreel oracle --json`` prints of a run: the figure that the epoch was selected by, on
        this split, at the chosen epoch, at the best one and at each; ``gap`` is what the best one is better by.

    Raises:
        LongreelError: When the run kept no epochs or the manifest has no clips in the split.
        RunMismatch: When the run has not finished, or manifest or store have changed since.
    """
    config = read_config(folder)
    kept = folder / f"oracle-{split}.json"
    if kept.exists():
        return read_document(kept)
    heads = kept_epochs(folder / EPOCHS)
    if not heads:
        raise LongreelError(f"{folder}: kept no epochs. Train with --keep-epochs, into another folder.")
    with owned(folder / ".lock", str(folder)):
        manifest = read_same_manifest(folder, config)
        if not manifest.split(split):
            raise LongreelError(f"{manifest.path}: has no {split} clips.")
        figures = _score_epochs(folder, config, heads, manifest, split)
        chosen = read_document(folder / "result.json")["epoch"]
        if chosen not in figures:
            raise RunMismatch(f"{folder}/{EPOCHS}: the chosen epoch, {chosen}, is missing. Train into another folder.")
        best = max(figures, key=lambda epoch: (figures[epoch], epoch))
        document = {
            "run": folder.name,
            "split": split,
            "figure": config["fit"]["select"],
            "chosen": {"epoch": chosen, "value": figures[chosen]},
            "best": {"epoch": best, "value": figures[best]},
            "gap": figures[best] - figures[chosen],
            "epochs": figures,
        }
        write_json(kept, document)
        return read_document(kept)


def _score_epochs(
    folder: Path, config: dict, heads: Mapping[int, Path], manifest: Manifest, split: str
) -> dict[int, float]:
    """Epoch -> the figure that epochs are selected by, on this split."""
    clips = load_clips(open_same_store(folder, config, manifest), manifest, split)
    counts = torch.tensor(config["counts"], dtype=torch.float32)
    figures = {}
    for epoch, path in heads.items():
        log_look(folder, split, f"oracle, epoch {epoch}")
        head = load_head(path, config)
        adjust_output(head, config["method"]["adjustment"], counts)
        scores = score_clips(head, clips, config["fit"]["test_frames"])
        figures[epoch] = SELECTIONS[config["fit"]["select"]](*clips.with_failed(scores))
    return figures
