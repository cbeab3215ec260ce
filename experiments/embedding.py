"""What a trained head pools every clip into, as a store of one row a clip: for every other head and method."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ..durable import make_folder, owned
from ..errors import LongreelError, RunMismatch, StoreInUse, StoreMismatch
from ..extract.planning import open_whole
from ..heads import Standardised
from ..manifest import SPLITS
from ..provenance import describe_environment
from ..slices import WHOLE
from ..store import ClipFeatures, FeatureStore, ShardWriter, Spec, append_failures, read_failures
from .clips import ClipSet, load_clips
from .evaluate import open_same_store, read_same_manifest
from .runs import HEAD, hash_head, load_head, read_config
from .scoring import cut


def embed_run(
    run: Path,
    folder: Path,
    *,
    on_plan: Callable[[int], None] = lambda count: None,
    on_clip: Callable[[str], None] = lambda clip_id: None,
) -> int:
    """Write the vector that the head pools each clip into to a store as one float16 row.

    Clips of all splits are written, and no label is looked at. The vectors of training clips are those of clips that
    the head has learnt. Clips without features stand in the new store's ledger. Interrupted, the same call goes on.

    Args:
        run: A finished run of a head that has been trained.
        folder: The new store.
        on_plan, on_clip: Called with how many clips there are to do, and after each.

    Returns:
        How many clips were written; those that are there already are left.

    Raises:
        RunMismatch: When the run has not finished or is fused of others, or manifest or store have changed since.
        StoreMismatch: When the folder is another store.
        LongreelError: When a vector does not fit into float16.
    """
    config = read_config(run)
    if "fused" in config:
        raise RunMismatch(f"{run}: is fused of others and has no head. Embed one of them.")
    manifest = read_same_manifest(run, config)
    store, head = open_same_store(run, config, manifest), load_head(run / HEAD, config).eval()
    make_folder(folder)
    with owned(folder / f".writer-{WHOLE}.lock", f"{folder} (slice {WHOLE})", StoreInUse):
        made, _ = open_whole(folder, repair=False)
        spec = _describe(run, config, store, head)
        if made is not None and (different := made.spec.differences(spec)):
            raise StoreMismatch(f"{folder}: is another store: {different[0]}. Give a new folder.")
        todo = [clip for clip in manifest.clips if made is None or clip.clip_id not in made]
        on_plan(len(todo))
        lost = [failure for name, failure in read_failures(store.folder).items() if name not in store]
        append_failures(folder, str(WHOLE), [each for each in lost if each.clip_id not in read_failures(folder)])
        provenance = json.dumps(describe_environment("torch", "numpy", "h5py"))
        written = 0
        with ShardWriter(folder, spec, slice_name=str(WHOLE), provenance=provenance) as writer:
            for split in SPLITS:
                clips = load_clips(store, replace(manifest, clips=tuple(todo)), split)
                for clip_id, vector in _embed(head, clips, config["fit"]["test_frames"]):
                    writer.add(clip_id, _as_row(clip_id, vector), store.origin(clip_id))
                    written += 1
                    on_clip(clip_id)
    return written


@torch.no_grad()
def _describe(run: Path, config: dict, store: FeatureStore, head: Standardised) -> Spec:
    source = store.spec
    return Spec(
        backbone=f"{config['head']} on {source.backbone}",
        weights=hash_head(run),
        dim=head.aggregate(torch.zeros(1, 1, source.dim)).shape[1],
        sampling=f"one row a clip, of {source.sampling}",
        preprocessing=source.preprocessing,
        decoder=source.decoder,
        precision=source.precision,
    )


@torch.inference_mode()
def _embed(head: Standardised, clips: ClipSet, frames: int | None) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """The id and vector ``(E,)`` of each clip."""
    if len(clips) == 0:
        return
    batches = cut(clips, frames)
    for places, (rows, mask) in zip(batches, clips.batches(batches, frames), strict=True):
        vectors = head.aggregate(rows, mask).numpy()
        yield from zip((clips.ids[place] for place in places.tolist()), vectors, strict=True)


def _as_row(clip_id: str, vector: NDArray[np.float32]) -> ClipFeatures:
    row = vector[None].astype(np.float16)
    if not np.isfinite(row).all():
        raise LongreelError(f"{clip_id}: its vector is too large for float16. Train with a smaller rate or more decay.")
    return ClipFeatures(row, np.zeros(1))
