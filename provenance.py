"""Which versions made a result, and on which machine: kept beside it, but no part of what makes results comparable."""

import contextlib
import platform
from importlib.metadata import PackageNotFoundError, version

from . import __version__


def describe_environment(*packages: str) -> dict:
    """Versions of longreel, Python and those of the named packages that are installed, and the machine."""
    versions = {"longreel": __version__}
    for package in packages:
        with contextlib.suppress(PackageNotFoundError):
            versions[package] = version(package)
    return {
        "versions": versions,
        "python": platform.python_version(),
        "machine": platform.platform(),
    }
