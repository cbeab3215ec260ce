"""Suites: those that are built in say what the papers say, and a file that cannot be used is named."""

import pytest
import torch

from longreel.balance import TRUSTS, choose_method
from longreel.errors import LongreelError
from longreel.experiments.protocols import PROTOCOLS
from longreel.experiments.settings import make_settings
from longreel.experiments.suites import read_suite, suite_names, under_protocol
from longreel.experiments.table import is_published
from longreel.generate.plan import read_fill
from longreel.heads import build_head
from longreel.layouts import LAYOUTS
from longreel.parts import build_part

#: rows of the papers' tables: suite -> (rows, one of them, backbone, its figures).
TABLES = {
    "videolt-table1": (7, "FrameStack", "resnet50", [0.516, 0.683, 0.569, 0.397, 0.658, 0.834]),
    "videolt-table2": (14, "CB loss, NetVLAD", "tsm", [0.666, 0.801, 0.712, 0.566]),
    "videolt-table3": (8, "w/ CF, nonlinear", "resnet101", [0.520, 0.680, 0.571, 0.405]),
    "videolt-table4": (6, "FrameStack-BCE, NetVLAD", "tsm", [0.669, 0.807, 0.715, 0.568, 0.711, 0.872]),
    "videolt-table5": (5, "eta 0.3", "resnet101", [0.667, 0.780, 0.707, 0.586, 0.710, 0.860]),
    "move-table1": (15, "CB loss, Agg", "resnet101", [0.693, 0.793, 0.728, 0.616, 0.705, 0.854]),
    "move-table2": (10, "MOVE, Agg", "tsm", [0.704, 0.833, 0.746, 0.610, 0.725, 0.885]),
    "minikinetics": (7, "MOVE, Agg", "resnet101@0.02", [0.632, 0.577]),
    "move-table4": (7, "(e) extrapolation", "resnet101", [0.710, 0.817, 0.746, 0.632, 0.725, 0.878]),
    "move-table5": (3, "MSA", "tsm", [0.642, 0.794, 0.689, 0.535, 0.685, 0.848]),
}


@pytest.mark.parametrize("name", TABLES)
def test_a_published_table_has_its_rows_and_figures(name):
    rows, chosen, backbone, figures = TABLES[name]
    suite = read_suite(name)
    assert len(suite.rows) == rows
    row = next(row for row in suite.rows if row.name == chosen)
    assert row.published[backbone] == dict(zip(suite.columns, figures, strict=True))


def test_a_figure_that_was_not_published_is_left_out():
    row = read_suite("move-table5").rows[0]
    assert list(row.published["tsm"]) == ["map", "head.map", "medium.map", "tail.map"]


@pytest.mark.parametrize("name", suite_names())
def test_every_row_of_every_built_in_suite_can_be_trained(name, tmp_path):
    suite = read_suite(name)
    assert suite.protocol is None or suite.protocol in PROTOCOLS
    for row in [row for row in suite.rows if not row.fuse]:
        settings = make_settings(tmp_path, tmp_path, row.settings, protocol=suite.protocol)
        assert settings.departures == ()
        loss, sampler, mixer, way = settings.loss, settings.sampler, settings.mixer, settings.curriculum
        choose_method(settings.balance, [9, 5, 2], loss=loss, sampler=sampler, mixer=mixer, curriculum=way)
        build_part("trust", TRUSTS, settings.trust)
        assert settings.fill is None or read_fill(settings.fill, [990, 5]) <= 990
        assert settings.adjustment is None
        build_head(settings.head, 300, 3, torch.zeros(300), torch.ones(300), LAYOUTS["ntu25"])


def test_every_published_table_has_a_suite_and_every_suite_is_tested():
    unpublished = {"gen2balance-baselines", "gen2balance", "li-et-al", "fill-curve", "nw-ucla-lt", "brl-ntu"}
    assert set(suite_names()) == set(TABLES) | unpublished


GOOD = """
title = "Mine"
baseline = "plain"
columns = ["acc1", "few.map"]
[settings]
epochs = 3
[[rows]]
name = "plain"
[[rows]]
name = "bs"
balance = "balanced-softmax"
epochs = 4
published.clip = [0.5, 0.25]
"""


def test_a_suite_of_ones_own_is_read_with_its_settings_shared(tmp_path):
    (tmp_path / "mine.toml").write_text(GOOD)
    suite = read_suite(str(tmp_path / "mine.toml"))
    assert (suite.name, suite.title, suite.baseline, suite.columns) == ("mine", "Mine", "plain", ("acc1", "few.map"))
    assert [dict(row.settings) for row in suite.rows] == [{"epochs": 3}, {"epochs": 4, "balance": "balanced-softmax"}]
    assert suite.rows[1].published == {"clip": {"acc1": 0.5, "few.map": 0.25}}


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        ('title = "Mine"', 'titel = "Mine"', "mine.toml: no key called 'titel'. Did you mean 'title'"),
        ("epochs = 3", "epoch = 3", "settings: no key called 'epoch'. Did you mean 'epochs'"),
        ("epochs = 4", "seed = 4", "row 'bs': no key called 'seed'"),
        ('balance = "b', 'balence = "b', "row 'bs': no key called 'balence'. Did you mean 'balance'"),
        ('"few.map"', '"few.ap"', "column 'few.ap' is no figure"),
        ('columns = ["acc1", "few.map"]', 'columns = "acc1"', "columns is no list of texts"),
        ("[0.5, 0.25]", "[0.5]", "row 'bs': published clip needs 2 figures"),
        ('name = "bs"', 'name = "plain"', "a name of its own"),
        ('baseline = "plain"', 'baseline = "plane"', "the baseline must be one of them"),
        ('name = "bs"', "", "a row has no name"),
        ('baseline = "plain"', "baseline = [", "is not TOML"),
        ("[settings]\nepochs = 3", "settings = 3", "settings: is no table"),
        ('title = "Mine"', "protocol = 3", "protocol is no text"),
        ('title = "Mine"', "title = 3", "title is no text"),
        ("epochs = 3", 'epochs = "3"', "settings: epochs is '3', where a whole number is due"),
        ("epochs = 4", "epochs = true", "row 'bs': epochs is True, where a whole number is due"),
        ("epochs = 4", "clip_norm = 'a'", "row 'bs': clip_norm is 'a', where a number is due"),
        ("epochs = 4", "standardise = 0", "row 'bs': standardise is 0, where true or false is due"),
        ("epochs = 4", "head = ['psa']", "row 'bs': head is ['psa'], where a text in quotes is due"),
        ("[0.5, 0.25]", '["a", 0.25]', "row 'bs': published clip needs 2 figures"),
        ("[0.5, 0.25]", "[nan, 0.25]", "row 'bs': published clip needs 2 figures"),
        ('["acc1", "few.map"]', '["acc1", "acc1"]', "a column stands there twice"),
        ("published.clip = [0.5, 0.25]", "published = 3", "row 'bs': published is no table"),
    ],
)
def test_a_suite_that_cannot_be_used_is_refused_with_file_row_and_key(old, new, text, tmp_path):
    assert old in GOOD
    (tmp_path / "mine.toml").write_text(GOOD.replace(old, new))
    with pytest.raises(LongreelError) as caught:
        read_suite(str(tmp_path / "mine.toml"))
    assert str(caught.value).startswith(str(tmp_path / "mine.toml"))
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("split", "clips", "shown"), [("test", 51239, True), ("val", 25619, False), ("test", 51238, False)]
)
def test_published_figures_stand_beside_figures_of_their_own_split_and_clips_alone(split, clips, shown):
    groups = {"head": 47, "medium": 617, "tail": 340}
    assert is_published(read_suite("videolt-table1"), "resnet50", split, clips, groups) is shown


def test_a_whole_number_will_do_where_a_number_is_due(tmp_path):
    (tmp_path / "mine.toml").write_text(GOOD.replace("epochs = 4", "clip_norm = 20"))
    assert read_suite(str(tmp_path / "mine.toml")).rows[1].settings["clip_norm"] == 20


def test_published_figures_stay_with_their_benchmark_under_another_protocol():
    suite = read_suite("videolt-table1")
    assert under_protocol(suite, "videolt-paper").rows == suite.rows
    assert not any(row.published for row in under_protocol(suite, "minikinetics200-lt").rows)
    with pytest.raises(LongreelError, match="no protocol called 'vidolt'"):
        under_protocol(suite, "vidolt")


def test_a_suite_that_there_is_not_is_refused(tmp_path):
    with pytest.raises(LongreelError, match=r"no suite called 'videolt-tabel1'\. Did you mean 'videolt-table1'"):
        read_suite("videolt-tabel1")
    with pytest.raises(LongreelError, match=r"none\.toml: cannot be read"):
        read_suite(str(tmp_path / "none.toml"))
    (tmp_path / "empty.toml").write_text("title = 'x'")
    with pytest.raises(LongreelError, match=r"has no rows"):
        read_suite(str(tmp_path / "empty.toml"))
