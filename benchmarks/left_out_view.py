"""A manifest to choose settings of NW-UCLA-LT by, without its test view: one training view is left out and scored.

python benchmarks/left_out_view.py ucla.csv clean.csv left_out.csv
longreel bench benchmarks/left_out_view.toml left_out.csv --store joints=ucla.store --seeds 4 --out left_out

ucla.csv has the split lt_if10_train_clean, clean.csv train_clean, both from `longreel import-skeletons`. Train: the
long tail's clips of view 1. Test: those of train_clean in view 2. Two classes of train_clean are in view 1 alone, so
the class average is that of the other eight.
"""

import argparse
import csv
from pathlib import Path

COLUMNS = ["clip_id", "path", "label", "split"]


def read_view(path: Path, view: str) -> list[dict[str, str]]:
    """The training clips of one view."""
    with path.open(newline="", encoding="utf-8") as file:
        found = [row for row in csv.DictReader(file) if row["split"] == "train" and row.get("view") == view]
    if not found:
        raise SystemExit(f"{path}: has no train clips of view {view}. Give a manifest of `longreel import-skeletons`.")
    return found


def main() -> None:
    """Write the manifest, and say how many clips it has."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("long_tail", type=Path, help="manifest of lt_if10_train_clean")
    parser.add_argument("clean", type=Path, help="manifest of train_clean")
    parser.add_argument("out", type=Path, help="manifest to write")
    given = parser.parse_args()
    train, test = read_view(given.long_tail, "1"), read_view(given.clean, "2")
    with given.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows([*train, *({**row, "split": "test"} for row in test)])
    classes = len({row["label"] for row in test})
    print(f"{len(train)} clips of view 1 to learn from, {len(test)} of view 2 in {classes} classes -> {given.out}")


if __name__ == "__main__":
    main()
