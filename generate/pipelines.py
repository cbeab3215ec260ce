"""Any text-to-video pipeline of diffusers as a maker of clips: loaded without its code, called with what it accepts."""

import contextlib
import gc
import inspect
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import EnvironmentFault, LongreelError
from .clips import Prompt
from .folders import ModelFolder, check_needs, fingerprint_model
from .making import Made, check_frames
from .recipes import Recipe, check_recipe
from .weights import check_weights

FRAMES = ("num_frames", "frames", "video_length")  #: what pipelines call the number of frames.
#: temporal factor of a pipeline, by the names it goes by.
FACTORS = ("vae_scale_factor_temporal", "vae_temporal_compression_ratio")
LEFT_OUT = (
    "guidance_scale",
    "height",
    "width",
    "frame_rate",
    "fps",
)  #: of a call, where a pipeline does not take them.


@dataclass
class Pipeline:
    """A model and its recipe; a ``Maker``. It is loaded by ``prepare``."""

    model: ModelFolder
    recipe_name: str
    recipe: Recipe
    licence: str | None
    place: str  #: as torch names it: ``cpu``, ``cuda:0``.
    batch: int = 1
    _pipe: Any = field(default=None, init=False)
    _call: dict = field(default_factory=dict, init=False)
    _tiling: bool = field(default=False, init=False)
    _offload: bool = field(default=False, init=False)

    @property
    def settings(self) -> dict:
        """All that decides a clip beside its prompt and seed. What saves memory is not in it: it is found underway."""
        recipe = self.recipe
        return {
            "model": self.model.name,
            "weights": self._weights,
            "recipe": self.recipe_name,
            "frames": recipe.frames,
            "height": recipe.height,
            "width": recipe.width,
            "fps": recipe.fps,
            "steps": recipe.steps,
            "guidance": recipe.guidance,
            "dtype": self.dtype,
            "scheduler": recipe.scheduler and [recipe.scheduler[0], dict(recipe.scheduler[1])],
            "call": dict(recipe.call),
            "batch": self.batch,
        }

    @cached_property
    def _weights(self) -> str:
        return fingerprint_model(self.model)

    @property
    def dtype(self) -> str:
        """Of weights and arithmetic."""
        return "float32" if self.place == "cpu" else self.recipe.dtype

    def prepare(self) -> dict:
        """Load the model; what the sidecars say about it.

        Raises:
            LongreelError: When it is no text-to-video pipeline, or the recipe is off its grid.
            EnvironmentFault: When it cannot be loaded, or its weights lack tensors.
        """
        import torch

        check_needs(self.model)
        torch.backends.cudnn.deterministic = True  # the same clip must come out twice
        self._pipe = pipe = _load(self.model, getattr(torch, self.dtype))
        check_weights(self.model, pipe.components)
        accepted = inspect.signature(type(pipe).__call__).parameters
        self._call = match_call(self.model.pipeline, accepted, self._wanted())
        factor = next((value for name in FACTORS if isinstance(value := getattr(pipe, name, None), int)), 1)
        if self.recipe_name == "own":
            check_recipe(replace(self.recipe, every=factor))
        if self.recipe.scheduler is not None:
            pipe.scheduler = _make_scheduler(pipe.scheduler.config, *self.recipe.scheduler)
        self._place()
        config = {key: value for key, value in pipe.scheduler.config.items() if not key.startswith("_")}
        return {
            "pipeline": self.model.pipeline,
            "device": torch.cuda.get_device_name(self.place) if self.place != "cpu" else "cpu",
            "generator_device": "cpu",
            "scheduler": {"class": type(pipe.scheduler).__name__, "config": _plain(config)},
        }

    def make(self, prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[Made]:
        """One call for all prompts, with a generator for each clip.

        Raises:
            MemoryError: When memory is out, the GPU's or the CPU's.
            EnvironmentFault: When the GPU fails in a way that every later clip would fail of, too.
        """
        import torch

        begun = time.monotonic()
        generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
        if self.place != "cpu":
            torch.cuda.reset_peak_memory_stats(self.place)
        try:
            with quiet():  # what is said of a prompt that is too long repeats it, control characters and all
                result = self._pipe(prompt=[prompt.prompt for prompt in prompts], generator=generators, **self._call)
        except torch.OutOfMemoryError:
            raise MemoryError("out of memory on the GPU") from None
        except torch.AcceleratorError as error:
            raise EnvironmentFault(f"the GPU failed: {' '.join(str(error).split())[:300]}. Start again.") from None
        except RuntimeError as error:
            if "can't allocate memory" in str(error):  # the CPU's allocator has no kind of its own
                raise MemoryError("out of memory on the CPU") from None
            raise
        clips = [_as_array(frames) for frames in result.frames]  # each (T, H, W, 3) in [0, 1]
        seconds = round((time.monotonic() - begun) / len(prompts), 3)
        facts = {
            "seconds": seconds,
            "made_with": [prompt.clip_id for prompt in prompts] if len(prompts) > 1 else [],
            "tiling": self._tiling,
            "offload": self._offload,
            "peak_memory": torch.cuda.max_memory_allocated(self.place) if self.place != "cpu" else None,
        }
        return [Made(_as_bytes(clip), self.recipe.fps, check_frames(clip), facts) for clip in clips]

    def save_memory(self) -> str | None:
        """Decode in tiles, then keep on the GPU only the part that computes; ``None`` when both are done already."""
        import torch

        gc.collect()
        torch.cuda.empty_cache()
        if not self._tiling and hasattr(getattr(self._pipe, "vae", None), "enable_tiling"):
            self._pipe.vae.enable_tiling()
            self._tiling = True
            return "decoding in tiles"
        if not self._offload and self.place != "cpu":
            self._pipe.enable_model_cpu_offload(device=self.place)
            self._offload = True
            return "keeping only the part that computes on the GPU"
        return None

    def _place(self) -> None:
        import torch

        if self.recipe.tiling:
            self._pipe.vae.enable_tiling()
            self._tiling = True
        self._offload = self.recipe.offload and self.place != "cpu"
        if not self._offload:
            try:
                self._pipe.to(self.place)
                return
            except torch.OutOfMemoryError:
                self._offload = True
        self._pipe.enable_model_cpu_offload(device=self.place)

    def _wanted(self) -> dict:
        recipe = self.recipe
        return {
            "frames": recipe.frames,
            "height": recipe.height,
            "width": recipe.width,
            "num_inference_steps": recipe.steps,
            "guidance_scale": recipe.guidance,
            "frame_rate": recipe.fps,
            "fps": recipe.fps,
            "output_type": "np",
            **recipe.call,
        }


def match_call(pipeline: str, accepted: Mapping[str, inspect.Parameter], wanted: Mapping[str, object]) -> dict:
    """The arguments of a pipeline's call in its own words.

    Args:
        pipeline: For messages.
        accepted: Its parameters.
        wanted: By our names; ``frames`` goes by several.

    Raises:
        LongreelError: When it makes no videos, needs more than a prompt, or does not take what is wanted.
    """
    given = dict(wanted)
    frames = next((name for name in FRAMES if name in accepted), None)
    if frames is None or not {"prompt", "generator", "output_type"} <= set(accepted):
        raise LongreelError(f"{pipeline} makes no videos of prompts. Use a text-to-video pipeline.")
    given[frames] = given.pop("frames")
    needed = [name for name, each in accepted.items() if each.default is each.empty and name not in ("self", "kwargs")]
    if more := sorted({name for name in needed if accepted[name].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD}
                      - {"prompt", *given}):  # fmt: skip
        raise LongreelError(f"{pipeline} needs {', '.join(more)} beside a prompt. Use a text-to-video pipeline.")
    if refused := sorted(set(given) - set(accepted) - set(LEFT_OUT)):
        raise LongreelError(f"{pipeline} does not take {', '.join(refused)}, which its recipe has.")
    return {name: value for name, value in given.items() if name in accepted}


def choose_place(name: str, environment: Mapping[str, str]) -> str:
    """``cpu``, ``cuda`` or ``auto`` -> as torch names it; of several GPUs, torchrun's ``LOCAL_RANK`` says which.

    Raises:
        LongreelError: When there is no such choice.
        EnvironmentFault: When a GPU is asked for and torch finds none.
    """
    import torch

    if name not in ("auto", "cpu", "cuda"):
        raise LongreelError(f"--device {name}: expected auto, cpu or cuda.")
    if name == "cpu" or not torch.cuda.is_available():
        if name == "cuda":
            raise EnvironmentFault("--device cuda: torch finds no GPU. Use --device cpu, or a torch for your GPU.")
        return "cpu"
    rank = environment.get("LOCAL_RANK", "0")
    return f"cuda:{int(rank) % torch.cuda.device_count() if rank.isdecimal() else 0}"


def _load(model: ModelFolder, dtype: Any) -> Any:
    with quiet():
        from diffusers import DiffusionPipeline  # pyright: ignore[reportPrivateImportUsage]

        try:
            pipe = DiffusionPipeline.from_pretrained(
                model.path, dtype=dtype, local_files_only=True, use_safetensors=True, trust_remote_code=False
            )
        except (OSError, ValueError, RuntimeError, ImportError, TypeError, AttributeError) as error:
            raise EnvironmentFault(
                f"{model.name}: diffusers cannot load it: {' '.join(str(error).split())[:400]}"
            ) from error
    pipe.set_progress_bar_config(disable=True)
    return pipe


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Loading without the progress bars and the advice of diffusers and transformers."""
    from diffusers.utils import logging as ours
    from transformers.utils import logging as theirs

    before = ours.get_verbosity(), theirs.get_verbosity()
    bars = ours.is_progress_bar_enabled(), theirs.is_progress_bar_enabled()
    for each in (ours, theirs):
        each.set_verbosity_error()
        each.disable_progress_bar()
    try:
        yield
    finally:
        for each, level, bar in zip((ours, theirs), before, bars, strict=True):
            each.set_verbosity(level)
            if bar:
                each.enable_progress_bar()


def _make_scheduler(config: Any, name: str, changes: Mapping[str, object]) -> Any:
    import diffusers

    return getattr(diffusers, name).from_config(config, **changes)


def _as_array(frames: Any) -> np.ndarray:
    found = np.asarray(frames, dtype=np.float32)
    if found.ndim != 4 or found.shape[-1] != 3:
        raise EnvironmentFault(f"the pipeline gave frames of shape {found.shape}, not (T, H, W, 3).")
    return found


def _as_bytes(clip: np.ndarray) -> np.ndarray:
    clean = np.nan_to_num(clip, nan=0.0, posinf=1.0, neginf=0.0)
    return (np.clip(clean, 0, 1) * 255 + 0.5).astype(np.uint8)


def _plain(value: Any) -> Any:
    """As JSON takes it; what is no plain value, as its text."""
    if isinstance(value, dict):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, float):
        return value if np.isfinite(value) else str(value)
    return value if value is None or isinstance(value, bool | int | str) else str(value)
