"""From a store and its labels to runs: one training, or several side by side."""

import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save

from ..devices import keep_convolutions_exact, naming_full_memory
from ..durable import make_folder, owned, write_bytes, write_json
from ..errors import LongreelError
from ..provenance import describe_environment
from .adjust import adjust_output
from .checkpoint import Progress, on_cpu
from .clips import CPU
from .epochs import open_epochs
from .fit import fit_together, only, to_the_end
from .optimisation import SELECTIONS
from .preparing import Data, Ready, choose, open_data, prepare, read_data
from .runs import HEAD, claim, read_document, write_scores
from .scoring import cut, score_clips
from .settings import TrainSettings
from .training import Course

CHECKPOINT = "checkpoint.safetensors"


@dataclass(frozen=True)
class Trained:
    """What is told of a finished run."""

    folder: Path
    epoch: int  #: the chosen one, counted from 1.
    selection: str
    val: float | None  #: the selected metric on val at that epoch.
    failed: dict[str, int]  #: clips of each split without features: absent from training, scored lowest in val.
    partial: dict[str, int]  #: clips of each split that could be decoded in part only; they are used.


@dataclass(frozen=True)
class Member:
    """One of several runs that are trained side by side."""

    folder: Path
    settings: TrainSettings
    keep_epochs: bool = False  #: whether the folder ``epochs`` keeps the head of each epoch that could be chosen.


def train_run(
    folder: Path,
    settings: TrainSettings,
    on_epoch: Callable[[dict], None] = lambda row: None,
    *,
    place: str = "auto",
    device: torch.device = CPU,
    on_data: Callable[[str], None] = lambda place: None,
    keep_epochs: bool = False,
) -> Trained:
    """Train a head on a store. The same call goes on where an interrupted one stopped, and ends in the same weights.

    What is given is told of in ``Member`` and ``train_together``.

    Raises:
        RunMismatch: When the folder holds a run of another configuration.
        InUse: When another process is training there.
        StoreMismatch: When clips of the manifest were never extracted.
        LongreelError: When the training diverged, or head and method cannot be used.
    """
    member = Member(folder, settings, keep_epochs)
    return only(train_together([member], to_the_end(on_epoch), place=place, device=device, on_data=on_data))


def train_together(
    members: Sequence[Member],
    on_epoch: Callable[[int, dict], bool] = lambda number, row: True,
    *,
    place: str = "auto",
    device: torch.device = CPU,
    on_data: Callable[[str], None] = lambda place: None,
) -> list[Trained | LongreelError | None]:
    """Train runs of one store and manifest side by side, each in the bits that it would have alone.

    Features are read once for all, and so is every batch that trainings share (``fit_together``).

    Args:
        members: What to train; store, manifest and root are those of the first.
        on_epoch: Called with a member's number and the row of its history behind each of its epochs; where it gives
            false, that member goes no further and its folder keeps a checkpoint at most.
        place: Where features are while they are trained on, as in ``load_clips``; no bit depends on it.
        device: What trains. Clips, frames and mixing are drawn alike on all; bits are those of the device.
        on_data: Called with where features are, ``memory``, ``disk`` or the device, before anything is trained.

    Returns:
        For each member the finished run; or what was wrong with its head or method, or how its training failed; or
        nothing, where it was stopped.

    Raises:
        RunMismatch, InUse, StoreMismatch: As ``train_run``, for any member.
        EnvironmentFault: When a GPU's memory is full.
    """
    keep_convolutions_exact(device)
    outcomes: list[Trained | LongreelError | None] = [None] * len(members)
    given, chosen = open_data(members[0].settings), {}
    for number, member in enumerate(members):
        try:
            chosen[number] = choose(member.settings, given, device)
        except LongreelError as error:
            outcomes[number] = error
    if not chosen:
        return outcomes
    with naming_full_memory(device):
        data = read_data(members[0].settings, given, place, device, {each.scale for each in chosen.values()})
        ready = {}
        for number, each in chosen.items():
            try:
                ready[number] = prepare(members[number].settings, each, data)
            except LongreelError as error:
                outcomes[number] = error
        with ExitStack() as locks:
            for number, each in ready.items():
                folder = members[number].folder
                make_folder(folder)
                locks.enter_context(owned(folder / ".lock", str(folder)))
                claim(folder, each.config)
            left = {n: each for n, each in ready.items() if not (members[n].folder / "result.json").exists()}
            if left:
                on_data(data.train.place)
            for number, progress in _train(members, left, data, on_epoch).items():
                ended = isinstance(progress, Progress)
                outcomes[number] = _end(members[number], left[number], data, progress) if ended else progress
            for number in ready.keys() - left.keys():
                outcomes[number] = _read_finished(members[number].folder)
    return outcomes


def _train(
    members: Sequence[Member], ready: dict[int, Ready], data: Data, on_epoch: Callable[[int, dict], bool]
) -> dict[int, Progress | LongreelError | None]:
    """Train those that can be trained, and let the others remember what they are compared with."""
    trained = [number for number, each in ready.items() if each.head.trainable]
    courses = []
    for number in trained:
        member, each = members[number], ready[number]
        checkpoint = member.folder / CHECKPOINT
        kept = open_epochs(member.folder, wanted=member.keep_epochs, begun=checkpoint.exists())
        courses.append(Course(each.head, each.method, member.settings.fit, checkpoint, kept, each.learnt.trusted))
    outcomes = fit_together(
        courses, data.counts, data.train, data.val, lambda place, row: on_epoch(trained[place], row)
    )
    found: dict[int, Progress | LongreelError | None] = dict(zip(trained, outcomes, strict=True))
    for number in ready.keys() - found.keys():
        found[number] = _remember(ready[number], data, members[number].settings)
    return found


@torch.no_grad()
def _remember(ready: Ready, data: Data, settings: TrainSettings) -> Progress:
    """What a head that is not trained does in place of it: it takes the training clips as they are."""
    began, head, train, frames = time.monotonic(), ready.head.eval(), data.train, settings.fit.test_frames
    seen = torch.arange(len(train)) if ready.learnt.clips is None else ready.learnt.clips
    batches = [seen[part] for part in cut(train, frames, len(seen))]
    clips = torch.cat([head.aggregate(*batch) for batch in train.batches(batches, frames)])
    head.remember(clips, train.targets[seen].to(clips.device))
    return Progress(seconds=time.monotonic() - began)


def _end(member: Member, ready: Ready, data: Data, progress: Progress) -> Trained | LongreelError:
    """Adjust the head as the method has it, and write the run."""
    try:
        adjust_output(ready.head, ready.method.adjustment, data.counts.to(data.train.device))
    except LongreelError as error:
        return error
    _finish(member, ready, data, progress)
    return _read_finished(member.folder)


def _finish(member: Member, ready: Ready, data: Data, progress: Progress) -> None:
    """Write the run's files; ``result.json`` comes last and marks the run as finished."""
    folder, fit, train, val = member.folder, member.settings.fit, data.train, data.val
    write_bytes(folder / HEAD, save(on_cpu(ready.head.state_dict())))
    value = None
    if val is not None:
        scores, targets = val.with_failed(score_clips(ready.head, val, fit.test_frames))
        value = SELECTIONS[fit.select](scores, targets)
        write_scores(folder / "scores-val.safetensors", scores, val.all_ids)
    write_json(folder / "history.json", progress.history)
    environment = describe_environment("torch", "numpy", "safetensors", "h5py")
    spent = {"training_seconds": round(progress.seconds, 3), "finished": time.strftime("%FT%T%z")}
    write_json(folder / "provenance.json", environment | spent)
    chosen = f"best val {fit.select}" if val is not None else "last epoch (no val split)"
    result = {
        "epoch": progress.best_epoch,
        "selection": chosen if ready.head.trainable else "not trained",
        "val": value,
        "failed": {"train": len(train.failed), "val": len(val.failed) if val else 0},
        "partial": {"train": train.partial, "val": val.partial if val else 0},
    }
    write_json(folder / "result.json", result)


def _read_finished(folder: Path) -> Trained:
    """A finished run, rid of what only an unfinished one needs."""
    for left in (folder / CHECKPOINT, *folder.glob(".*.tmp")):
        left.unlink(missing_ok=True)
    return Trained(folder, **read_document(folder / "result.json"))
