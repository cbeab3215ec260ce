"""Leaks that were planted in made-up clips, and the real one of NW-UCLA, which the doctor must find by itself."""

import json
import math
from pathlib import Path

import h5py
import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from longreel.commands.doctoring import doctor
from longreel.commands.skeletons import import_skeletons
from longreel.errors import LongreelError, StoreMismatch
from longreel.experiments.doctor import examine
from longreel.experiments.nearness import compare_rows, learn_nearness
from longreel.generate.neighbours import unit
from longreel.manifest import read_manifest
from longreel.store import ClipFeatures, FeatureStore, Origin, ShardWriter, Spec

UCLA = Path(__file__).parent.parent.parent / "shared" / "data" / "skeleton" / "nw_ucla.h5"
DIM = 12
app = typer.Typer()
app.command("doctor")(doctor)
app.command("import-skeletons")(import_skeletons)


def draw_clips(count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Clips of 8 to 15 rows around a centre of their own, all around one common centre, as features are."""
    drawn = np.random.default_rng(seed)
    common = 3.0 * drawn.random(DIM)
    return {
        f"c{number:03}": common + drawn.standard_normal(DIM) + 0.3 * drawn.standard_normal((8 + number % 8, DIM))
        for number in range(count)
    }


def write(folder: Path, clips: dict[str, np.ndarray], split: dict[str, str], labels: dict[str, str] | None = None):
    """A store of float16 and its manifest."""
    (folder / "s").mkdir()
    with ShardWriter(folder / "s", Spec("toy", "0", DIM, "all", "none", "auto")) as writer:
        for clip_id, rows in clips.items():
            features = ClipFeatures(rows.astype(np.float16), np.arange(len(rows), dtype=np.float64))
            writer.add(clip_id, features, Origin("pyav", 1.0, 1, 1, "00" * 32))
    lines = [f"{clip_id},{(labels or {}).get(clip_id, 'a')},{split.get(clip_id, 'train')}" for clip_id in clips]
    (folder / "clips.csv").write_text("\n".join(["path,label,split", *lines]) + "\n")
    return FeatureStore(folder / "s"), read_manifest(folder / "clips.csv")


def halves(clips: dict[str, np.ndarray]) -> dict[str, str]:
    return {clip_id: "test" if int(clip_id[1:]) % 3 == 2 else "train" for clip_id in clips}


@pytest.mark.parametrize("seed", range(8))
def test_clean_data_is_sound(tmp_path, seed):
    clips = draw_clips(240, seed)
    found = examine(*write(tmp_path, clips, halves(clips)))
    assert found.sound
    assert found.cross_split == []
    assert len(found.nearest) == 10
    assert found.threshold.cosine is not None
    assert max(pair.cosine for pair in found.nearest) < found.threshold.cosine
    assert found.pairs == {"identical": 0, "near": 0}
    assert found.clips == {"train": 160, "test": 80}


def test_identical_clips_are_found_whatever_their_ids_and_times(tmp_path):
    clips, split = draw_clips(60), {}
    for copy, of in (("copy a", "c000"), ("copy b", "c001"), ("val copy", "c000")):
        clips[copy] = clips[of]
        split[copy] = "val" if copy.startswith("val") else "test"
    split["c002"], clips["inside"] = "test", clips["c005"]
    found = examine(*write(tmp_path, clips, split))
    assert found.pairs["identical"] == 4
    assert {(pair.ids, pair.splits) for pair in found.cross_split if pair.kind == "identical"} == {
        (("c000", "copy a"), ("train", "test")),
        (("c001", "copy b"), ("train", "test")),
        (("c000", "val copy"), ("train", "val")),
        (("val copy", "copy a"), ("val", "test")),
    }
    assert found.inside["train"]["identical"] == 1
    assert not found.sound


def test_one_frame_more_or_another_number_is_not_identical(tmp_path):
    clips, split = draw_clips(60), {"longer": "test", "other": "test"}
    clips["longer"] = np.concatenate([clips["c000"], clips["c000"][-1:]])
    clips["other"] = clips["c001"].copy()
    clips["other"][0, 0] += 0.01
    found = examine(*write(tmp_path, clips, split))
    assert found.pairs["identical"] == 0
    assert {pair.ids for pair in found.cross_split} >= {("c000", "longer"), ("c001", "other")}


@pytest.mark.parametrize(
    "change",
    [
        lambda rows, drawn: rows + 0.01 * drawn.standard_normal(rows.shape),
        lambda rows, drawn: rows[::2],
        lambda rows, drawn: rows[2:-2],
        lambda rows, drawn: np.repeat(rows, 2, axis=0),
        lambda rows, drawn: rows[::-1],
        lambda rows, drawn: rows * 1.01,
    ],
    ids=["noise", "every other frame", "cut", "slower", "backwards", "scaled"],
)
def test_a_copy_that_was_changed_a_little_is_near_and_nothing_else_is(tmp_path, change):
    clips, drawn = draw_clips(240), np.random.default_rng(1)
    split = halves(clips)
    planted = {}
    for number in range(0, 60, 6):
        planted[f"c{number:03}", f"copy {number}"] = "near"
        clips[f"copy {number}"] = change(clips[f"c{number:03}"], drawn)
        split[f"copy {number}"] = "test"
    found = examine(*write(tmp_path, clips, split))
    assert {pair.ids: pair.kind for pair in found.cross_split} == planted


def test_copies_inside_the_training_clips_do_not_hide_those_across(tmp_path):
    clips, drawn = draw_clips(240), np.random.default_rng(2)
    split = halves(clips)
    for number in range(0, 12, 3):  # of the pairs inside, more than one in a thousand
        clips[f"again {number}"] = clips[f"c{number:03}"] + 0.02 * drawn.standard_normal((1, DIM))
    clips["leak"] = clips["c030"] + 0.03 * drawn.standard_normal((1, DIM))
    split["leak"] = "test"
    found = examine(*write(tmp_path, clips, split))
    assert {pair.ids for pair in found.cross_split} == {("c030", "leak")}
    assert found.inside["train"]["near"] == 4


def test_labels_that_differ_between_the_same_clips_are_told(tmp_path):
    clips = draw_clips(60)
    clips["same"], clips["twin"] = clips["c000"], clips["c001"]
    store, manifest = write(tmp_path, clips, {"twin": "test"}, {"same": "b", "c003": "b"})
    found = examine(store, manifest)
    assert [(pair.ids, pair.labels) for pair in found.other_labels] == [(("c000", "same"), (("a",), ("b",)))]


def test_clips_without_features_or_direction_are_named(tmp_path):
    clips = draw_clips(60) | {"black": np.zeros((3, DIM))}
    store, manifest = write(tmp_path, clips, {"c059": "test"})
    lines = (tmp_path / "clips.csv").read_text() + "gone,a,test\n"
    (tmp_path / "clips.csv").write_text(lines)
    found = examine(store, read_manifest(tmp_path / "clips.csv"))
    assert found.without_features == {"test": ["gone"]}
    assert found.without_direction == ["black"]
    assert found.clips["test"] == 2
    del manifest


def test_too_few_clips_teach_nothing_and_a_given_threshold_is_taken(tmp_path):
    clips = draw_clips(9)
    clips["leak"] = clips["c000"] * 1.02
    store, manifest = write(tmp_path, clips, {"leak": "test"})
    found = examine(store, manifest)
    assert (found.threshold.cosine, found.cross_split) == (None, [])
    assert "too few clips" in found.notes[0]
    given = examine(store, manifest, threshold=0.99)
    assert [pair.ids for pair in given.cross_split] == [("c000", "leak")]
    for wrong in (0.0, 1.5, -1.0, math.nan):
        with pytest.raises(LongreelError, match="is no cosine of near duplicates"):
            examine(store, manifest, threshold=wrong)


def test_a_manifest_of_other_clips_is_refused(tmp_path):
    store, _ = write(tmp_path, draw_clips(3), {})
    (tmp_path / "other.csv").write_text("path,label,split\nx,a,train\n")
    with pytest.raises(StoreMismatch, match="has no clip of"):
        examine(store, read_manifest(tmp_path / "other.csv"))


def test_many_clips_that_are_all_the_same_are_counted_without_listing_them_all(tmp_path):
    clips = {f"c{number:03}": np.ones((1, DIM)) for number in range(300)}
    found = examine(*write(tmp_path, clips, halves(clips)))
    assert found.pairs["identical"] == 200 * 100
    assert len(found.cross_split) == 10_000
    assert found.inside["train"]["identical"] == 200 * 199 // 2
    assert "10000 of 20000 pairs across splits are named" in found.notes


def test_rows_are_compared_as_a_loop_over_them_does():
    drawn = np.random.default_rng(4)
    one, other = unit(drawn.standard_normal((5, 4))), unit(drawn.standard_normal((9, 4)))
    best = [max(math.fsum(a * b for a, b in zip(row, each, strict=True)) for each in other) for row in one]
    assert compare_rows(one, other) == pytest.approx(sum(best) / 5, abs=1e-6)
    assert compare_rows(other, one) == compare_rows(one, other)
    assert math.isnan(compare_rows(one[:0], other))


@pytest.mark.parametrize("looked_at", [10, 100, 1000])
def test_a_learnt_threshold_lets_a_twentieth_of_a_pair_pass(looked_at):
    drawn = np.random.default_rng(5)
    angles = 0.8 * drawn.random(20_000) ** (1 / 4)  # nearest angles of points in four dimensions
    found = learn_nearness(np.cos(angles).tolist(), looked_at)
    assert found.cosine is not None
    assert found.n == 20_000
    assert (math.acos(found.cosine) / 0.8) ** 4 * looked_at == pytest.approx(0.05, rel=0.25)
    copies = learn_nearness([1.0] * 1000 + [0.9995] * 400 + np.cos(angles).tolist(), looked_at)
    assert copies.cosine is not None
    assert 0.5 * math.acos(found.cosine) < math.acos(copies.cosine) < math.acos(found.cosine)


def test_of_few_pairs_nothing_is_learnt_and_what_is_all_alike_has_the_highest_threshold():
    assert learn_nearness([0.5] * 19 + [math.nan], 100).cosine is None
    assert learn_nearness([1.0] * 30, 100).cosine is None
    assert learn_nearness([0.5] * 30, 100).cosine == pytest.approx(0.9999)


def test_the_command_ends_with_4_where_clips_are_in_two_splits_and_0_else(tmp_path):
    (tmp_path / "clean").mkdir()
    clips = draw_clips(60)
    write(tmp_path / "clean", clips, halves(clips))
    done = CliRunner().invoke(app, ["doctor", str(tmp_path / "clean" / "s"), str(tmp_path / "clean" / "clips.csv")])
    assert done.exit_code == 0
    assert "across splits: 0 identical pairs, 0 near ones" in done.stdout
    clips["twin [red]"] = clips["c000"]
    write(tmp_path, clips, halves({key: rows for key, rows in clips.items() if key[0] == "c"}) | {"twin [red]": "test"})
    done = CliRunner().invoke(app, ["doctor", str(tmp_path / "s"), str(tmp_path / "clips.csv")])
    assert done.exit_code == 4
    assert "identical 1.0000: c000 (train, a) = twin [red] (test, a)" in done.stdout
    done = CliRunner().invoke(app, ["doctor", str(tmp_path / "s"), str(tmp_path / "clips.csv"), "--json"])
    document = json.loads(done.stdout)
    assert document["cross_split"] == [
        {"ids": ["c000", "twin [red]"], "splits": ["train", "test"], "labels": [["a"], ["a"]],
         "kind": "identical", "cosine": 1.0}
    ]  # fmt: skip


@pytest.mark.skipif(not UCLA.exists(), reason=f"{UCLA} is not here")
def test_the_95_test_sequences_of_nw_ucla_that_are_training_ones_are_found_and_no_others(tmp_path):
    store, table = str(tmp_path / "s"), str(tmp_path / "ucla.csv")
    assert CliRunner().invoke(app, ["import-skeletons", str(UCLA), store, "--manifest", table]).exit_code == 0
    done = CliRunner().invoke(app, ["doctor", store, table, "--json"])
    assert done.exit_code == 4
    document = json.loads(done.stdout)
    with h5py.File(UCLA) as file:
        groups, names = np.asarray(file["dup_group"]), [bytes(name).decode() for name in np.asarray(file["names"])]
    twins: dict[int, list[str]] = {}
    for group, name in zip(groups.tolist(), names, strict=True):
        twins.setdefault(group, []).append(name)
    del twins[-1]
    assert len(document["cross_split"]) == 95
    assert {tuple(sorted(pair["ids"])) for pair in document["cross_split"]} == {
        tuple(sorted(t)) for t in twins.values()
    }
    assert {(pair["kind"], *pair["splits"]) for pair in document["cross_split"]} == {("identical", "train", "test")}
    clean = str(tmp_path / "clean.csv")
    CliRunner().invoke(app, ["import-skeletons", str(UCLA), store, "--manifest", clean, "--split", "train_clean"])
    assert CliRunner().invoke(app, ["doctor", store, clean]).exit_code == 0
    shared = [pair for pair in document["other_labels"] if pair["kind"] == "near"]
    with h5py.File(UCLA) as file:  # those called near, with other labels, do share frames
        joints, lengths = np.asarray(file["joints"]), np.asarray(file["lengths"])
    for pair in shared:
        one, other = ({row.tobytes() for row in joints[p, : lengths[p]]} for p in map(names.index, pair["ids"]))
        assert len(one & other) > 0.5 * min(len(one), len(other))
    assert len(shared) == 2
