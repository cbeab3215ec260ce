"""What `store verify` says: which shards are damaged, which clips are lost with them, and what a sample has seen."""

import json
import math
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from small_stores import flip_bit, some_clip, write_shard, write_shards

from longreel.errors import LongreelError
from longreel.store import FeatureStore, parse_sample, verify_store
from longreel.store.verify import draw_shards


def verify(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "longreel.cli", "store", "verify", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_the_clips_that_are_lost_with_a_damaged_shard_are_named(tmp_path):
    first, second, third = write_shards(tmp_path, 3)
    store = FeatureStore(tmp_path)
    whole = store.digest(["1a", "1b"])
    flip_bit(first, store.shards[0].data_offset)
    third.write_bytes(third.read_bytes()[: third.stat().st_size * 9 // 10])
    found = verify_store(tmp_path)
    assert {entry["shard"]: entry["clips"] for entry in found.damaged} == {
        first.name: ["0a", "0b"],
        third.name: ["2a", "2b"],
    }
    assert (found.shards, found.checked, found.clips) == (3, 3, 2)
    assert found.digest == whole, "of the whole clips"
    assert second.exists()


def test_a_shard_of_which_nothing_can_be_read_is_named_without_clips(tmp_path):
    shard, other = write_shards(tmp_path, 2)
    shard.write_bytes(bytes(500))
    other.write_bytes(b"")
    assert [(entry["shard"], entry["clips"]) for entry in verify_store(tmp_path).damaged] == [
        (shard.name, []),
        (other.name, []),
    ]


def test_a_clip_that_a_later_whole_shard_holds_is_not_lost_and_one_in_an_earlier_shard_is(tmp_path):
    early = write_shard(tmp_path, {"again": some_clip(1), "only": some_clip(2), "renewed": some_clip(3)})
    write_shard(tmp_path, {"again": some_clip(4), "before": some_clip(5)})
    late = write_shard(tmp_path, {"before": some_clip(6)})
    for shard in (early, late):
        flip_bit(shard, shard.stat().st_size - 1)
    assert [entry["clips"] for entry in verify_store(tmp_path).damaged] == [["only", "renewed"], ["before"]]


def test_a_file_that_no_reader_takes_is_mentioned(tmp_path):
    (shard,) = write_shards(tmp_path, 1)
    (tmp_path / "notes.h5").write_bytes(b"x")
    shard.with_name(f"damaged-{shard.name}").write_bytes(b"y")
    assert verify_store(tmp_path).ignored == [f"damaged-{shard.name}", "notes.h5"]


@pytest.mark.parametrize("percent", [0.1, 5, 30, 100])
def test_a_sample_has_as_many_shards_as_was_asked_for_rounded_up_and_no_digest(tmp_path, percent):
    write_shards(tmp_path, 12)
    found = verify_store(tmp_path, sample=percent, seed=3)
    assert found.checked == max(1, math.ceil(12 * percent / 100))
    assert (found.clips, found.shards, found.digest, found.seed) == (2 * found.checked, 12, None, 3)
    assert found.damaged == []


def test_a_sample_sees_the_damage_of_its_own_shards_and_every_truncation(tmp_path):
    shards = write_shards(tmp_path, 8)
    for shard in shards:
        flip_bit(shard, shard.stat().st_size - 1)
    names = [entry["shard"] for entry in verify_store(tmp_path, sample=25, seed=5).damaged]
    assert len(names) == 2
    assert names == [entry["shard"] for entry in verify_store(tmp_path, sample=25, seed=5).damaged]
    for shard in shards:
        shard.write_bytes(shard.read_bytes()[:-1])
    assert len(verify_store(tmp_path, sample=0.1).damaged) == 8


def test_over_many_seeds_each_shard_has_its_turn_equally_often():
    shards = [Path(str(number)) for number in range(8)]
    drawn = Counter(shard for seed in range(4000) for shard in draw_shards(shards, 25, seed))
    assert sum(drawn.values()) == 8000
    assert all(880 < drawn[shard] < 1120 for shard in shards), "1000 each, four standard deviations"


def test_a_draw_without_a_seed_is_another_each_time_and_says_which(tmp_path):
    write_shards(tmp_path, 1)
    seeds = {verify_store(tmp_path, sample=50).seed for _ in range(3)}
    assert len(seeds) == 3
    assert None not in seeds
    assert verify_store(tmp_path).seed is None


@pytest.mark.parametrize("text", ["0%", "101%", "-1", "nan", "some", "", "5%%"])
def test_a_sample_that_is_no_part_of_the_whole_is_refused(text):
    with pytest.raises(LongreelError, match="above 0% and up to 100%"):
        parse_sample(text)


def test_the_command_ends_in_exit_code_4_and_names_shard_and_clips(tmp_path):
    shard, _ = write_shards(tmp_path, 2)
    flip_bit(shard, shard.stat().st_size - 1)
    done = verify(tmp_path)
    assert done.returncode == 4
    expected = f"damaged: {shard.name}: its bytes are not what was written; lost: '0a', '0b'"
    assert done.stdout.splitlines()[-2] == expected
    assert "--repair" in done.stdout.splitlines()[-1]
    done = verify(tmp_path, "--full", "--json")
    assert done.returncode == 4
    assert json.loads(done.stdout)["damaged"][0]["clips"] == ["0a", "0b"]


def test_the_command_says_which_sample_it_read(tmp_path):
    write_shards(tmp_path, 3)
    done = verify(tmp_path, "--sample", "34%", "--seed", 9, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert {key: document[key] for key in ("sample", "seed", "checked", "shards", "digest")} == {
        "sample": 34.0,
        "seed": 9,
        "checked": 2,
        "shards": 3,
        "digest": None,
    }
    assert "seed: " in verify(tmp_path, "--sample", "34").stdout


@pytest.mark.parametrize("options", [("--full", "--sample", "5%"), ("--seed", "1")])
def test_options_that_do_not_go_together_are_refused(tmp_path, options):
    write_shards(tmp_path, 1)
    done = verify(tmp_path, *options)
    assert done.returncode == 2
    assert done.stderr.startswith("error: --")
