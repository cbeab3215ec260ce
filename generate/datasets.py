"""Whole data sets side by side: how mixed their classes are, and how far generated clips lie from real ones."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.floating]
BLOCK = 2048  #: rows and columns of a kernel matrix that are in memory at a time.
AT_MOST = 10_000  #: clips of a side; the cost of kernels is its square.
HALVINGS = 5


def davies_bouldin(clips: Rows, labels: Sequence[str]) -> float | None:
    """Davies-Bouldin score of clips ``(B, D)`` under their classes; ``None`` where it is not defined.

    Reference:
        Davies and Bouldin, "A Cluster Separation Measure", IEEE TPAMI 1979, as scikit-learn has it.
        Of clusters less is better. Here classes are given and not found, and more means that they are more mixed:
        Li et al. (arXiv:2505.19495, table 8) read it as the complexity of a data set.
    """
    from sklearn.metrics import davies_bouldin_score

    if not 2 <= len(set(labels)) < len(labels):
        return None
    return float(davies_bouldin_score(clips, labels))


def discrepancy(left: Rows, right: Rows) -> dict[str, float]:
    """Squared maximum mean discrepancy of two sets of clips, under three kernels.

    ``linear`` is ``|mean x - mean y|^2``; ``rbf`` has the kernel ``exp(-|x - y|^2)``, ``poly`` has ``(x . y)^2``.
    The estimate is the biased one, a mean over all pairs with each clip paired with itself too, so that it is above 0
    for two halves of one data set, and the more so the fewer clips there are.

    Reference:
        Gretton et al., "A Kernel Method for the Two-Sample Problem", NeurIPS 2006. Kernels are those that agree with
        Li et al. (arXiv:2505.19495, table 8), who give none: for rows of length 1 whose cosines are all near ``c``,
        rbf / linear is ``2 exp(-2 (1 - c))`` and poly / linear is ``2 c``.

    Shape:
        - left: ``(N, D)``, right: ``(M, D)``, of length 1; N and M at least 1. No ``(N, M)`` is ever in memory.
    """
    left, right = left.astype(np.float64), right.astype(np.float64)
    difference = left.mean(axis=0) - right.mean(axis=0)  # (D,)
    # The mean of (x . y)^2 over all pairs is the inner product of the second moments, each (D, D).
    moments = left.T @ left / len(left) - right.T @ right / len(right)
    return {
        "linear": float(difference @ difference),
        "rbf": rbf_mean(left, left) + rbf_mean(right, right) - 2 * rbf_mean(left, right),
        "poly": float(np.square(moments).sum()),
    }


def rbf_mean(left: Rows, right: Rows, block: int = BLOCK) -> float:
    """The mean of ``exp(-|x - y|^2)`` over all pairs of ``(N, D)`` and ``(M, D)``, block by block.

    The products are in single precision, whose error is far below what a hundred thousand clips can tell; sums are
    in double.
    """
    left, right = left.astype(np.float32), right.astype(np.float32)
    squares = [np.einsum("nd,nd->n", rows, rows) for rows in (left, right)]
    total = 0.0
    for i in range(0, len(left), block):
        for j in range(0, len(right), block):
            exponents = 2.0 * (left[i : i + block] @ right[j : j + block].T)
            exponents -= squares[0][i : i + block, None]
            exponents -= squares[1][None, j : j + block]
            np.exp(np.minimum(exponents, 0.0, out=exponents), out=exponents)
            total += float(exponents.sum(dtype=np.float64))
    return total / (len(left) * len(right))


def compare_sets(real: Rows, generated: Rows, seed: int) -> dict:
    """The discrepancy of real and generated clips beside what it is between two halves of the real ones.

    The halves are fewer, which alone makes the figure larger, so as many clips of either side are also compared
    with one another. Of more than 10 000 clips of a side, as many are drawn.

    Returns:
        ``real_generated`` with ``n``; ``halves`` and ``same_n``, means over five draws of ``n`` against ``n`` clips;
        ``None`` for each that there are too few clips for.
    """
    drawn = np.random.default_rng(seed)
    real, generated = _draw(real, AT_MOST, drawn), _draw(generated, AT_MOST, drawn)
    n = min(len(real) // 2, len(generated))
    whole = None
    if len(real) and len(generated):
        whole = discrepancy(real, generated) | {"n": [len(real), len(generated)]}
    if n < 1:
        return {"real_generated": whole, "halves": None, "same_n": None}
    halves, others = [], []
    for _ in range(HALVINGS):
        order = drawn.permutation(len(real))
        halves.append(discrepancy(real[order[:n]], real[order[n : 2 * n]]))
        others.append(discrepancy(real[order[:n]], _draw(generated, n, drawn)))
    return {
        "real_generated": whole,
        "halves": _mean(halves) | {"n": [n, n]},
        "same_n": _mean(others) | {"n": [n, n]},
    }


def _draw(rows: Rows, most: int, drawn: np.random.Generator) -> Rows:
    if len(rows) <= most:
        return rows
    return rows[np.sort(drawn.choice(len(rows), most, replace=False))]


def _mean(found: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: float(np.mean([one[name] for one in found])) for name in found[0]}
