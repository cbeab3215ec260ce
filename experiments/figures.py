"""What all figures have in common: their look, and SVG of the same bytes for the same numbers."""

import io
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ..errors import EnvironmentFault

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: the font comes with matplotlib, so that letters are as wide everywhere.
LOOK: Any = {"svg.hashsalt": "longreel", "font.family": "DejaVu Sans", "font.size": 9}
GREY, INK = "#b0b0b0", "#333333"


def is_installed(name: str) -> bool:
    """Whether a package can be imported."""
    return find_spec(name) is not None


def check_installed(what: str, *names: str, extra: str) -> None:
    """Refuse to begin what could not be ended.

    Raises:
        EnvironmentFault: When a package is missing.
    """
    for name in names:
        if not is_installed(name):
            raise EnvironmentFault(f"{what} needs {name}, which is not installed. Run: pip install 'longreel[{extra}]'")


def plain(text: str) -> str:
    """Text that matplotlib takes for no formula."""
    return text.replace("$", r"\$")


def as_svg(figure: "Figure") -> bytes:
    """The figure without a date or a program's name in it."""
    out = io.BytesIO()
    figure.savefig(out, format="svg", facecolor="white", metadata={"Date": None, "Creator": None})
    return out.getvalue()
