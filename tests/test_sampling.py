import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from longreel.errors import LongreelError
from longreel.extract.sampling import Sampling, nearest, shown_at


@pytest.mark.parametrize(
    ("sampling", "times"),
    [
        (Sampling(fps=2), [10.0, 10.5, 11.0, 11.5]),
        (Sampling(fps=0.5), [10.0]),
        (Sampling(fps=0.1), [10.0]),
        (Sampling(frames=1), [11.0]),
        (Sampling(frames=4), [10.25, 10.75, 11.25, 11.75]),
    ],
    ids=str,
)
def test_the_moments_of_two_seconds_are_where_the_formula_puts_them(sampling, times):
    np.testing.assert_allclose(sampling.times(10.0, 12.0), times)


@given(fps=st.floats(0.01, 60), start=st.floats(0, 1e4), span=st.floats(0.01, 600))
def test_moments_by_rate_begin_at_the_start_and_stay_within_the_span(fps, start, span):
    times = Sampling(fps=fps).times(start, start + span)
    assert times[0] == start
    assert len(times) == 1 or times[-1] < start + span
    assert times[-1] + 1 / fps >= start + span - 1e-4


@given(frames=st.integers(1, 200), start=st.floats(0, 1e4), span=st.floats(0.01, 600))
def test_moments_by_number_are_the_middles_of_equal_parts(frames, start, span):
    times = Sampling(frames=frames).times(start, start + span)
    edges = np.linspace(start, start + span, frames + 1)
    np.testing.assert_allclose(times, (edges[1:] + edges[:-1]) / 2, rtol=1e-9)


@given(fps=st.floats(0.5, 30), most=st.integers(1, 40), start=st.floats(0, 1e3), span=st.floats(0.01, 100))
def test_of_more_moments_than_wanted_one_of_each_equal_run_is_kept(fps, most, start, span):
    every = Sampling(fps=fps).times(start, start + span).tolist()
    kept = Sampling(fps=fps, at_most=most).times(start, start + span).tolist()
    if len(every) <= most:
        assert kept == every
        return
    places = [every.index(time) for time in kept]
    assert len(places) == most
    for number, place in enumerate(places):  # of moments number / most to (number + 1) / most, the middle one
        assert abs(place + 0.5 - (number + 0.5) * len(every) / most) <= 0.5


def test_of_ten_moments_four_are_kept_evenly():
    assert Sampling(fps=1, at_most=4).times(0.0, 10.0).tolist() == [1.0, 3.0, 6.0, 8.0]
    assert len(Sampling(fps=1, at_most=150).times(0.0, 3600.0)) == 150


def test_a_rate_that_divides_the_span_does_not_add_a_frame_by_rounding():
    assert [len(Sampling(fps=fps).times(0.0, 3.0)) for fps in (25, 30, 24, 29.97)] == [75, 90, 72, 90]
    assert len(Sampling(fps=10).times(0.1, 0.4)) == 3


def test_names_for_the_spec():
    assert [str(Sampling(fps=2)), str(Sampling(fps=29.97)), str(Sampling(frames=16))] == [
        "2 fps",
        "29.97 fps",
        "16 frames",
    ]


@pytest.mark.parametrize("both", [{}, {"fps": 2.0, "frames": 4}])
def test_neither_and_both_are_refused(both):
    with pytest.raises(LongreelError, match="either --fps or --frames"):
        Sampling(**both)


@pytest.mark.parametrize(
    "value", [{"fps": 0.0}, {"fps": -1.0}, {"fps": 1001.0}, {"fps": float("inf")}, {"frames": 0}, {"frames": -3}]
)
def test_a_sampling_out_of_range_is_refused_and_the_value_named(value):
    (number,) = value.values()
    with pytest.raises(LongreelError, match=f"must be above 0.* got {number}"):
        Sampling(**value)


def test_a_rate_that_is_no_number_is_refused():
    with pytest.raises(LongreelError, match="must be above 0"):
        Sampling(fps=float("nan"))


def test_a_player_shows_the_last_frame_that_has_begun():
    begins = np.array([0.0, 0.04, 0.08, 0.5])
    times = np.array([-1.0, 0.0, 0.039, 0.05, 0.0799999999, 0.3, 0.5, 9.0])
    assert [shown_at(begins, np.array([time])).item() for time in times] == [0, 0, 0, 1, 2, 2, 3, 3]


@given(st.lists(st.integers(0, 500), min_size=1, unique=True), st.lists(st.integers(0, 600), min_size=1))
def test_shown_frames_are_those_of_a_naive_search_each_once(begins, times):
    begins, times = sorted(begins), sorted(times)
    naive = {max((i for i, begin in enumerate(begins) if begin <= time), default=0) for time in times}
    assert shown_at(np.array(begins) / 10, np.array(times) / 10).tolist() == sorted(naive)


@given(
    st.lists(st.integers(0, 200), min_size=1, max_size=20, unique=True).map(sorted),
    st.lists(st.integers(-20, 220), min_size=1, max_size=20).map(sorted),
)
def test_the_nearest_moments_are_those_that_a_search_through_all_finds(moments, times):
    distances = [[abs(moment - time) for moment in moments] for time in times]
    chosen = nearest(np.array(moments, dtype=float), np.array(times, dtype=float)).tolist()
    assert chosen == sorted(set(chosen))
    for row in distances:
        assert min(row) in {row[place] for place in chosen}
    assert len(chosen) <= len(set(times))


@pytest.mark.parametrize("value", [{"frames": 8, "at_most": 4}, {"at_most": 4}, {"fps": 1, "at_most": 0}])
def test_a_limit_goes_with_a_rate(value):
    with pytest.raises(LongreelError, match=r"--max-frames \d goes with --fps, and must be above 0"):
        Sampling(**value)


def test_a_sampling_with_a_limit_says_so():
    assert str(Sampling(fps=1, at_most=150)) == "1 fps, at most 150 frames"
    assert str(Sampling(fps=0.5, keyframes=True, at_most=9)) == "0.5 fps, at most 9 frames, at keyframes"


def test_a_sampling_at_keyframes_says_so():
    assert str(Sampling(frames=8, keyframes=True)) == "8 frames, at keyframes"
