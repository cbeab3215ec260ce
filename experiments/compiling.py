"""Heads compiled for their training: the same products in fewer and larger calls."""

import importlib.util
import os
import shutil

import torch

from ..errors import EnvironmentFault
from ..heads import Standardised

VARIANTS = 1024  #: of a head's code in one process: shapes, stages, and the heads that are trained side by side.


class Compiled:
    """What a mixer needs of a head, through ``torch.compile``, with the weights and buffers of the head itself.

    Each shape of a batch is compiled by itself, and heads that differ in their weights alone share what was compiled.
    On a GPU the launches of a shape are recorded once and then replayed, as CUDA graphs. Sums are taken in another
    order than without it, and dropout may draw other numbers.

    Args:
        head: On its device.
    """

    def __init__(self, head: Standardised) -> None:
        device = next(head.parameters()).device
        mode = "default" if device.type == "cpu" else "reduce-overhead"
        self.branches, self.layout = head.branches, head.layout
        self.aggregate = torch.compile(head.aggregate, dynamic=False, mode=mode)
        self.classify = torch.compile(head.classify, dynamic=False, mode=mode)
        # Behind the usual eight variants torch would go on uncompiled, without a word in the result.
        torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit = VARIANTS
        torch._dynamo.config.fail_on_recompile_limit_hit = True


def check_compiler(device: torch.device) -> None:
    """Refuse a machine on which heads cannot be compiled.

    Raises:
        EnvironmentFault: With what is missing.
    """
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        raise EnvironmentFault(
            f"compiled: there is no {compiler}. Install a C++ compiler, name yours in CXX, or train without compiling."
        )
    if device.type == "cuda" and importlib.util.find_spec("triton") is None:
        raise EnvironmentFault("compiled: there is no package triton. Install it, or train without compiling.")
