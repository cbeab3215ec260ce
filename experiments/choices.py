"""Head and balance method of a training, chosen and checked before anything is read or trained."""

import os
from collections.abc import Sequence
from dataclasses import replace

import torch

from ..balance import METHODS, TRUSTS, Method, build_stage, choose_method
from ..errors import LongreelError
from ..generate.plan import read_fill
from ..heads import Standardised, build_head
from ..parts import build_part
from ..store import Spec
from .compiling import check_compilable
from .runs import store_layout
from .settings import TrainSettings
from .stages import lay_out

STATE = 16  #: bytes of a parameter in training: itself, its gradient, and Adam's two moments.


def check_choices(settings: TrainSettings, counts: Sequence[int], spec: Spec) -> Method:
    """The balance method, once it is sure that the head can be made and trained with it.

    Args:
        settings: Of the training.
        counts: Real training clips of each class.
        spec: Of the store.

    Raises:
        LongreelError: When a name, option or combination cannot be used, or the head is too large for this machine.
    """
    if settings.fit.compiled:
        check_compilable(settings.head)
    own = {"loss": settings.loss, "sampler": settings.sampler, "mixer": settings.mixer}
    released = settings.compat == "released"
    method = choose_method(
        settings.balance,
        counts,
        **own,
        adjustment=settings.adjustment,
        released=released,
        curriculum=settings.curriculum,
    )
    lay_out(method, settings.fit.epochs)
    build_part("trust", TRUSTS, settings.trust)
    if settings.fill is not None:
        read_fill(settings.fill, counts)
    with torch.device("meta"):  # shapes alone
        scale = torch.zeros(spec.dim), torch.ones(spec.dim)
        head = build_head(settings.head, spec.dim, len(counts), *scale, store_layout(spec))
    _check_size(settings.head, head)
    if not head.trainable:
        _check_plain(settings, method)
    for stage in method.stages:
        build_stage(stage).mixer.check(head)
    return method


def _check_size(text: str, head: Standardised) -> None:
    needed = STATE * sum(parameter.numel() for parameter in head.parameters())
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > there:
        raise LongreelError(
            f"{text}: takes {needed / 2**30:.0f} GiB to train, and this machine has {there / 2**30:.0f}. "
            f"Give smaller options."
        )


def _check_plain(settings: TrainSettings, method: Method) -> None:
    """Refuse a method of which a head that is not trained would take no notice."""
    given = next(filter(None, (settings.loss, settings.sampler, settings.mixer, settings.adjustment)), None)
    plain = replace(method, stages=tuple(replace(stage, clips="all") for stage in method.stages))
    if given is not None or plain not in (METHODS["ce"], METHODS["bce"]):  # what is trained if nothing is said
        what = given or settings.balance
        raise LongreelError(f"{settings.head} is not trained, so {what} has no part in it. Leave it out.")
