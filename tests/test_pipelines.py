"""Text-to-video pipelines of diffusers, tiny and random, from folders as they are published."""

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_pipelines import diffusers, small_pipelines  # noqa: F401  (the second is a fixture)

from longreel.errors import EnvironmentFault, LongreelError
from longreel.generate.clips import PROMPTS, Prompt, make_clip_id, make_seed, write_lines
from longreel.generate.folders import find_model, fingerprint_model
from longreel.generate.mp4 import count_frames
from longreel.generate.pipelines import Pipeline, choose_place
from longreel.generate.recipes import RECIPES, Wishes, choose_recipe
from longreel.generate.sidecars import read_whole
from longreel.generate.videos import VideoReport, make_videos

pytest.importorskip("accelerate", reason="diffusers loads no Wan without it")
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.usefixtures("one_thread")]  # diffusers' own warnings

SMALL = Wishes(frames=9, height=16, width=16, steps=2)
NAMES = {"cogvideox": "cogvideox-2b", "wan": "wan-1.3b"}
TEXTS = ["a ball rolls", "a person is jumping over the floor", "rain"]
PROMPTED = [Prompt(make_clip_id("ball", i), "ball", i, text) for i, text in enumerate(TEXTS)]


def maker_of(folder: Path, recipe: str | None = None, wishes: Wishes = SMALL, batch: int = 1) -> Pipeline:
    model = find_model(str(folder))
    name, chosen = choose_recipe(recipe or NAMES[folder.name], model.pipeline, model.layers, wishes)
    return Pipeline(model, name, chosen, chosen.licence, "cpu", batch)


def render(gen: Path, maker: Pipeline, prompts=PROMPTED, **options) -> VideoReport:
    gen.mkdir(exist_ok=True)
    (gen / PROMPTS).write_text(write_lines(prompts))
    return make_videos(gen, maker, **options)


def said_of(gen: Path, prompt: Prompt) -> dict:
    """The sidecar of a clip that is there whole."""
    found = read_whole(gen, prompt.clip_id, decode=True)
    assert found is not None
    return found


def bytes_of(gen: Path) -> dict[str, bytes]:
    return {prompt.clip_id: (gen / "videos" / prompt.clip_id).read_bytes() for prompt in PROMPTED}


@pytest.fixture(params=NAMES)
def folder(request, small_pipelines) -> Path:  # noqa: F811
    return small_pipelines[request.param]


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    """A copy of the folder, to damage."""
    return Path(shutil.copytree(folder, tmp_path / folder.name))


def test_a_folder_makes_whole_clips_and_says_how(folder, tmp_path):
    assert render(tmp_path / "gen", maker_of(folder)).made == 3
    recipe = RECIPES[NAMES[folder.name]]
    for prompt in PROMPTED:
        said = said_of(tmp_path / "gen", prompt)
        assert (said["frames"], said["frames_asked"], said["height"], said["width"]) == (9, 9, 16, 16)
        assert (said["fps"], said["steps"], said["guidance"]) == (recipe.fps, 2, recipe.guidance)
        assert (said["pipeline"], said["recipe"]) == (recipe.pipeline, NAMES[folder.name])
        assert recipe.scheduler is not None
        assert said["scheduler"]["class"] == recipe.scheduler[0]
        assert recipe.scheduler[1].items() <= said["scheduler"]["config"].items()
        assert (said["dtype"], said["device"], said["generator_device"]) == ("float32", "cpu", "cpu")
        assert said["seed"] == make_seed(0, prompt.clip_id)
        assert said["licence"] == "Apache-2.0"
        assert said["seconds"] > 0
        assert said["checks"]["finite"] is True
        assert {"torch", "diffusers", "transformers"} <= said["versions"].keys()
        assert len(said["weights"]) == 64


def test_a_clip_is_what_diffusers_makes_of_the_same_seed_by_hand(folder):
    maker = maker_of(folder)
    maker.prepare()
    (made,) = maker.make(PROMPTED[1:2], [77])
    pipe = diffusers.DiffusionPipeline.from_pretrained(folder, torch_dtype=torch.float32)
    scheduler = RECIPES[NAMES[folder.name]].scheduler
    assert scheduler is not None
    name, changes = scheduler
    pipe.scheduler = getattr(diffusers, name).from_config(pipe.scheduler.config, **changes)
    frames = pipe(
        TEXTS[1],
        num_frames=9,
        height=16,
        width=16,
        num_inference_steps=2,
        guidance_scale=6.0,
        generator=torch.Generator().manual_seed(77),
        output_type="pil",
    ).frames[0]
    differences = made.frames.astype(int) - np.stack([np.asarray(frame) for frame in frames])
    assert np.abs(differences).max() <= 1  # sums over memory that lies elsewhere may be rounded otherwise


def test_order_and_pauses_change_no_bit_and_another_seed_all(folder, tmp_path):
    render(tmp_path / "a", maker_of(folder))
    render(tmp_path / "b", maker_of(folder), PROMPTED[::-1], limit=2)
    render(tmp_path / "b", maker_of(folder), PROMPTED[::-1])
    render(tmp_path / "c", maker_of(folder), seed=1)
    assert bytes_of(tmp_path / "a") == bytes_of(tmp_path / "b")
    assert not set(bytes_of(tmp_path / "a").values()) & set(bytes_of(tmp_path / "c").values())


def test_a_batch_says_who_was_in_it_and_differs_by_rounding_alone(folder, tmp_path):
    maker = maker_of(folder, batch=2)
    render(tmp_path / "gen", maker)
    said = [said_of(tmp_path / "gen", prompt) for prompt in PROMPTED]
    pair = [PROMPTED[0].clip_id, PROMPTED[1].clip_id]
    assert [each["made_with"] for each in said] == [pair, pair, []]
    together = maker.make(PROMPTED[:2], [1, 2])
    alone = [maker.make([prompt], [seed])[0] for prompt, seed in zip(PROMPTED[:2], (1, 2), strict=True)]
    for one, other in zip(together, alone, strict=True):
        assert np.abs(one.frames.astype(int) - other.frames).max() <= 1


def test_the_fingerprint_is_of_the_content_and_not_of_the_name(folder, tmp_path):
    moved = Path(shutil.copytree(folder, tmp_path / "elsewhere"))
    before = fingerprint_model(find_model(str(folder)))
    assert fingerprint_model(find_model(str(moved))) == before
    weights = next((moved / "vae").glob("*.safetensors"))
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert fingerprint_model(find_model(str(moved))) != before


def test_weights_that_lack_a_tensor_are_refused_and_not_drawn_at_random(copy, tmp_path):
    from safetensors.torch import load_file, save_file

    weights = next((copy / "transformer").glob("*.safetensors"))
    tensors = load_file(weights)
    lost = sorted(tensors)[3]
    save_file({name: tensor for name, tensor in tensors.items() if name != lost}, weights, {"format": "pt"})
    with pytest.raises(EnvironmentFault, match=rf"transformer: the weights lack 1 .*{lost}"):
        render(tmp_path / "gen", maker_of(copy))
    assert not (tmp_path / "gen" / "videos").exists()


@pytest.mark.parametrize("damage", ["cut", "gone", "pickle"])
def test_weights_that_cannot_be_read_are_refused(copy, tmp_path, damage):
    weights = next((copy / "transformer").glob("*.safetensors"))
    if damage == "cut":
        weights.write_bytes(weights.read_bytes()[:-200])
    else:
        weights.unlink()
    if damage == "pickle":
        torch.save({}, copy / "transformer" / "diffusion_pytorch_model.bin")
    with pytest.raises(EnvironmentFault, match="cannot load it"):
        render(tmp_path / "gen", maker_of(copy))


def test_a_model_that_makes_no_numbers_is_written_down_and_is_no_failure(copy, tmp_path):
    from safetensors.torch import load_file, save_file

    weights = next((copy / "vae").glob("*.safetensors"))
    tensors = {name: torch.full_like(tensor, torch.nan) for name, tensor in load_file(weights).items()}
    save_file(tensors, weights, {"format": "pt"})
    assert render(tmp_path / "gen", maker_of(copy), PROMPTED[:1]).made == 1
    said = said_of(tmp_path / "gen", PROMPTED[0])
    assert said["checks"] == {"finite": False, "brightness": 0.0, "difference": 0.0}


def test_out_of_memory_for_good_fails_the_clip_after_tiling_was_tried(small_pipelines, tmp_path):  # noqa: F811
    # A quarter of an exabyte of noise: more than any address space.
    huge = replace(SMALL, height=16_000_000, width=16_000_000)
    notes = []
    report = render(tmp_path / "gen", maker_of(small_pipelines["wan"], wishes=huge), PROMPTED[:1], on_note=notes.append)
    assert [failure.error for failure in report.failures] == ["MemoryError: out of memory on the CPU"]
    assert notes == ["out of memory: decoding in tiles from now on"]


@pytest.mark.parametrize(
    "index",
    [
        {"_class_name": ["my_pipeline", "Mine"]},
        {"transformer": ["transformer_mine", "Mine"]},
        {"../elsewhere": ["diffusers", "AutoencoderKLWan"]},
    ],
)
def test_code_of_a_folders_own_is_refused(copy, index):
    document = json.loads((copy / "model_index.json").read_text()) | index
    (copy / "model_index.json").write_text(json.dumps(document))
    with pytest.raises(LongreelError, match="never run"):
        find_model(str(copy))


def test_a_part_that_maps_to_code_is_refused(copy):
    config = copy / "text_encoder" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"auto_map": {"AutoModel": "mine.Mine"}}))
    with pytest.raises(LongreelError, match="never run"):
        find_model(str(copy))


@pytest.mark.parametrize("content", [None, "no json", "[]", "{}"])
def test_a_folder_that_is_no_pipeline_is_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "model_index.json").write_text(content)
    with pytest.raises(LongreelError, match=r"model_index\.json|pipeline"):
        find_model(str(tmp_path))


@pytest.mark.parametrize("name", ["Wan-AI/Wan2.1@main", "a/b@" + "0" * 39, "a/b@" + "A" * 40, "a/b@", "a/b"])
def test_a_model_of_the_hub_is_pinned_by_its_whole_commit(name):
    with pytest.raises(LongreelError, match=r"Pin one|no folder"):
        find_model(name)


def test_a_recipe_that_cannot_be_told_or_is_anothers_is_refused(folder):
    with pytest.raises(LongreelError, match="Name one with --recipe: "):
        choose_recipe(None, find_model(str(folder)).pipeline, 1, SMALL)
    with pytest.raises(LongreelError, match="mochi is of MochiPipeline"):
        maker_of(folder, recipe="mochi")
    with pytest.raises(LongreelError, match=r"wan-14.*wan-14b"):
        maker_of(folder, recipe="wan-14")


def test_a_pipeline_without_a_recipe_needs_every_number_and_keeps_to_its_own_grid(small_pipelines, tmp_path):  # noqa: F811
    model = find_model(str(small_pipelines["wan"]))
    with pytest.raises(LongreelError, match=r"Give --fps, --steps, --guidance"):
        choose_recipe(None, "OtherPipeline", None, Wishes(frames=9, height=16, width=16))
    for frames, works in ((9, True), (8, False)):
        _, own = choose_recipe(None, "OtherPipeline", None, Wishes(frames, 16, 16, 12.0, 2, 4.0))
        maker = Pipeline(model, "own", own, None, "cpu")
        if works:
            assert render(tmp_path / "gen", maker).made == 3
        else:
            with pytest.raises(LongreelError, match="5 and 9"):
                maker.prepare()
    said = said_of(tmp_path / "gen", PROMPTED[0])
    assert (said["fps"], said["licence"], said["recipe"]) == (12.0, None, "own")
    assert count_frames(tmp_path / "gen" / "videos" / PROMPTED[0].clip_id) == 9


def test_the_device_is_one_that_is_there():
    assert choose_place("cpu", {}) == "cpu"
    with pytest.raises(LongreelError, match="auto, cpu or cuda"):
        choose_place("tpu", {})
    if torch.cuda.is_available():
        assert choose_place("auto", {"LOCAL_RANK": str(torch.cuda.device_count())}) == "cuda:0"
    else:
        assert choose_place("auto", os.environ) == "cpu"
        with pytest.raises(EnvironmentFault, match="no GPU"):
            choose_place("cuda", {})
