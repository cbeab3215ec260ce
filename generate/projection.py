"""A picture of real and generated clips: t-SNE of their features as a scatter, in plain SVG of the same bytes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .figure import GENERATED, INK, REAL, clean

AT_MOST = 2000  #: clips in a picture; more are neither seen nor quickly placed.
AT_LEAST = 10
WIDTH_BEFORE = 50  #: principal components that t-SNE sees, as its authors do.
PERPLEXITY = 30.0
#: a colour a class; more classes than that nobody tells apart.
COLOURS: tuple[str, ...] = (
    "#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#5d3a9b", "#8c564b", "#b3a100", "#888888",
)  # fmt: skip
SIDE, MARGIN, TOP, LEGEND = 680, 20, 56, 240
LETTERS = 30


@dataclass(frozen=True)
class Point:
    """One clip of the picture."""

    x: float
    y: float
    clip_id: str
    label: str
    generated: bool


def draw_sample(strata: Sequence[object], at_most: int, seed: int) -> NDArray[np.int64]:
    """Places of at most so many, in order: evenly from all strata, and whole strata where they are small.

    Rare classes are thus seen beside common ones; how many clips a class has is not.
    """
    order = np.random.default_rng(seed).permutation(len(strata))
    members: dict[object, list[int]] = {}
    for place in order.tolist():
        members.setdefault(strata[place], []).append(place)
    chosen: list[int] = []
    for done, places in enumerate(sorted(members.values(), key=len)):
        chosen += places[: (at_most - len(chosen)) // (len(members) - done)]
    return np.array(sorted(chosen), dtype=np.int64)


def project(rows: NDArray[np.floating], seed: int) -> NDArray[np.float64]:
    """Places in the plane, ``(N, D)`` -> ``(N, 2)``, for at least 10 finite rows.

    Reference:
        van der Maaten and Hinton, "Visualizing Data using t-SNE", JMLR 2008, by scikit-learn: 50 principal components,
        perplexity 30 or a third of the clips. It begins with the first two components, so that the picture as a whole
        is not left to chance.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    components = _principal(rows)
    start = components[:, :2] if components.shape[1] > 1 else np.zeros((len(rows), 2))
    spread = float(start[:, 0].std())
    jitter = np.random.default_rng(seed).standard_normal(start.shape)  # keeps equal clips from one and the same point
    start = 1e-4 * (start / spread if spread > 0 else jitter) + 1e-7 * jitter
    perplexity = min(PERPLEXITY, (len(rows) - 1) / 3)
    begin: Any = start.astype(np.float32)  # scikit-learn's types know of names alone
    place = TSNE(2, perplexity=perplexity, init=begin, random_state=seed)
    with threadpool_limits(1):  # the same picture on however many cores
        return place.fit_transform(components.astype(np.float32)).astype(np.float64)


def _principal(rows: NDArray[np.floating]) -> NDArray[np.float64]:
    """``(N, D)`` -> ``(N, at most 50)``, centred, the first components first; their signs are settled."""
    centred = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    left, sizes, _ = np.linalg.svd(centred, full_matrices=False)
    components = (left * sizes)[:, :WIDTH_BEFORE]
    largest = np.abs(components).argmax(axis=0)
    return components * np.where(components[largest, np.arange(components.shape[1])] < 0, -1.0, 1.0)


def draw_points(points: Sequence[Point], title: str) -> str:
    """The points as an SVG document; the same points give the same text.

    Circles are real clips, crosses generated ones. Colours are classes, up to ten, else real and generated.
    """
    classes = sorted({point.label for point in points})
    colours = dict(zip(classes, COLOURS, strict=False)) if len(classes) <= len(COLOURS) else {}
    width, height = SIDE + LEGEND, TOP + SIDE + MARGIN
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        f'font-size="13" fill="{INK}">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{MARGIN}" y="26" font-size="16">{clean(title, 100)}</text>',
        f'<text x="{MARGIN}" y="44" fill="#666666">near means alike; distances between far groups and the axes mean '
        f"nothing</text>",
        f'<rect x="{MARGIN}" y="{TOP}" width="{SIDE - MARGIN}" height="{SIDE}" fill="none" stroke="#dddddd"/>',
    ]
    shown = sorted(zip(points, _places(points), strict=True), key=lambda pair: pair[0].generated)  # generated on top
    for point, (x, y) in shown:
        colour = colours.get(point.label) or (GENERATED if point.generated else REAL)
        lines.append(_mark(x, y, colour, point.generated, f"{clean(point.clip_id, 200)}: {clean(point.label, 200)}"))
    return "\n".join([*lines, *_legend(points, colours), "</svg>", ""])


def _places(points: Sequence[Point]) -> NDArray[np.float64]:
    """``(N, 2)`` in the frame: one scale for both axes, in the middle."""
    spots = np.array([(point.x, -point.y) for point in points]).reshape(-1, 2)
    low, high = spots.min(axis=0), spots.max(axis=0)
    room = np.array([SIDE - MARGIN, SIDE]) - 24.0
    scale = (room / np.maximum(high - low, 1e-9)).min()
    middle = np.array([MARGIN + (SIDE - MARGIN) / 2, TOP + SIDE / 2])
    return middle + scale * (spots - (low + high) / 2)


def _mark(x: float, y: float, colour: str, generated: bool, tip: str = "") -> str:
    title = f"<title>{tip}</title>" if tip else ""
    if generated:
        corners = f"M{x - 3.5:.1f} {y - 3.5:.1f}l7 7m0-7l-7 7"
        return f'<path d="{corners}" stroke="{colour}" stroke-width="1.6" fill="none">{title}</path>'
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.6" fill="{colour}" fill-opacity="0.55">{title}</circle>'


def _legend(points: Sequence[Point], colours: dict[str, str]) -> Iterator[str]:
    x, y = SIDE + MARGIN, TOP + 16
    made = sum(point.generated for point in points)
    for generated, words in ((False, f"real, train: {len(points) - made}"), (True, f"generated: {made}")):
        colour = INK if colours else GENERATED if generated else REAL
        yield _mark(x, y - 4.5, colour, generated)
        yield f'<text x="{x + 12}" y="{y}">{words}</text>'
        y += 20
    for label, colour in colours.items():
        y += 20
        yield f'<rect x="{x - 5}" y="{y - 10}" width="10" height="10" fill="{colour}"/>'
        yield f'<text x="{x + 12}" y="{y}">{clean(label, LETTERS)}</text>'
