"""``motion``: a fixed spatio-temporal descriptor of short windows of frames. No weights, no network, no randomness.

References:
    Adelson & Bergen, "Spatiotemporal energy models for the perception of motion", JOSA A 2(2), 1985: motion as energy
    that is oriented in space-time, opposite directions apart.
    Horn & Schunck, "Determining optical flow", 1981: the brightness constraint ``Ix u + Iy v + It = 0``, whose part
    along the gradient is the normal flow.
    Dalal & Triggs, "Histograms of oriented gradients for human detection", CVPR 2005, and Dalal, Triggs & Schmid,
    "Human detection using oriented histograms of flow and appearance", ECCV 2006: gradients and motion boundaries.
    Perronnin et al., "Improving the Fisher kernel", ECCV 2010: signed square root, then L2, per block.
    Differs from them: derivatives of two neighbouring frames stand for Gabor quadrature pairs, half-wave cosine lobes
    stand for hard histogram bins, and a motion boundary is a gradient of ``|It|``, so that no flow is solved for.
"""

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from ..preprocessing import Preprocessing
from ..sampling import Sampling

GRID = 4  #: cells down and across.
DIRECTIONS = 8  #: lobes around the full circle, 45 degrees apart; number 0 is rightwards, number 2 downwards.
NORM_FLOOR = 0.05  #: keeps the noise of an almost empty block from being blown up to unit length.
GRADIENT_FLOOR = 1e-3  #: grey levels are in [0, 1]: a gradient this small has no direction worth trusting.
FLOW_FLOOR = 4e-3  #: as squared gradient: flat places, where flow is undefined, go to zero; no flow exceeds 8 pixels.

# Luma (BT.601), red against green, yellow against blue, from bytes.
OPPONENT = torch.tensor([[0.299, 0.587, 0.114], [1.0, -1.0, 0.0], [0.5, 0.5, -1.0]]) / 255
ANGLES = [2 * math.pi * k / DIRECTIONS for k in range(DIRECTIONS)]
COMPASS = torch.tensor([[math.cos(a), math.sin(a)] for a in ANGLES])  #: ``(DIRECTIONS, 2)``


class Motion:
    """Colour, oriented gradients, motion energy at two scales, normal flow and motion boundaries on a 4 x 4 grid.

    Each block is square-rooted and scaled to length ``sqrt(block width)``, so entries are around one and never above
    12: safe in float16. Windows are computed one by one, in one fixed shape.

    Shape:
        - windows: ``(1, 4, 48, 48, 3)`` uint8 RGB.
        - output: ``(1, D)`` float32.
    """

    name = "motion"
    weights = "built in, version 2"
    embedding = "descriptor"
    precision = "float32"
    device = "cpu"
    dim = GRID * GRID * (6 + 5 * DIRECTIONS)
    window = 4
    reach: int | None = None
    batch = 1
    sampling = Sampling(fps=6.0)  # a row is two thirds of a second
    preprocessing = Preprocessing(height=48, width=48)
    normalisation = "none"

    def __call__(self, windows: np.ndarray) -> np.ndarray:
        """The row of a window; shapes are in the class docstring."""
        with torch.inference_mode():
            return describe(torch.from_numpy(windows[0])).numpy()[None]


def describe(window: Tensor) -> Tensor:
    """``(T, H, W, 3)`` uint8 -> ``(D,)``: one row, all blocks of one window, each normalised by itself."""
    planes = opponent(window)  # (3, T, H, W)
    luma = planes[0]
    still = gradients(luma)  # (2, T, H, W)
    change, between = luma[1:] - luma[:-1], (still[:, 1:] + still[:, :-1]) / 2  # (T-1, H, W), (2, T-1, H, W)
    fields = (
        doubled(still[:, ::2]),  # shape changes slowly: every other frame says as much
        energy(change, between),
        coarse_energy(luma),
        normal_flow(change, between),
        doubled(gradients(change.abs())),
    )
    histograms = torch.stack([lobes(field) for field in fields])  # (5, DIRECTIONS * cells)
    return torch.cat([normalised(colour(planes)[None]).flatten(), normalised(histograms).flatten()])


def opponent(window: Tensor) -> Tensor:
    """``(T, H, W, 3)`` uint8 -> ``(3, T, H, W)`` float: luma in [0, 1], red-green, yellow-blue."""
    rgb = window.reshape(-1, 3).float()  # (T*H*W, 3)
    return (OPPONENT @ rgb.T).reshape(3, *window.shape[:3])


def colour(planes: Tensor) -> Tensor:
    """``(3, T, H, W)`` -> ``(6 * cells,)``: mean, then standard deviation over a cell's pixels in space and time."""
    mean, square = cells(torch.cat([planes, planes.square()])).chunk(2)  # (3, cells) each
    return torch.cat([mean, (square - mean.square()).clamp_(min=0).sqrt()]).flatten()


def gradients(image: Tensor) -> Tensor:
    """``(T, H, W)`` -> ``(2, T, H, W)``: central differences to the right and down; zero on the two border lines."""
    field = image.new_zeros(2, *image.shape)
    torch.sub(image[:, :, 2:], image[:, :, :-2], out=field[0, :, :, 1:-1])
    torch.sub(image[:, 2:], image[:, :-2], out=field[1, :, 1:-1])
    return field.mul_(0.5)


def doubled(field: Tensor) -> Tensor:
    """``(2, T, H, W)`` vectors with their angle doubled and length kept: opposite gradients are one orientation."""
    xx, yy = field.square()
    length = (xx + yy).sqrt_().add_(GRADIENT_FLOOR)
    return torch.stack([xx - yy, 2 * field[0] * field[1]]).div_(length)


def energy(change: Tensor, gradient: Tensor) -> Tensor:
    """``(T, H, W)``, ``(2, T, H, W)`` -> ``-It * grad I``, the opponent motion energy of derivative filters.

    A pattern moving right at v pixels a frame has ``-It * Ix = v * Ix^2 > 0``. Zero where nothing changes.
    """
    return gradient * -change


def coarse_energy(luma: Tensor) -> Tensor:
    """:func:`energy` of frames at half the size: twice as fast a motion before it aliases."""
    rows = luma[:, ::2] + luma[:, 1::2]  # (T, H/2, W)
    half = (rows[:, :, ::2] + rows[:, :, 1::2]).div_(4)  # (T, H/2, W/2)
    return energy(half[1:] - half[:-1], gradients((half[1:] + half[:-1]) / 2))


def normal_flow(change: Tensor, gradient: Tensor) -> Tensor:
    """``(T, H, W)``, ``(2, T, H, W)`` -> motion along the gradient, in pixels a frame: energy over ``|grad I|^2``."""
    return energy(change, gradient).div_(gradient.square().sum(0).add_(FLOW_FLOOR))


def lobes(field: Tensor) -> Tensor:
    """``(2, T, H, W)`` -> ``(DIRECTIONS * cells,)``: mean half-wave projection on each direction."""
    along = (COMPASS @ field.flatten(1)).clamp_(min=0)  # (DIRECTIONS, T*H*W)
    return cells(along.unflatten(1, field.shape[1:])).flatten()


def cells(planes: Tensor) -> Tensor:
    """``(N, T, H, W)`` -> ``(N, GRID * GRID)``: each cell's mean over space and time, row by row."""
    # Products with thin matrices: several times faster than a strided mean.
    strips = (averaging(planes.shape[2]).T @ planes).mean(1)  # (N, GRID, W)
    return (strips @ averaging(planes.shape[3])).flatten(1)


@lru_cache
def averaging(size: int) -> Tensor:
    """``(size, GRID)``: the matrix that takes ``size`` pixels to the means of GRID equal runs of them."""
    return torch.eye(GRID).repeat_interleave(size // GRID, dim=0) * (GRID / size)


def normalised(blocks: Tensor) -> Tensor:
    """``(K, N)`` -> ``(K, N)``: signed square root, then each row to length ``sqrt(N)`` (shorter if almost empty)."""
    root = blocks.sign() * blocks.abs().sqrt()
    return root * (math.sqrt(root.shape[1]) / (root.norm(dim=1, keepdim=True) + NORM_FLOOR))
