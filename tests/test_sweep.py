"""Sweeps as a library: which configurations are tried, with what outcome, and that an interruption changes nothing."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_runs import contents
from small_sweeps import GRID, SPACE, begin, sweep_of

from longreel.errors import LongreelError, ManifestError, RunMismatch
from longreel.experiments.evaluate import evaluate_run
from longreel.experiments.runs import read_config
from longreel.experiments.search import Watcher, search
from longreel.experiments.sweep import check_sweep, claim_sweep
from longreel.experiments.sweep_report import make_results
from longreel.experiments.train import train_run
from longreel.experiments.trials import Trial

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def made(tmp_path_factory, write_small_store):
    """The test clips have no features, so that no sweep can have seen them."""
    folder = tmp_path_factory.mktemp("data")
    rows = write_small_store(folder / "all", noise=1.5).rows
    unseen = [row["path"] for row in rows if row["split"] == "test"]
    return write_small_store(folder / "seen", noise=1.5, left_out=unseen)


def test_a_trial_is_the_run_that_its_settings_give_and_its_value_that_runs_figure_on_val(made, tmp_path):
    sweep = sweep_of(made, tmp_path)
    out = begin(sweep, tmp_path / "out")
    trials = search(sweep, out, 4, pack=3)
    assert [(trial.number, trial.state) for trial in trials] == [(n, "complete") for n in range(4)]
    for trial in trials:
        alone, together = tmp_path / f"alone{trial.number}", out / "trials" / f"{trial.number:04d}"
        train_run(alone, sweep.settings(trial.values))
        assert contents(together) == contents(alone)
        assert trial.value == pytest.approx(evaluate_run(together, "val")["overall"]["map"], abs=1e-12)
        assert trial.epoch == json.loads((together / "result.json").read_text())["epoch"]
    config = read_config(out / "trials" / "0000")
    assert (
        config["head"]
        == f"nonlinear:hidden={trials[0].values['head.hidden']},dropout={trials[0].values['head.dropout']}"
    )
    assert len({trial.value for trial in trials}) > 1


@pytest.mark.parametrize("objective", ["class-average", "acc1", "<=5.map", ">10.acc1"])
def test_any_figure_of_any_group_can_be_the_objective(objective, made, tmp_path):
    sweep = sweep_of(made, tmp_path, objective=objective)
    out = begin(sweep, tmp_path / "out")
    (trial,) = search(sweep, out, 1, pack=1)
    document = evaluate_run(out / "trials" / "0000", "val")
    group, _, figure = objective.replace("-", "_").rpartition(".")
    expected = (document["groups"][group] if group else document["overall"])[figure]
    assert trial.value == pytest.approx(expected, abs=1e-12)
    assert read_config(out / "trials" / "0000")["fit"]["select"] == figure.replace("_", "-")


def _search_to_the_end(sweep, out: Path, wanted: int, stops: list[int]) -> list[Trial]:
    """Interrupt the search behind so many epochs, again and again, then let it end."""
    for stop in stops:
        left = [stop]

        def interrupt(_, left=left) -> None:
            left[0] -= 1
            if left[0] < 0:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            search(sweep, out, wanted, pack=4, watcher=Watcher(on_epoch=interrupt))
    return search(sweep, out, wanted, pack=4)


@pytest.mark.parametrize("stops", [[0], [5, 9]])
@pytest.mark.parametrize(("sampler", "pruner"), [("random", "median"), ("random", "hyperband"), ("tpe", "none")])
def test_an_interrupted_sweep_ends_with_the_same_trials(sampler, pruner, stops, made, tmp_path):
    sweep = sweep_of(made, tmp_path, sampler=sampler, pruner=pruner)
    whole = search(sweep, begin(sweep, tmp_path / "whole"), 12, pack=4)
    assert {trial.state for trial in whole} == ({"complete"} if pruner == "none" else {"complete", "pruned"})
    assert _search_to_the_end(sweep, begin(sweep, tmp_path / "cut"), 12, stops) == whole


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_journal_that_ends_at_any_of_its_lines_or_within_one_leads_to_the_same_trials(sampler, made, tmp_path):
    """What a killed process leaves: the journal up to some moment, and the runs of that moment or a little later."""
    sweep = sweep_of(made, tmp_path, sampler=sampler, pruner="median")
    whole = begin(sweep, tmp_path / "whole")
    expected = search(sweep, whole, 12, pack=4)
    assert [trial.state for trial in expected].count("pruned") > 0
    lines = (whole / "sweep.journal").read_bytes().splitlines(keepends=True)
    for kept in range(1, len(lines), 9):
        cut = tmp_path / f"cut{kept}"
        shutil.copytree(whole, cut)
        torn = lines[kept][: len(lines[kept]) // 2] if kept % 2 else b""
        (cut / "sweep.journal").write_bytes(b"".join(lines[:kept]) + torn)
        assert search(sweep, cut, 12, pack=4) == expected


def test_a_finished_trial_is_never_trained_again(made, tmp_path):
    sweep = sweep_of(made, tmp_path)
    out = begin(sweep, tmp_path / "out")
    first = search(sweep, out, 4, pack=4)
    shutil.rmtree(out / "trials")
    assert search(sweep, out, 4, pack=4) == first
    assert not (out / "trials").exists()
    more = search(sweep, out, 6, pack=4)
    assert more[:4] == first
    assert sorted(path.name for path in (out / "trials").iterdir()) == ["0004", "0005"]


def test_a_trial_that_diverges_is_noted_and_the_sweep_goes_on(made, tmp_path):
    sweep = sweep_of(made, tmp_path, GRID, sampler="grid")
    trials = search(sweep, begin(sweep, tmp_path / "out"), 100, pack=4)
    assert len(trials) == 6  # a grid has an end
    for trial in trials:
        diverges = trial.values["learning_rate"] == 1e30
        assert trial.state == ("failed" if diverges else "complete")
        assert ("training diverged" in str(trial.reason)) is diverges
    assert not list(tmp_path.rglob("checkpoint.safetensors"))


@pytest.mark.parametrize("key", ["learning_rate", "head.dropout"])
def test_a_grid_of_a_range_without_steps_is_refused(key, made, tmp_path):
    entry = "{ low = 0.1, high = 0.5 }"
    sweep = sweep_of(made, tmp_path, f'[space]\n"{key}" = {entry}', sampler="grid")
    with pytest.raises(LongreelError, match=f"space: {key}: a grid goes through choices and steps"):
        check_sweep(sweep)


def test_median_prunes_what_is_below_the_median_of_earlier_packs_and_nothing_else(made, tmp_path):
    """Against a plain loop over the histories of the same trials, all trained to their end."""
    text = SPACE.replace("epochs = 3", "epochs = 5")
    free = sweep_of(made, tmp_path, text)
    search(free, begin(free, tmp_path / "free"), 16, pack=4)
    curves = []
    for number in range(16):
        rows = json.loads((tmp_path / "free" / "trials" / f"{number:04d}" / "history.json").read_text())
        curves.append([row["val_map"] for row in rows])
    expected: list[int | None] = []  # the epoch at which each is pruned
    for number, curve in enumerate(curves):
        others = [curves[n] for n in range(number - number % 4) if expected[n] is None]
        pruned = None
        for epoch in range(1, 5):  # behind the last one there is nothing left to save
            if len(others) >= 5 and max(curve[:epoch]) < np.median([other[epoch - 1] for other in others]):
                pruned = epoch
                break
        expected.append(pruned)
    assert expected.count(None) not in (0, 16)
    pruning = replace(free, pruner="median")
    trials = search(pruning, begin(pruning, tmp_path / "pruning"), 16, pack=4)
    assert [trial.state for trial in trials] == ["complete" if epoch is None else "pruned" for epoch in expected]
    for trial, epoch, curve in zip(trials, expected, curves, strict=True):
        if epoch is not None:
            assert trial.value == curve[epoch - 1]  # no epoch more than it had to


def test_no_pack_is_begun_when_the_time_is_over(made, tmp_path):
    sweep = sweep_of(made, tmp_path)
    out = begin(sweep, tmp_path / "out")
    assert search(sweep, out, 4, pack=2, until=0.0) == []
    with pytest.raises(LongreelError, match="no trial has a figure; the first: none was trained to its end"):
        make_results(sweep, [], None, out)


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"seed": 1}, "seed is 0 there, 1 now"),
        ({"pruner": "median"}, "pruner is 'none' there, 'median' now"),
        ({"objective": "acc1"}, "objective is 'map' there, 'acc1' now"),
        ({"groups": "5,9"}, "groups is"),
        ({"text": SPACE.replace("high = 32", "high = 40")}, "space is"),
        ({"text": SPACE.replace("epochs = 3", "epochs = 4")}, "settings is"),
    ],
)
def test_another_sweep_in_the_same_folder_is_refused(change, key, made, tmp_path):
    out = begin(sweep_of(made, tmp_path), tmp_path / "out")
    with pytest.raises(RunMismatch) as refused:
        claim_sweep(out, check_sweep(sweep_of(made, tmp_path, **change)))
    assert f"holds another sweep: {key}" in str(refused.value)


def test_another_number_of_threads_is_another_sweep(made, tmp_path):
    sweep = sweep_of(made, tmp_path)
    out = begin(sweep, tmp_path / "out")
    torch.set_num_threads(2)
    with pytest.raises(RunMismatch, match="threads is 1 there, 2 now"):
        claim_sweep(out, check_sweep(sweep))


def test_a_folder_of_something_else_is_refused(made, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(RunMismatch, match=r"is not empty and no sweep \(thesis\.txt\)"):
        begin(sweep_of(made, tmp_path), tmp_path / "out")


def test_a_sweep_goes_on_where_store_and_manifest_have_moved(made, tmp_path):
    shutil.copytree(made.store.parent, tmp_path / "here")
    here = replace(made, store=tmp_path / "here" / "toy.store", manifest=tmp_path / "here" / "clips.csv")
    sweep = sweep_of(here, tmp_path)
    out = begin(sweep, tmp_path / "out")
    first = search(sweep, out, 2, pack=2)
    (tmp_path / "here").rename(tmp_path / "there")
    there = replace(made, store=tmp_path / "there" / "toy.store", manifest=tmp_path / "there" / "clips.csv")
    moved = sweep_of(there, tmp_path)
    assert search(moved, begin(moved, out), 4, pack=2)[:2] == first


@pytest.mark.parametrize(
    ("text", "more", "expected"),
    [
        ('[space]\nhead = ["nonlinear", "netvald"]', {}, "with head = netvald: no head called 'netvald'"),
        ('[space]\n"head.hiden" = [8, 16]', {}, "no option of head nonlinear called 'hiden'. Did you mean 'hidden'"),
        ('[space]\nhead = ["nonlinear", "linear"]\n"head.hidden" = [8, 16]', {}, "head = linear, head.hidden = 8"),
        ("[space]\nlearning_rate = { low = -1.0, high = 1.0 }", {}, "this learning rate cannot be used"),
        ('[space]\n"head.hidden" = { low = 8.0, high = 16.5 }', {}, "hidden='8.0' is not a whole number"),
        ('[space]\n"loss.gamma" = [1, 2]', {}, "loss.gamma: no loss is named"),
        (SPACE, {"objective": "tail.map"}, "no group called 'tail'. There are: 6-10, <=5, >10"),
        (SPACE, {"objective": "mpa"}, "no objective called 'mpa'. Did you mean 'map'"),
        (SPACE, {"sampler": "tpr"}, "no sampler called 'tpr'. Did you mean 'tpe'"),
        (SPACE, {"pruner": "mean"}, "no pruner called 'mean'"),
        (SPACE, {"protocol": "videoltt"}, "no protocol called 'videoltt'"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_any_trial(text, more, expected, made, tmp_path):
    with pytest.raises(LongreelError) as refused:
        check_sweep(sweep_of(made, tmp_path, text, **more))
    assert expected in str(refused.value)


def test_the_space_of_the_docs_can_be_searched(made, tmp_path):
    page = (Path(__file__).resolve().parent.parent / "docs" / "sweeps.md").read_text()
    (text,) = re.findall(r"```toml\n(.*?)```", page, flags=re.DOTALL)
    sweep = sweep_of(made, tmp_path, text)
    assert check_sweep(sweep)["space"]["batch_size"] == {"low": 64, "high": 256, "log": False, "step": 64}
    assert sweep.given(next(sweep.space.extremes()))["head"] == "nonlinear:dropout=0.0,hidden=512"


def test_without_val_clips_there_is_no_sweep(write_small_store, tmp_path):
    blind = write_small_store(tmp_path / "data", splits=("train", "test"))
    with pytest.raises(ManifestError, match="has no val clips, and a sweep chooses on nothing else"):
        check_sweep(sweep_of(blind, tmp_path))
    rows = [row for row in write_small_store(tmp_path / "b").rows if row["split"] != "val" or "yak" not in row["path"]]
    without = write_small_store(tmp_path / "c", rows=rows)
    with pytest.raises(LongreelError, match="has no val clips of the group '<=5'"):
        check_sweep(sweep_of(without, tmp_path, objective="<=5.map"))
