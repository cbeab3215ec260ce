"""In what precision a training computes its products."""

from contextlib import AbstractContextManager, nullcontext

import torch

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def usual_precision(device: torch.device) -> str:
    """What a training computes its products in if nobody says: ``bfloat16`` on a GPU that is made for it."""
    fast = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if fast else "float32"


def products_in(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """What a forward pass runs under; weights and their updates, vectors of clips and losses stay in float32."""
    dtype = PRECISIONS[precision]
    return nullcontext() if dtype is torch.float32 else torch.autocast(device.type, dtype=dtype)
