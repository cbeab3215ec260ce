"""A manifest to choose settings of NW-UCLA-LT by, without its test view: one training view is left out and scored.

python benchmarks/left_out_view.py ucla.csv clean.csv left_out.csv
longreel bench benchmarks/left_out_view.toml left_out.csv --store joints=ucla.store --seeds 4 --out build/left_out

ucla.csv has the split lt_if10_train_clean, clean.csv train_clean, both from `longreel import-skeletons`. Train: the
long tail's clips of view 1. Test: those of train_clean in view 2. Two classes of train_clean are in view 1 alone, so
the class average is that of the other eight.
"""

import argparse
import csv
from pathlib import Path

COLUMNS = ["clip_id", "path", "label", "split"]


def read(path: Path, view: str) -> list[dict[str, str]]:
    """The training clips of one view."""
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["split"] == "train" and row["view"] == view]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("long_tail", type=Path)
    parser.add_argument("clean", type=Path)
    parser.add_argument("out", type=Path)
    given = parser.parse_args()
    train, test = read(given.long_tail, "1"), read(given.clean, "2")
    with given.out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows([*train, *({**row, "split": "test"} for row in test)])
    classes = len({row["label"] for row in test})
    print(f"{len(train)} clips of view 1 to learn from, {len(test)} of view 2 in {classes} classes -> {given.out}")


if __name__ == "__main__":
    main()
