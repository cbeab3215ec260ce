"""`extract`, `import-features` and `backbones`: from videos, or from features that others made, to a store."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..console import Steps, say
from .options import Json, ManifestFile, Root, print_json

if TYPE_CHECKING:
    from ..extract import Extraction, Plan

STARTED_AHEAD = 4  #: decode workers that get ready while the model loads; the others start when there is work.


def extract(
    manifest: ManifestFile,
    store: Annotated[Path, typer.Argument(help="Store folder to make or to go on with.")],
    backbone: Annotated[
        str, typer.Option(help="A name from `longreel backbones`, a model folder, owner/model@commit, or a TSM file.")
    ],
    fps: Annotated[float | None, typer.Option(help="Frames a second.")] = None,
    frames: Annotated[
        int | None, typer.Option(help="Evenly spaced frames a clip; a video model's own window by default.")
    ] = None,
    max_frames: Annotated[
        int | None, typer.Option(help="With --fps: of more frames than that, as many evenly spaced ones.")
    ] = None,
    keyframes: Annotated[
        bool, typer.Option(help="Move samples to the nearest keyframe: faster where they are seconds apart.")
    ] = False,
    short_side: Annotated[
        int | None, typer.Option(help="Resize frames to this short side; the model's own by default.")
    ] = None,
    crop: Annotated[
        int | None, typer.Option(help="Cut a square of this side out of the centre; the model's own by default.")
    ] = None,
    rule: Annotated[
        str | None,
        typer.Option(help="A benchmark's frames and sizes: videolt, minikinetics200, gen2balance, few-shot, ssv2-lt."),
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
    deadline: Annotated[
        float, typer.Option(min=1, help="Seconds that decoding a clip may take beside its duration.")
    ] = 60.0,
    refresh: Annotated[bool, typer.Option(help="Extract again the clips whose file has changed.")] = False,
    retry_failed: Annotated[bool, typer.Option(help="Try again the clips that failed before.")] = False,
    repair: Annotated[bool, typer.Option(help="Read every byte of STORE first and make damaged clips anew.")] = False,
    as_json: Json = False,
) -> None:
    """Write the features of every clip in MANIFEST to STORE; run it again to go on after an interruption.

    Ends with exit code 3 when some clips could not be decoded; the store's ledger has their reasons.

    Example: longreel extract videos.csv videos.store --backbone motion
    """
    from ..devices import cores
    from ..extract import Rule, Sampling, extract_clips, load_backbone, started_workers, with_rule
    from ..manifest import read_manifest
    from ..slices import parse_slice

    sampling = None if fps is frames is max_frames is None else Sampling(fps, frames, at_most=max_frames)
    asked = with_rule(rule, Rule(sampling, short_side, crop))
    part = parse_slice(shard)
    clips = read_manifest(manifest, root)
    ahead = min(workers or cores(), len(part.of(clips.clips)), STARTED_AHEAD)
    with started_workers(ahead) as started:
        model = load_backbone(
            backbone,
            embedding=embedding,
            precision=precision,
            device=device,
            short_side=asked.short_side,
            crop=asked.crop,
        )
        with Steps() as steps:
            report = extract_clips(
                clips,
                store,
                model,
                sampling=replace(asked.sampling or model.sampling, keyframes=keyframes),
                decoder=decoder,
                part=part,
                workers=workers,
                started=started,
                deadline_seconds=deadline,
                refresh=refresh,
                retry_failed=retry_failed,
                repair=repair,
                on_plan=_announcing(steps, "extract"),
                on_clip=lambda clip_id: steps.advance(),
            )
    _finish(report, store, as_json)


def import_features(
    source: Annotated[Path, typer.Argument(help="Folder of .npy files, one a clip, or HDF5 file.")],
    store: Annotated[Path, typer.Argument(help="Store folder to make or to go on with.")],
    backbone: Annotated[str, typer.Option(help="The network that made the features, as the store shall name it.")],
    weights: Annotated[str, typer.Option(help="Which weights it had, such as a commit or a checksum.")] = "unknown",
    fps: Annotated[float | None, typer.Option(help="Feature rows a second; unknown by default.")] = None,
    suffix: Annotated[str, typer.Option(help="Appended to each id, such as .mp4 where a manifest has a/b.mp4.")] = "",
    workers: Annotated[int | None, typer.Option(min=1, help="Reading threads; 4 by default.")] = None,
    refresh: Annotated[bool, typer.Option(help="Import again the clips whose file has changed.")] = False,
    retry_failed: Annotated[bool, typer.Option(help="Try again the clips that failed before.")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Read every byte and make damaged clips anew.")] = False,
    as_json: Json = False,
) -> None:
    """Write features that others made to STORE; run it again to go on after an interruption.

    Ends with exit code 3 when some clips could not be used; the store's ledger has their reasons.

    Example: longreel import-features clip-features clip.store --backbone clip-vit-b32 --suffix .mp4
    """
    from ..extract import Given, open_source
    from ..extract import import_features as run

    with open_source(source, suffix) as found, Steps() as steps:
        report = run(
            found,
            store,
            Given(backbone, weights, fps),
            workers=workers,
            refresh=refresh,
            retry_failed=retry_failed,
            repair=repair,
            on_plan=_announcing(steps, "import", found.notes),
            on_clip=lambda clip_id: steps.advance(),
        )
    _finish(report, store, as_json)


def _announcing(steps: Steps, name: str, notes: Sequence[str] = ()) -> Callable[["Plan"], None]:
    """What says a plan's lines and begins the progress."""

    def announce(plan: "Plan") -> None:
        for line in [*notes, *plan.describe()]:
            say(line)
        steps.begin(name, len(plan.todo))

    return announce


def _finish(report: "Extraction", store: Path, as_json: bool) -> None:
    """Print what was done and end, with exit code 3 when clips failed."""
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
        "FILE.pth": "a ResNet of the temporal shift module, as its authors publish it",
    }
    if as_json:
        print_json(listed | {name: asdict(preset) for name, preset in PRESETS.items()})
        return
    for name, words in listed.items():
        print(f"{name:20}{words}")
    print("\nPublished models, for OWNER/MODEL:")
    for name, preset in PRESETS.items():
        print(f"{name:49}{preset}")
