"""How near two clips are by their rows, and from where on that is nearer than different clips are."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..generate.neighbours import SAME, Floats

FEWEST = 20  #: pairs below which nothing is said of what is normal.
FALSE_PAIRS = 0.05  #: of different clips that are to be expected among all that are looked at.
BULK = (0.1, 0.5)  #: quantiles of the angles between which their distribution is read off.


@dataclass(frozen=True)
class Nearness:
    """From which cosine of the rows on two clips are near duplicates."""

    cosine: float | None  #: ``None``: none was given, and there is too little to learn it from.
    rule: str
    n: int = 0  #: pairs inside the splits that it was learnt from.


def compare_rows(one: Floats, other: Floats) -> float:
    """How near the rows of the shorter clip are to rows of the other: the mean of their best cosines.

    So a cut, a slower copy and one with fewer frames are near, and the order of the rows does not count.

    Shape:
        - one: ``(T, D)``, other: ``(T', D)``, rows of length 1.
        - output: a number in [-1, 1]; NaN where a clip has no rows.
    """
    if len(one) > len(other):
        one, other = other, one
    if len(one) == 0:
        return math.nan
    return float(np.clip((one @ other.T).max(axis=1).mean(dtype=np.float64), -1.0, 1.0))


def learn_nearness(cosines: Sequence[float], looked_at: int) -> Nearness:
    """The cosine above which different clips are not to be expected, learnt from clips and their nearest in a split.

    Nearest angles of points in m dimensions are below t with a probability in proportion to ``t ** m``, for small t.
    Their 10th and 50th percentile give m, and the law is followed down to where one pair in twenty examinations would
    be a false one. The smallest angles themselves are not asked, as they may be those of near copies inside the splits;
    where a few in a hundred clips have one, the threshold becomes stricter, not blind. A cosine of 0.9999 is near in
    any case, and such pairs are not learnt from.

    Args:
        cosines: Of ``compare_rows``, ``(N,)``; NaN are left out.
        looked_at: Pairs that the threshold shall be for.
    """
    angles = np.arccos([cosine for cosine in cosines if cosine < SAME])
    if len(angles) < FEWEST:
        return Nearness(None, f"none: {len(angles)} pairs of clips are too few to learn from", len(angles))
    low, middle = np.quantile(angles, BULK)
    angle = 0.0
    if low < middle:
        power = math.log(BULK[1] / BULK[0]) / math.log(middle / low)
        rate = min(BULK[0], FALSE_PAIRS / max(looked_at, 1))
        angle = low * (rate / BULK[0]) ** (1.0 / power)
    if angle < math.acos(SAME):
        rule = f"near in any case; {len(angles)} pairs inside the splits would ask for more, so look at each"
        return Nearness(SAME, rule, len(angles))
    rule = (
        f"so that {FALSE_PAIRS:g} different pairs of {looked_at} would pass, by {len(angles)} pairs inside the splits"
    )
    return Nearness(math.cos(angle), rule, len(angles))
