"""The picture of real and generated clips: who is in it, where, and in which colours."""

from xml.etree import ElementTree

import numpy as np
import pytest

from longreel.generate.projection import COLOURS, Point, draw_points, draw_sample, project


def test_a_sample_takes_evenly_of_every_class_and_small_ones_whole():
    strata = ["head"] * 500 + ["tail"] * 3 + ["middle"] * 40
    chosen = draw_sample(strata, 53, seed=0)
    counts = {name: sum(strata[place] == name for place in chosen) for name in set(strata)}
    assert counts == {"tail": 3, "middle": 25, "head": 25}
    assert sorted(set(chosen.tolist())) == chosen.tolist()
    assert draw_sample(strata, 1000, seed=0).tolist() == list(range(543))
    assert draw_sample(strata, 53, seed=0).tolist() == chosen.tolist() != draw_sample(strata, 53, seed=1).tolist()


def test_clusters_far_apart_stay_apart_in_the_plane():
    drawn = np.random.default_rng(0)
    at = np.repeat([0, 1, 2], 30)
    places = project(np.eye(3, 20)[at] + 0.05 * drawn.standard_normal((90, 20)), seed=0)
    centres = np.stack([places[at == one].mean(axis=0) for one in range(3)])
    nearest = np.linalg.norm(places[:, None] - centres, axis=2).argmin(axis=1)
    assert (nearest == at).all()
    again = project(np.eye(3, 20)[at] + 0.05 * np.random.default_rng(0).standard_normal((90, 20)), seed=0)
    np.testing.assert_array_equal(places, again)


def test_equal_clips_have_a_place_too():
    assert np.isfinite(project(np.ones((12, 5)), seed=0)).all()


@pytest.mark.parametrize("classes", [1, 3, len(COLOURS), len(COLOURS) + 1])
def test_marks_lie_in_the_frame_and_colours_are_classes_while_they_can_be_told_apart(classes):
    drawn = np.random.default_rng(0)
    points = [
        Point(drawn.normal(0, 9), drawn.normal(0, 9), f"clip {number}", f"class {number % classes}", number % 2 == 0)
        for number in range(44)
    ]
    picture = ElementTree.fromstring(draw_points(points, "t"))
    frame = picture.findall("{*}rect")[1].attrib
    left, top = float(frame["x"]), float(frame["y"])
    right, low = left + float(frame["width"]), top + float(frame["height"])
    circles = [mark.attrib for mark in picture.findall("{*}circle") if mark.find("{*}title") is not None]
    crosses = [mark.attrib for mark in picture.findall("{*}path") if mark.find("{*}title") is not None]
    assert (len(circles), len(crosses)) == (22, 22)
    for mark in circles:
        assert left < float(mark["cx"]) < right
        assert top < float(mark["cy"]) < low
    colours = {mark["fill"] for mark in circles} | {mark["stroke"] for mark in crosses}
    assert len(colours) == (classes if classes <= len(COLOURS) else 2)


def test_names_of_clips_and_classes_are_never_markup():
    points = [Point(0, 0, '"><script>', "<a & b>\ufffe", False), Point(1, 1, "]]>", "x" * 300, True)]
    text = draw_points(points, "<b>")
    picture = ElementTree.fromstring(text)
    assert "script" not in {element.tag.rpartition("}")[2] for element in picture.iter()}
    assert '"><script>: <a & b>\N{REPLACEMENT CHARACTER}' in {
        title.text for title in picture.iter("{http://www.w3.org/2000/svg}title")
    }
    assert max(len(words.text or "") for words in picture.findall("{*}text")) < 110
