"""Models that are published: a revision pinned by its full commit hash, fetched once."""

import re
from collections.abc import Sequence
from pathlib import Path

from .errors import EnvironmentFault, LongreelError


def fetch_revision(name: str, wanted: Sequence[str], unwanted: Sequence[str] = ()) -> Path:
    """The local folder of ``owner/model@commit``, fetched from the hub once.

    Args:
        name: As given.
        wanted: Patterns of the files that are fetched.
        unwanted: Patterns of those that are not, even so.

    Raises:
        LongreelError: When the revision is not a full commit hash: a branch may change under what was made with it.
        EnvironmentFault: When it cannot be fetched.
    """
    repository, _, revision = name.rpartition("@")
    if not re.fullmatch(r"[0-9a-f]{40}", revision):
        raise LongreelError(f"{name}: {revision!r} is not a commit. Pin one: owner/model@<40 hex digits>.")
    from huggingface_hub import snapshot_download

    kept, left = list(wanted), list(unwanted)
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=kept, ignore_patterns=left))
    except Exception as error:  # the hub client raises many kinds, all of them mean: not to be had
        reason = " ".join(str(error).split())[:300]
        raise EnvironmentFault(
            f"{name}: cannot be fetched ({reason}). Check the network, or give a local folder."
        ) from error
