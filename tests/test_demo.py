"""The demo from rendering to the table, on fewer clips than the command renders."""

from longreel.experiments.demo import METHODS, SEEDS, run_demo
from longreel.experiments.demo_clips import CLASSES
from longreel.store import FeatureStore

COUNTS = {"train": {name: 2 + place % 3 for place, name in enumerate(CLASSES)}, "val": dict.fromkeys(CLASSES, 1)}
COUNTS["test"] = COUNTS["val"]


def test_the_demo_goes_from_rendered_videos_to_a_comparison_and_goes_on_where_it_is(tmp_path):
    stages: list[tuple[str, int]] = []

    def demo() -> dict:
        stages.clear()
        document, made = run_demo(tmp_path, 0, lambda *stage: stages.append(stage), lambda done: None, COUNTS)
        assert all(path.exists() for path in made.values())
        return document

    document = demo()
    clips = sum(sum(classes.values()) for classes in COUNTS.values())
    missing = sum(4 - count for count in COUNTS["train"].values())  # the richest classes have 4
    assert stages[:3] == [("render videos", clips), ("generate videos", missing), ("extract motion", clips + missing)]
    assert len(stages) == 3 + len(METHODS) * SEEDS
    assert len(FeatureStore(tmp_path / "motion.store")) == clips + missing
    assert document["clips"] == len(CLASSES)
    expected = [f"nonlinear {balance}, curriculum {curriculum}" for balance, curriculum in METHODS]
    assert [row["name"] for row in document["rows"]] == expected
    assert all(row["seeds"] == [0, 1, 2] and row["looks"] == 1 for row in document["rows"])
    assert demo() == document
    assert ("extract motion", 0) in stages
