"""Products whose sides are multiples of eight numbers, as tensor cores want them in half precision."""

from collections import Counter

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from longreel.heads import build_head

aten = torch.ops.aten
CLIPS, FRAMES, DIM, CLASSES = 128, 60, 2048, 1004  #: a batch of VideoLT's clips.


class Products(TorchDispatchMode):
    """Counts what products of each shape take."""

    def __init__(self) -> None:
        super().__init__()
        self.work: Counter[tuple[int, int, int]] = Counter()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if operation.overloadpacket in (aten.mm, aten.bmm, aten.addmm, aten.baddbmm):
            left, right = args[-2:]
            shape = (left.shape[-2], left.shape[-1], right.shape[-1])
            self.work[shape] += 2 * left[..., 0].numel() * shape[1] * shape[2]
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize("head", ["nonlinear", "netvlad", "netvlad-gated", "msa", "aggregated"])
def test_channels_are_multiples_of_eight_but_in_a_sliver_of_the_work(head):
    """Tensors without numbers: shapes alone are asked for. A clip's 60 frames are no channels; what is left are above
    all the 1004 classes. PSA is left out: the classes take a tenth of what little it does.
    """
    with FakeTensorMode(), torch.autocast("cpu", dtype=torch.bfloat16), Products() as products:
        made = build_head(head, DIM, CLASSES, torch.zeros(DIM), torch.ones(DIM)).train()
        rows, mask = torch.empty(CLIPS, FRAMES, DIM), torch.ones(CLIPS, FRAMES, dtype=torch.bool)
        made(rows, mask).sum().backward()
    odd = {shape: work for shape, work in products.work.items() if any(side % 8 for side in shape if side != FRAMES)}
    assert any(CLASSES in shape for shape in odd)
    assert sum(odd.values()) < 0.02 * products.work.total()
