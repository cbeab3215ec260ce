"""Clips that are in two splits under two names."""

from ..manifest import Manifest
from ..store import FeatureStore

UNKNOWN = "00" * 32  #: the hash of a video that was never here, as of imported features.


def find_copies(store: FeatureStore, manifest: Manifest) -> list[tuple[str, str]]:
    """Pairs of a training clip and a clip of val or test that are the same span of the same bytes.

    By the SHA-256 of the video files, which the store has of every clip that was extracted. Copies that were encoded
    anew, and imported features, are not found here.
    """
    trained: dict[tuple, str] = {}
    copies = []
    for clip in sorted(manifest.clips, key=lambda clip: clip.split != "train"):  # training clips first
        if clip.clip_id not in store:
            continue
        origin = store.origin(clip.clip_id)
        what = (origin.sha256, origin.start, origin.end)
        if origin.sha256 == UNKNOWN:
            continue
        if clip.split == "train":
            trained.setdefault(what, clip.clip_id)
        elif what in trained:
            copies.append((trained[what], clip.clip_id))
    return copies
