"""How published text-to-video models are asked: sizes, lengths, rates and steps they were made for.

A model's folder says which pipeline it is, but not at how many frames a second it was trained, nor which frame counts
it makes faithfully: others are rounded in silence, or come out as garbage.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..errors import LongreelError, unknown

NEAREST = 2


@dataclass(frozen=True)
class Recipe:
    """What a clip is asked for; every field can be set on the command line or is a fact of the model."""

    pipeline: str  #: the class of diffusers.
    frames: int
    height: int
    width: int
    fps: float  #: at which the model was trained: the rate of the file.
    steps: int
    guidance: float
    every: int = 1  #: frame counts are ``every * k + 1``.
    side: int = 16  #: height and width are multiples of this.
    dtype: str = "bfloat16"  #: on a GPU; a CPU computes in float32.
    scheduler: tuple[str, Mapping[str, object]] | None = None  #: class and settings in place of the folder's own.
    call: Mapping[str, object] = field(default_factory=dict)  #: further arguments of the call.
    tiling: bool = False  #: decode tile by tile from the start.
    offload: bool = False  #: keep on the GPU only the part that computes, from the start.
    layers: int | None = None  #: of the transformer, which tells the sizes of a family apart.
    licence: str | None = None


_UNIPC = "UniPCMultistepScheduler"
_TRAILING = {"timestep_spacing": "trailing"}

#: Name -> recipe. Wan 14B is asked as Gen2Balance does (ECCV 2026: 65 frames of 480x832, 50 steps, guidance 5, UniPC
#: with flow shift 3, bfloat16); Wan 1.3B, CogVideoX, HunyuanVideo and Mochi as their authors' own scripts do; LTX as
#: its page in diffusers does. Frame grids are those of diffusers 0.42: CogVideoX makes 8k+1 faithfully, not 4k+1.
RECIPES: dict[str, Recipe] = {
    "wan-14b": Recipe(
        "WanPipeline", 65, 480, 832, 16, 50, 5.0,
        every=4, scheduler=(_UNIPC, {"flow_shift": 3.0}), layers=40, licence="Apache-2.0",
    ),
    "wan-1.3b": Recipe(
        "WanPipeline", 81, 480, 832, 16, 50, 6.0,
        every=4, scheduler=(_UNIPC, {"flow_shift": 8.0}), layers=30, licence="Apache-2.0",
    ),
    "cogvideox-2b": Recipe(
        "CogVideoXPipeline", 49, 480, 720, 8, 50, 6.0,
        every=8, dtype="float16", scheduler=("CogVideoXDDIMScheduler", _TRAILING), layers=30, licence="Apache-2.0",
    ),
    "cogvideox-5b": Recipe(
        "CogVideoXPipeline", 49, 480, 720, 8, 50, 6.0,
        every=8, scheduler=("CogVideoXDPMScheduler", _TRAILING), call={"use_dynamic_cfg": True}, layers=42,
        licence="CogVideoX License",
    ),
    "ltx": Recipe(
        "LTXPipeline", 161, 480, 704, 24, 50, 3.0,
        every=8, side=32, layers=28, licence="LTX-Video License (see the model's page)",
    ),
    "hunyuanvideo": Recipe(
        "HunyuanVideoPipeline", 129, 720, 1280, 24, 50, 6.0,
        every=4, tiling=True, layers=20, licence="Tencent Hunyuan Community License",
    ),
    "mochi": Recipe(
        "MochiPipeline", 163, 480, 848, 30, 64, 4.5,
        every=6, tiling=True, offload=True, layers=48, licence="Apache-2.0",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Wishes:
    """What the user wants in place of the recipe's; ``None``: as the recipe says."""

    frames: int | None = None
    height: int | None = None
    width: int | None = None
    fps: float | None = None
    steps: int | None = None
    guidance: float | None = None

    def given(self) -> dict:
        """What is not ``None``."""
        return {name: value for name, value in vars(self).items() if value is not None}


def choose_recipe(name: str | None, pipeline: str, layers: int | None, wishes: Wishes) -> tuple[str, Recipe]:
    """The recipe of that name, or the one that the pipeline's class and depth tell, changed as wished; and its name.

    Args:
        name: Of ``RECIPES``; ``None`` to guess.
        pipeline: The class that the model's folder names.
        layers: Of its transformer.
        wishes: What departs from the recipe.

    Raises:
        LongreelError: When there is no such recipe, it is another pipeline's, none can be told, or the wishes do not
            fit the model.
    """
    if name is None:
        name = _guess(pipeline, layers)
    if name is None:
        return "own", check_recipe(_own(pipeline, wishes))
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    recipe = RECIPES[name]
    if recipe.pipeline != pipeline:
        raise LongreelError(f"--recipe {name} is of {recipe.pipeline}, but the model is a {pipeline}. Leave it out.")
    return name, check_recipe(replace(recipe, **wishes.given()))


def check_recipe(recipe: Recipe) -> Recipe:
    """The recipe, when the model can make what it asks for.

    Raises:
        LongreelError: When a number is out of range or off the model's grid; names the nearest that are on it.
    """
    for name in ("frames", "height", "width", "fps", "steps"):
        if getattr(recipe, name) <= 0:
            raise LongreelError(f"--{name} {getattr(recipe, name)}: expected more than 0.")
    if recipe.guidance < 0:
        raise LongreelError(f"--guidance {recipe.guidance:g}: expected 0 or more.")
    if (recipe.frames - 1) % recipe.every:
        below = (recipe.frames - 1) // recipe.every * recipe.every + 1
        raise LongreelError(
            f"--frames {recipe.frames}: {recipe.pipeline} makes {recipe.every}k+1 frames and would round in silence. "
            f"The nearest are {below} and {below + recipe.every}."
        )
    for name in ("height", "width"):
        if (given := getattr(recipe, name)) % recipe.side:
            below = given // recipe.side * recipe.side
            near = f"{below} and {below + recipe.side}" if below else str(recipe.side)
            raise LongreelError(
                f"--{name} {given}: {recipe.pipeline} makes multiples of {recipe.side}. The nearest: {near}."
            )
    return recipe


def _guess(pipeline: str, layers: int | None) -> str | None:
    fitting = [name for name, recipe in RECIPES.items() if recipe.pipeline == pipeline]
    if len(fitting) > 1:
        exact = [name for name in fitting if RECIPES[name].layers == layers]
        if len(exact) != 1:
            raise LongreelError(
                f"the model is a {pipeline} of {layers} layers, which no recipe is for. Name one with --recipe: "
                f"{', '.join(fitting)}."
            )
        return exact[0]
    return fitting[0] if fitting else None


def _own(pipeline: str, wishes: Wishes) -> Recipe:
    """A recipe of what the user gives alone, for a pipeline that none is known for."""
    if missing := [f"--{name}" for name, value in vars(wishes).items() if value is None]:
        raise LongreelError(
            f"no recipe is known for {pipeline}, and the rate it was trained at is not in its folder. "
            f"Give {', '.join(missing)}, as the model's page says."
        )
    return Recipe(pipeline, **wishes.given(), side=2)
