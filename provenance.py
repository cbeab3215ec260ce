"""Which versions made a result, and on which machine: kept beside it, but no part of what makes results comparable."""

import platform
from importlib.metadata import version

from . import __version__


def describe_environment(*packages: str) -> dict:
    """Versions of longreel, Python and the named packages, and the machine."""
    return {
        "versions": {"longreel": __version__} | {name: version(name) for name in packages},
        "python": platform.python_version(),
        "machine": platform.platform(),
    }
