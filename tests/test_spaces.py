"""Search spaces: what a TOML file gives, how values become settings, and what is refused."""

import pytest

from longreel.errors import LongreelError
from longreel.experiments.settings import TrainSettings
from longreel.experiments.spaces import Choices, Range, read_space
from longreel.heads import HEADS
from longreel.parts import build_part

SPACE = """
[settings]
epochs = 4
loss = "focal"
[space]
learning_rate = { low = 1e-5, high = 1e-2, log = true }
batch_size = { low = 8, high = 100, step = 24 }
balance = ["ce", "balanced-softmax"]
standardise = [true, false]
"head.dropout" = { low = 0.0, high = 0.5 }
"head.hidden" = { low = 16, high = 64 }
"loss.gamma" = [1.0, 2.5]
"""


@pytest.fixture
def read(tmp_path):
    """``read(text)``: the space of a file with this text."""

    def read(text: str):
        (tmp_path / "space.toml").write_text(text)
        return read_space(tmp_path / "space.toml")

    return read


def test_choices_and_ranges_are_read_in_the_order_of_the_file(read):
    space = read(SPACE)
    assert space.settings == {"epochs": 4, "loss": "focal"}
    assert list(space.parameters.items()) == [
        ("learning_rate", Range(1e-5, 1e-2, log=True)),
        ("batch_size", Range(8, 80, step=24)),  # 8, 32, 56, 80: the next one is above the end
        ("balance", Choices(("ce", "balanced-softmax"))),
        ("standardise", Choices((True, False))),
        ("head.dropout", Range(0.0, 0.5)),
        ("head.hidden", Range(16, 64)),
        ("loss.gamma", Choices((1.0, 2.5))),
    ]


@pytest.mark.parametrize(
    ("entry", "whole"),
    [
        ('"head.dropout" = { low = 0, high = 1, int = false }', False),
        ('"head.dropout" = { low = 0.0, high = 1 }', False),
        ('"head.hidden" = { low = 1e1, high = 1e2, int = true }', True),
        ('"head.hidden" = { low = 10, high = 100 }', True),
        ("weight_decay = { low = 0, high = 1 }", False),  # of a setting that takes any number
        ("epochs = { low = 10.0, high = 30.0 }", True),  # of one that takes whole ones alone
        ("clip_norm = { low = 1, high = 5, int = true }", True),
    ],
)
def test_a_range_is_of_whole_numbers_where_the_setting_or_its_ends_are(entry, whole, read):
    (parameter,) = read(f"[space]\n{entry}").parameters.values()
    assert {type(parameter.low), type(parameter.high)} == {int if whole else float}
    assert parameter.whole is whole


def test_a_grid_goes_through_choices_and_steps(read):
    points = {key: parameter.points for key, parameter in read(SPACE).parameters.items()}
    assert points["balance"] == ("ce", "balanced-softmax")
    assert points["batch_size"] == (8, 32, 56, 80)
    assert points["learning_rate"] is None
    (tenths,) = read('[space]\n"head.dropout" = { low = 0.0, high = 0.5, step = 0.1 }').parameters.values()
    assert tenths.points == (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)  # not 0.30000000000000004


def test_values_become_settings_and_options_stand_in_their_parts_text(read):
    space = read(SPACE)
    values = {"learning_rate": 1e-05, "balance": "ce", "head.dropout": 0.25, "head.hidden": 32, "loss.gamma": 2.5}
    assert space.fill(values) == {
        "epochs": 4,
        "learning_rate": 1e-05,
        "balance": "ce",
        "head": "nonlinear:dropout=0.25,hidden=32",  # the default head
        "loss": "focal:gamma=2.5",
    }
    assert space.settings == {"epochs": 4, "loss": "focal"}


def test_an_option_joins_the_text_that_was_drawn_for_its_part(read):
    space = read('[space]\nhead = ["netvlad:clusters=4", "nonlinear"]\n"head.dropout" = [0.1, 0.3]')
    assert space.fill({"head": "netvlad:clusters=4", "head.dropout": 0.1})["head"] == "netvlad:clusters=4,dropout=0.1"


@pytest.mark.parametrize("value", [1e-05, 0.1234, 3.0])
def test_a_number_survives_its_way_through_a_parts_text(value, read):
    text = read('[space]\n"head.dropout" = [0.1, 0.3]').fill({"head.dropout": value})["head"]
    kinds = {"nonlinear": lambda *, dropout=0.5: dropout}
    assert set(kinds) <= set(HEADS)
    assert build_part("head", kinds, text) == value


def test_truth_is_written_as_parts_read_it(read):
    space = read('[settings]\nhead = "aggregated"\n[space]\n"head.released" = [true, false]')
    assert space.fill({"head.released": True})["head"] == "aggregated:released=true"


def test_extremes_have_every_choice_and_both_ends(read):
    space = read(SPACE)
    extremes = list(space.extremes())
    for key, parameter in space.parameters.items():
        seen = {values[key] for values in extremes}
        assert seen == set(parameter.values if isinstance(parameter, Choices) else (parameter.low, parameter.high))
    assert all(set(values) == set(space.parameters) for values in extremes)


def test_what_is_searched_is_described_the_same_whatever_the_layout_of_the_file(read):
    one = read("[space]\nlearning_rate = { low = 1e-4, high = 1e-2, log = true }\n# a remark").describe()
    other = read("[space]\nlearning_rate = {high = 0.01, low = 0.0001, log = true}").describe()
    assert one == other
    assert one != read("[space]\nlearning_rate = {high = 0.01, low = 0.0001}").describe()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[space", "is not TOML"),
        ("", "there is nothing to search"),
        ("[spaces]", "no table called 'spaces'. Did you mean 'space'"),
        ("space = 3", "space is no table"),
        (
            "[settings]\nepoch = 3\n[space]\nepochs = [1, 2]",
            "settings: no setting called 'epoch'. Did you mean 'epochs'",
        ),
        ("[settings]\nseed = 3\n[space]\nepochs = [1, 2]", "settings: no setting called 'seed'"),
        ('[settings]\nepochs = "3"\n[space]\nbalance = ["ce", "bce"]', "epochs is '3', where a whole number is due"),
        ("[settings]\nepochs = 3\n[space]\nepochs = [1, 2]", "epochs is in [settings] and in [space]"),
        ("[space]\nlearning_rat = [1, 2]", "no setting to search called 'learning_rat'. Did you mean 'learning_rate'"),
        ("[space]\nseed = [1, 2]", "no setting to search called 'seed'"),
        ('[space]\nselect = ["map", "acc1"]', "select: is not searched, since the objective decides"),
        ('[space]\n"hed.dropout" = [0.1, 0.2]', "no part with options called 'hed'. Did you mean 'head'"),
        ("[space]\nhead.dropout = [0.1, 0.2]", 'Write an option of the head in quotes: "head.OPTION"'),
        ("[space]\nepochs = 3", "epochs is 3. Give a list of choices, or a range"),
        ("[space]\nepochs = [1, 2.5]", "epochs is 2.5, where a whole number is due"),
        ("[space]\nepochs = [3]", "epochs: give at least two choices, each once"),
        ("[space]\nepochs = [3, 3]", "epochs: give at least two choices, each once"),
        ('[space]\n"head.dropout" = [[1], 2]', "[1] is no choice"),
        ('[space]\n"head.order" = ["a,b", "c"]', "'a,b' has a comma"),
        ("[space]\nepochs = { low = 1, hihg = 2 }", "no key of a range called 'hihg'. Did you mean 'high'"),
        ("[space]\nepochs = { low = 1 }", "a range needs low and high"),
        ("[space]\nepochs = { low = 1, high = 2.5 }", "high is 2.5, where a whole number is due"),
        ('[space]\nepochs = { low = 1, high = "9" }', "high is '9', where a finite number is due"),
        ("[space]\nlearning_rate = { low = nan, high = 1.0 }", "low is nan, where a finite number is due"),
        ("[space]\nepochs = { low = 1, high = 2, log = 1 }", "log is 1, where true or false is due"),
        ("[space]\nepochs = { low = 3, high = 3 }", "low is 3 and high is 3. Give a low one below the high one"),
        (
            "[space]\nlearning_rate = { low = 0, high = 1, log = true }",
            "low is 0.0, and a range with log = true begins",
        ),
        ("[space]\nepochs = { low = 1, high = 9, log = true, step = 2 }", "log and step do not go together"),
        ("[space]\nepochs = { low = 1, high = 9, step = 9 }", "step is 9. Give one above 0 that fits"),
        ("[space]\nbalance = { low = 1, high = 9 }", "takes no range, as a text in quotes is due"),
    ],
)
def test_what_cannot_be_searched_is_refused_with_file_and_key(text, expected, read, tmp_path):
    with pytest.raises(LongreelError) as refused:
        read(text)
    assert str(refused.value).startswith(f"{tmp_path / 'space.toml'}: ")
    assert expected in str(refused.value)


def test_an_option_needs_a_part_and_may_be_given_once(read):
    with pytest.raises(LongreelError, match=r"loss\.gamma: no loss is named. Put one into \[settings\]"):
        read('[space]\n"loss.gamma" = [1.0, 2.0]').fill({"loss.gamma": 1.0})
    fixed = read('[settings]\nhead = "nonlinear:dropout=0.1"\n[space]\n"head.dropout" = [0.1, 0.2]')
    with pytest.raises(LongreelError, match=r"'nonlinear:dropout=0\.1' gives dropout already"):
        fixed.fill({"head.dropout": 0.2})
    assert TrainSettings.loss is None  # or else the first of these had a part to stand in


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(LongreelError, match=r"none\.toml: cannot be read"):
        read_space(tmp_path / "none.toml")
