"""A clip to be generated: its id, its prompt, and a seed that nothing but the run's seed and the id decide.

Clip ``i`` of a class is the same clip however many are asked for, in whatever order and on however many machines.
"""

import hashlib
import json
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from ..errors import ManifestError

PROMPTS = "prompts.jsonl"  #: of a folder of generated clips: one ``Prompt`` a line, only ever appended to.
NAME_LETTERS = 40
MOST_CLIPS = 100_000  #: of a class, so that the order of ids is that of indices.


@dataclass(frozen=True)
class Prompt:
    """What one clip shall show."""

    clip_id: str  #: also the video's path below the folder ``videos``.
    label: str  #: class.
    index: int  #: which clip of its class, from 0.
    prompt: str
    origin: dict = field(default_factory=dict)  #: where the prompt is from; ``kind`` is template, file or llm.


def make_clip_id(label: str, index: int) -> str:
    """``jumping_jack-1f0c3a52/00012.mp4``: a name that is safe as a path, and different for different classes.

    >>> make_clip_id("a/b", 3)
    'a_b-c14cddc0/00003.mp4'
    """
    words = re.sub(r"[^A-Za-z0-9]+", "_", label).strip("_")[:NAME_LETTERS]
    digest = hashlib.sha256(label.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{words or 'class'}-{digest}/{index:05d}.mp4"


def make_seed(run_seed: int, clip_id: str) -> int:
    """The clip's own seed, 63 bits, by BLAKE2b of the run's seed and the clip's id."""
    digest = hashlib.blake2b(f"{run_seed}:{clip_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def read_prompts(folder: Path) -> list[Prompt]:
    """The prompts of a folder, as they were appended; a line that a killed writer left unfinished is left out.

    Each has the id that its label and index give, so that no id leads out of the folder, and stands there once.

    Raises:
        ManifestError: When there are none, or a whole line is no such prompt.
    """
    path = folder / PROMPTS
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except OSError as error:
        raise ManifestError(
            f"{path}: cannot be read ({error.strerror}). Make it with `longreel generate prompts`."
        ) from None
    found: dict[str, Prompt] = {}
    for number, line in enumerate(lines, 1):
        if not line.endswith(b"\n"):
            break
        try:
            prompt = _check_prompt(Prompt(**json.loads(line)))
            if prompt.clip_id in found:
                raise ValueError(f"clip {prompt.clip_id} stands there twice")
        except (ValueError, TypeError, RecursionError) as error:
            raise ManifestError(f"{path}:{number}: is no prompt ({error}). Remove the line, or the file.") from None
        found[prompt.clip_id] = prompt
    return list(found.values())


def _check_prompt(prompt: Prompt) -> Prompt:
    if not (isinstance(prompt.label, str) and isinstance(prompt.prompt, str) and isinstance(prompt.origin, dict)):
        raise ValueError("label and prompt are texts, and origin is an object")
    if type(prompt.index) is not int or not 0 <= prompt.index < MOST_CLIPS:
        raise ValueError(f"index is a whole number from 0 to {MOST_CLIPS - 1}")
    if prompt.clip_id != make_clip_id(prompt.label, prompt.index):
        raise ValueError(f"{str(prompt.clip_id)[:80]!r} is not the clip_id of its label and index")
    exemplars = prompt.origin.get("exemplars", [])
    if not isinstance(exemplars, list) or not all(isinstance(each, str) for each in exemplars):
        raise ValueError("exemplars are a list of clip ids")
    return prompt


def write_lines(prompts: Iterable[Prompt]) -> str:
    """The prompts as lines of ``prompts.jsonl``."""
    return "".join(json.dumps(asdict(prompt), ensure_ascii=True) + "\n" for prompt in prompts)
