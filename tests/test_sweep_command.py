"""`longreel sweep` as a command: what it writes, the command it ends with, how it goes on, and what it refuses."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from xml.etree import ElementTree

import pytest
import typer.main
from small_sweeps import GRID, SPACE

from longreel.cli import app
from longreel.experiments.spaces import SEARCHED, Choices, Space
from longreel.experiments.suites import FREE
from longreel.experiments.sweep import Sweep
from longreel.experiments.sweep_report import train_command

COMMAND = [sys.executable, "-P", "-m", "longreel.cli"]
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def made(tmp_path_factory, write_small_store):
    return write_small_store(tmp_path_factory.mktemp("data"), noise=1.5)


def sweep_command(made, folder: Path, *more: str, text: str = SPACE) -> list[str]:
    """Paths are relative to the folder, so that two folders can hold the same sweep."""
    (folder / "space.toml").write_text(text)
    words = ["sweep", str(made.store), str(made.manifest), "--space", "space.toml", "--out", "out", "--trials", "8"]
    return [*words, "--groups", "5,10", "--threads", "1", "--pack", "4", "--top", "2", "--seeds", "2", *more]


def run_in(folder: Path, words: list[str], **more) -> subprocess.CompletedProcess:
    return subprocess.run([*COMMAND, *words], cwd=folder, capture_output=True, text=True, **more)


@pytest.fixture(scope="module")
def swept(made, tmp_path_factory):
    """A folder with a whole sweep in ``out``, and what the command printed."""
    folder = tmp_path_factory.mktemp("swept")
    done = run_in(folder, sweep_command(made, folder, "--pruner", "median", "--objective", "<=5.map"))
    assert done.returncode == 0, done.stderr
    return folder, done


def test_the_command_ends_with_tables_figures_and_a_command(swept):
    folder, done = swept
    results = json.loads((folder / "out" / "results.json").read_text())
    assert results["counts"]["complete"] + results["counts"]["pruned"] == 8
    assert [row["seeds"] for row in results["top"]["rows"]] == [[1, 2], [1, 2]]  # the search had 0
    assert results["top"]["split"] == "val"
    assert list(results["top"]["rows"][1]["difference"]["<=5.map"]) == ["value", "low", "high", "p", "p_holm"]
    means = {row["name"]: row["figures"]["<=5.map"]["mean"] for row in results["top"]["rows"]}
    assert f"trial {results['best']['trial']}" == max(means, key=means.__getitem__)
    report = (folder / "out" / "sweep.md").read_text()
    for text in (done.stdout, report):
        assert shlex.join(results["best"]["command"]) in text
        assert "difference from trial" in text
    for name in ("parallel.svg", "importance.svg"):
        ElementTree.parse(folder / "out" / name)
        assert f"]({name})" in report
    assert "trials 0 to 3: 12 of 12" in done.stderr


def test_the_test_split_is_never_opened(swept):
    folder, _ = swept
    looked = {
        json.loads(line)["split"] for path in folder.rglob("looks.jsonl") for line in path.read_text().splitlines()
    }
    assert looked == {"val"}
    assert not list(folder.rglob("*-test.*"))


def test_the_command_it_ends_with_gives_the_trials_figure(swept):
    folder, _ = swept
    best = json.loads((folder / "out" / "results.json").read_text())["best"]
    program, *words = best["command"]
    assert program == "longreel"
    done = run_in(folder, words)
    assert done.returncode == 0, done.stderr
    evaluation = json.loads(run_in(folder, ["evaluate", "out/best", "--split", "val", "--json"]).stdout)
    assert evaluation["groups"]["<=5"]["map"] == pytest.approx(best["value"], abs=1e-12)
    assert words[-2:] == ["--out", "out/best"]


def test_a_finished_sweep_is_read_and_reported_again_in_the_same_bytes(made, swept):
    folder, _ = swept
    names = ("results.json", "sweep.md", "parallel.svg", "importance.svg")
    before = {name: (folder / "out" / name).read_bytes() for name in names}
    heads = {path: path.stat().st_mtime_ns for path in (folder / "out" / "trials").rglob("head.safetensors")}
    again = run_in(folder, sweep_command(made, folder, "--pruner", "median", "--objective", "<=5.map", "--json"))
    assert again.returncode == 0
    assert {name: (folder / "out" / name).read_bytes() for name in names} == before
    assert {path: path.stat().st_mtime_ns for path in heads} == heads
    assert json.loads(again.stdout) == json.loads(before["results.json"])


def test_killed_at_any_moment_the_same_command_ends_in_the_same_results(made, swept, tmp_path):
    """Killed while the first pack trains, while a later one does, and while the best train again."""
    folder, _ = swept
    words = sweep_command(made, tmp_path, "--pruner", "median", "--objective", "<=5.map")
    out = tmp_path / "out"

    def lines() -> int:
        path = out / "sweep.journal"
        return path.read_bytes().count(b"\n") if path.exists() else 0

    for reached in (lambda: lines() >= 4, lambda: lines() >= 18, lambda: any(out.glob("top/runs/*/config.json"))):
        process = subprocess.Popen(
            [*COMMAND, *words], cwd=tmp_path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )
        until = time.monotonic() + 60
        while not reached() and process.poll() is None and time.monotonic() < until:
            time.sleep(0.001)
        assert process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert reached()
        assert not (out / "results.json").exists()
    done = run_in(tmp_path, words)
    assert done.returncode == 0, done.stderr
    for name in ("results.json", "parallel.svg", "importance.svg"):
        assert (out / name).read_bytes() == (folder / "out" / name).read_bytes()


def test_ctrl_c_ends_in_one_line_and_the_exit_code_of_interruptions(made, tmp_path):
    words = sweep_command(made, tmp_path, text=SPACE.replace("epochs = 3", "epochs = 100"))
    process = subprocess.Popen(
        [*COMMAND, *words],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # what a shell starts behind itself ignores it
    )
    assert process.stderr is not None
    assert process.stderr.readline().startswith("trials 0 to 3: ")  # at a tenth of their epochs
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "interrupted: run the same command again to go on."


def test_a_grid_needs_no_number_and_failed_trials_stand_in_the_report(made, tmp_path):
    words = sweep_command(made, tmp_path, "--sampler", "grid", "--top", "0", text=GRID)
    place = words.index("--trials")
    done = run_in(tmp_path, [*words[:place], *words[place + 2 :]])
    assert done.returncode == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["counts"] == {"complete": 4, "pruned": 0, "failed": 2}
    assert results["top"] is None
    assert results["best"]["value"] == max(trial["value"] for trial in results["trials"] if trial["value"] is not None)
    assert done.stderr.count("failed: training diverged") == 2
    assert "training diverged" in (tmp_path / "out" / "sweep.md").read_text()


def test_two_commands_never_write_one_sweep(made, tmp_path):
    words = sweep_command(made, tmp_path, text=SPACE.replace("epochs = 3", "epochs = 3000"))
    process = subprocess.Popen([*COMMAND, *words], cwd=tmp_path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 60
        while not (tmp_path / "out" / "sweep.journal").exists() and time.monotonic() < until:
            time.sleep(0.05)
        second = run_in(tmp_path, words)
    finally:
        process.kill()
        process.wait()
    assert second.returncode == 2
    assert f"out is in use by process {process.pid}" in second.stderr


@pytest.mark.parametrize(
    ("change", "text", "expected"),
    [
        (["--objective", "tail.map"], SPACE, "no group called 'tail'"),
        (["--sampler", "grid"], SPACE, "space: learning_rate: a grid goes through choices and steps"),
        (["--space", "none.toml"], SPACE, "none.toml: cannot be read"),
        ([], SPACE.replace("head.hidden", "head.hiden"), "space.toml: with learning_rate = 0.0001, head.hiden = 8"),
        ([], SPACE.replace("balance =", "balence ="), "no setting to search called 'balence'. Did you mean 'balance'"),
    ],
)
def test_what_cannot_be_searched_ends_in_one_line_before_any_training(
    change, text, expected, made, tmp_path, capfd, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        app(sweep_command(made, tmp_path, *change, text=text))
    out, err = capfd.readouterr()
    assert ended.value.code == 2
    assert expected in err
    assert err.count("\n") == 1
    assert out == ""
    assert not (tmp_path / "out").exists()


def test_the_number_of_trials_must_be_given_where_nothing_else_ends_the_search(made, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = sweep_command(made, tmp_path)
    place = words.index("--trials")
    with pytest.raises(SystemExit) as ended:
        app([*words[:place], *words[place + 2 :]])
    assert ended.value.code == 2
    assert "--trials: how many configurations are to be tried?" in capfd.readouterr().err


@pytest.mark.parametrize("package", ["optuna", "matplotlib"])
def test_without_its_packages_the_command_says_what_to_install(package, made, tmp_path):
    code = f"import sys; sys.modules[{package!r}] = None; from longreel.cli import main; main()"
    words = sweep_command(made, tmp_path)
    done = subprocess.run([sys.executable, "-P", "-c", code, *words], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 5
    assert done.stderr == (
        f"error: a sweep needs {package}, which is not installed. Run: pip install 'longreel[sweep]'\n"
    )


def test_every_setting_has_an_option_of_the_train_command():
    options = {option for each in typer.main.get_group(app).commands["train"].params for option in each.opts}
    options |= {option for each in typer.main.get_group(app).commands["train"].params for option in each.secondary_opts}
    sweep = Sweep(Path("s"), Path("m"), Space(Path("t"), {}, {"balance": Choices(("ce", "bce"))}), root=Path("r"))
    for value in ("x", True, False):
        words = train_command(sweep, dict.fromkeys([*FREE, "groups", "seed"], value), 2, Path("o"))
        if value != "x":
            words = [word for word in words if word.endswith(("standardise", "compiled"))]
        assert {word for word in words if word.startswith("--")} <= options
    assert SEARCHED < FREE


def test_trials_compute_in_the_usual_precision_unless_the_space_has_one():
    for own, expected in ({}, "bfloat16"), ({"precision": "float32"}, "float32"):
        space = Space(Path("t"), own, {"balance": Choices(("ce", "bce"))})
        sweep = Sweep(Path("s"), Path("m"), space, device="cuda", precision="bfloat16")
        assert sweep.settings({"balance": "bce"}).fit.precision == expected


def test_the_extra_has_what_the_command_asks_for():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {re.split(r"[>=]", each)[0] for each in extras["sweep"]} == {"optuna", "matplotlib"}
    assert set(extras["sweep"]) <= set(extras["test"])
