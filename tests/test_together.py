"""Trainings side by side: each ends in the bits that it has alone, and every batch they share is read once."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import contents, settings_of
from test_fit import COUNTS, bits, make_clips

from longreel.balance import METHODS
from longreel.errors import LongreelError
from longreel.experiments.checkpoint import Progress
from longreel.experiments.clips import ClipSet
from longreel.experiments.fit import fit_together
from longreel.experiments.optimisation import FitSettings
from longreel.experiments.train import Member, train_run, train_together
from longreel.experiments.training import Course
from longreel.heads import build_head

pytestmark = pytest.mark.usefixtures("one_thread")

#: what the courses below differ in: head, method, settings.
DIFFERENT: list[tuple[str, str, dict[str, Any]]] = [
    ("nonlinear:hidden=16", "ce", {}),
    ("nonlinear:hidden=16", "ce", {"learning_rate": 0.03, "weight_decay": 0.5}),
    ("nonlinear:hidden=16,dropout=0.1", "framestack", {}),
    ("aggregated:clusters=2,reduced=8,hidden=8", "move", {"precision": "bfloat16"}),
    ("linear", "eql", {"optimiser": "adam"}),
    ("linear", "crt", {"select": "acc1"}),
    ("cosine", "lmr", {"batch_size": 5}),
    ("psa:hidden=8", "mixup", {"seed": 4}),
    ("netvlad:clusters=2,hidden=8", "class-balanced-sampling", {"epochs": 4, "validate_every": 2}),
]


def make_course(number: int, folder: Path, **more: Any) -> Course:
    text, method, settings = DIFFERENT[number]
    chosen = FitSettings(
        **{"epochs": 8, "batch_size": 8, "learning_rate": 0.01, "frames": 3, "checkpoint_seconds": 0} | settings | more
    )
    with torch.random.fork_rng():
        torch.manual_seed(chosen.seed)
        head = build_head(text, 4, 3, torch.zeros(4), torch.ones(4))
    folder.mkdir(parents=True, exist_ok=True)
    return Course(head, METHODS[method], chosen, folder / f"{number}.safetensors")


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Weights and history of each course trained by itself."""
    folder, found = tmp_path_factory.mktemp("alone"), []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    for number in range(len(DIFFERENT)):
        course = make_course(number, folder)
        (progress,) = fit_together([course], COUNTS, make_clips(1), make_clips(2, noise=1.5))
        assert isinstance(progress, Progress)
        found.append((bits(course.head), progress.history, progress.best_epoch))
    torch.set_num_threads(threads)
    return found


def outcomes_of(courses: list[Course], *more) -> list[Any]:
    return fit_together(courses, COUNTS, make_clips(1), make_clips(2, noise=1.5), *more)


def test_side_by_side_every_training_has_the_bits_that_it_has_alone(alone, tmp_path):
    courses = [make_course(number, tmp_path) for number in range(len(DIFFERENT))]
    outcomes = outcomes_of(courses)
    for course, progress, (weights, history, best) in zip(courses, outcomes, alone, strict=True):
        assert bits(course.head) == weights
        assert (progress.history, progress.best_epoch) == (history, best)


@pytest.mark.parametrize("stop", [1, 3, 6])
def test_interrupted_side_by_side_they_go_on_in_the_same_bits(stop, alone, tmp_path):
    """The interruption comes in the middle of an epoch's rows, so some have saved that epoch and some have not."""
    told = []

    def interrupt(number: int, row: dict) -> bool:
        told.append(number)
        if row["epoch"] == stop and len(told) % 4 == 0:
            raise KeyboardInterrupt
        return True

    with pytest.raises(KeyboardInterrupt):
        outcomes_of([make_course(number, tmp_path) for number in range(len(DIFFERENT))], interrupt)
    courses = [make_course(number, tmp_path) for number in range(len(DIFFERENT))]
    outcomes = outcomes_of(courses)
    assert [bits(course.head) for course in courses] == [weights for weights, _, _ in alone]
    assert [progress.history for progress in outcomes] == [history for _, history, _ in alone]


def test_one_that_is_stopped_and_one_that_diverges_change_nothing_for_the_others(alone, tmp_path):
    courses = [make_course(number, tmp_path) for number in (0, 1, 2)]
    courses.append(make_course(1, tmp_path / "wild", learning_rate=1e25))
    outcomes = outcomes_of(courses, lambda number, row: not (number == 1 and row["epoch"] == 3))
    assert outcomes[1] is None
    assert isinstance(outcomes[3], LongreelError)
    assert "training diverged" in str(outcomes[3])
    for number in (0, 2):
        assert bits(courses[number].head) == alone[number][0]


def test_a_batch_that_trainings_share_is_read_once(tmp_path, monkeypatch):
    read, batch = [], ClipSet.batch

    def count(self, clips, *more):
        read.append(len(clips))
        return batch(self, clips, *more)

    monkeypatch.setattr(ClipSet, "batch", count)
    outcomes_of([make_course(number, tmp_path, epochs=1) for number in (0, 1, 2, 3, 4)])
    assert read == [8, 8, 5, 21]  # the training clips once, val once


def test_runs_side_by_side_hold_what_they_hold_alone(made, tmp_path):
    settings = [settings_of(made), settings_of(made, balance="tau-norm"), settings_of(made, learning_rate=3e-3)]
    settings.append(replace(settings[0], head="knn"))
    wrong = replace(settings[0], head="netvald")
    members = [Member(tmp_path / f"together-{n}", each) for n, each in enumerate([*settings, wrong])]
    *found, refused = train_together(members)
    assert isinstance(refused, LongreelError)
    assert "netvald" in str(refused)
    assert not members[-1].folder.exists()
    for number, each in enumerate(settings):
        trained = train_run(tmp_path / f"alone-{number}", each)
        assert contents(members[number].folder) == contents(trained.folder)
        assert found[number] == replace(trained, folder=members[number].folder)
    assert train_together(members)[:-1] == found  # finished ones are read, not trained again
