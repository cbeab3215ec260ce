"""A generated clip and the sidecar that says how it was made; which clips are there whole.

The sidecar gets its name first, the video last. So a video never lies there without the word that it is synthetic, and
what a crash leaves between the two is a sidecar without its video, or with another one than its digest says: not done.
"""

import hashlib
import json
from pathlib import Path

from ..durable import make_folder, naming_faults, publish, write_json
from ..errors import LongreelError, ManifestError
from .clips import Prompt
from .making import Made
from .mp4 import count_frames, write_mp4

VIDEOS = "videos"  #: the folder, in a folder of generated clips, that clip ids are relative to.
FORMAT = 1  #: of the sidecar.


def video_path(folder: Path, clip_id: str) -> Path:
    """Where a clip's video lies; its sidecar has ``.json`` for ``.mp4``."""
    return folder / VIDEOS / clip_id


def read_sidecar(folder: Path, clip_id: str) -> dict | None:
    """What a clip's sidecar says; ``None`` when there is none, or it is not one of this format."""
    try:
        document = json.loads(video_path(folder, clip_id).with_suffix(".json").read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or document.get("format") != FORMAT or document.get("clip_id") != clip_id:
        return None
    return document


def read_whole(folder: Path, clip_id: str, *, decode: bool = False) -> dict | None:
    """The sidecar of a clip whose video is there whole; ``None`` when it is not.

    The bytes are those of the sidecar's digest, and every frame of these was decoded before they got their name. So
    decoding them again finds nothing but another decoder; ``decode`` does it all the same.
    """
    document = read_sidecar(folder, clip_id)
    video = video_path(folder, clip_id)
    try:
        if document is None or video.stat().st_size != document.get("bytes"):
            return None
        with open(video, "rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != document.get("sha256"):
                return None
        if decode and count_frames(video) != document.get("frames"):
            return None
    except OSError:
        return None
    return document


def measure_seconds(folder: Path) -> tuple[float, int]:
    """Mean seconds that a clip of a folder took to make, and of how many clips that is.

    Raises:
        ManifestError: When there is no clip that says so.
    """
    videos = folder / VIDEOS
    found = [read_sidecar(folder, path.relative_to(videos).as_posix()) for path in sorted(videos.rglob("[!.]*.mp4"))]
    taken = [facts["seconds"] for facts in found if facts and isinstance(facts.get("seconds"), int | float)]
    if not taken:
        raise ManifestError(
            f"{videos}: has no clip that says how long it took. Make one with `generate videos --limit 1`."
        )
    return sum(taken) / len(taken), len(taken)


def digest_prompt(prompt: str) -> str:
    """SHA-256 of a prompt's text."""
    return hashlib.sha256(prompt.encode("utf-8", "surrogatepass")).hexdigest()


def describe_clip(prompt: Prompt, made: Made, common: dict, seed: int) -> dict:
    """The sidecar of a clip, all but what is known of its file.

    Args:
        prompt: What it shall show.
        made: What was made of it.
        common: What all clips of this process have in common; its ``frames`` are those asked for.
        seed: Its own.
    """
    frames, height, width, _ = made.frames.shape
    return {
        "format": FORMAT,
        "synthetic": True,
        "clip_id": prompt.clip_id,
        "label": prompt.label,
        "index": prompt.index,
        "prompt": prompt.prompt,
        "prompt_sha256": digest_prompt(prompt.prompt),
        "origin": prompt.origin,
        **common,
        "frames_asked": common.get("frames"),
        "frames": frames,
        "height": height,
        "width": width,
        "fps": made.fps,
        "seed": seed,
        **made.facts,
        "checks": made.checks,
    }


def publish_clip(folder: Path, made: Made, document: dict) -> None:
    """Write a clip's video and its sidecar, so that a crash leaves nothing that counts and is not whole.

    Raises:
        LongreelError: When the file that was written does not decode to the frames that were made.
        EnvironmentFault: When the disk is full or the folder cannot be written.
    """
    video = video_path(folder, document["clip_id"])
    make_folder(video.parent)
    part = video.with_name(f".{video.name}.part")
    with naming_faults(video, 0):
        try:
            write_mp4(part, made.frames, made.fps, document["clip_id"])
            if (decoded := count_frames(part)) != len(made.frames):
                raise LongreelError(f"its file has {decoded} frames that decode, not {len(made.frames)}.")
            content = part.read_bytes()
            known = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            write_json(video.with_suffix(".json"), document | known)
            publish(part, video)
        finally:
            part.unlink(missing_ok=True)


def sweep(folder: Path, clip_id: str) -> None:
    """Remove what a killed process left unfinished of a clip that nobody else is making.

    Raises:
        EnvironmentFault: When the folder cannot be written.
    """
    video = video_path(folder, clip_id)
    with naming_faults(video, 0):
        for left in (*video.parent.glob(f".{video.name}.part"), *video.parent.glob(f".{video.stem}.json.*.tmp")):
            left.unlink(missing_ok=True)
