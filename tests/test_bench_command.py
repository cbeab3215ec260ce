"""`longreel bench` as a command: what it writes, how it goes on, and what it refuses."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_suites import SUITE

from longreel.cli import app


@pytest.fixture(scope="module")
def made(tmp_path_factory, write_small_store):
    return write_small_store(tmp_path_factory.mktemp("data"), noise=1.5)


def run_command(made, tmp_path: Path, *more: str) -> list[str]:
    (tmp_path / "two.toml").write_text(SUITE)
    store = f"toy={made.store}"
    arguments = [
        "bench",
        str(tmp_path / "two.toml"),
        str(made.manifest),
        "--store",
        store,
        "--out",
        str(tmp_path / "out"),
    ]
    return [*arguments, "--draws", "20", "--seeds", "2", *more]


def test_the_command_writes_the_table_in_every_form_and_prints_it(made, tmp_path, capfd):
    with pytest.raises(SystemExit) as ended:
        app(run_command(made, tmp_path))
    out, err = capfd.readouterr()
    assert ended.value.code == 0
    assert "difference from plain_1" in out
    assert "bench two: 4 of 4" in err
    assert {path.suffix for path in (tmp_path / "out").glob("table.*")} == {".md", ".tex", ".csv", ".json"}


def test_a_row_that_cannot_be_trained_is_named_before_any_is(made, tmp_path, capfd):
    arguments = run_command(made, tmp_path)
    (tmp_path / "two.toml").write_text(SUITE + 'head = "netvald"\n')
    with pytest.raises(SystemExit) as ended:
        app(arguments)
    assert ended.value.code == 2
    assert "error: row 'balanced': no head called 'netvald'. Did you mean 'netvlad'?" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def _runs_in(process: Path, folder: Path) -> bool:
    """Whether a process was started with this folder in its environment."""
    try:
        return f"BENCH_OF={folder}".encode() in (process / "environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _all_end(folder: Path, patience: float = 20.0) -> bool:
    """Whether every process of this folder ends within some seconds."""
    until = time.monotonic() + patience
    while any(_runs_in(path, folder) for path in Path("/proc").glob("[0-9]*")):
        if time.monotonic() > until:
            return False
        time.sleep(0.1)
    return True


def test_killed_at_any_moment_the_same_command_ends_in_the_same_table(made, tmp_path):
    """The command, its processes included, is killed again and again, a little later each time."""
    (tmp_path / "whole").mkdir()
    command = [sys.executable, "-P", "-m", "longreel.cli"]
    subprocess.run([*command, *run_command(made, tmp_path / "whole")], check=True, capture_output=True)
    again, patience = run_command(made, tmp_path), 2.0
    while True:
        named = os.environ | {"BENCH_OF": str(tmp_path)}
        process = subprocess.Popen([*command, *again], env=named, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        try:
            assert process.wait(patience) == 0
            break
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            patience *= 1.6
            time.sleep(0.05)
    found, expected = (
        json.loads((folder / "out" / "table.json").read_text()) for folder in (tmp_path, tmp_path / "whole")
    )
    assert _all_end(tmp_path)  # nothing is left behind
    assert found["looks"] >= expected["looks"]
    assert _without_times(found) | {"looks": 1} == _without_times(expected)


def _without_times(table: dict) -> dict:
    rows = [{key: value for key, value in row.items() if key != "training_seconds"} for row in table["rows"]]
    return {key: value for key, value in table.items() if key != "training_seconds"} | {"rows": rows}


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (["--store", "toy=elsewhere"], "two stores are called 'toy'"),
        (["--protocol", "videoltt"], "no protocol called 'videoltt'"),
        (["--groups", "nothing"], "no group rule called 'nothing'"),
        (["--split", "tets"], "no split to evaluate on called 'tets'"),
        (["--store", "other="], "names no folder"),
        (["--store", "other=nowhere"], "nowhere: is not a store"),
        (["--groups", "videolt"], "there is no group '>10'. There are: head, medium, tail"),
    ],
)
def test_what_cannot_be_run_ends_in_one_line_before_any_training(change, text, made, tmp_path, capfd):
    with pytest.raises(SystemExit) as ended:
        app(run_command(made, tmp_path, *change))
    out, err = capfd.readouterr()
    assert ended.value.code == 2
    assert text in err
    assert err.count("\n") == 1
    assert out == ""
    assert not (tmp_path / "out").exists()


def test_a_manifest_without_the_split_is_refused_before_any_training(made, tmp_path, capfd):
    kept = [line for line in made.manifest.read_text().splitlines() if not line.endswith(",test")]
    (tmp_path / "no-test.csv").write_text("\n".join(kept) + "\n")
    command = run_command(made, tmp_path)
    command[2] = str(tmp_path / "no-test.csv")
    with pytest.raises(SystemExit) as ended:
        app(command)
    assert ended.value.code == 2
    assert "no-test.csv: has no test clips" in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["none.toml", "."])
def test_a_suite_that_cannot_be_read_is_not_shown(name, tmp_path, capfd):
    with pytest.raises(SystemExit) as ended:
        app(["suites", "--show", f"{tmp_path}/{name}"])
    assert ended.value.code == 2
    assert capfd.readouterr().err.count("cannot be read") == 1
