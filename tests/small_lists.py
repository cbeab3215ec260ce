"""Small lists in the forms that benchmarks are published in, counted by hand."""

import json
from pathlib import Path

VIDEOLT = {
    "count-labels-train.lst": "Apples 0 3.0\ncat'sCradle 1 2.0\nZoo 2 1.0\n",
    "train.lst": "-aaa 0\nbbb 0,1\nccc 2\nddd 0,1\n",
    "validate.lst": "eee 1\nfff 2\n",
    "test.lst": "ggg 0,2\nhhh 1\n",
}
GEN2BALANCE = {
    "real/train.csv": "Kinetics-400/videos_train/a.mp4 1\nKinetics-400/videos_train/b.mp4 0\nRareAct/train/7.mp4 2\n",
    "real/test.csv": "Kinetics-400/videos_val/c.mp4 0\nKinetics-400/videos_val/d.mp4 1\nRareAct/test/8.mp4 2\n",
    "real/train_freq.json": "[1, 1, 1]",
    "misc/label_id_to_label.json": '{"0": "ski, slalom", "1": "bowling", "2": "cut_car"}',
    "misc/lt_mapping.json": '{"bowling": "head", "ski, slalom": "tail", "cut_car": "rareact"}',
}
SSV2 = {
    "something-something-v2-labels.json": json.dumps({"Holding something": "0", "Tearing something in two": "1"}),
    "something-something-v2-train.json": json.dumps(
        [{"id": str(n), "label": "a cup", "template": "Holding [something]"} for n in range(1, 8)]
        + [{"id": str(n), "template": "Tearing [something] in two"} for n in range(8, 14)]
    ),
    "something-something-v2-validation.json": json.dumps([{"id": "20", "template": "Holding [something]"}]),
}


def write_lists(folder: Path, lists: dict[str, str], **replaced: str) -> Path:
    """Write lists into a folder; ``replaced`` are new contents by the name of the file without its ending."""
    for name, text in lists.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(replaced.get(path.stem.replace("-", "_"), text), encoding="utf-8")
    return folder
