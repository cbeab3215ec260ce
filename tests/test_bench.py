"""Suites run end to end on a small store: what is trained, what is never repeated, and the table that comes of it."""

import csv
import io
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from small_suites import SUITE

from longreel.errors import LongreelError
from longreel.experiments.bench import plan_runs, run_suite
from longreel.experiments.draws import Draws
from longreel.experiments.evaluate import evaluate_run
from longreel.experiments.render import FORMS, as_csv, as_latex, as_markdown, make_grids
from longreel.experiments.statistics import paired_difference
from longreel.experiments.suites import read_suite
from longreel.experiments.table import make_table

DRAWS = 20
DRAWN = Draws("test", ("acc1", ">10.map"), DRAWS)


@pytest.fixture(scope="module")
def made(tmp_path_factory, write_small_store):
    return write_small_store(tmp_path_factory.mktemp("data"), noise=1.5)


@pytest.fixture(scope="module")
def suite(tmp_path_factory):
    path = tmp_path_factory.mktemp("suite") / "two.toml"
    path.write_text(SUITE)
    return read_suite(str(path))


@pytest.fixture(scope="module")
def outcomes(made, suite, tmp_path_factory):
    runs = plan_runs(suite, made.manifest, {"toy": made.store}, range(3), tmp_path_factory.mktemp("out"))
    return run_suite(runs, DRAWN, jobs=2)


@pytest.fixture(scope="module")
def table(suite, outcomes):
    return make_table(suite, outcomes, DRAWN)


def test_rows_compute_in_the_usual_precision_and_have_folders_of_their_own_then(made, suite, tmp_path):
    plans = [
        plan_runs(suite, made.manifest, {"toy": made.store}, [0], tmp_path, precision=precision)
        for precision in ("float32", "bfloat16")
    ]
    for plan, precision in zip(plans, ("float32", "bfloat16"), strict=True):
        assert {run.settings.fit.precision for run in plan} == {precision}
    assert not {run.folder for run in plans[0]} & {run.folder for run in plans[1]}


def test_every_row_is_trained_on_every_store_with_every_seed(outcomes):
    assert [(o.run.row, o.run.store, o.run.seed) for o in outcomes] == [
        (row, "toy", seed) for row in ("plain_1", "balanced") for seed in range(3)
    ]
    assert [o.fault for o in outcomes] == [None] * 6
    config = json.loads((outcomes[3].run.folder / "config.json").read_text())
    assert (config["balance"], config["fit"]["epochs"], config["threads"]) == ("balanced-softmax", 3, 1)


def test_what_is_finished_is_not_trained_again_and_a_changed_row_is(made, suite, outcomes, tmp_path):
    times = {o.run.folder: (o.run.folder / "head.safetensors").stat().st_mtime_ns for o in outcomes}
    out = outcomes[0].run.folder.parents[1]
    again = run_suite(plan_runs(suite, made.manifest, {"toy": made.store}, range(3), out), DRAWN, jobs=1)
    assert {o.run.folder: (o.run.folder / "head.safetensors").stat().st_mtime_ns for o in again} == times
    (tmp_path / "two.toml").write_text(SUITE.replace("epochs = 3", "epochs = 4"))
    changed = plan_runs(read_suite(str(tmp_path / "two.toml")), made.manifest, {"toy": made.store}, range(3), out)
    assert not {run.folder for run in changed} & set(times)


def test_what_was_drawn_is_kept_and_drawn_anew_for_another_table(made, suite, outcomes, table):
    kept = {o.run.folder: (o.run.folder / "draws-test.safetensors").stat().st_mtime_ns for o in outcomes}
    assert make_table(suite, outcomes, DRAWN) == table
    assert {folder: (folder / "draws-test.safetensors").stat().st_mtime_ns for folder in kept} == kept
    other = make_table(suite, outcomes, Draws("test", DRAWN.columns, DRAWS + 1))
    assert other["draws"] == DRAWS + 1
    assert other["rows"][1]["difference"]["acc1"]["low"] != table["rows"][1]["difference"]["acc1"]["low"]
    assert make_table(suite, outcomes, DRAWN) == table


def test_without_columns_there_are_overall_figures_and_those_of_each_group(made, outcomes, tmp_path):
    (tmp_path / "two.toml").write_text(SUITE.replace('columns = ["acc1", ">10.map"]\n', "").replace("[0.5, -1]", "[]"))
    found = make_table(read_suite(str(tmp_path / "two.toml")), outcomes, Draws("test", (), DRAWS))
    assert found["columns"] == ["acc1", "class_average", "map", *(f"{g}.class_average" for g in (">10", "6-10", "<=5"))]
    assert set(found["rows"][0]["figures"]) == set(found["columns"])


def test_a_finished_bench_goes_on_where_store_and_manifest_have_moved(made, suite, tmp_path):
    here = tmp_path / "here"
    shutil.copytree(made.store.parent, here)
    run = plan_runs(suite, here / "clips.csv", {"toy": here / "toy.store"}, range(1), tmp_path / "out")[:1]
    assert run_suite(run, DRAWN, 1)[0].fault is None
    here.rename(tmp_path / "there")
    (tmp_path / "out" / "runs" / run[0].folder.name / "draws-test.safetensors").unlink()
    there = tmp_path / "there"
    moved = plan_runs(suite, there / "clips.csv", {"toy": there / "toy.store"}, range(1), tmp_path / "out")[:1]
    assert moved[0].folder == run[0].folder
    assert run_suite(moved, DRAWN, 1)[0].fault is None


def test_figures_are_means_and_deviations_of_the_runs_evaluations(outcomes, table):
    for row in table["rows"]:
        documents = [evaluate_run(o.run.folder) for o in outcomes if o.run.row == row["name"]]
        accuracies = [document["overall"]["acc1"] for document in documents]
        precisions = [document["groups"][">10"]["map"] for document in documents]
        for column, values in {"acc1": accuracies, ">10.map": precisions}.items():
            assert row["figures"][column]["mean"] == pytest.approx(np.mean(values))
            assert row["figures"][column]["sd"] == pytest.approx(np.std(values, ddof=1))
            assert row["figures"][column]["low"] <= np.mean(values) <= row["figures"][column]["high"]


def test_differences_are_paired_and_their_p_is_holm_corrected_over_the_rows(outcomes, table):
    from longreel.experiments.evaluate import load_scored

    scored = {(o.run.row, o.run.seed): load_scored(o.run.folder, "test") for o in outcomes}
    mine, theirs = ([scored[row, seed][0] for seed in range(3)] for row in ("balanced", "plain_1"))
    groups = json.loads((outcomes[0].run.folder / "config.json").read_text())["groups"]["members"]
    expected = paired_difference(
        mine, theirs, scored["balanced", 0][1], groups, {"acc1": lambda found: found.overall.acc1}, draws=DRAWS
    )["acc1"]
    found = table["rows"][1]["difference"]["acc1"]
    assert (found["value"], found["low"], found["high"]) == pytest.approx((expected.value, expected.low, expected.high))
    assert found["p"] in (0.25, 0.5, 0.75, 1.0)  # of three seeds
    assert found["p_holm"] == found["p"]  # one row is set against the baseline
    assert table["rows"][0]["difference"] is None


def test_the_table_says_what_a_reader_must_know(table):
    assert (table["split"], table["clips"], table["looks"]) == ("test", 17, 1)
    assert table["selection"] == ["best val map"]
    assert table["groups"] == {">10": 1, "6-10": 2, "<=5": 1}
    assert table["stores"]["toy"]["backbone"] == "toy"
    assert table["training_seconds"] == pytest.approx(3 * sum(row["training_seconds"] for row in table["rows"]))
    assert all(0 < row["training_seconds"] < 60 for row in table["rows"])
    markdown = as_markdown(table)
    assert "bounds on training clips: 5, 10" in markdown
    assert "3 seeds can give no p below 0.25" in markdown


def test_forms_escape_what_is_markup_in_them(table):
    assert "### Two \\| ways: toy" in as_markdown(table)
    assert r"plain\_1 & 3" in as_latex(table)
    assert "(0.500)" in as_markdown(table)
    for grid in make_grids(table):
        assert {len(row) for row in grid.rows} == {len(grid.header)}


def test_a_table_under_the_papers_protocol_is_marked_even_without_what_was_noted_beside_the_manifest(suite, outcomes):
    marked = make_table(replace(suite, protocol="videolt-paper"), outcomes, DRAWN)
    assert "chosen on the test list" in marked["watermark"]
    assert not any(row["published"] for row in marked["rows"])  # 17 clips are not VideoLT's
    fair = make_table(replace(suite, protocol="videolt"), outcomes, DRAWN)
    assert fair["watermark"] is None
    assert "the published tables choose the epoch on the test list" in fair["notes"]


def test_rows_or_stores_that_would_share_a_folder_are_refused(made, suite, tmp_path):
    (tmp_path / "two.toml").write_text(SUITE.replace('"balanced"\nbalance = "balanced-softmax"', '"plain+1"'))
    alike = read_suite(str(tmp_path / "two.toml"))
    with pytest.raises(LongreelError, match=r"of 'plain_1' on 'toy' and of 'plain\+1' on 'toy'"):
        plan_runs(alike, made.manifest, {"toy": made.store}, range(1), tmp_path)
    with pytest.raises(LongreelError, match=r"on 'toy@1' and .* on 'toy_1'"):
        plan_runs(suite, made.manifest, {"toy@1": made.store, "toy_1": made.store}, range(1), tmp_path)


def test_the_csv_has_a_line_for_each_row_and_figure_and_the_json_is_the_document(table):
    lines = list(csv.DictReader(io.StringIO(as_csv(table))))
    assert [(line["method"], line["figure"]) for line in lines] == [
        (row, column) for row in ("plain_1", "balanced") for column in ("acc1", ">10.map")
    ]
    assert float(lines[0]["published"]) == 0.5
    assert lines[1]["published"] == ""
    assert float(lines[3]["difference"]) == table["rows"][1]["difference"][">10.map"]["value"]
    assert json.loads(FORMS["json"](table)) == table


def test_a_run_that_cannot_be_trained_stops_no_other_and_stands_in_the_table(made, tmp_path):
    (tmp_path / "bad.toml").write_text(SUITE.replace('balance = "balanced-softmax"', "learning_rate = 1e30"))
    suite = read_suite(str(tmp_path / "bad.toml"))
    outcomes = run_suite(plan_runs(suite, made.manifest, {"toy": made.store}, range(1), tmp_path / "out"), DRAWN, 2)
    assert outcomes[0].fault is None
    assert "training diverged" in str(outcomes[1].fault)
    table = make_table(suite, outcomes, DRAWN)
    assert table["rows"][1]["figures"] == {}
    assert "toy, balanced, seed 0: FAILED: training diverged" in as_markdown(table)
    with pytest.raises(LongreelError, match="not one run of bad has figures"):
        make_table(suite, outcomes[1:], DRAWN)
