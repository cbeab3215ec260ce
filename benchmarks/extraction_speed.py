"""How near an extraction comes to the machine's limit: its wall time against the CPU seconds of its parts.

python benchmarks/extraction_speed.py MANIFEST BACKBONE build/extraction-speed --frames 8

The limit is (CPU seconds of decoding alone + CPU seconds of the forward pass alone) / cores, all in one run.
Start-up is the time from the start of a process to its first decoded frame, less that of a process which imports torch
and `transformers.modeling_utils`, which every model of transformers needs, alone.
"""

import argparse
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from longreel.extract import Backbone, Sampling, extract_clips, load_backbone
from longreel.extract.forward import ClipRows, Forward
from longreel.extract.workers import DecodeSettings, DecodeTask, Frames, decode_clips
from longreel.manifest import Manifest, read_manifest

CORES = len(os.sched_getaffinity(0))


def measured(work: Callable[[], None]) -> tuple[float, float]:
    """Wall seconds, and CPU seconds of this process and of its children that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    wall, spent = time.perf_counter(), sum(usage.ru_utime + usage.ru_stime for usage in usages)
    work()
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return time.perf_counter() - wall, sum(usage.ru_utime + usage.ru_stime for usage in usages) - spent


def decode_alone(manifest: Manifest, backbone: Backbone, sampling: Sampling) -> int:
    """Decode and resize every clip as an extraction does; how many windows there are."""
    tasks = [DecodeTask(clip.clip_id, str(manifest.root / clip.path), clip.start, clip.end) for clip in manifest.clips]
    settings = DecodeSettings(sampling, backbone.preprocessing, window=backbone.window)
    events = decode_clips(tasks, settings, CORES)
    return sum(-(-len(event.frames) // backbone.window) for event in events if isinstance(event, Frames))


def forward_alone(backbone: Backbone, windows: int) -> None:
    """The same number of windows through the backbone."""
    size = backbone.preprocessing
    noise = np.random.default_rng(0).integers(0, 256, (backbone.window, size.height, size.width, 3), dtype=np.uint8)
    with Forward(backbone, CORES) as forward:
        rows = ClipRows()
        for _ in range(windows):
            forward.add(rows, noise)
        forward.finish()


def start_up(manifest: Path, backbone: str) -> float:
    """Seconds to the first frame of a new process, less those of the heavy imports; the least of three."""
    first = (
        "import sys, time; from pathlib import Path; from longreel.extract import load_backbone, started_workers\n"
        "from longreel.extract.workers import DecodeSettings, DecodeTask, decode_clips\n"
        "from longreel.manifest import read_manifest\n"
        "clips = read_manifest(Path(sys.argv[1]))\n"
        "with started_workers(1) as started:\n"
        "    model = load_backbone(sys.argv[2])\n"
        "    settings = DecodeSettings(model.sampling, model.preprocessing, window=model.window)\n"
        "    task = DecodeTask('', str(clips.root / clips.clips[0].path))\n"
        "    next(decode_clips([task], settings, 1, started)); print(time.time())"
    )
    imports = "import time, torch, transformers.modeling_utils; print(time.time())"
    least = [float("inf"), float("inf")]
    for _ in range(3):
        for place, code in enumerate((first, imports)):
            begun, command = time.time(), [sys.executable, "-c", code, str(manifest), backbone]
            reached = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            least[place] = min(least[place], float(reached) - begun)
    return least[0] - least[1]


def main(manifest_path: Path, backbone_name: str, store: Path, frames: int | None, every: int) -> None:
    """Measure the parts, the whole, and print their ratio."""
    shutil.rmtree(store, ignore_errors=True)
    manifest, backbone = read_manifest(manifest_path), load_backbone(backbone_name)
    manifest = replace(manifest, clips=manifest.clips[::every])
    sampling = Sampling(frames=frames) if frames else backbone.sampling
    counted: list[int] = []
    wall_decode, decode = measured(lambda: counted.append(decode_alone(manifest, backbone, sampling)))
    wall_forward, forward = measured(lambda: forward_alone(backbone, counted[0]))
    wall, spent = measured(lambda: print(extract_clips(manifest, store, backbone, sampling=sampling).summary()))
    limit = (decode + forward) / CORES
    print(f"decoding alone    {decode:6.1f} CPU s, {wall_decode:6.1f} s on {CORES} cores")
    print(f"forward alone     {forward:6.1f} CPU s, {wall_forward:6.1f} s on {CORES} cores, {counted[0]} windows")
    print(f"extraction        {spent:6.1f} CPU s, {wall:6.1f} s")
    print(f"wall / limit      {wall / limit:6.2f}")
    print(f"start-up          {start_up(manifest_path, backbone_name):6.2f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("backbone")
    parser.add_argument("store", type=Path)
    parser.add_argument("--frames", type=int)
    parser.add_argument("--every", type=int, default=1, help="take every nth clip")
    given = parser.parse_args()
    main(given.manifest, given.backbone, given.store, given.frames, given.every)
