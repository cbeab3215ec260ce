"""Kill commands at random moments, run them again, compare with an uninterrupted run.

python benchmarks/kills.py ../shared/data/videos/manifest_all9.csv build/kills --kills 20 --every 3
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import numpy as np

from longreel.generate.motions import CLASSES
from longreel.store import FeatureStore

CLIPS = "clips.csv"  #: the rows that are used.


def run(command: list[str]) -> float:
    """Run to the end; the seconds that took."""
    begun = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.monotonic() - begun


def kill_after(command: list[str], seconds: float) -> bool:
    """Start the command and SIGKILL it after so many seconds; false when it had ended before."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.wait()
        return True
    return False


def read_json(command: list[str]) -> dict:
    """The document that a command prints."""
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout)


def digest(store: Path) -> str:
    """What `store verify` computes from the bytes."""
    return read_json(["longreel", "store", "verify", str(store), "--json"])["digest"]


def kill_extract(manifest: Path, work: Path, kills: int, chance: random.Random) -> str:
    """Kill extract that often; returns the line for the report and raises when a digest differs."""
    command = ["longreel", "extract", str(work / CLIPS), "--root", str(manifest.parent), "--backbone", "motion"]
    return kill_writer("extract", command, work / "clean.store", work / "killed.store", kills, chance)


def kill_import(manifest: Path, work: Path, kills: int, chance: random.Random) -> str:
    """The same for import-features, on 320 MiB of arrays: five shards."""
    (work / "npy").mkdir()
    drawn = np.random.default_rng(0)
    for number in range(80):
        np.save(work / "npy" / f"{number}.npy", drawn.random((1024, 2048), dtype=np.float32).astype(np.float16))
    command = ["longreel", "import-features", str(work / "npy"), "--backbone", "drawn"]
    return kill_writer("import", command, work / "clean-import.store", work / "killed-import.store", kills, chance)


def kill_writer(name: str, command: list[str], clean: Path, store: Path, kills: int, chance: random.Random) -> str:
    """Kill what writes a store, run it again and compare with a store that was written without a kill."""
    duration = run([*command, str(clean)])
    expected, after_seal, done = digest(clean), 0, 0
    while done < kills:
        shutil.rmtree(store, ignore_errors=True)
        if not kill_after([*command, str(store)], chance.uniform(0.0, 0.95 * duration)):
            continue
        sealed = {path.name for path in store.glob("*.h5")}
        if not sealed and done - after_seal >= kills // 2:
            continue  # at least half of the kills are to strike after a shard was sealed
        done += 1
        after_seal += bool(sealed)
        kept = len(FeatureStore(store)) if sealed else 0
        again = read_json([*command, str(store), "--json"])
        assert again["already"] == kept, f"sealed clips were written again after kill {done}"
        assert digest(store) == expected, f"digest differs after kill {done}"
        print(f"{name}: kill {done}, {len(sealed)} shards sealed before it, same digest", flush=True)
    return f"{name}: {kills} kills, {after_seal} after a sealed shard: digests identical, no sealed clip written again"


def kill_train(manifest: Path, work: Path, kills: int, chance: random.Random) -> str:
    """Kill train that often; returns the line for the report and raises when a weight differs."""
    clean, folder = work / "clean-run", work / "killed-run"
    command = ["longreel", "train", str(work / "clean.store"), str(work / CLIPS), "--root", str(manifest.parent)]
    command += ["--balance", "balanced-softmax", "--checkpoint-seconds", "0.5", "--out"]
    duration = run([*command, str(clean)])
    files = ("head.safetensors", "history.json", "scores-val.safetensors")
    expected = [hashlib.sha256((clean / name).read_bytes()).hexdigest() for name in files]
    resumed, done = 0, 0
    while done < kills:
        shutil.rmtree(folder, ignore_errors=True)
        if not kill_after([*command, str(folder)], chance.uniform(0.0, 0.95 * duration)):
            continue
        done += 1
        checkpoint = (folder / "checkpoint.safetensors").exists()
        resumed += checkpoint
        run([*command, str(folder)])
        found = [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in files]
        assert found == expected, f"weights, history or scores differ after kill {done}"
        where = "after a checkpoint" if checkpoint else "before the first checkpoint"
        print(f"train: kill {done}, {where}, same bytes", flush=True)
    return f"train: {kills} kills, {resumed} after a checkpoint: weights, history and scores identical"


def kill_workers(manifest: Path, work: Path, kills: int, chance: random.Random) -> str:
    """SIGKILL a random decode worker of a running extract every half second, until it ends."""
    store, clean = work / "chaos.store", work / "clean.store"
    command = ["longreel", "extract", str(work / CLIPS), "--root", str(manifest.parent), "--backbone", "motion"]
    process = subprocess.Popen([*command, str(store), "--json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    killed = 0
    while process.poll() is None:
        time.sleep(0.5)
        with suppress(FileNotFoundError, ProcessLookupError):  # threads and workers come and go
            lists = Path(f"/proc/{process.pid}/task").glob("*/children")
            if workers := [int(child) for path in lists for child in path.read_text().split()]:
                os.kill(chance.choice(workers), signal.SIGKILL)
                killed += 1
    report = json.loads(process.communicate()[0])
    assert not report["failures"], f"{len(report['failures'])} clips were given up"
    assert digest(store) == digest(clean), "the digest differs"
    return f"workers: {killed} killed while {report['written']} clips were extracted: all complete, same digest"


def kill_videos(manifest: Path, work: Path, kills: int, chance: random.Random) -> str:
    """Kill `generate videos` that often, in one folder that goes on each time, and begin anew when all are made."""
    listed, clean = work / "motions.csv", work / "clean-made"
    listed.write_text("path,label,split\n" + "".join(f"{name}.mp4,{name},train\n" for name in CLASSES))
    run(["longreel", "generate", "prompts", str(listed), str(clean), "--fill", "11"])
    command = ["longreel", "generate", "videos"]
    shutil.copytree(clean, work / "empty-made")
    duration = run([*command, str(clean)])
    expected, partial, done, folder = _hash_videos(clean), 0, 0, work / "killed-made"
    shutil.copytree(work / "empty-made", folder)
    while done < kills:
        if not kill_after([*command, str(folder)], chance.uniform(0.2, 0.6) * duration):
            shutil.rmtree(folder)
            shutil.copytree(work / "empty-made", folder)
            continue
        done += 1
        partial += 0 < len(found := _hash_videos(folder)) < len(expected)
        assert found.items() <= expected.items(), f"a clip differs after kill {done}"
        print(f"videos: kill {done}, {len(found)} of {len(expected)} clips made before it, each the same", flush=True)
    run([*command, str(folder)])
    assert _hash_videos(folder) == expected, "clips differ in the end"
    return f"videos: {kills} kills, {partial} with some clips made: no broken clip, the same in the end"


def _hash_videos(folder: Path) -> dict[str, str]:
    videos = sorted((folder / "videos").rglob("[!.]*.mp4"))
    return {path.name + path.parent.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in videos}


#: What is killed; train and workers need the store that extract made.
SUBJECTS = {
    "extract": kill_extract,
    "train": kill_train,
    "workers": kill_workers,
    "import": kill_import,
    "videos": kill_videos,
}


def main() -> None:
    """One after the other, and their lines of the report at the end."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--every", type=int, default=1, help="take every so many rows of the manifest")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--subjects", nargs="+", choices=SUBJECTS, default=list(SUBJECTS))
    given = parser.parse_args()
    shutil.rmtree(given.work, ignore_errors=True)
    given.work.mkdir(parents=True)
    header, *rows = given.manifest.read_text().splitlines()
    (given.work / CLIPS).write_text("\n".join([header, *rows[:: given.every]]))
    chance = random.Random(given.seed)
    lines = [SUBJECTS[name](given.manifest, given.work, given.kills, chance) for name in given.subjects]
    print("\n".join(lines))


if __name__ == "__main__":
    main()
