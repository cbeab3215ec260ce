"""Features that stay on disk: the same batches, statistics and weights as from memory."""

import dataclasses
import os
import threading
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from small_runs import contents, settings_of

from longreel.errors import LongreelError, StoreDamaged
from longreel.experiments import disk
from longreel.experiments.clips import ClipSet, load_clips
from longreel.experiments.disk import DiskRows
from longreel.experiments.evaluate import evaluate_run
from longreel.experiments.train import train_run
from longreel.manifest import read_manifest
from longreel.store import FeatureStore, RowReader

pytestmark = pytest.mark.usefixtures("one_thread")


def load(made, place: str, split: str = "train", kinds: Sequence[str] = ()) -> ClipSet:
    return load_clips(FeatureStore(made.store), read_manifest(made.manifest), split, place, kinds=kinds)


def draw(clips: ClipSet, **options: Any) -> list[tuple[torch.Tensor, torch.Tensor]]:
    order = torch.randperm(len(clips), generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(1) if options.pop("random", False) else None
    return list(clips.batches(order.split(4), generator=generator, **options))


@pytest.mark.parametrize("options", [{}, {"frames": 3}, {"frames": 3, "random": True}])
@pytest.mark.parametrize("split", ["train", "val"])
def test_batches_from_disk_are_those_from_memory(options, split, made):
    found = [draw(load(made, place, split), **options) for place in ("disk", "memory")]
    for one, other in zip(*found, strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


@pytest.mark.parametrize("rows_at_once", [1, 7, 1000])
@pytest.mark.parametrize("checked_at_once", [1, 20, 10_000])
def test_scales_and_drawn_rows_are_the_same(checked_at_once, rows_at_once, made, monkeypatch):
    dim = FeatureStore(made.store).spec.dim
    monkeypatch.setattr("longreel.experiments.places.CHECKED_VALUES", dim * checked_at_once)
    monkeypatch.setattr("longreel.experiments.moments.VALUES", dim * rows_at_once)
    one, other = (load(made, place, kinds=["all"]) for place in ("disk", "memory"))
    assert all(torch.equal(a, b) for a, b in zip(one.scales["all"], other.scales["all"], strict=True))
    assert torch.equal(one.draw_rows(9, 3), other.draw_rows(9, 3))


def test_each_clip_is_read_once_to_be_checked_and_measured(made, monkeypatch):
    monkeypatch.setattr("longreel.experiments.places.CHECKED_VALUES", 1)
    read, plain = [], FeatureStore.read
    monkeypatch.setattr(FeatureStore, "read", lambda store, clips: read.extend(clips) or plain(store, clips))
    monkeypatch.setattr(RowReader, "read", None)  # of rows by themselves
    clips = load(made, "disk", kinds=["all", "real"])
    assert read == list(clips.ids)
    assert clips.scales.keys() == {"all", "real"}


@pytest.mark.parametrize("head", ["nonlinear", "knn"])
def test_a_run_from_disk_has_the_bits_of_one_from_memory(head, made, tmp_path):
    settings = dataclasses.replace(settings_of(made, frames=3), head=head)
    for place in ("disk", "memory"):
        train_run(tmp_path / place, settings, place=place)
    assert contents(tmp_path / "disk") == contents(tmp_path / "memory")


def test_without_room_in_memory_features_stay_on_disk(made, tmp_path, monkeypatch):
    assert isinstance(load(made, "auto").features, torch.Tensor)
    train_run(tmp_path / "run", settings_of(made))
    wanted = evaluate_run(tmp_path / "run", "val")["overall"]
    monkeypatch.setattr(disk, "free_memory", lambda: 100)
    assert isinstance(load(made, "auto").features, DiskRows)
    train_run(tmp_path / "again", settings_of(made))
    assert evaluate_run(tmp_path / "again", "val")["overall"] == wanted


def test_free_memory_is_some_and_less_than_the_machine_has():
    assert 0 < disk.free_memory() < os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("line", "folder", "names"),
    [
        ("0::/jobs/7", "jobs/7", ("memory.max", "memory.current", "inactive_file")),
        (
            "4:memory:/jobs/7",
            "memory/jobs/7",
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ),
    ],
    ids=["version 2", "version 1"],
)
def test_a_limit_of_the_control_group_counts_and_cached_files_do_not(line, folder, names, tmp_path, monkeypatch):
    group = tmp_path / "cgroup" / folder
    group.mkdir(parents=True)
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "cgroup").write_text(f"1:cpu:/\n{line}\n")
    limit, used, cached = names
    (group / "memory.stat").write_text(f"anon 5\n{cached} 200\n")
    (group / used).write_text("1000\n")
    (group / limit).write_text("5000\n")
    monkeypatch.setattr(disk, "CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(disk, "PROC", tmp_path)
    assert disk.free_memory() == 4200
    (group / limit).write_text("max\n")
    assert disk.free_memory() > 4200


def test_a_place_that_there_is_not_is_refused(made):
    with pytest.raises(LongreelError, match=r"no place for features called 'dist'\. Did you mean 'disk'"):
        load(made, "dist")


def test_an_interrupted_epoch_leaves_no_thread_behind(made):
    before = threading.active_count()
    batches = load(made, "disk").batches(torch.arange(4).split(1))
    next(batches)
    assert threading.active_count() == before + 2
    batches.close()
    assert threading.active_count() == before


def test_fetching_holds_up_neither_the_training_nor_the_next_fetch(made, monkeypatch):
    """The disk is busy with the second batch; the first one is given out all the same."""
    asked, busy, free = [], threading.Event(), threading.Event()

    def fetch(self: DiskRows, clips: torch.Tensor) -> None:
        asked.append(clips.tolist())
        if len(asked) == 2:
            busy.set()
            assert free.wait(60)

    monkeypatch.setattr(DiskRows, "read_ahead", fetch)
    clips = load(made, "disk")
    batches = clips.batches(torch.arange(5).split(1))
    first = next(batches)
    assert torch.equal(first[0], clips.batch(torch.tensor([0]))[0])
    assert busy.wait(60)
    assert asked == [[0], [1]]
    free.set()
    assert len(list(batches)) == 4
    assert asked == [[0], [1], [2], [3], [4]]


def test_a_fault_of_fetching_ends_the_training(made, monkeypatch):
    monkeypatch.setattr(DiskRows, "read_ahead", lambda self, clips: os.stat("/nothing/here"))
    with pytest.raises(FileNotFoundError, match="/nothing/here"):
        draw(load(made, "disk"))


def test_a_damaged_clip_is_named_before_anything_is_trained_from_disk(tmp_path, write_small_store):
    made = write_small_store(tmp_path)
    (path,) = made.store.glob("*.h5")
    content = bytearray(path.read_bytes())
    content[content.find(made.features["train/dog0.mp4"].tobytes())] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)
    with pytest.raises(StoreDamaged, match=r"clip 'train/dog0\.mp4' is damaged"):
        train_run(tmp_path / "run", settings_of(made), place="disk")
    assert not (tmp_path / "run").exists()
