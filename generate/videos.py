"""Prompts to videos: each clip once, whole or not at all, the same in whatever order and on however many machines."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import EnvironmentFault, LongreelError
from ..provenance import describe_environment
from ..slices import WHOLE, Slice
from .clips import Prompt, make_seed, read_prompts
from .ledger import Failure, append_failure, read_failures
from .making import Made, Maker
from .sidecars import describe_clip, digest_prompt, publish_clip, read_whole, sweep
from .turns import take_turn

PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "sentencepiece", "ftfy", "numpy", "av")
ERROR_KEPT = 500


@dataclass(frozen=True)
class Group:
    """Neighbouring prompts that are made together, and the ids of those that are wanted."""

    prompts: tuple[Prompt, ...]
    wanted: frozenset[str]


@dataclass(frozen=True)
class VideoPlan:
    """What there is to do for each clip of a slice."""

    groups: list[Group]
    done: int
    failed: list[Failure]  #: before, and left alone.
    changed: int  #: clips that are there, of another prompt, and made anew.
    left: int  #: clips that are not there and that the limit leaves for later.

    @property
    def todo(self) -> int:
        """Clips that will be made."""
        return sum(len(group.wanted) for group in self.groups)

    def describe(self) -> list[str]:
        """What a person wants to know before the work."""
        lines = [f"{self.done} clips are there, {len(self.failed)} failed before, {self.todo} to do"]
        if self.failed:
            lines.append(f"not tried again: {len(self.failed)} clips that failed before; --retry-failed tries them")
        if self.changed:
            lines.append(f"made anew: {self.changed} clips whose prompts have changed")
        if self.left:
            lines.append(f"left for later by --limit: {self.left} clips")
        return lines


@dataclass
class VideoReport:
    """What a call did."""

    made: int = 0
    kept: int = 0
    left: int = 0
    failures: list[Failure] = field(
        default_factory=list
    )  #: of this call and, where they were left alone, earlier ones.

    def summary(self) -> str:
        """One line for a person."""
        later = f", {self.left} left for later" if self.left else ""
        return f"{self.made} made, {self.kept} already there, {len(self.failures)} failed{later}"


def make_videos(
    folder: Path,
    maker: Maker,
    *,
    seed: int = 0,
    part: Slice = WHOLE,
    limit: int | None = None,
    retry_failed: bool = False,
    on_plan: Callable[[VideoPlan], None] = lambda plan: None,
    on_clip: Callable[[str], None] = lambda clip_id: None,
    on_note: Callable[[str], None] = lambda text: None,
) -> VideoReport:
    """Make the videos of a folder's prompts that are not there whole; the same call again goes on.

    A clip's seed is of the run's seed and its id alone, and each clip has a fresh generator. Clips that are made
    together (a batch) differ from clips that are made alone by what floating point loses, so groups are fixed:
    neighbours in ``prompts.jsonl``, whole also when some of them are there already.

    Args:
        folder: With ``prompts.jsonl``. Gets ``videos/<clip_id>``, a sidecar beside each, ``failures.jsonl`` and
            ``videos.json``, the settings that all its clips have in common.
        maker: Makes them; loaded only when there is something to do.
        seed: Of the run.
        part: The slice of the groups that this process makes.
        limit: Clips that are made at most.
        retry_failed: Try again those that failed before.
        on_plan: Called once, before the model is loaded.
        on_clip: Called with each clip that is over and done with.
        on_note: Called with words, such as what was done to save memory.

    Raises:
        ManifestError: When the prompts cannot be used.
        RunMismatch: When the folder's clips are made in another way.
        InUse: When another process works on the slice.
        EnvironmentFault: When the folder cannot be written, or the model not be loaded or used any more.
    """
    prompts = read_prompts(folder)
    settings = {"seed": seed, **maker.settings}
    with take_turn(folder, part, settings):
        plan = plan_videos(folder, prompts, maker.batch, part, limit, retry_failed)
        on_plan(plan)
        report = VideoReport(kept=plan.done, left=plan.left, failures=list(plan.failed))
        if not plan.groups:
            return report
        common = maker.settings | {"run_seed": seed, "licence": maker.licence} | maker.prepare()
        common |= describe_environment(*PACKAGES)
        asked = maker.settings.get("frames")
        attempts = {clip_id: failure.attempts for clip_id, failure in read_failures(folder).items()}
        for prompt, result in _make_groups(maker, plan.groups, seed, on_note):
            if isinstance(result, Made) and len(result.frames) != asked:
                on_note(f"the model made {len(result.frames)} frames of the {asked} asked for; the sidecars have both")
                asked = len(result.frames)  # said once
            error = result if isinstance(result, str) else _keep(folder, prompt, result, common, seed)
            if error is None:
                report.made += 1
            else:
                failure = Failure(prompt.clip_id, error, attempts.get(prompt.clip_id, 0) + 1)
                append_failure(folder, failure)
                report.failures.append(failure)
            on_clip(prompt.clip_id)
    return report


def plan_videos(
    folder: Path, prompts: Sequence[Prompt], batch: int, part: Slice, limit: int | None, retry_failed: bool
) -> VideoPlan:
    """Look at every clip of a slice; what is left unfinished of those that are not there is removed."""
    earlier = {} if retry_failed else read_failures(folder)
    cut = [tuple(prompts[begin : begin + batch]) for begin in range(0, len(prompts), batch)]
    groups, failed, done, changed, left = [], [], 0, 0, 0
    room = len(prompts) if limit is None else limit
    for group in part.of(cut):
        wanted, members = [], []
        for prompt in group:
            found = read_whole(folder, prompt.clip_id)
            there = found is not None and found.get("prompt_sha256") == digest_prompt(prompt.prompt)
            if not there and prompt.clip_id in earlier:
                failed.append(earlier[prompt.clip_id])
                continue
            members.append(prompt)
            if there:
                done += 1
            elif room:
                sweep(folder, prompt.clip_id)
                wanted.append(prompt.clip_id)
                room, changed = room - 1, changed + (found is not None)
            else:
                left += 1
        if wanted:
            groups.append(Group(tuple(members), frozenset(wanted)))
    return VideoPlan(groups, done, failed, changed, left)


def _make_groups(
    maker: Maker, groups: Sequence[Group], seed: int, on_note: Callable[[str], None]
) -> Iterator[tuple[Prompt, Made | str]]:
    """Each clip that is wanted, with what was made of it or why nothing was.

    Out of memory: a smaller batch for the rest of the run, then what the maker can save, then the clip has failed.
    Any other fault of a group: its halves, until the clip that is at fault is alone.
    """
    largest = maker.batch
    for group in groups:
        waiting = deque(_chunks(group.prompts, largest))
        while waiting:
            chunk = waiting.popleft()
            if len(chunk) > largest:
                waiting.extendleft(reversed(_chunks(chunk, largest)))
                continue
            made, error, out_of_memory = _try(maker, chunk, seed)
            if made is not None:
                yield from (
                    (each, clip) for each, clip in zip(chunk, made, strict=True) if each.clip_id in group.wanted
                )
            elif len(chunk) > 1:
                if out_of_memory:
                    largest = len(chunk) // 2
                    on_note(f"out of memory: {largest} clips at once from now on")
                waiting.extendleft(reversed(_chunks(chunk, len(chunk) // 2)))
            elif out_of_memory and (saved := maker.save_memory()):
                on_note(f"out of memory: {saved} from now on")
                waiting.appendleft(chunk)
            elif chunk[0].clip_id in group.wanted:
                yield chunk[0], error


def _try(maker: Maker, prompts: Sequence[Prompt], seed: int) -> tuple[list[Made] | None, str, bool]:
    """What was made, or why nothing was and whether memory is the reason. No error is kept: it would keep memory."""
    try:
        return maker.make(prompts, [make_seed(seed, prompt.clip_id) for prompt in prompts]), "", False
    except EnvironmentFault:
        raise
    except Exception as error:  # whatever a model fails of, other clips may not fail of
        return None, _words(error), isinstance(error, MemoryError)


def _keep(folder: Path, prompt: Prompt, made: Made, common: dict, seed: int) -> str | None:
    """Write a clip; ``None``, or why it could not be written while others can."""
    try:
        publish_clip(folder, made, describe_clip(prompt, made, common, make_seed(seed, prompt.clip_id)))
    except EnvironmentFault:
        raise
    except Exception as error:  # such as a size that the encoder refuses
        return _words(error)
    return None


def _words(error: Exception) -> str:
    text = " ".join(str(error).split())[:ERROR_KEPT] or "no reason given"
    return text if isinstance(error, LongreelError) else f"{type(error).__name__}: {text}"


def _chunks(prompts: Sequence[Prompt], size: int) -> list[Sequence[Prompt]]:
    return [prompts[begin : begin + size] for begin in range(0, len(prompts), size)]
