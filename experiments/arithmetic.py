"""In what precision a training computes its products."""

from contextlib import AbstractContextManager, nullcontext

import torch

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
#: kind of device -> what a training computes its products in if nobody says; on others float32. What is learnt in
#: bfloat16 differs by less than from one seed to the next (docs/benchmarks.md).
USUAL = {"cuda": "bfloat16"}


def products_in(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """What a forward pass runs under; weights, sums, normalisations and losses stay in float32."""
    dtype = PRECISIONS[precision]
    return nullcontext() if dtype is torch.float32 else torch.autocast(device.type, dtype=dtype)
