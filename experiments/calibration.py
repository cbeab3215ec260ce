"""How far a run's probabilities can be believed: calibration error and Brier score, overall and by group.

Axis letters: N clips, C classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, softmax

from ..balance import LOSSES
from ..balance.margins import Ldam
from ..balance.reweighting import ClassBalanced
from ..parts import build_part
from .metrics import hits_at
from .precision import Bools, Floats, checked

BINS = 15  #: of equal width, as in Guo et al.
FORMS = {"ce": "softmax", "bce": "sigmoid"}
#: loss -> what makes probabilities of its logits; ``form``: what the loss's option of that name says.
LINKS = {
    "ce": "softmax",
    "bce": "sigmoid",
    "focal": "sigmoid",
    "class-balanced": "form",
    "action-aware": "softmax",
    "ldam": "form",
    "eql": "sigmoid",
    "softmax-eql": "softmax",
    "balanced-softmax": "softmax",
    "logit-adjusted": "softmax",
}
_ROWS_AT_ONCE = 2048  # bounds the working memory
_CERTAIN = 1e300  # in place of a logit of +inf


@dataclass(frozen=True)
class Link:
    """What makes probabilities of logits."""

    name: str  #: ``softmax`` over the classes, or a ``sigmoid`` for each.
    scale: float = 1.0  #: what the loss multiplies the logits with.


@dataclass(frozen=True)
class Figures:
    """The calibration of all classes, or of one group of them. A figure that cannot be computed is NaN."""

    ece: float  #: Expected calibration error, 0 to 1.
    brier: float  #: Brier score: 0 to 2 for the classes of a clip together, 0 to 1 for each pair of clip and class.
    positives: int  #: Labels in the group.


@dataclass(frozen=True)
class Calibration:
    """What :func:`calibrate` finds."""

    link: Link
    multi_label: bool
    failed: int  #: Clips that are ``-inf`` throughout: of probability 0 in all classes.
    overall: Figures
    groups: dict[str, Figures]


def link_of(method: Mapping | None) -> Link | None:
    """By what the loss of a run's method takes its logits for probabilities; its stages agree on that.

    ``None`` for a loss that ``LINKS`` does not have.

    It is the loss without what it does about the long tail: neither prior nor margin has a part in the probabilities,
    as neither has one in the scores. LDAM's scale has.

    Args:
        method: As ``config.json`` has it; ``None`` for a checkpoint of VideoLT's or MOVE's code, whose released losses
            have one sigmoid a class.
    """
    if method is None:
        return Link("sigmoid")
    text = method["stages"][-1]["loss"]
    loss = build_part("loss", LOSSES, text)
    link = LINKS.get(text.partition(":")[0])
    if isinstance(loss, Ldam | ClassBalanced):
        link = FORMS[loss.form]
    if link is None:
        return None
    return Link(link, loss.scale if isinstance(loss, Ldam) else 1.0)


def make_probabilities(logits: ArrayLike, link: Link) -> Floats:
    """Probabilities ``(N, C)`` of logits ``(N, C)``; 0 in a row that is ``-inf`` throughout."""
    values = np.asarray(logits, dtype=np.float64)
    failed = np.isneginf(values).all(axis=1, keepdims=True)
    values = np.minimum(np.where(failed, 0.0, values * link.scale), _CERTAIN)
    return np.where(failed, 0.0, softmax(values, axis=1) if link.name == "softmax" else expit(values))


def calibrate(
    logits: ArrayLike, targets: ArrayLike, groups: Mapping[str, Sequence[int]], link: Link, *, multi_label: bool
) -> Calibration:
    """Expected calibration error and Brier score.

    Where each clip has one label, the error is that of the highest probability: in each of 15 bins of equal width,
    open below, how far the mean of it lies from the share of clips whose top class is right (ties as in
    :func:`hits_at`), weighted by the bin's clips. The Brier score is the mean over clips of the squared differences
    between the probabilities of all classes and the label, summed. A group has the clips with a label in it, as its
    ``acc1`` has: chosen by the truth, so that a model that is right on average over all clips need not be in a group;
    its error there says by how much the group's clips are believed too much or too little.

    Where clips have several labels, each pair of a clip and one of the group's classes counts: its probability against
    whether the clip has the label, in the same bins, and the mean squared difference. Nearly all pairs are negatives,
    so that both figures are of the order of the share of positives: read them beside ``positives``, and compare them
    within one group alone. After a softmax, the labels of a clip share its one probability, which counts as an error.

    A clip that failed has probability 0 in every class. With one label it adds 1 to the sum of the Brier score and
    nothing to that of the error, as what is not believed at all is never right; ``failed`` counts these clips.

    Reference:
        Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, eq. (3), arXiv:1706.04599. Brier,
        "Verification of forecasts expressed in terms of probability", Monthly Weather Review 1950, eq. (2).

    Args:
        logits: ``(N, C)``; a row of ``-inf`` for a clip that could not be decoded.
        targets: ``(N, C)`` bool.
        groups: Class indices by group name.
        link: From :func:`link_of`.
        multi_label: Whether clips may have several labels, which one split alone does not tell.

    Raises:
        ValueError: For NaN logits, unequal shapes, or targets that are not bool.
    """
    values, truth = checked(logits, targets)
    everything = list(range(values.shape[1]))
    measure = _measure_pairs if multi_label else _measure_clips
    overall, *found = measure(values, truth, [everything, *groups.values()], link)
    failed = int(np.isneginf(values).all(axis=1).sum())
    return Calibration(link, multi_label, failed, overall, dict(zip(groups, found, strict=True)))


def plain_calibration(calibration: Calibration) -> dict[str, object]:
    """Plain values for a JSON file; NaN becomes ``None``."""
    return {
        "probabilities": calibration.link.name,
        "scale": calibration.link.scale,
        "of": "each class" if calibration.multi_label else "top class",
        "bins": BINS,
        "failed": calibration.failed,
        "overall": _plain(calibration.overall),
        "groups": {name: _plain(figures) for name, figures in calibration.groups.items()},
    }


def _plain(figures: Figures) -> dict[str, float | int | None]:
    return {name: None if np.isnan(value) else value for name, value in asdict(figures).items()}


def _measure_clips(values: NDArray, truth: Bools, groups: Sequence[Sequence[int]], link: Link) -> list[Figures]:
    """The figures of each group, of the top class of each clip."""
    right = hits_at(values, truth, 1)
    tops, squares = np.zeros(len(values)), np.zeros(len(values))  # (N,) each
    for rows in _blocks(len(values)):
        probabilities = make_probabilities(values[rows], link)
        tops[rows] = probabilities.max(axis=1)
        squares[rows] = ((probabilities - truth[rows]) ** 2).sum(axis=1)
    bins, found = _bins_of(tops), []
    for ids in groups:
        mine = truth[:, ids].any(axis=1)
        gaps = np.bincount(bins[mine], tops[mine] - right[mine], BINS).astype(np.float64)  # whole where empty
        found.append(_figures(gaps, squares[mine].sum(), mine.sum(), truth[:, ids].sum()))
    return found


def _measure_pairs(values: NDArray, truth: Bools, groups: Sequence[Sequence[int]], link: Link) -> list[Figures]:
    """The figures of each group, of every pair of a clip and one of its classes."""
    clips, classes = values.shape
    gaps, squares = np.zeros((classes, BINS)), np.zeros(classes)
    for rows in _blocks(clips):
        probabilities = make_probabilities(values[rows], link)
        differences = probabilities - truth[rows]
        places = _bins_of(probabilities) + BINS * np.arange(classes)
        gaps += np.bincount(places.ravel(), differences.ravel(), gaps.size).reshape(gaps.shape)
        squares += (differences**2).sum(axis=0)
    positives = truth.sum(axis=0)
    return [
        _figures(gaps[ids].sum(axis=0), squares[ids].sum(), clips * len(ids), positives[ids].sum())
        for ids in map(list, groups)
    ]


def _figures(gaps: Floats, squares: float, entries: int, positives: int) -> Figures:
    """Figures of so many entries: the sum of probability minus truth in each bin ``(15,)``, and of their squares."""
    if entries == 0:
        return Figures(np.nan, np.nan, int(positives))
    return Figures(float(np.abs(gaps).sum() / entries), float(squares / entries), int(positives))


def _bins_of(probabilities: Floats) -> NDArray[np.int64]:
    """Each one's bin, which holds its upper end; 0 lies in the first."""
    return np.maximum(np.ceil(probabilities * BINS).astype(np.int64) - 1, 0)


def _blocks(rows: int) -> list[slice]:
    return [slice(start, start + _ROWS_AT_ONCE) for start in range(0, rows, _ROWS_AT_ONCE)]
