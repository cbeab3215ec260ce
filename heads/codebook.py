"""Centres of feature rows by k-means, for codebooks that begin with them."""

import math

import torch
from torch import Tensor

from ..errors import LongreelError

ITERATIONS = 25
CONTRAST = 100.0  #: of a row's largest share to its second (Arandjelovic et al., CVPR 2016).
TOO_ALIKE = 1e-4  #: of the rows' variance.


def cluster_rows(rows: Tensor, clusters: int, seed: int) -> Tensor:
    """k-means centres ``(K, D)`` of rows ``(N, D)``, by FAISS; the same bits for the same rows and seed.

    Raises:
        LongreelError: When there are fewer rows than clusters.
    """
    if len(rows) < clusters:
        raise LongreelError(f"codebook=kmeans: {len(rows)} training rows are too few for {clusters} clusters.")
    import faiss  # slow to load, and rarely needed

    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)  # so that the order of sums is always the same
    try:
        # FAISS would warn of few rows for each centre, and leave out rows where there are many.
        limits = {"min_points_per_centroid": 1, "max_points_per_centroid": len(rows)}
        kmeans = faiss.Kmeans(rows.shape[1], clusters, niter=ITERATIONS, seed=seed % 2**31, **limits)
        kmeans.train(rows.float().cpu().numpy())
    finally:
        faiss.omp_set_num_threads(threads)
    return torch.from_numpy(kmeans.centroids).to(rows)


def sharpness(rows: Tensor, centres: Tensor) -> float:
    """The ``alpha`` for which ``softmax_k(-alpha |x - c_k|^2)`` has the contrast, as a geometric mean over the rows.

    Raises:
        LongreelError: When the rows are so alike that no centre is nearer than another.
    """
    rows, centres = rows.double(), centres.double()
    nearest = torch.cdist(rows, centres).square().topk(2, dim=1, largest=False).values  # (N, 2)
    gap, spread = float((nearest[:, 1] - nearest[:, 0]).mean()), float(rows.var(dim=0, correction=0).sum())
    if (rows == rows[0]).all() or gap <= TOO_ALIKE * spread:
        raise LongreelError("codebook=kmeans: the training rows are too alike for so many clusters. Take fewer.")
    return math.log(CONTRAST) / gap
