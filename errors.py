"""What can go wrong because of the user's input, the data or the machine, and the exit code each kind ends in."""

import difflib
from collections.abc import Iterable


class LongreelError(Exception):
    """A fault the user can mend. Its text says what was wrong, what was expected and what to do.

    The command line prints the text without a traceback and ends with ``exit_code``.
    """

    exit_code = 2


class ManifestError(LongreelError):
    """A manifest that cannot be used; names file, line and column."""


class StoreMismatch(LongreelError):
    """A store that was made in another way than the one asked for, or lacks what is needed."""


class RunMismatch(LongreelError):
    """A run folder that belongs to another configuration, or runs that cannot be compared."""


class ForeignRefused(LongreelError):
    """A file that others made and that is not read; names the file and the object in it."""


class InUse(LongreelError):
    """Another process is writing to the same folder."""


class StoreInUse(InUse):
    """Another process is writing to the same slice of a store."""

    exit_code = 4


class StoreDamaged(LongreelError):
    """Bytes of a store are not what was written."""

    exit_code = 4


class EnvironmentFault(LongreelError):
    """The machine does not allow what is needed: disk full, no permission, a package or weights missing."""

    exit_code = 5


def unknown(kind: str, name: str, known: Iterable[str]) -> LongreelError:
    """The error for a name that is not among the known ones, with the nearest of them.

    >>> print(unknown("head", "nonlinar", ["nonlinear"]))
    no head called 'nonlinar'. Did you mean 'nonlinear'? There are: nonlinear.
    """
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return LongreelError(f"no {kind} called {name!r}.{hint} There are: {', '.join(known)}.")
