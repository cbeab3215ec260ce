import csv
import json
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longreel.errors import ManifestError
from longreel.manifest import read_manifest
from longreel.store import ClipFeatures, FeatureStore, Origin, ShardWriter, Spec

CELL = st.one_of(
    st.text(max_size=12), st.sampled_from(["train", "val", "real", "generated", "x;y", "1.5", "..", "a/b"])
)
COLUMNS = ["path", "label", "split", "clip_id", "start", "end", "source", "extra"]
HERE = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=800)


def outcome(path: Path) -> str:
    """``read`` or ``refused``, the latter with a text that begins with the file's name."""
    try:
        read_manifest(path)
    except ManifestError as error:
        return "refused" if str(error).startswith(str(path)) else f"nameless: {error}"
    return "read"


@HERE
@given(rows=st.lists(st.lists(CELL, min_size=8, max_size=8), max_size=4), header=st.permutations(COLUMNS))
def test_any_cells_of_csv_give_clips_or_a_manifest_error(tmp_path, rows, header):
    path = tmp_path / "m.csv"
    with open(path, "w", encoding="utf-8", errors="replace", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    assert outcome(path) == "refused" or len(read_manifest(path).clips) <= len(rows)


VALUE = st.recursive(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), CELL), st.lists, max_leaves=4)


@HERE
@given(st.lists(st.dictionaries(st.sampled_from(COLUMNS), VALUE), min_size=1, max_size=4))
def test_any_values_of_jsonl_give_clips_or_a_manifest_error(tmp_path, rows):
    path = tmp_path / "m.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    assert outcome(path) == "refused" or len(read_manifest(path).clips) == len(rows)


@settings(HERE, max_examples=400)
@given(st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=5))
def test_any_id_that_a_manifest_takes_comes_back_from_a_store(tmp_path_factory, ids):
    folder = tmp_path_factory.mktemp("s")
    rows = [{"path": f"{n}", "label": "x", "split": "train", "clip_id": clip_id} for n, clip_id in enumerate(ids)]
    path = folder / "m.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    if outcome(path) == "refused":
        return
    clips = read_manifest(path).clips
    store = folder / "store"
    store.mkdir()
    with ShardWriter(store, Spec("b", "w", 1, "s", "p", "auto")) as writer:
        for number, clip in enumerate(clips):
            features = ClipFeatures(np.full((1, 1), number, np.float16), np.zeros(1))
            writer.add(clip.clip_id, features, Origin("pyav", 1.0, 1, 1, "00" * 32))
    back = FeatureStore(store)
    assert {clip_id: back[clip_id].features.item() for clip_id in back} == {c.clip_id: n for n, c in enumerate(clips)}
