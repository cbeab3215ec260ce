"""CPU seconds of one step, forward and backward, of every trainable head: the cost table of docs/heads.md.

python benchmarks/heads_speed.py --repeats 5
"""

import argparse
import statistics
import time

import torch
from torch import Tensor, nn

from longreel.heads import HEADS, build_head
from longreel.heads.classifiers import TwoLayerClassifier

CLIPS, FRAMES, WIDTH, CLASSES = 32, 60, 2048, 200


class ProjectedAttention(nn.Module):
    """What `psa` computes, but that every frame's key and value are projected, as PyTorch's attention does."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(WIDTH, 4, bias=False, batch_first=True)
        self.classifier = TwoLayerClassifier(WIDTH, CLASSES)

    def forward(self, frames: Tensor, mask: Tensor) -> Tensor:
        query = frames.mean(dim=1, keepdim=True)
        found, _ = self.attention(query, frames, frames, key_padding_mask=~mask)
        return self.classifier((query + found).squeeze(1))


def build(name: str) -> nn.Module:
    """A head for raw features."""
    return build_head(name, WIDTH, CLASSES, torch.zeros(WIDTH), torch.ones(WIDTH))


def step_seconds(head: nn.Module, repeats: int) -> float:
    """Median CPU seconds of some steps, the first left out."""
    head.train()
    frames, mask = torch.randn(CLIPS, FRAMES, WIDTH), torch.ones(CLIPS, FRAMES, dtype=torch.bool)
    found = []
    for _ in range(repeats + 1):
        head.zero_grad(set_to_none=True)
        begun = time.process_time()
        head(frames, mask).square().mean().backward()
        found.append(time.process_time() - begun)
    return statistics.median(found[1:])


def main() -> None:
    """Print a line for each head."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    for name in HEADS:
        if name != "knn":
            print(f"{name:32}{1000 * step_seconds(build(name), repeats):7.0f} ms", flush=True)
    print(f"{'psa, every frame projected':32}{1000 * step_seconds(ProjectedAttention(), repeats):7.0f} ms")


if __name__ == "__main__":
    main()
