"""Manifests with anything in them: clips or an error that names the file, and no file outside the store."""

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from longreel.errors import ManifestError
from longreel.extract.planning import plan_extraction
from longreel.manifest import read_manifest
from longreel.slices import Slice
from longreel.store import ClipFeatures, FeatureStore, Origin, ShardWriter, Spec

CELL = st.one_of(
    st.text(max_size=300), st.sampled_from(["train", "val", "real", "generated", "x;y", "1.5", "..", "a/b", "n" * 5000])
)
NAME = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=300)
#: column -> what is mostly in it.
LIKELY = {
    "path": NAME,
    "label": st.sampled_from(["dog", "cat", "ünï", "dog;cat"]),
    "split": st.sampled_from(["train", "val", "test"]),
    "clip_id": NAME,
    "start": st.sampled_from(["", "0", "1.5"]),
    "end": st.sampled_from(["", "2", "1e3"]),
    "source": st.sampled_from(["", "real", "generated"]),
}
ANY = settings(
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much], deadline=None, max_examples=800
)
SPEC = Spec("b", "w", 1, "s", "p", "auto")


@st.composite
def rows_of(draw, cell: st.SearchStrategy, most: int = 4) -> list[dict[str, object]]:
    """Rows that are mostly as they should be, some with something else in one column or without it."""
    rows = []
    for _ in range(draw(st.integers(1, most))):
        row = {column: draw(likely) for column, likely in LIKELY.items()}
        flawed = draw(st.sampled_from([None] * 20 + list(LIKELY)))
        if flawed is not None:
            row[flawed] = draw(cell)
        for column in draw(st.sets(st.sampled_from(["clip_id", "start", "end", "source"]))):
            del row[column]
        rows.append(row)
    return rows


def look(path: Path, seen: Counter[str]) -> int | None:
    """How many clips were read and planned, or nothing where the manifest was refused by name."""
    before = sorted(path.parent.iterdir())
    refused = None
    try:
        clips = read_manifest(path).clips
        plan_extraction(read_manifest(path), path.parent / "store", SPEC, Slice(1, 1))
    except ManifestError as error:
        refused = str(error)
    assert sorted(path.parent.iterdir()) == before
    if refused is not None and "none of its" not in refused:  # videos is there, which is so
        assert refused.startswith(str(path))
        seen["refused"] += 1
        return None
    seen["read"] += 1
    return len(clips)


def test_any_cells_of_csv_give_clips_or_a_manifest_error(tmp_path):
    seen: Counter[str] = Counter()

    @ANY
    @given(rows_of(CELL), st.permutations(list(LIKELY)))
    def check(rows: list[dict], header: list[str]) -> None:
        path = tmp_path / "m.csv"
        with open(path, "w", encoding="utf-8", errors="replace", newline="") as file:
            csv.writer(file).writerows([header, *([row.get(column, "") for column in header] for row in rows)])
        assert look(path, seen) in (None, len(rows))

    check()
    assert min(seen["read"], seen["refused"]) > 0.1 * seen.total()


VALUE = st.recursive(st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), CELL), st.lists, max_leaves=4)


def test_any_values_of_jsonl_give_clips_or_a_manifest_error(tmp_path):
    seen: Counter[str] = Counter()

    @ANY
    @given(rows_of(VALUE))
    def check(rows: list[dict]) -> None:
        numbers = {"start", "end"}
        told = [
            {key: float(value or 0) if key in numbers and value in ("0", "1.5", "2", "1e3") else value
             for key, value in row.items() if value != ""}
            for row in rows
        ]  # fmt: skip
        path = tmp_path / "m.jsonl"
        path.write_text("\n".join(map(json.dumps, told)))
        assert look(path, seen) in (None, len(rows))

    check()
    assert min(seen["read"], seen["refused"]) > 0.1 * seen.total()


def test_any_id_that_a_manifest_takes_comes_back_from_a_store_and_makes_no_other_file(tmp_path_factory):
    seen: Counter[str] = Counter()

    @settings(ANY, max_examples=400)
    @given(st.lists(st.one_of(NAME, st.text(min_size=1, max_size=20)), min_size=1, max_size=4, unique=True))
    def check(ids: list[str]) -> None:
        folder = tmp_path_factory.mktemp("s")
        rows = [{"path": f"{n}", "label": "x", "split": "train", "clip_id": clip_id} for n, clip_id in enumerate(ids)]
        path = folder / "m.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
        if look(path, seen) is None:
            return
        clips, store = read_manifest(path).clips, folder / "store"
        store.mkdir()
        with ShardWriter(store, SPEC) as writer:
            for number, clip in enumerate(clips):
                features = ClipFeatures(np.full((1, 1), number, np.float16), np.zeros(1))
                writer.add(clip.clip_id, features, Origin("pyav", 1.0, 1, 1, "00" * 32))
        back = FeatureStore(store)
        found = {clip_id: back[clip_id].features.item() for clip_id in back}
        assert found == {clip.clip_id: number for number, clip in enumerate(clips)}
        assert {entry.name for entry in folder.iterdir()} == {"m.jsonl", "store"}
        assert all(entry.suffix == ".h5" or entry.name.startswith(".") for entry in store.iterdir())

    check()
    assert seen["read"] > 0.3 * seen.total()
