"""Videos made by several processes and machines."""

import json
import os

import pytest
from small_rendering import SIZE, SMALL, command, digests, folder_of

from longreel.durable import owned
from longreel.errors import InUse, LongreelError
from longreel.generate.turns import take_turn
from longreel.generate.videos import make_videos
from longreel.slices import Slice, parse_slice, slice_of_environment


def test_one_slice_has_one_process_and_slices_of_one_count_go_side_by_side(tmp_path):
    folder_of(tmp_path)
    settings = {"seed": 0, **SMALL.settings}
    with take_turn(tmp_path, Slice(1, 2), settings):
        with pytest.raises(InUse, match=rf"shard 1/2 of .* in use by process {os.getpid()}"):
            make_videos(tmp_path, SMALL, part=Slice(1, 2))
        with pytest.raises(InUse, match="1of2"):
            make_videos(tmp_path, SMALL, part=Slice(2, 3))
        assert make_videos(tmp_path, SMALL, part=Slice(2, 2)).made == 4
    assert make_videos(tmp_path, SMALL, part=Slice(2, 3)).failures == []


def test_a_second_command_on_the_same_slice_is_refused_in_one_line(tmp_path):
    folder_of(tmp_path)
    with owned(tmp_path / ".videos-1of1.lock", "x"):
        result = command(tmp_path, *SIZE)
    assert result.returncode == 2
    assert "in use by process" in result.stderr
    assert "Traceback" not in result.stderr
    assert not digests(tmp_path)


@pytest.mark.parametrize(
    ("environment", "expected", "words"),
    [
        ({}, Slice(1, 1), ""),
        ({"RANK": "2", "WORLD_SIZE": "8"}, Slice(3, 8), "shard 3/8: torchrun rank 2 of 8"),
        ({"RANK": "2"}, Slice(1, 1), ""),
        (
            {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "5"},
            Slice(3, 4),
            "shard 3/4: Slurm array task 3 of 4",
        ),
        (
            {
                "SLURM_ARRAY_TASK_ID": "20",
                "SLURM_ARRAY_TASK_COUNT": "3",
                "SLURM_ARRAY_TASK_MIN": "0",
                "SLURM_ARRAY_TASK_STEP": "10",
            },
            Slice(3, 3),
            "shard 3/3: Slurm array task 3 of 3",
        ),
    ],
)
def test_torchrun_and_slurm_say_which_shard_this_is(environment, expected, words):
    assert slice_of_environment(environment) == (expected, words)


def test_ranks_inside_array_tasks_share_all_clips_and_none_twice():
    slices = [
        slice_of_environment(
            {"RANK": str(rank), "WORLD_SIZE": "4", "SLURM_ARRAY_TASK_ID": str(task)}
            | {"SLURM_ARRAY_TASK_COUNT": "3", "SLURM_ARRAY_TASK_MIN": "1"}
        )[0]
        for task in (1, 2, 3)
        for rank in range(4)
    ]
    assert sorted(item for each in slices for item in each.of(range(50))) == list(range(50))


@pytest.mark.parametrize(
    "environment",
    [
        {"RANK": "8", "WORLD_SIZE": "8"},
        {"RANK": "two", "WORLD_SIZE": "8"},
        {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_COUNT": "4", "SLURM_ARRAY_TASK_MIN": "5"},
    ],
)
def test_an_environment_that_makes_no_sense_is_refused(environment):
    with pytest.raises(LongreelError, match="--shard"):
        slice_of_environment(environment)


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2", "1/2/3"])
def test_a_shard_that_is_none_is_refused(text):
    with pytest.raises(LongreelError, match="i/n"):
        parse_slice(text)


def test_the_command_takes_its_shard_from_torchrun_and_says_so_unless_told_another(tmp_path):
    folder_of(tmp_path)
    environment = os.environ | {"RANK": "1", "WORLD_SIZE": "3"}
    result = command(tmp_path, *SIZE, "--json", env=environment)
    assert "shard 2/3: torchrun rank 1 of 3" in result.stderr
    assert json.loads(result.stdout)["made"] == 3
    told = command(tmp_path, *SIZE, "--shard", "1/1", env=environment)
    assert "torchrun" not in told.stderr
    assert "6 made, 3 already there" in told.stdout
