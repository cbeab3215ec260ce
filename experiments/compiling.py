"""Heads compiled for their training: the same products in fewer and larger calls."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from ..errors import EnvironmentFault, LongreelError
from ..heads import SKELETON_HEADS, Standardised

VARIANTS = 1024  #: of a head's code at a time: shapes, stages, and the different heads that are trained side by side.


class Compiled:
    """What a mixer needs of a head, through ``torch.compile``, with the weights and buffers of the head itself.

    Each shape of a batch is compiled by itself, and heads that differ in their weights alone share what was compiled.
    On a GPU the launches of a shape are recorded once and then replayed, as CUDA graphs. Sums are taken in another
    order than without it, and dropout draws other numbers.

    Args:
        head: On its device; none of skeletons.

    Raises:
        EnvironmentFault: When called for the first time where it cannot be compiled.
    """

    def __init__(self, head: Standardised) -> None:
        device = next(head.parameters()).device
        mode = "default" if device.type == "cpu" else "reduce-overhead"
        self.branches = head.branches
        self._aggregate = torch.compile(head.aggregate, dynamic=False, fullgraph=True, mode=mode)
        self._classify = torch.compile(head.classify, dynamic=False, fullgraph=True, mode=mode)

    def begin_step(self) -> None:
        """What earlier steps gave is no longer needed, so its memory may be used again."""
        torch.compiler.cudagraph_mark_step_begin()

    def aggregate(self, frames: Tensor, mask: Tensor | None = None) -> Tensor:
        """As the head's."""
        return _naming_faults(self._aggregate, frames, mask)

    def classify(self, clips: Tensor) -> Tensor:
        """As the head's."""
        return _naming_faults(self._classify, clips)


def _naming_faults(call: Callable[..., Tensor], *arguments: Tensor | None) -> Tensor:
    from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException

    try:
        return call(*arguments)
    except (FailOnRecompileLimitHit, TorchDynamoException) as error:
        reason = str(error).strip().partition("\n")[0]
        raise EnvironmentFault(
            f"compiled: the head cannot be compiled here ({reason}). It takes a C++ compiler, g++ or what CXX names, "
            f"and on a GPU triton. Or train without compiling."
        ) from error


@contextmanager
def compiling(wanted: bool) -> Iterator[None]:
    """Where heads are compiled, if wanted: more variants than torch has by itself, the same ones in every run.

    In the end all is forgotten, with the memory of recorded launches; torch's cache on disk keeps what was compiled.
    """
    if not wanted:
        yield
        return
    from torch._dynamo import config as limits
    from torch._inductor import config as choices

    # Behind the usual eight variants torch would go on uncompiled, without a word in the result; and on a GPU it would
    # choose by what is fastest at the time.
    most = {"recompile_limit": VARIANTS, "accumulated_recompile_limit": VARIANTS, "fail_on_recompile_limit_hit": True}
    with limits.patch(most), choices.patch(deterministic=True):
        try:
            yield
        finally:
            torch.compiler.reset()


def check_compilable(text: str) -> None:
    """Refuse a head whose shapes follow from the numbers in a batch, or that is not trained.

    Raises:
        LongreelError: With the head.
    """
    name = text.partition(":")[0]
    if name in SKELETON_HEADS or name == "knn":
        raise LongreelError(f"compiled: {name} is not made for it. Train it without compiling.")
