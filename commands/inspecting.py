"""`generate inspect`: generated clips looked at before anything is trained on them."""

from pathlib import Path
from typing import Annotated

import typer

from ..console import say
from .options import Json, ManifestFile, Root, StoreFolder, print_json


def inspect(
    manifest: ManifestFile,
    store: StoreFolder,
    out: Annotated[Path, typer.Option(help="Folder for scores.csv, inspection.json and tsne.svg.")],
    text: Annotated[
        Path | None, typer.Option(help="CLIP folder whose text side goes with STORE, for entropy and agreement.")
    ] = None,
    template: Annotated[str, typer.Option(help="What a class name is put into.")] = "a photo of a {}",
    normalise: Annotated[
        str, typer.Option(help="How entropy becomes uncertainty: min-max or log-classes.")
    ] = "min-max",
    refreeze: Annotated[
        bool, typer.Option("--refreeze", help="Settle anew which entropies are uncertainty 0 and 1.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="Of what is drawn by chance.")] = 0,
    no_picture: Annotated[bool, typer.Option("--no-picture", help="Draw no tsne.svg.")] = False,
    root: Root = None,
    as_json: Json = False,
) -> None:
    """Score the generated clips of MANIFEST by their features in STORE. Deletes nothing.

    Example: longreel generate inspect filled.csv filled.store --out looked
    """
    from ..generate.inspection import SCORES, inspect_clips
    from ..manifest import read_manifest
    from ..store import FeatureStore

    clips = read_manifest(manifest, root)
    with FeatureStore(store) as features:
        document = inspect_clips(
            clips,
            features,
            out,
            text=text,
            template=template,
            rule=normalise,
            refreeze=refreeze,
            picture=not no_picture,
            seed=seed,
            on_step=lambda step: say(f"inspect: {step}"),
        )
    for note in document["notes"]:
        say(f"note: {note}")
    if as_json:
        print_json(document)
        return
    for line in _summarise(document):
        print(line)
    print(f"{document['clips']['generated']} generated clips scored -> {out / SCORES}")


def _summarise(document: dict) -> list[str]:
    """The figures of all clips, a line each."""
    lines = []
    for name, near in document["near"].items():
        if near["threshold"] is not None:
            lines.append(
                f"near {name}: {near['too_near']} clips at cosine {near['threshold']:.4f} or more, "
                f"the 99.9th percentile of {near['real_clips'] - near['real_copies']} real clips"
            )
    if text := document["text"]:
        means = text["means"]
        lines.append(
            f"text: mean entropy {means['entropy']:.3f} nats, agreement {means['agreement']:.3f}, "
            f"the label is on top of {means['top_is_label']:.1%}"
        )
    scores = {name: value for name, value in document["davies_bouldin"].items() if value is not None}
    if scores:
        figures = ", ".join(f"{name} {value:.3f}" for name, value in scores.items())
        lines.append(f"Davies-Bouldin (higher: classes more mixed): {figures}")
    for name, words in (("real_generated", "real to generated"), ("same_n", "as many as"), ("halves", "real halves")):
        if found := document["mmd"][name]:
            figures = ", ".join(f"{kernel} {found[kernel]:.4f}" for kernel in ("linear", "rbf", "poly"))
            lines.append(f"MMD {words}: {figures} (n = {found['n'][0]}, {found['n'][1]})")
    flags = ", ".join(f"{name} {count}" for name, count in document["flags"].items()) or "none"
    return [*lines, f"flags: {flags}"]
