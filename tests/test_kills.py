"""kill -9 at random moments, then the same command: the same bits as without (benchmarks/kills.py does more of it)."""

import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from longreel.store import FeatureStore

LONGREEL = [sys.executable, "-P", "-m", "longreel.cli"]
KILLS = 5
CLIPS = 320


@pytest.fixture(scope="module")
def manifest(tmp_path_factory, make_video) -> Path:
    """Many clips, each a span of one of two real videos."""
    folder = tmp_path_factory.mktemp("clips")
    chance = np.random.default_rng(0)
    for name in ("left", "right"):
        make_video(folder / f"{name}.mp4", list(chance.integers(0, 255, (24, 96, 128, 3), dtype=np.uint8)), fps=12)
    rows = ["path,label,split,start,end"]
    for number in range(CLIPS):
        name = ("left", "right")[number % 2]
        split = ("train", "train", "val", "test")[number // 2 % 4]
        rows.append(f"{name}.mp4,{name},{split},{number / CLIPS:.5f},{number / CLIPS + 1:.5f}")
    (folder / "clips.csv").write_text("\n".join(rows))
    return folder / "clips.csv"


def finish(*arguments: object) -> str:
    return subprocess.run(
        [*LONGREEL, *map(str, arguments)], check=True, capture_output=True, text=True, timeout=300
    ).stdout


def kill_when(arguments: tuple, ready: Callable[[], bool], delay: float) -> None:
    """Run a command and SIGKILL its process ``delay`` seconds after ``ready()``; it must not have ended by then."""
    process = subprocess.Popen([*LONGREEL, *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not ready():
        pass
    time.sleep(delay)
    assert process.poll() is None, "it ended before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.wait()


def digest(store: Path) -> str:
    return json.loads(finish("store", "verify", store, "--json"))["digest"]


def test_extract_killed_at_random_moments_ends_in_the_same_digest(manifest, tmp_path):
    chance = random.Random(0)
    clean, store = tmp_path / "clean", tmp_path / "killed"
    finish("extract", manifest, clean, "--backbone", "motion")
    arguments = ("extract", manifest, store, "--backbone", "motion")
    for kill in range(KILLS):
        shutil.rmtree(store, ignore_errors=True)
        wanted = kill % 4  # shards sealed before the kill
        kill_when(arguments, lambda: len(list(store.glob("*.h5"))) >= wanted, chance.uniform(0.0, 0.2))  # noqa: B023
        sealed = {path.name for path in store.glob("*.h5")}
        assert len(sealed) >= wanted
        kept = len(FeatureStore(store)) if sealed else 0
        assert json.loads(finish(*arguments, "--json"))["already"] == kept, "sealed shards are reused"
        assert sealed <= {path.name for path in store.glob("*.h5")}
        assert digest(store) == digest(clean)


def test_an_import_killed_at_random_moments_ends_in_the_same_digest(tmp_path):
    chance = random.Random(2)
    drawn = np.random.default_rng(0)
    clean, store, source = tmp_path / "clean", tmp_path / "killed", tmp_path / "npy"
    source.mkdir()
    for number in range(40):  # three shards of at most 64 MiB
        np.save(source / f"{number}.npy", drawn.random((1024, 2048), dtype=np.float32).astype(np.float16))
    finish("import-features", source, clean, "--backbone", "drawn")
    arguments = ("import-features", source, store, "--backbone", "drawn")
    for wanted in range(3):  # shards sealed before the kill
        shutil.rmtree(store, ignore_errors=True)
        kill_when(arguments, lambda: len(list(store.glob("*.h5"))) >= wanted, chance.uniform(0.0, 0.1))  # noqa: B023
        sealed = {path.name for path in store.glob("*.h5")}
        kept = len(FeatureStore(store)) if sealed else 0
        assert len(sealed) >= wanted
        assert json.loads(finish(*arguments, "--json"))["already"] == kept, "sealed shards are reused"
        assert sealed <= {path.name for path in store.glob("*.h5")}
        assert digest(store) == digest(clean)


def test_an_import_of_skeletons_killed_at_random_moments_ends_in_the_same_digest(tmp_path):
    chance, drawn = random.Random(3), np.random.default_rng(1)
    clean, store, source = tmp_path / "clean", tmp_path / "killed", tmp_path / "npy"
    source.mkdir()
    rows = ["path,label,split"]
    for number in range(40):  # three shards of at most 64 MiB
        np.save(source / f"{number}.npy", drawn.random((16384, 20, 3), dtype=np.float32))
        rows.append(f"{number}.npy,{'ab'[number % 2]},{'train' if number < 30 else 'test'}")
    (source / "clips.csv").write_text("\n".join(rows))
    finish("import-skeletons", source, clean, "--manifest", tmp_path / "clean.csv")
    arguments = ("import-skeletons", source, store, "--manifest", tmp_path / "killed.csv")
    for wanted in (0, 2):  # shards sealed before the kill
        shutil.rmtree(store, ignore_errors=True)
        kill_when(arguments, lambda: len(list(store.glob("*.h5"))) >= wanted, chance.uniform(0.0, 0.05))  # noqa: B023
        kept = len(FeatureStore(store)) if list(store.glob("*.h5")) else 0
        assert json.loads(finish(*arguments, "--json"))["already"] == kept, "sealed shards are reused"
        assert digest(store) == digest(clean)
        assert (tmp_path / "killed.csv").read_bytes() == (tmp_path / "clean.csv").read_bytes()


def test_train_killed_at_random_moments_ends_in_the_same_weights(manifest, tmp_path):
    chance = random.Random(1)
    store = tmp_path / "store"
    finish("extract", manifest, store, "--backbone", "motion")
    options = ("--epochs", 30, "--checkpoint-seconds", 0, "--threads", 1, "--out")
    finish("train", store, manifest, *options, tmp_path / "clean")
    files = ("head.safetensors", "history.json", "scores-val.safetensors")
    expected = [hashlib.sha256((tmp_path / "clean" / name).read_bytes()).digest() for name in files]
    for _ in range(KILLS):
        folder = tmp_path / "killed"
        shutil.rmtree(folder, ignore_errors=True)
        checkpoint = folder / "checkpoint.safetensors"
        kill_when(("train", store, manifest, *options, folder), checkpoint.exists, chance.uniform(0.0, 0.5))
        assert checkpoint.exists()
        assert not (folder / "head.safetensors").exists()
        finish("train", store, manifest, *options, folder)
        assert [hashlib.sha256((folder / name).read_bytes()).digest() for name in files] == expected
