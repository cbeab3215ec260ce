"""`generate videos`: from prompts to clips, by a text-to-video model or the built-in procedural generator."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..console import Steps, say
from ..errors import LongreelError
from .options import Json, print_json

if TYPE_CHECKING:
    from ..generate.making import Maker
    from ..generate.recipes import Wishes
    from ..generate.videos import VideoPlan

PROCEDURAL = "procedural"


def videos(
    gen: Annotated[Path, typer.Argument(help="Folder of generated clips, with prompts.jsonl.")],
    model: Annotated[
        str, typer.Option(help="procedural, the folder of a diffusers pipeline, or owner/model@commit.")
    ] = PROCEDURAL,
    recipe: Annotated[
        str | None, typer.Option(help="How the model is asked; told by its class and depth where they are known.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the run; a clip's own is made of it and the clip's id.")] = 0,
    shard: Annotated[
        str | None,
        typer.Option(help="Part i/n of the clips, i from 1; by default what torchrun or a Slurm array say."),
    ] = None,
    retry_failed: Annotated[bool, typer.Option(help="Try again the clips that failed before.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="Make at most so many clips now.")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps, in place of the recipe's.")] = None,
    frames: Annotated[int | None, typer.Option(help="Frames a clip, in place of the recipe's.")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels, in place of the recipe's.")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels, in place of the recipe's.")] = None,
    fps: Annotated[float | None, typer.Option(help="Frames a second of the files, in place of the recipe's.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale, in place of the recipe's.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Clips made together; alone, nothing else decides a bit.")] = 1,
    device: Annotated[str, typer.Option(help="auto (a GPU where torch finds one), cpu or cuda.")] = "auto",
    licence: Annotated[
        str | None, typer.Option(help="The model's licence, for the sidecars, in place of the recipe's.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Make the video of every prompt in GEN that is not there yet; run it again to go on after an interruption.

    Ends with exit code 3 when some clips could not be made; GEN/failures.jsonl has their reasons.

    Example: longreel generate videos made
    """
    from ..generate.recipes import Wishes
    from ..generate.videos import make_videos
    from ..slices import parse_slice, slice_of_environment

    part, words = (parse_slice(shard), "") if shard is not None else slice_of_environment(os.environ)
    if words:
        say(words)
    wishes = Wishes(frames, height, width, fps, steps, guidance)
    maker = _choose_maker(model, recipe, wishes, batch, device, licence)
    with Steps() as progress:

        def announce(plan: "VideoPlan") -> None:
            for line in plan.describe():
                say(line)
            progress.begin("videos", plan.todo)

        report = make_videos(
            gen,
            maker,
            seed=seed,
            part=part,
            limit=limit,
            retry_failed=retry_failed,
            on_plan=announce,
            on_clip=lambda clip_id: progress.advance(),
            on_note=say,
        )
    for failure in report.failures:
        say(f"failed: {failure.clip_id}: {failure.error}")
    if as_json:
        print_json(asdict(report) | {"folder": str(gen)})
    else:
        print(f"{report.summary()} -> {gen}")
    raise typer.Exit(3 if report.failures else 0)


def _choose_maker(
    model: str, recipe: str | None, wishes: "Wishes", batch: int, device: str, licence: str | None
) -> "Maker":
    """The procedural generator, or the model with its recipe; nothing is loaded yet."""
    if model == PROCEDURAL:
        from ..generate.procedural import Procedural

        unused = {"recipe": recipe, "steps": wishes.steps, "guidance": wishes.guidance}
        if refused := [f"--{name}" for name, value in unused.items() if value is not None]:
            raise LongreelError(f"--model procedural has no {', '.join(refused)}. Leave it out.")
        given: dict[str, Any] = wishes.given() | ({} if licence is None else {"licence": licence})
        return Procedural(**given, batch=batch)
    from ..generate.folders import find_model
    from ..generate.pipelines import Pipeline, choose_place
    from ..generate.recipes import choose_recipe

    found = find_model(model)
    name, chosen = choose_recipe(recipe, found.pipeline, found.layers, wishes)
    place = choose_place(device, os.environ)
    return Pipeline(found, name, chosen, chosen.licence if licence is None else licence, place, batch)
