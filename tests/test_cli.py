"""The command line as a user meets it: every command in a process of its own."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import typer.main
from small_lists import VIDEOLT, write_lists
from small_recordings import write_hdf5

from longreel.cli import app, generate_app, protocol_app, store_app
from longreel.durable import owned
from longreel.store import ClipFeatures, FeatureStore, Origin, ShardWriter, Spec

GROUP = typer.main.get_group(app)
APPS = {"store": store_app, "protocol": protocol_app, "generate": generate_app}
COMMANDS = {name: command for name, command in GROUP.commands.items() if name not in APPS} | {
    f"{group} {name}": command
    for group, app_of in APPS.items()
    for name, command in typer.main.get_group(app_of).commands.items()
}


def run(*arguments: str | Path, cwd: Path | None = None, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-P", "-m", "longreel.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory, make_video):
    """A folder with `videos.csv`, ten short clips of two classes, their store, two finished runs, others' arrays."""
    folder = tmp_path_factory.mktemp("workplace")
    rows = ["path,label,split"]
    for number in range(10):
        split = ("train", "train", "train", "val", "test")[number % 5]
        label = "slide-right" if number < 5 else "slide-left"
        frames = [_square(step if number < 5 else 11 - step) for step in range(12)]
        make_video(folder / f"{number}.mp4", frames, fps=12)
        rows.append(f"{number}.mp4,{label},{split}")
    (folder / "videos.csv").write_text("\n".join(rows))
    for command in (
        "extract videos.csv videos.store --backbone motion",
        "train videos.store videos.csv --out runs/ce --epochs 3",
        "train videos.store videos.csv --balance balanced-softmax --out runs/bs --keep-epochs",
        "generate prompts videos.csv made --fill 5",
        "generate videos made",
        "generate fill videos.csv made --fill 5 --out filled.csv",
        "extract filled.csv filled.store --backbone motion",
    ):
        done = run(*command.split(), cwd=folder)
        assert done.returncode == 0, done.stderr
    spec = Spec("other", "w", 4, "8 fps", "none", "auto")
    (folder / "other.store").mkdir()
    with ShardWriter(folder / "other.store", spec) as writer:
        clip = ClipFeatures(np.zeros((1, 4), dtype=np.float16), np.zeros(1))
        writer.add("0.mp4", clip, Origin("pyav", 1.0, 0, 0, "00" * 32))
    (folder / "space.toml").write_text("[settings]\nepochs = 2\n[space]\nlearning_rate = {low = 1e-3, high = 1e-2}\n")
    write_hdf5(folder / "nw_ucla.h5")
    (folder / "clip-features").mkdir()
    np.save(folder / "clip-features" / "0.npy", np.ones((2, 4), dtype=np.float32))
    write_lists(folder / "VideoLT" / "labels", VIDEOLT)
    dim = FeatureStore(folder / "videos.store").spec.dim
    shapes = {"fc1.weight": (3, dim), "fc1.bias": (3,), "project.weight": (2, 3), "project.bias": (2,)}
    state = {name: torch.ones(shape) for name, shape in shapes.items()}
    torch.save({"state_dict": state}, folder / "ckpt.best.pth.tar")
    return folder


def test_a_run_folder_in_use_gets_one_clear_line(workplace):
    with owned(workplace / "runs" / "ce" / ".lock", "it"):
        done = run("train", "videos.store", "videos.csv", "--out", "runs/ce", "--epochs", "3", cwd=workplace)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: runs/ce is in use by process {os.getpid()}")
    assert len(done.stderr.strip().splitlines()) == 1


def test_training_ends_with_the_figures_on_val_by_group_and_leaves_test_closed(workplace):
    done = run("train", "videos.store", "videos.csv", "--out", "runs/ce", "--epochs", "3", cwd=workplace)
    assert re.search("overall.*few.*groups: gen2balance", done.stdout, flags=re.DOTALL)
    assert "val split opened 1 time" in done.stdout


def _square(step: int):
    frame = np.full((48, 64, 3), 90, dtype=np.uint8)
    frame[16:32, 4 * step : 4 * step + 12] = 220
    return frame


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name):
    assert f"Example: longreel {name}" in (COMMANDS[name].help or "")


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "demo"])
def test_every_example_runs_as_it_stands(name, workplace):
    example = (COMMANDS[name].help or "").split("Example: longreel ")[1].splitlines()[0]
    done = run(*shlex.split(example), cwd=workplace)
    assert done.returncode == (4 if name == "doctor" else 0), done.stderr  # clips of a class are copies here
    assert done.stdout.strip()


@pytest.mark.parametrize("arguments", [[], ["extract"], ["train"], ["store", "verify"]])
def test_help_imports_neither_torch_nor_transformers(arguments):
    script = (
        "import sys; from longreel.cli import app\n"
        f"try: app({[*arguments, '--help']!r})\n"
        "except SystemExit as end: assert not end.code, end.code\n"
        "heavy = {'torch', 'transformers', 'numpy', 'h5py', 'av'} & set(sys.modules); assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Usage" in done.stdout


def test_extract_says_what_is_there_and_what_is_done(workplace):
    again = run("extract", "videos.csv", "videos.store", "--backbone", "motion", cwd=workplace)
    assert again.returncode == 0
    assert "10 clips are there, 0 failed before, 0 to do" in again.stderr
    assert "0 written (0 partial), 10 already there, 0 failed -> videos.store" in again.stdout


def test_one_bad_video_ends_in_exit_code_3_and_a_ledger_row(workplace, tmp_path):
    (workplace / "bad.mp4").write_text("this is no video")
    rows = (workplace / "videos.csv").read_text() + "\nbad.mp4,slide-left,test\n"
    (workplace / "more.csv").write_text(rows)
    done = run("extract", "more.csv", tmp_path / "store", "--backbone", "motion", cwd=workplace)
    assert done.returncode == 3
    assert "10 written (0 partial), 0 already there, 1 failed" in done.stdout
    assert "failed: bad.mp4: Invalid data found" in done.stderr
    again = run("extract", "more.csv", tmp_path / "store", "--backbone", "motion", cwd=workplace)
    assert again.returncode == 3
    assert "--retry-failed" in again.stderr
    info = json.loads(run("store", "info", tmp_path / "store", "--json").stdout)
    assert info["clips"] == 10
    assert list(info["failed"]) == ["bad.mp4"]


def test_json_is_one_document_with_the_promised_keys(workplace):
    evaluation = json.loads(run("evaluate", "runs/ce", "--json", cwd=workplace).stdout)
    assert {"acc1", "class_average", "map"} <= evaluation["overall"].keys()
    assert set(evaluation["groups"]) == {"head", "tail", "few"}
    comparison = json.loads(run("compare", "runs/ce", "runs/bs", "--json", cwd=workplace).stdout)
    assert [row["name"].split(",")[0] for row in comparison["rows"]] == ["nonlinear ce", "nonlinear balanced-softmax"]
    verification = json.loads(run("store", "verify", "videos.store", "--json", cwd=workplace).stdout)
    assert re.fullmatch("[0-9a-f]{64}", verification["digest"])


def test_a_flipped_bit_makes_verify_end_in_exit_code_4(workplace, tmp_path):
    shard = next((workplace / "videos.store").glob("*.h5"))
    damaged = bytearray(shard.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / shard.name).write_bytes(damaged)
    done = run("store", "verify", tmp_path, "--json")
    assert done.returncode == 4
    assert json.loads(done.stdout)["damaged"][0]["shard"] == shard.name


WRONG = {
    "no such manifest": ("extract nowhere.csv s --backbone motion", "nowhere.csv: cannot be read"),
    "empty manifest": ("extract empty.csv s --backbone motion", "empty.csv: is empty"),
    "unknown split": ("extract split.csv s --backbone motion", "split.csv:2: column 'split': 'trian' is not known"),
    "unknown backbone": ("extract videos.csv s --backbone moton", "Did you mean 'motion'?"),
    "no such folder": ("extract videos.csv s --backbone models/vit", "models/vit: no such folder"),
    "unknown decoder": ("extract videos.csv s --backbone motion --decoder pyaw", "Did you mean 'pyav'?"),
    "both samplings": ("extract videos.csv s --backbone motion --fps 2 --frames 8", "either --fps or --frames"),
    "bad slice": ("extract videos.csv s --backbone motion --shard 3/2", "--shard '3/2'"),
    "wrong root": ("extract videos.csv s --backbone motion --root runs", "none of its 10 videos is under"),
    "other backbone": ("extract videos.csv other.store --backbone motion", "backbone is 'other', not 'motion'"),
    "rate below zero": (
        "train videos.store videos.csv --learning-rate -1 --out r",
        "this learning rate cannot be used",
    ),
    "seed too large": ("train videos.store videos.csv --seed 99999999999999999999 --out r", "this seed cannot be used"),
    "file as store": ("extract videos.csv videos.csv --backbone motion", "is, or lies in, a file"),
    "damaged run": ("train videos.store videos.csv --out damaged", "config.json: cannot be read"),
    "other sampling": ("extract videos.csv videos.store --backbone motion --fps 3", "made in another way: sampling is"),
    "unknown head": ("train videos.store videos.csv --head nonlinar --out r", "Did you mean 'nonlinear'?"),
    "unknown balance": (
        "train videos.store videos.csv --balance softmax --out r",
        "no balance method called 'softmax'",
    ),
    "unknown groups": ("train videos.store videos.csv --groups third --out r", "Did you mean 'thirds'?"),
    "no store": ("train nothing.store videos.csv --out r", "nothing.store: is not a store"),
    "other run": ("train videos.store videos.csv --out runs/ce --epochs 4", "fit.epochs is 3 there, 4 now"),
    "not a run": ("evaluate videos.store", "videos.store: is not a run"),
    "train split": ("evaluate runs/ce --split train", "There are: test, val."),
    "missing argument": ("train videos.store", "Missing argument"),
}


@pytest.mark.parametrize(("command", "answer"), WRONG.values(), ids=WRONG)
def test_wrong_input_gets_one_clear_line_and_exit_code_2(command, answer, workplace):
    (workplace / "empty.csv").write_text("")
    (workplace / "damaged").mkdir(exist_ok=True)
    (workplace / "damaged" / "config.json").write_text("[")
    (workplace / "split.csv").write_text("path,label,split\n0.mp4,right,trian\n")
    before = run("store", "verify", "videos.store", "--json", cwd=workplace).stdout
    done = run(*command.split(), cwd=workplace, COLUMNS="200")
    assert done.returncode == 2
    assert answer in done.stderr
    assert "Traceback" not in done.stderr
    if answer != "Missing argument":  # typer's own words, in a frame
        assert done.stderr.startswith("error: ")
        assert len(done.stderr.strip().splitlines()) == 1
    assert run("store", "verify", "videos.store", "--json", cwd=workplace).stdout == before


def test_text_of_users_cannot_drive_the_terminal(workplace):
    manifest = workplace / "strange.jsonl"
    manifest.write_text(json.dumps({"path": "0.mp4", "label": "[/red]", "split": "\x1b[31mtrain"}))
    done = run("extract", manifest, workplace / "s", "--backbone", "motion")
    assert done.returncode == 2
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize(
    "command",
    [
        ["store", "info", "{long}"],
        ["store", "verify", "{long}"],
        ["train", "{long}", "videos.csv", "--out", "runs/long"],
        ["extract", "videos.csv", "new.store", "--backbone", "motion", "--root", "{long}"],
        ["import-features", "{long}", "new.store", "--backbone", "x"],
        ["evaluate", "{long}"],
    ],
    ids=lambda command: " ".join(command[:2]),
)
def test_a_name_longer_than_any_file_gets_one_clear_line(command, workplace):
    done = run(*(word.format(long="n" * 300) for word in command), cwd=workplace)
    assert done.returncode == 2
    assert re.fullmatch(r"error: [^\n]*n{300}[^\n]*\n", done.stderr), done.stderr
    assert "name too long" in done.stderr.lower() or "no such" in done.stderr or "is no" in done.stderr


def test_a_clip_whose_name_is_longer_than_any_files_fails_alone(workplace, tmp_path):
    (tmp_path / "clips.csv").write_text(f"path,label,split\n{'n' * 300}.mp4,a,train\n0.mp4,b,train\n")
    done = run(
        "extract", tmp_path / "clips.csv", tmp_path / "store", "--backbone", "motion", "--root", ".", cwd=workplace
    )
    assert done.returncode == 3
    assert "Traceback" not in done.stderr
    ledger = run("store", "info", tmp_path / "store", "--json", cwd=workplace)
    assert "name too long" in ledger.stdout.lower()
