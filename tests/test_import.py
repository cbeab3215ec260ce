"""Features that others made: a folder of .npy files becomes a store, whatever lies in it."""

import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from small_arrays import KINDS, npy, rows, save, saved

from longreel.errors import LongreelError, StoreMismatch
from longreel.extract import Given, import_features, open_source
from longreel.store import FeatureStore, verify_store


@pytest.fixture
def folder(tmp_path) -> Path:
    """Six arrays in two folders."""
    for number in range(6):
        save(tmp_path / "npy" / "ab"[number % 2] / f"{number}.npy", rows(number))
    return tmp_path / "npy"


def bring(folder: Path, store: Path, suffix: str = "", fps: float | None = None, **options):
    """Import the folder; the report and the lines that describe the plan."""
    lines: list[str] = []
    with open_source(folder, suffix) as source:
        report = import_features(
            source, store, Given("clip", "v1", fps), on_plan=lambda plan: lines.extend(plan.describe()), **options
        )
    return report, lines


def test_the_rows_of_every_file_come_back_as_float16_under_its_path(folder, tmp_path):
    report, _ = bring(folder, tmp_path / "store", suffix=".mp4", fps=2.0)
    assert (report.written, report.failures) == (6, [])
    store = FeatureStore(tmp_path / "store")
    assert sorted(store) == ["a/0.mp4", "a/2.mp4", "a/4.mp4", "b/1.mp4", "b/3.mp4", "b/5.mp4"]
    for clip_id in store:
        np.testing.assert_array_equal(store[clip_id].features, rows(int(clip_id[2])).astype(np.float16))
        assert store[clip_id].seconds.tolist() == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert (store.spec.backbone, store.spec.weights, store.spec.dim) == ("clip", "v1", 8)
    assert store.spec.sampling == "given, 2 fps"
    assert verify_store(tmp_path / "store").damaged == []


def test_without_a_rate_the_time_of_a_row_is_its_index(folder, tmp_path):
    bring(folder, tmp_path / "store")
    store = FeatureStore(tmp_path / "store")
    assert store["a/0"].seconds.tolist() == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert store.spec.sampling == "given"
    assert store.origin("a/0").decoder == "npy"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(8,), (1, 8), (7, 8)])
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_kind_of_float_and_order_of_axes_is_understood(tmp_path, kind, shape, order):
    values = rows(1, shape, kind)
    save(tmp_path / "npy" / "x.npy", np.asarray(values, order=order))
    bring(tmp_path / "npy", tmp_path / "store")
    expected = [[float(np.float16(number)) for number in row] for row in np.atleast_2d(values)]
    assert FeatureStore(tmp_path / "store")["x"].features.tolist() == expected


class Canary:
    """Unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.write_text, (self.path, "sung"))


BAD = {
    "is not a .npy file": [b"", b"text", pickle.dumps([1]), b"\x93NUMPY\x09\0" + b"x" * 90],
    "cut short or too long": [
        saved(rows(1))[:20],
        b"\x93NUMPY\2\0" + b"\xff" * 4,
        npy("'<f4'", "(" + "1," * 9999 + ")"),
    ],
    "describes no plain array": [
        npy("[('a', '<f4')]", "(2, 8)"),
        npy("__import__('os')", "(2, 8)"),
        npy("'<f4'", "-1"),
    ],
    "holds '<i8', not float16": [saved(np.arange(8))],
    "holds '<c8', not float16": [saved(rows(1).astype(np.complex64))],
    "holds '<f2x'": [npy("'<f2x'", "(8,)", bytes(16))],
    "its .npy header announces": [
        saved(rows(1))[:-1],
        saved(rows(1)) + b"more",
        npy("'<f4'", "(1099511627776, 8)"),
        npy("'<f4'", "(10000000000000000000000, 8)"),
    ],
    "expected (T, D) or (D,)": [saved(rows(1, (2, 3, 8))), saved(np.array(1.0, dtype=np.float32))],
    "is empty": [saved(rows(1, (0, 8))), saved(rows(1, (0,)))],
    "is 9 wide, the store holds 8": [saved(rows(1, (2, 9)))],
    "not finite": [saved(np.full((2, 8), value, kind)) for value in (np.nan, np.inf, -np.inf) for kind in KINDS],
    "above 65504": [saved(np.full((2, 8), value, kind)) for value in (65505.0, -1e9) for kind in ("<f4", "<f8")],
}


@pytest.mark.parametrize("reason", BAD)
def test_a_file_that_cannot_be_used_is_noted_with_its_reason_and_stops_nothing(folder, tmp_path, reason):
    for number, content in enumerate(BAD[reason]):
        (folder / f"bad{number}.npy").write_bytes(content)
    report, _ = bring(folder, tmp_path / "store")
    assert report.written == 6
    assert {failure.clip_id for failure in report.failures} == {f"bad{n}" for n in range(len(BAD[reason]))}
    assert all(reason in failure.reason for failure in report.failures), report.failures
    assert FeatureStore(tmp_path / "store").failures().keys() == {failure.clip_id for failure in report.failures}


def test_pickled_objects_are_never_loaded(folder, tmp_path):
    canary = tmp_path / "canary"
    np.save(folder / "evil.npy", np.array([Canary(canary)], dtype=object), allow_pickle=True)
    (folder / "evil2.npy").write_bytes(pickle.dumps(Canary(canary)))
    report, _ = bring(folder, tmp_path / "store")
    assert {failure.clip_id: failure.reason[:21] for failure in report.failures} == {
        "evil": "holds Python objects ",
        "evil2": "is not a .npy file",
    }
    assert not canary.exists()
    np.load(folder / "evil.npy", allow_pickle=True)
    assert canary.exists(), "the file would have done it"


def test_pipes_folders_and_dead_links_are_refused_and_wait_for_nobody(folder, tmp_path):
    os.mkfifo(folder / "pipe.npy")
    (folder / "dead.npy").symlink_to(tmp_path / "nowhere")
    (folder / "zero.npy").symlink_to("/dev/zero")
    report, _ = bring(folder, tmp_path / "store")
    assert {failure.clip_id: failure.reason for failure in report.failures} == {
        "pipe": "is no regular file",
        "dead": "cannot be read (No such file or directory)",
        "zero": "is no regular file",
    }


def test_links_to_folders_are_not_followed_and_what_is_left_out_is_said(folder):
    (folder / "loop").symlink_to(folder)
    (folder / "labels.txt").write_text("x")
    with open_source(folder) as source:
        assert len(source.manifest.clips) == 6
        assert source.notes == [
            "left out: 1 files that are not .npy",
            "left out: 1 links to folders, which are not followed",
        ]


def test_a_name_that_is_no_text_is_noted(folder, tmp_path):
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.npy")).write_bytes(saved(rows(1)))
    (folder / ".npy").write_bytes(saved(rows(1)))
    report, _ = bring(folder, tmp_path / "store")
    assert {failure.clip_id: failure.reason for failure in report.failures} == {
        "\udcff": "its name is not UTF-8; rename it",
        "": "its name gives no clip id",
    }
    assert len(bring(folder, tmp_path / "store")[0].failures) == 2


def test_a_second_call_does_nothing_and_a_new_file_is_all_that_is_done(folder, tmp_path):
    bring(folder, tmp_path / "store")
    report, lines = bring(folder, tmp_path / "store")
    assert (report.written, report.already, lines) == (0, 6, ["6 clips are there, 0 failed before, 0 to do"])
    save(folder / "0.npy", rows(9))
    assert bring(folder, tmp_path / "store")[0].written == 1


def test_interrupted_after_any_clip_the_next_call_ends_in_the_same_digest(folder, tmp_path, monkeypatch):
    from longreel.extract import importing
    from longreel.store import SealLimits

    monkeypatch.setattr(importing, "LIMITS", SealLimits(clips=2))
    (folder / "bad.npy").write_bytes(b"no array")
    bring(folder, tmp_path / "clean")
    for stop in range(7):
        left = [stop]

        def interrupt(clip_id: str, left: list[int] = left) -> None:
            if left[0] == 0:
                raise KeyboardInterrupt
            left[0] -= 1

        store = tmp_path / f"store{stop}"
        with pytest.raises(KeyboardInterrupt):
            bring(folder, store, on_clip=interrupt)
        kept = len(FeatureStore(store)) if list(store.glob("*.h5")) else 0
        report, _ = bring(folder, store)
        assert (report.already, report.written, len(report.failures)) == (kept, 6 - kept, 1)
        assert verify_store(store).digest == verify_store(tmp_path / "clean").digest


def test_a_changed_file_is_reported_and_imported_again_only_on_request(folder, tmp_path):
    bring(folder, tmp_path / "store")
    save(folder / "a/0.npy", rows(77, (3, 8)))
    report, lines = bring(folder, tmp_path / "store")
    assert report.written == 0
    assert lines[1] == "changed since: the files of 1 clips, such as a/0; --refresh makes their features anew"
    report, lines = bring(folder, tmp_path / "store", refresh=True)
    assert (report.written, lines[1]) == (1, "not reused: 1 clips whose files have changed")
    np.testing.assert_array_equal(FeatureStore(tmp_path / "store")["a/0"].features, rows(77, (3, 8)).astype(np.float16))
    assert len(bring(folder, tmp_path / "store")[1]) == 1


def test_a_file_that_was_only_touched_is_the_same_and_one_changed_in_place_is_not(folder, tmp_path):
    bring(folder, tmp_path / "store")
    os.utime(folder / "a/0.npy", ns=(1, 1))
    assert len(bring(folder, tmp_path / "store")[1]) == 1
    save(folder / "a/0.npy", rows(77))  # of the same size
    assert "a/0" in bring(folder, tmp_path / "store")[1][1]


def test_a_failed_file_is_tried_again_on_request_or_when_it_changes(folder, tmp_path):
    (folder / "bad.npy").write_bytes(b"no array")
    bring(folder, tmp_path / "store")
    report, lines = bring(folder, tmp_path / "store")
    assert len(report.failures) == 1
    assert lines[0] == "6 clips are there, 1 failed before, 0 to do"
    assert "1 to do" in bring(folder, tmp_path / "store", retry_failed=True)[1][0]
    save(folder / "bad.npy", rows(9))
    assert bring(folder, tmp_path / "store")[0].written == 1
    assert FeatureStore(tmp_path / "store").failures() == {}


def test_a_store_made_otherwise_is_refused(folder, tmp_path):
    bring(folder, tmp_path / "store")
    with pytest.raises(StoreMismatch, match="sampling is 'given', not 'given, 2 fps'"):
        bring(folder, tmp_path / "store", fps=2.0)


def test_the_store_keeps_its_width_when_another_file_comes_first(folder, tmp_path):
    bring(folder, tmp_path / "store")
    save(folder / "0.npy", rows(9, (2, 3)))
    assert [failure.reason for failure in bring(folder, tmp_path / "store")[0].failures] == [
        "is 3 wide, the store holds 8"
    ]


def test_the_width_is_that_of_the_first_file_that_can_be_read(folder, tmp_path):
    (folder / "0.npy").write_bytes(b"no array")
    save(folder / "z.npy", rows(9, (2, 3)))
    report, _ = bring(folder, tmp_path / "store")
    assert (FeatureStore(tmp_path / "store").spec.dim, report.written) == (8, 6)


def test_a_source_without_clips_and_a_rate_that_is_none_are_refused(folder, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "x.npy").write_bytes(b"no array")
    with pytest.raises(LongreelError, match=r"has no \.npy file"):
        bring(tmp_path / "empty", tmp_path / "store")
    with pytest.raises(LongreelError, match=r"x: is not a \.npy file"):
        bring(tmp_path / "bad", tmp_path / "store")
    with pytest.raises(LongreelError, match="is no folder of"):
        bring(tmp_path / "nowhere", tmp_path / "store")
    for fps in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(LongreelError, match="--fps"):
            bring(folder, tmp_path / "store", fps=fps)


def test_clips_that_wait_to_be_written_are_bounded_in_bytes(folder, tmp_path, monkeypatch):
    from longreel.extract import importing

    monkeypatch.setattr(importing, "AHEAD_BYTES", 9000)
    monkeypatch.setattr(importing, "BATCH_BYTES", 1)
    begun, done, most = 0, 0, 0
    with open_source(folder) as source:
        load = source.load

        def count(clip):
            nonlocal begun, most
            begun += 1
            most = max(most, begun - done)
            return load(clip)

        def finish(clip_id: str) -> None:
            nonlocal done
            done += 1

        counted = importing.Source(source.manifest, count, source.width, source.weigh, "npy", [])
        import_features(counted, tmp_path / "store", Given("clip"), workers=8, on_clip=finish)
    assert (done, most <= 2) == (6, True)


def test_the_command_ends_in_exit_code_3_and_one_document(folder, tmp_path, capfd):
    from longreel.cli import app

    (folder / "bad.npy").write_bytes(b"no array")
    arguments = ["import-features", str(folder), str(tmp_path / "store"), "--backbone", "clip", "--json"]
    with pytest.raises(SystemExit) as ended:
        app(arguments)
    out, err = capfd.readouterr()
    document = json.loads(out)
    assert ended.value.code == 3
    assert (document["written"], document["failures"][0]["clip_id"]) == (6, "bad")
    assert "failed: bad: is not a .npy file" in err
