"""Nearest clips by FAISS against loops over all pairs, and thresholds learnt of real clips."""

import math

import numpy as np
import pytest

from longreel.generate.neighbours import embed_clips, find_nearest, find_nearest_others, learn_threshold, unit
from longreel.store import ClipFeatures, FeatureStore, Origin, ShardWriter, Spec


def rows(count: int, seed: int, dim: int = 5) -> np.ndarray:
    return unit(np.random.default_rng(seed).standard_normal((count, dim)))


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    one, other = one.tolist(), other.tolist()
    product = math.fsum(a * b for a, b in zip(one, other, strict=True))
    return product / math.sqrt(math.fsum(a * a for a in one) * math.fsum(b * b for b in other))


def write_store(folder, clips: dict[str, np.ndarray]) -> FeatureStore:
    folder.mkdir()
    dim = next(iter(clips.values())).shape[1]
    with ShardWriter(folder, Spec("toy", "0", dim, "all", "none", "auto")) as writer:
        for clip_id, found in clips.items():
            features = ClipFeatures(found.astype(np.float16), np.arange(len(found), dtype=np.float64))
            writer.add(clip_id, features, Origin("pyav", 1.0, 1, 1, "00" * 32))
    return FeatureStore(folder)


def test_a_clip_is_the_direction_of_the_mean_of_its_rows_directions(tmp_path):
    drawn = np.random.default_rng(0)
    clips = {f"c{number}": 50 * drawn.standard_normal((1 + number % 4, 6)) for number in range(9)}
    found = embed_clips(write_store(tmp_path / "s", clips), ["c3", "c0", "c8"])
    for row, name in zip(found, ("c3", "c0", "c8"), strict=True):
        naive = [0.0] * 6
        for frame in clips[name].astype(np.float16).astype(float).tolist():
            length = math.sqrt(sum(value * value for value in frame))
            naive = [have + value / length for have, value in zip(naive, frame, strict=True)]
        length = math.sqrt(sum(value * value for value in naive))
        np.testing.assert_allclose(row, [value / length for value in naive], atol=1e-6)


def test_rows_that_are_zero_or_no_numbers_do_not_count_and_a_clip_of_them_has_no_direction(tmp_path):
    bad = np.array([[0, 0], [np.nan, 1], [np.inf, 1]], dtype=np.float16)
    store = write_store(tmp_path / "s", {"mixed": np.array([[0, 0], [3, 4], [np.inf, 1]]), "bad": bad})
    found = embed_clips(store, ["mixed", "bad"])
    np.testing.assert_allclose(found[0], [0.6, 0.8], atol=1e-6)
    assert np.isnan(found[1]).all()
    assert embed_clips(store, []).shape == (0, 2)


def test_the_nearest_is_that_of_a_loop_over_all_pairs():
    queries, base = rows(70, 0), rows(90, 1)
    cosines, places = find_nearest(queries, base)
    for query, found, place in zip(queries, cosines, places, strict=True):
        all_of_them = [cosine(query, other) for other in base]
        assert place == all_of_them.index(max(all_of_them))
        assert found == pytest.approx(max(all_of_them), abs=1e-6)


def test_clips_without_direction_neither_find_nor_are_found():
    queries, base = rows(3, 0), rows(4, 1)
    queries[1], base[0] = np.nan, np.nan
    cosines, places = find_nearest(queries, base)
    assert places[1] == -1
    assert np.isnan(cosines[1])
    assert 0 not in places
    assert find_nearest(queries, base[:0])[1].tolist() == find_nearest(queries, base[:1])[1].tolist() == [-1] * 3


def test_within_a_class_a_clip_is_not_its_own_neighbour_even_among_copies():
    found = rows(30, 2)
    found[[4, 9, 14]] = found[4]  # more copies than are searched for
    groups = [np.arange(0, 20), np.arange(15, 28), np.array([28])]
    cosines, places = find_nearest_others(found, groups)
    for place in range(30):
        others = {other for group in groups if place in group for other in group.tolist()} - {place}
        if not others:
            assert places[place] == -1
            assert np.isnan(cosines[place])
            continue
        assert places[place] in others
        assert cosines[place] == pytest.approx(max(cosine(found[place], found[other]) for other in others), abs=1e-6)
    assert {places[4], places[9], places[14]} <= {4, 9, 14}


def test_a_threshold_lets_one_real_clip_of_a_thousand_pass():
    cosines = np.random.default_rng(3).permutation(np.linspace(0.0, 0.99, 10_001)).astype(np.float32)
    found = learn_threshold(cosines)
    assert found.cosine == pytest.approx(0.99 * 0.999, abs=1e-4)
    assert found.exceeded(cosines).sum() == 11  # of 10 001, the 99.9th percentile itself included
    assert (found.n, found.same) == (10_001, 0)


def test_real_copies_do_not_raise_the_threshold_but_are_counted():
    cosines = np.array([0.2, 0.5, 1.0, np.nan, 0.99999], dtype=np.float32)
    found = learn_threshold(cosines)
    assert (found.n, found.same) == (4, 2)
    assert found.cosine == pytest.approx(0.2 + 0.999 * 0.3, abs=1e-6)
    assert found.exceeded(np.array([0.499, 0.5, np.nan, 1.0], dtype=np.float32)).tolist() == [False, True, False, True]


def test_without_real_clips_nothing_is_too_near():
    found = learn_threshold(np.full(3, np.nan, dtype=np.float32))
    assert (found.cosine, found.n) == (None, 0)
    assert not found.exceeded(np.ones(2, dtype=np.float32)).any()
