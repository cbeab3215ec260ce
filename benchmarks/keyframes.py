"""CPU seconds to sample a long clip, with and without keyframes, by each decoder: the figures of docs/benchmarks.md.

python benchmarks/keyframes.py build/keyframes

The clip is that of benchmarks/long_clip.py: 720p at 30 frames a second. Each line is the least of some rounds, each
round in a process of its own: opening the file, listing its packets and decoding; nothing is resized.
"""

import argparse
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

from long_clip import write_clip

from longreel.extract import Sampling
from longreel.extract.decoders import DECODERS, Frame, decode_frames
from longreel.extract.video import choose_frames, open_video

SAMPLINGS = {
    "--fps 1": Sampling(fps=1),
    "--fps 1 --keyframes": Sampling(fps=1, keyframes=True),
    "--fps 0.1": Sampling(fps=0.1),
    "--fps 0.1 --keyframes": Sampling(fps=0.1, keyframes=True),
}


def sample(clip: Path, sampling: Sampling, decoder: str) -> tuple[float, int]:
    """CPU seconds of the process, and how many frames there were."""
    next(decode(clip, Sampling(frames=1), decoder))  # loads the decoder
    begun = time.process_time()
    frames = sum(1 for _ in decode(clip, sampling, decoder))
    return time.process_time() - begun, frames


def decode(clip: Path, sampling: Sampling, decoder: str) -> Iterator[Frame]:
    """Yield the frames that the sampling wants."""
    video = open_video(str(clip))
    with video.file:
        yield from decode_frames(video, decoder, choose_frames(video, sampling, None, None).frames)


def describe(clip: Path) -> str:
    """How many frames there are, and how far apart the keyframes lie."""
    video = open_video(str(clip))
    video.file.close()
    apart = video.duration / len(video.keyframes)
    return f"{len(video.seconds)} frames, {len(video.keyframes)} keyframes, one every {apart:.1f} s on average"


def in_a_process(clip: Path, sampling: Sampling, decoder: str) -> tuple[float, int]:
    """The same in a new process."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(sample, clip, sampling, decoder).result()


def main(folder: Path, minutes: int, rounds: int) -> None:
    """Write the clip if it is missing, and print a line for each sampling."""
    folder.mkdir(parents=True, exist_ok=True)
    clip = folder / f"{minutes}min.mp4"
    if not clip.exists():
        write_clip(clip, minutes)
    print(describe(clip))
    for name, sampling in SAMPLINGS.items():
        cells = []
        for decoder in DECODERS:
            found = [in_a_process(clip, sampling, decoder) for _ in range(rounds)]
            seconds, frames = min(found)
            cells.append(f"{decoder} {seconds:5.1f} CPU s ({max(found)[0]:.1f} at most), {frames} frames")
        print(f"{name:24}{'; '.join(cells)}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=int, default=6)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    main(given.folder, given.minutes, given.rounds)
