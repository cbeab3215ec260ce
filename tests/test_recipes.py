"""Recipes: how a model was trained to be asked, what fits its grid, and the words of its pipeline's call."""

import inspect

import pytest
from small_pipelines import diffusers

from longreel.errors import LongreelError
from longreel.generate.pipelines import match_call
from longreel.generate.recipes import RECIPES, Wishes, check_recipe, choose_recipe

pytestmark = pytest.mark.filterwarnings("ignore")  # diffusers' own warnings


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        (Wishes(frames=8), r"--frames 8: WanPipeline makes 4k\+1 frames.*The nearest are 5 and 9"),
        (Wishes(frames=0), "--frames 0"),
        (Wishes(height=250), r"--height 250.*240 and 256"),
        (Wishes(width=9), r"--width 9.*nearest: 16"),
        (Wishes(steps=0), "--steps 0"),
        (Wishes(fps=-1.0), "--fps -1"),
        (Wishes(guidance=-1.0), "--guidance -1"),
    ],
)
def test_what_is_off_the_grid_is_refused_before_anything_is_loaded(wishes, words):
    with pytest.raises(LongreelError, match=words):
        choose_recipe("wan-14b", "WanPipeline", 40, wishes)


def test_the_grid_of_cogvideox_is_the_one_that_is_faithful():
    # Measured: 13 asked gives 16 in silence, although 13 is 4k + 1.
    with pytest.raises(LongreelError, match="9 and 17"):
        choose_recipe("cogvideox-2b", "CogVideoXPipeline", 30, Wishes(frames=13))


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_every_recipe_fits_its_own_grid_and_the_call_of_its_pipeline(recipe):
    check_recipe(recipe)
    accepted = inspect.signature(getattr(diffusers, recipe.pipeline).__call__).parameters
    wanted = {"frames": recipe.frames, "height": recipe.height, "width": recipe.width, "guidance_scale": 1.0}
    assert match_call(recipe.pipeline, accepted, wanted | recipe.call)["num_frames"] == recipe.frames
    assert recipe.licence
    if recipe.scheduler is not None:
        scheduler = getattr(diffusers, recipe.scheduler[0])
        assert recipe.scheduler[1].keys() <= inspect.signature(scheduler.__init__).parameters.keys()


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_told_by_class_and_depth(name):
    recipe = RECIPES[name]
    assert choose_recipe(None, recipe.pipeline, recipe.layers, Wishes()) == (name, recipe)


WANTED = {"frames": 9, "height": 16, "width": 16, "guidance_scale": 5.0, "output_type": "np", "num_inference_steps": 2}


@pytest.mark.parametrize(
    ("pipeline", "word"),
    [("SanaVideoPipeline", "frames"), ("LattePipeline", "video_length"), ("AllegroPipeline", "num_frames")],
)
def test_the_number_of_frames_goes_by_the_pipelines_own_word(pipeline, word):
    accepted = inspect.signature(getattr(diffusers, pipeline).__call__).parameters
    call = match_call(pipeline, accepted, WANTED)
    assert call[word] == 9
    assert call.keys() <= accepted.keys()


@pytest.mark.parametrize("pipeline", ["StableDiffusionPipeline", "CogVideoXImageToVideoPipeline", "FluxPipeline"])
def test_a_pipeline_that_makes_no_videos_of_prompts_alone_is_refused(pipeline):
    accepted = inspect.signature(getattr(diffusers, pipeline).__call__).parameters
    with pytest.raises(LongreelError, match="Use a text-to-video pipeline"):
        match_call(pipeline, accepted, WANTED)


def test_what_a_recipe_needs_and_a_pipeline_does_not_take_is_refused():
    accepted = inspect.signature(diffusers.WanPipeline.__call__).parameters
    with pytest.raises(LongreelError, match="does not take use_dynamic_cfg"):
        match_call("WanPipeline", accepted, WANTED | {"use_dynamic_cfg": True})
