"""What a table says in each of its forms, on a document made by hand: no name is markup, and every note is true."""

import pytest

from longreel.experiments.render import FORMS, as_latex, as_markdown, footnotes
from longreel.experiments.suites import read_suite
from longreel.experiments.table import is_published


@pytest.fixture
def table():
    figure = {"mean": 0.5, "sd": 0.125, "low": 0.25, "high": 0.75}
    difference = {"value": -0.25, "low": -0.5, "high": 0.125, "p": 0.25, "p_holm": 0.25}
    columns = ["acc1", ">10.map"]
    row = {
        "store": "toy",
        "settings": {},
        "seeds": [0, 1, 2],
        "runs": [],
        "faults": {},
        "figures": dict.fromkeys(columns, figure),
        "published": {},
        "training_seconds": 7.25,
        "filling": None,
    }
    return {
        "suite": "two",
        "title": "Two ways",
        "source": None,
        "protocol": None,
        "watermark": None,
        "leaks": {},
        "departures": [],
        "split": "test",
        "clips": 17,
        "failed": 0,
        "empty_classes": 0,
        "selection": ["best val map"],
        "looks": 1,
        "budget": "none",
        "training_seconds": 7200,
        "groups_rule": "bounds",
        "groups": {">10": 1, "<=10": 3},
        "columns": columns,
        "baseline": "plain",
        "draws": 20,
        "stores": {"toy": None},
        "notes": [],
        "rows": [
            row | {"name": "plain", "difference": None},
            row | {"name": "balanced", "difference": dict.fromkeys(columns, difference)},
        ],
    }


def test_no_name_or_note_breaks_out_of_its_cell_or_comment(table):
    name, note = "[5pt] *a* _b_ `c` <d> [e](http://f)", "one\n\\end{document}"
    rows = [row | {"name": name} for row in table["rows"]]
    odd = table | {"rows": rows, "title": "two\nlines", "notes": [note], "baseline": name}
    latex, markdown = as_latex(odd), as_markdown(odd)
    assert [line for line in latex.splitlines() if line.startswith((*"[*", r"\end{document}", "lines"))] == []
    assert r"{}[5pt] *a* \_b\_ `c` \textless{}d\textgreater{} [e](http://f) & 3" in latex
    assert r"& \textgreater{}10 mAP \\" in latex  # a group's name
    assert r"| [5pt] \*a\* \_b\_ \`c\` \<d\> [e\](http://f) | 3 |" in markdown
    assert r"- one \\end{document}" in markdown


def test_a_difference_that_rounds_to_zero_has_no_minus_and_others_have_a_true_one_in_latex(table):
    cell = {"value": -3e-18, "low": -0.25, "high": 0.5, "p": 1.0, "p_holm": 1.0}
    row = table["rows"][1] | {"difference": dict.fromkeys(table["columns"], cell)}
    assert "+0.000 [-0.250, +0.500] p 1 |" in as_markdown(table | {"rows": [row]})
    assert "+0.000 [$-$0.250, +0.500] p 1 " in as_latex(table | {"rows": [row]})


def test_the_time_of_a_training_stands_in_its_row_and_that_of_all_below(table):
    shown = as_markdown(table)
    assert "| plain | 3 | 0.500 ± 0.125 | 0.500 ± 0.125 | 7.2 s |" in shown
    assert "2.0 hours in all" in shown
    for seconds, text in ((0.14, "0.1 s"), (3599, "3599 s"), (3600 * 1204.4, "1204 hours")):
        assert f"machine was, {text} in all." in as_markdown(table | {"training_seconds": seconds})
    unknown = table | {"rows": [row | {"training_seconds": None} for row in table["rows"]]}
    assert "| plain | 3 | 0.500 ± 0.125 | 0.500 ± 0.125 | - |" in as_markdown(unknown)


def test_a_watermark_stands_in_every_form(table):
    marked = table | {"watermark": "chosen on the test list"}
    for form, write in FORMS.items():
        assert "chosen on the test list" in write(marked), form
    shown = [line for line in as_latex(marked).splitlines() if not line.startswith("%")]
    assert sum("NOT A FAIR TEST: chosen on the test list" in line for line in shown) == 2  # figures and differences
    assert "chosen on" not in as_latex(table)


def test_one_seed_is_said_to_be_no_ground_to_prefer_a_method(table):
    one = " ".join(footnotes(table | {"rows": [row | {"seeds": [0]} for row in table["rows"]]}))
    assert "over clips alone, as there is one seed: no ground to prefer a method" in one
    assert "no p below" not in one
    assert "3 seeds can give no p below 0.25" in " ".join(footnotes(table))


def test_the_split_that_chose_the_epoch_is_said_to_flatter(table):
    assert "its figures are too high" not in " ".join(footnotes(table))
    assert "The epoch was chosen on this split: its figures are too high." in footnotes(table | {"split": "val"})
    assert "too high" not in " ".join(footnotes(table | {"split": "val", "selection": ["last epoch"]}))


@pytest.mark.parametrize(
    ("store", "groups", "shown"),
    [
        ("resnet50@0.01", (13, 86, 101), True),
        ("resnet50@0.1", (13, 86, 101), False),  # the manifest has another ratio than the label
        ("resnet50", (13, 86, 101), False),
        ("resnet50@0.01", (13, 86, 100), False),
    ],
)
def test_published_figures_are_those_of_the_ratio_that_the_manifest_has(store, groups, shown):
    sizes: dict[str, int] = dict(zip(("head", "medium", "tail"), groups, strict=True))
    assert is_published(read_suite("minikinetics"), store, "test", 4999, sizes) == shown
    assert not is_published(read_suite("minikinetics"), store, "test", 4998, sizes)
