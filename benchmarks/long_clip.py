"""Peak memory of extracting long clips, all processes together: it must not grow with a clip's length.

python benchmarks/long_clip.py BACKBONE build/long-clip --minutes 6 60

Clips are 720p at 30 frames a second, sampled at 1 frame a second. Memory is PSS: shared pages are counted once.
"""

import argparse
import subprocess
import sys
import time
from pathlib import Path

import av
import numpy as np

WIDTH, HEIGHT, FPS = 1280, 720, 30
PIECE_SECONDS = 20


def write_clip(path: Path, minutes: int) -> None:
    """A moving pattern, encoded once for 20 seconds and repeated without encoding it again."""
    piece = path.with_suffix(".piece.mp4")
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    with av.open(str(piece), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "veryfast"})
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(PIECE_SECONDS * FPS):
            wave = 128 + 100 * np.sin((x + 3 * number) / 40) * np.cos((y - 2 * number) / 60)
            pixels = np.stack([wave, wave[::-1], wave[:, ::-1]], axis=2).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    with av.open(str(path), "w") as container:
        target, length = None, 0
        for _ in range(minutes * 60 // PIECE_SECONDS):
            with av.open(str(piece)) as source:
                stream = source.streams.video[0]
                target = target or container.add_stream_from_template(stream)
                for packet in source.demux(stream):
                    if packet.dts is None or packet.pts is None:
                        continue
                    packet.dts, packet.pts, packet.stream = packet.dts + length, packet.pts + length, target
                    container.mux(packet)
                assert stream.duration
                length += stream.duration
    piece.unlink()


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        threads = [int(path.name) for path in Path(f"/proc/{pid}/task").iterdir()]
        children += [c for t in threads if t != pid for c in Path(f"/proc/{pid}/task/{t}/children").read_text().split()]
    except OSError:
        return []
    return [pid, *(member for child in children for member in family(int(child)))]


def pss(pids: list[int]) -> int:
    """Their proportional set size in bytes."""
    total = 0
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


def peak_of(command: list[str]) -> tuple[int, float]:
    """Peak PSS in bytes and wall seconds of a command."""
    begun, peak = time.perf_counter(), 0
    process = subprocess.Popen(command)
    while process.poll() is None:
        peak = max(peak, pss(family(process.pid)))
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"{command} ended with {process.returncode}")
    return peak, time.perf_counter() - begun


def main(backbone: str, folder: Path, minutes: list[int], decoder: str) -> None:
    """Write the clips that are missing, extract each in a process of its own, and print the peaks."""
    folder.mkdir(parents=True, exist_ok=True)
    for length in minutes:
        clip, manifest = folder / f"{length}min.mp4", folder / f"{length}min.csv"
        if not clip.exists():
            write_clip(clip, length)
        manifest.write_text(f"path,label,split\n{clip.name},long,train\n")
        store = folder / f"{length}min-{time.time_ns()}.store"
        command = [sys.executable, "-m", "longreel.cli", "extract", str(manifest), str(store)]
        peak, seconds = peak_of([*command, "--backbone", backbone, "--fps", "1", "--decoder", decoder])
        print(f"{length} minutes: peak {peak / 1e9:.2f} GB, {seconds:.0f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("backbone")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=int, nargs="+", default=[6, 60])
    parser.add_argument("--decoder", default="auto")
    given = parser.parse_args()
    main(given.backbone, given.folder, given.minutes, given.decoder)
