"""Videos made several at once, and with too little memory."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from small_rendering import PROMPTED, digests, folder_of, said_of

from longreel.generate.clips import Prompt
from longreel.generate.making import Made, check_frames
from longreel.generate.videos import make_videos
from longreel.slices import Slice


@dataclass
class Cramped:
    """Makes grey clips, and has memory for so many at once; each step of saving makes room for one more."""

    room: int
    batch: int = 4
    steps: list[str] = field(default_factory=lambda: ["tiling", "offload"])
    poison: str = ""
    settings: dict = field(default_factory=lambda: {"model": "grey", "frames": 2})
    licence: str | None = None

    def prepare(self) -> dict:
        return {}

    def make(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[Made]:
        if len(prompts) > self.room:
            raise MemoryError("no room")
        if self.poison in [prompt.clip_id for prompt in prompts]:
            raise ValueError("bad words")
        # What floating point does: everyone in a batch has an effect on everyone.
        shade = sum(seeds) % 251
        frames = [np.full((2, 16, 16, 3), (shade + seed) % 251, np.uint8) for seed in seeds]
        facts = {"made_with": [prompt.clip_id for prompt in prompts]}
        return [Made(each, 8.0, check_frames(each / 255.0), facts) for each in frames]

    def save_memory(self) -> str | None:
        if not self.steps:
            return None
        self.room += 1
        return self.steps.pop(0)


def made_with(folder: Path) -> list[int]:
    """How many clips each clip was made with."""
    return [len(said_of(folder, prompt)["made_with"]) for prompt in PROMPTED]


def test_out_of_memory_halves_the_batch_for_the_rest_of_the_run(tmp_path):
    notes = []
    report = make_videos(folder_of(tmp_path), Cramped(room=2), on_note=notes.append)
    assert (report.made, report.failures) == (9, [])
    assert made_with(tmp_path) == [2] * 8 + [1]
    assert notes == ["out of memory: 2 clips at once from now on"]


def test_out_of_memory_alone_saves_memory_step_by_step_and_then_the_clip_has_failed(tmp_path):
    notes = []
    report = make_videos(folder_of(tmp_path / "a"), Cramped(room=-1, batch=1), on_note=notes.append)
    assert (report.made, report.failures) == (9, [])
    assert notes == [f"out of memory: {step} from now on" for step in ("tiling", "offload")]
    report = make_videos(folder_of(tmp_path / "b"), Cramped(room=-2, batch=2))
    assert report.made == 0
    assert {failure.error for failure in report.failures} == {"MemoryError: no room"}
    assert len(report.failures) == 9


def test_frames_that_the_model_rounds_are_told_once_and_written_down(tmp_path):
    notes = []
    maker = Cramped(room=9, settings={"model": "grey", "frames": 3})
    assert make_videos(folder_of(tmp_path), maker, on_note=notes.append).made == 9
    assert notes == ["the model made 2 frames of the 3 asked for; the sidecars have both"]
    assert [(said_of(tmp_path, each)["frames_asked"], said_of(tmp_path, each)["frames"]) for each in PROMPTED] == [
        (3, 2)
    ] * 9


def test_of_a_batch_only_the_clip_that_is_at_fault_fails(tmp_path):
    report = make_videos(folder_of(tmp_path), Cramped(room=9, poison=PROMPTED[1].clip_id))
    assert [(failure.clip_id, failure.error) for failure in report.failures] == [
        (PROMPTED[1].clip_id, "ValueError: bad words")
    ]
    assert report.made == 8


def test_batches_are_fixed_neighbours_whatever_is_there_already(tmp_path):
    make_videos(folder_of(tmp_path / "straight"), Cramped(room=9))
    paused = folder_of(tmp_path / "paused")
    for _ in range(5):
        make_videos(paused, Cramped(room=9), limit=2)
    sharded = folder_of(tmp_path / "sharded")
    for number in (2, 1):
        make_videos(sharded, Cramped(room=9), part=Slice(number, 2))
    assert made_with(paused) == made_with(sharded) == [4] * 8 + [1]
    assert digests(paused) == digests(sharded) == digests(tmp_path / "straight")
