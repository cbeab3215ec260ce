"""The oracle gap: what is scored is each epoch's head, each is a look at the split, and the run stays what it is."""

import json

import pytest
import torch
from small_runs import contents, settings_of, stop_at

from longreel.cli import app
from longreel.errors import LongreelError, RunMismatch
from longreel.experiments.evaluate import evaluate_run
from longreel.experiments.oracle import measure_oracle
from longreel.experiments.train import train_run

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def made(tmp_path, write_small_store):
    return write_small_store(tmp_path / "data", noise=1.5)


def test_keeping_epochs_changes_no_bit_and_survives_interruptions(made, tmp_path):
    settings = settings_of(made, checkpoint_seconds=0)
    train_run(tmp_path / "plain", settings)
    train_run(tmp_path / "kept", settings, keep_epochs=True)
    with pytest.raises(KeyboardInterrupt):
        train_run(tmp_path / "again", settings, stop_at(3), keep_epochs=True)
    train_run(tmp_path / "again", settings)  # begun with them, it goes on with them
    assert contents(tmp_path / "plain") == contents(tmp_path / "kept") == contents(tmp_path / "again")
    names = {f"{epoch:05d}.safetensors" for epoch in (1, 2, 3, 4)}
    kept, again = (contents(tmp_path / run / "epochs", names) for run in ("kept", "again"))
    assert kept.keys() == names
    assert kept == again
    assert len(set(kept.values())) == 4
    assert not (tmp_path / "plain" / "epochs").exists()


def test_each_figure_is_that_of_a_run_which_ends_at_that_epoch(made, tmp_path):
    """With a constant rate, as many epochs as that are the same training; without val its last epoch is its head."""
    rows = [line for line in made.manifest.read_text().splitlines() if not line.endswith(",val")]
    assert len(rows) < len(made.manifest.read_text().splitlines())
    made.manifest.write_text("\n".join(rows) + "\n")
    train_run(tmp_path / "run", settings_of(made, schedule="constant"), keep_epochs=True)
    found = measure_oracle(tmp_path / "run")
    alone = {}
    for epochs in (1, 2, 3, 4):
        train_run(tmp_path / str(epochs), settings_of(made, schedule="constant", epochs=epochs))
        alone[str(epochs)] = evaluate_run(tmp_path / str(epochs))["overall"]["map"]
    assert found["epochs"] == alone
    assert len(set(alone.values())) > 1
    assert found["chosen"] == {"epoch": 4, "value": alone["4"]}
    assert found["best"]["value"] == max(alone.values())
    assert found["gap"] == max(alone.values()) - alone["4"] >= 0


def test_every_epoch_is_a_look_and_is_taken_once(made, tmp_path):
    run = tmp_path / "run"
    train_run(run, settings_of(made), keep_epochs=True)
    assert evaluate_run(run)["looks"] == 1
    first = measure_oracle(run)
    looks = [json.loads(line) for line in (run / "looks.jsonl").read_text().splitlines()]
    assert [(look["split"], look["why"]) for look in looks] == [
        ("test", "evaluate"),
        *(("test", f"oracle, epoch {epoch}") for epoch in (1, 2, 3, 4)),
    ]
    assert measure_oracle(run) == first
    evaluation = evaluate_run(run)
    assert evaluation["looks"] == 5
    assert evaluation["overall"]["map"] == first["chosen"]["value"]


@pytest.mark.parametrize(
    ("balance", "trained", "epochs"), [("crt", 20, [16, 17, 18, 19, 20]), ("tau-norm", 3, [1, 2, 3])]
)
def test_stages_and_adjustments_are_those_of_the_run(balance, trained, epochs, made, tmp_path):
    run = tmp_path / "run"
    train_run(run, settings_of(made, balance=balance, epochs=trained), keep_epochs=True)
    found = measure_oracle(run)
    assert [int(epoch) for epoch in found["epochs"]] == epochs  # earlier ones cannot be chosen any more
    assert found["chosen"]["value"] == evaluate_run(run)["overall"]["map"]


def test_what_has_no_epochs_is_named(made, tmp_path):
    settings = settings_of(made, checkpoint_seconds=0)
    train_run(tmp_path / "plain", settings)
    with pytest.raises(LongreelError, match=r"plain: kept no epochs\. Train with --keep-epochs, into another folder"):
        measure_oracle(tmp_path / "plain")
    with pytest.raises(KeyboardInterrupt):
        train_run(tmp_path / "begun", settings, stop_at(2))
    with pytest.raises(RunMismatch, match="begun: was begun without --keep-epochs"):
        train_run(tmp_path / "begun", settings, keep_epochs=True)
    assert not (tmp_path / "plain" / "looks.jsonl").exists()


def test_the_command_prints_a_line_a_run(made, tmp_path, capsys):
    threads = torch.get_num_threads()
    for seed in (0, 1):
        train = ["train", made.store, made.manifest, "--groups", "5,10", "--epochs", 2, "--keep-epochs", "--seed", seed]
        with pytest.raises(SystemExit, match="0"):
            app([*map(str, train), "--out", str(tmp_path / f"run{seed}"), "--threads", str(threads)])
    capsys.readouterr()
    runs = [str(tmp_path / f"run{seed}") for seed in (0, 1)]
    with pytest.raises(SystemExit, match="0"):
        app(["oracle", *runs])
    shown = capsys.readouterr().out
    assert "run0" in shown
    assert "run1" in shown
    assert "A diagnostic, never a result: the split was opened once for each epoch, 2 times a run." in shown
    with pytest.raises(SystemExit, match="0"):
        app(["oracle", *runs, "--json"])
    assert [run["gap"] >= 0 for run in json.loads(capsys.readouterr().out)] == [True, True]
