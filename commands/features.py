"""`extract` and `backbones`: from videos to features."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ..console import Steps, say
from .options import Json, ManifestFile, Root, print_json


def extract(
    manifest: ManifestFile,
    store: Annotated[Path, typer.Argument(help="Store folder to make or to go on with.")],
    backbone: Annotated[
        str, typer.Option(help="A name from `longreel backbones`, a model folder, or owner/model@commit.")
    ],
    fps: Annotated[float | None, typer.Option(help="Frames a second.")] = None,
    frames: Annotated[
        int | None, typer.Option(help="Evenly spaced frames a clip; a video model's own window by default.")
    ] = None,
    embedding: Annotated[
        str | None,
        typer.Option(help="pooled, or projected into the space shared with text; pooled where the model has it."),
    ] = None,
    precision: Annotated[str, typer.Option(help="float32, or bfloat16: faster, a little coarser.")] = "float32",
    device: Annotated[str, typer.Option(help="auto (a GPU where torch finds one), cpu or cuda.")] = "auto",
    root: Root = None,
    decoder: Annotated[str, typer.Option(help="auto (the file decides), decord or pyav.")] = "auto",
    shard: Annotated[str, typer.Option(help="Part i/n of the clips, for several machines, i from 1.")] = "1/1",
    workers: Annotated[int | None, typer.Option(min=1, help="Decode processes; one a core by default.")] = None,
    refresh: Annotated[bool, typer.Option(help="Extract again the clips whose file has changed.")] = False,
    retry_failed: Annotated[bool, typer.Option(help="Try again the clips that failed before.")] = False,
    as_json: Json = False,
) -> None:
    """Write the features of every clip in MANIFEST to STORE; run it again to go on after an interruption.

    Ends with exit code 3 when some clips could not be decoded; the store's ledger has their reasons.

    Example: longreel extract videos.csv videos.store --backbone motion
    """
    from ..extract import Plan, Sampling, extract_clips, load_backbone, parse_slice
    from ..manifest import read_manifest

    sampling = None if fps is None and frames is None else Sampling(fps, frames)
    part = parse_slice(shard)
    clips = read_manifest(manifest, root)
    model = load_backbone(backbone, embedding=embedding, precision=precision, device=device)
    with Steps() as steps:

        def begin(plan: Plan) -> None:
            for line in plan.describe():
                say(line)
            steps.begin("extract", len(plan.todo))

        report = extract_clips(
            clips,
            store,
            model,
            sampling=sampling,
            decoder=decoder,
            part=part,
            workers=workers,
            refresh=refresh,
            retry_failed=retry_failed,
            on_plan=begin,
            on_clip=lambda clip_id: steps.advance(),
        )
    for failure in report.failures:
        say(f"failed: {failure.clip_id}: {failure.reason}")
    if as_json:
        print_json(asdict(report) | {"store": str(store)})
    else:
        print(f"{report.summary()} -> {store}")
    raise typer.Exit(3 if report.failures else 0)


def backbones(as_json: Json = False) -> None:
    """List the backbones, and published checkpoints of the families that are known.

    Example: longreel backbones
    """
    from ..extract import BACKBONES
    from ..extract.backbones.presets import PRESETS

    listed = {name: words for name, (_, words) in BACKBONES.items()} | {
        "FOLDER": "a model as transformers saves it: config.json, its preprocessor file, model.safetensors",
        "OWNER/MODEL@COMMIT": "the same from the hub, pinned by its full commit hash",
    }
    if as_json:
        print_json(listed | {name: asdict(preset) for name, preset in PRESETS.items()})
        return
    for name, words in listed.items():
        print(f"{name:20}{words}")
    print("\nPublished models, for OWNER/MODEL:")
    for name, preset in PRESETS.items():
        print(f"{name:49}{preset}")
