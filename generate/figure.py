"""The picture of a plan: a bar for each class, its real clips below and the generated ones above, as plain SVG."""

import math
import re
from xml.sax.saxutils import escape

from .plan import ClassPlan, Plan

WIDTH, HEIGHT = 960, 460
LEFT, RIGHT, TOP, BOTTOM = 70, 20, 50, 130
REAL, GENERATED, INK = "#4c72b0", "#dd8452", "#333333"
NAMED = 110  #: so many classes at most have their names below the axis.
LETTERS, LETTERS_OF_TIP = 22, 200
#: what XML 1.0 cannot hold, not even escaped.
NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def draw_plan(plan: Plan) -> str:
    """The plan's classes, the richest first, as an SVG document; the same plan gives the same text."""
    classes = sorted(plan.classes, key=lambda each: (-each.real, each.label))
    top = _ceiling(max([each.total for each in classes], default=0))
    step = (WIDTH - LEFT - RIGHT) / max(len(classes), 1)
    title = f"{plan.real} real training clips, {plan.generated} generated: every class has at least {plan.fill}"
    named = len(classes) <= NAMED
    height = HEIGHT if named else HEIGHT - BOTTOM + 40
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        f'font-size="11" fill="{INK}">',
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        f'<text x="{LEFT}" y="20" font-size="14">{title}</text>',
        *_legend(),
        *_axis(top),
        *(line for place, each in enumerate(classes) for line in _bar(each, LEFT + place * step, step, top)),
    ]
    if named:
        lines += [_name(each.label, LEFT + (place + 0.5) * step, step) for place, each in enumerate(classes)]
    below = f"{len(classes)} classes, by their real training clips"
    lines.append(f'<text x="{(LEFT + WIDTH - RIGHT) / 2:g}" y="{height - 8}" text-anchor="middle">{below}</text>')
    return "\n".join([*lines, "</svg>", ""])


def _legend() -> list[str]:
    pairs = ((REAL, "real", LEFT), (GENERATED, "generated", LEFT + 60))
    return [
        f'<rect x="{x}" y="30" width="10" height="10" fill="{colour}"/><text x="{x + 14}" y="39">{words}</text>'
        for colour, words, x in pairs
    ]


def _axis(top: int) -> list[str]:
    """The axis of clips with five lines across."""
    lines = []
    for part in range(6):
        y = _height(top * part / 5, top)
        lines.append(f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="#dddddd"/>')
        lines.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{round(top * part / 5)}</text>')
    middle = (TOP + HEIGHT - BOTTOM) / 2
    turned = f'transform="rotate(-90 16 {middle:g})"'
    return [*lines, f'<text x="16" y="{middle:g}" text-anchor="middle" {turned}>training clips</text>']


def _bar(each: ClassPlan, x: float, step: float, top: int) -> list[str]:
    tip = f"{clean(each.label, LETTERS_OF_TIP)}: {each.real} real, {each.generated} generated"
    width, base = step if step < 3 else 0.85 * step, _height(0, top)
    x += (step - width) / 2
    lines = [f"<g><title>{tip}</title>"]
    for colour, low, high in ((REAL, 0, each.real), (GENERATED, each.real, each.total)):
        if high > low:
            y, height = _height(high, top), _height(low, top) - _height(high, top)
            lines.append(f'<rect x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}" fill="{colour}"/>')
    return [*lines, f'<path d="M{x:.2f} {base:.1f}h{width:.2f}" stroke="{INK}"/></g>']


def _name(label: str, x: float, step: float) -> str:
    y, words = HEIGHT - BOTTOM + 8, clean(label, LETTERS)
    look = f'font-size="{min(11, 0.9 * step):.1f}" text-anchor="end" transform="rotate(-65 {x:.2f} {y})"'
    return f'<text x="{x:.2f}" y="{y}" {look}>{words}</text>'


def _height(clips: float, top: int) -> float:
    return HEIGHT - BOTTOM - clips / top * (HEIGHT - BOTTOM - TOP)


def _ceiling(most: int) -> int:
    """The end of the axis: 5, 10, 20, 25, 50, ... which five steps divide into round numbers."""
    for power in range(math.floor(math.log10(max(most, 1))), 12):
        for lead in (1, 1.5, 2, 2.5, 3, 4, 5, 6, 8):
            if (end := lead * 10**power) >= max(most, 5) and end % 5 == 0:
                return int(end)
    return most


def clean(text: str, most: int) -> str:
    """Text that is no markup, cut to so many letters."""
    short = text if len(text) <= most else text[: most - 1] + "…"
    return escape(NO_XML.sub("\N{REPLACEMENT CHARACTER}", short), {'"': "&quot;"})
