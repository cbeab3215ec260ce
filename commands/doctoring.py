"""`doctor`: clips that stand twice in a data set, above all across its splits."""

from typing import TYPE_CHECKING, Annotated

import typer

from ..console import printable, say
from .options import Json, ManifestFile, Root, StoreFolder, print_json

if TYPE_CHECKING:
    from ..experiments.doctor import Diagnosis, Pair

SHOWN = 20  #: pairs on a terminal; --json has all.


def doctor(
    store: StoreFolder,
    manifest: ManifestFile,
    threshold: Annotated[
        float | None,
        typer.Option(help="Cosine of two clips' rows from which on they are near; learnt from the clips by default."),
    ] = None,
    root: Root = None,
    as_json: Json = False,
) -> None:
    """Find the clips of MANIFEST that are in two splits, identical or nearly so by their features in STORE.

    Ends with exit code 4 when there are any: figures on such splits say little of new videos.

    Example: longreel doctor videos.store videos.csv
    """
    from ..experiments.doctor import examine
    from ..manifest import read_manifest
    from ..store import FeatureStore

    clips = read_manifest(manifest, root)
    with FeatureStore(store) as features:
        found = examine(features, clips, threshold=threshold)
    for note in found.notes:
        say(f"note: {note}")
    if as_json:
        print_json(found.describe())
    else:
        for line in _lines(found):
            print(printable(line))
    raise typer.Exit(0 if found.sound else 4)


def _lines(found: "Diagnosis") -> list[str]:
    lines = [_line(pair) for pair in found.cross_split[:SHOWN]]
    if (more := sum(found.pairs.values()) - len(lines)) > 0:
        lines.append(f"... {more} more: --json")
    near = found.threshold
    if near.cosine is not None:
        lines.append(f"near: cosine {near.cosine:.4f} or more ({near.rule})")
    if found.nearest:
        lines.append(f"the nearest of the others: {_line(found.nearest[0])}")
    for split, absent in found.without_features.items():
        lines.append(f"{split}: {len(absent)} of {found.clips[split]} clips have no features")
    if found.without_direction:
        lines.append(f"{len(found.without_direction)} clips have no row that can be compared")
    for split, counts in found.inside.items():
        lines.append(f"inside {split}: {counts['identical']} identical pairs, {counts['near']} near ones")
    if found.other_labels:
        lines.append(f"{len(found.other_labels)} pairs have different labels, such as {_line(found.other_labels[0])}")
    return [*lines, f"across splits: {found.pairs['identical']} identical pairs, {found.pairs['near']} near ones"]


def _line(pair: "Pair") -> str:
    sides = [
        f"{clip_id} ({split}, {';'.join(labels)})"
        for clip_id, split, labels in zip(pair.ids, pair.splits, pair.labels, strict=True)
    ]
    return f"{pair.kind} {pair.cosine:.4f}: {sides[0]} = {sides[1]}"
