"""CPU milliseconds and memory of forward passes on one thread: the figures of docs/backbones.md.

python benchmarks/forward_speed.py ../shared/data/weights/mobilenet_v2_1.0_224 ../shared/data/videos/manifest_all9.csv

Random weights, but for the folder's own: its rows in bfloat16 are compared with those in float32, on frames of the
manifest's clips. Every line is a process of its own.
"""

import resource
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor
from torch.nn import functional as F

from longreel.extract import Backbone, Sampling, load_backbone
from longreel.extract.backbones import shifting
from longreel.extract.backbones.frozen import prepare
from longreel.extract.workers import DecodeSettings, DecodeTask, Frames, decode_clips
from longreel.manifest import read_manifest

SIDE = 224
CLIP = 150  #: frames of the clip that goes through the temporal shift.
CLIPS = 24  #: of which one frame is looked at in bfloat16.
MODELS: dict[str, Callable[[], Any]] = {
    "MobileNetV2": lambda: transformers.MobileNetV2Model(transformers.MobileNetV2Config()),
    "ResNet-50": lambda: transformers.ResNetModel(transformers.ResNetConfig()),
    "ResNet-101": lambda: transformers.ResNetModel(transformers.ResNetConfig(depths=[3, 4, 23, 3])),
    "TSM ResNet-50": lambda: transformers.ResNetModel(transformers.ResNetConfig.from_dict({"temporal_shift": 8})),
    "VideoMAE-B": lambda: transformers.VideoMAEModel(transformers.VideoMAEConfig(num_hidden_layers=3)),
    "ViT-B": lambda: transformers.ViTModel(transformers.ViTConfig(num_hidden_layers=2)),
}


def make(name: str, precision: torch.dtype = torch.float32) -> Any:
    """A model with random weights in the form that extraction computes with."""
    torch.manual_seed(0)
    model = MODELS[name]()
    prepare(model, model.config.model_type, torch.device("cpu"), precision)
    return model.to(precision)


def measure(forward: Callable[[], object], frames: int, passes: int) -> str:
    """CPU time a frame, the best of some passes, and by how much the process's peak memory grew."""
    before, found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, []
    with torch.inference_mode():
        for _ in range(passes):
            begun = time.process_time()
            forward()
            found.append(time.process_time() - begun)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return f"{1000 * min(found) / frames:8.1f} ms a frame, {grown / 2**20:5.2f} GiB"


def published(name: str) -> str:
    """An image model as transformers makes it, with the batch norms for layers of their own."""
    torch.manual_seed(0)
    model = MODELS[name]().eval().to(memory_format=torch.channels_last)
    return measure(partial(model, pixels(8)), 8, 6)


def folded(name: str) -> str:
    """The same as extraction computes it."""
    return measure(partial(make(name), pixels(8)), 8, 6)


def shifted(frames_at_once: int) -> str:
    """A clip through the temporal shift, so many frames at once in each layer."""
    shifting.CHUNKS["cpu"] = frames_at_once
    inputs = {"pixel_values": pixels(CLIP)[None]}
    return measure(partial(shifting.shifted_rows, make("TSM ResNet-50"), inputs), CLIP, 2)


def unshifted() -> str:
    """The same clip through the ResNet without shift, 8 frames at a time."""
    model = make("ResNet-50")
    return measure(lambda: [model(part) for part in pixels(CLIP).split(8)], CLIP, 2)


def windows(count: int) -> str:
    """Windows of 16 frames together through three layers of VideoMAE-B."""
    clips = torch.randn(count, 16, 3, SIDE, SIDE)
    return measure(partial(make("VideoMAE-B"), clips), 16 * count, 4)


def transformer(precision: torch.dtype) -> str:
    """Two layers of ViT-B."""
    return measure(partial(make("ViT-B", precision), pixels(8).to(precision)), 8, 4)


def cosines(folder: Path, manifest: Path) -> str:
    """How near the rows of a folder's model come in bfloat16 to those in float32: one frame of some clips."""
    full, half = (load_backbone(str(folder), precision=precision) for precision in ("float32", "bfloat16"))
    table = read_manifest(manifest)
    clips = table.clips[:: len(table.clips) // CLIPS][:CLIPS]
    tasks = [DecodeTask(clip.clip_id, str(table.root / clip.path), clip.start, clip.end) for clip in clips]
    settings = DecodeSettings(Sampling(frames=1), full.preprocessing, window=1)
    frames = [event.frames for event in decode_clips(tasks, settings, 1) if isinstance(event, Frames)]
    batches = [np.stack(frames[begin : begin + 8]) for begin in range(0, len(frames), 8)]

    def rows(backbone: Backbone) -> Tensor:
        return torch.from_numpy(np.concatenate([backbone(batch) for batch in batches]).reshape(len(frames), -1))

    found = F.cosine_similarity(rows(full), rows(half))
    return f"cosine {found.mean():.3f} on average, {found.min():.3f} at worst, {len(frames)} frames"


def pixels(frames: int) -> Tensor:
    """``(frames, 3, 224, 224)``, the channels last in memory."""
    return torch.randn(frames, 3, SIDE, SIDE).to(memory_format=torch.channels_last)


def lines(folder: Path, manifest: Path) -> Iterator[tuple[str, Callable[[], str]]]:
    """What is measured, and how."""
    for name in ("MobileNetV2", "ResNet-50", "ResNet-101"):
        yield f"{name}, as published", partial(published, name)
        yield f"{name}, folded", partial(folded, name)
    yield "TSM ResNet-50, 8 frames at a time", partial(shifted, 8)
    yield f"TSM ResNet-50, {CLIP} at once in each layer", partial(shifted, CLIP)
    yield "ResNet-50 without shift, 8 at a time", unshifted
    for count in (1, 2, 4):
        yield f"VideoMAE-B, 3 layers, windows: {count}", partial(windows, count)
    yield "ViT-B, 2 layers, float32", partial(transformer, torch.float32)
    yield "ViT-B, 2 layers, bfloat16", partial(transformer, torch.bfloat16)
    yield f"{folder.name}, bfloat16 to float32", partial(cosines, folder, manifest)


def main() -> None:
    """One line after another, each in a new process with one thread."""
    for name, work in lines(*map(Path, sys.argv[1:])):
        with ProcessPoolExecutor(1, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
            print(f"{name:45}{pool.submit(work).result()}", flush=True)


if __name__ == "__main__":
    main()
