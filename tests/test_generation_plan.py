"""The plan of generated clips: the filling rule, the published counts, cost, and the picture."""

import csv
import json
import math
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from small_filling import finish
from typer.testing import CliRunner

from longreel.balance.counts import count_training_clips
from longreel.cli import Commands
from longreel.commands import filling
from longreel.errors import LongreelError
from longreel.experiments.manifests import make_protocol
from longreel.generate.clips import Prompt, make_clip_id
from longreel.generate.figure import draw_plan
from longreel.generate.plan import ClassPlan, Plan, count_missing, count_real, plan_fill, read_fill
from longreel.generate.plan_files import describe_plan
from longreel.manifest import Manifest, read_manifest

app = typer.Typer(cls=Commands, pretty_exceptions_enable=False)
app.command()(filling.plan)
app.command()(filling.fill)

#: Gen2Balance's page: filling number -> clips, H100 hours.
K100 = {
    50: (1572, 172),
    100: (4518, 494),
    200: (11697, 1279),
    330: (22473, 2458),
    500: (37617, 4114),
    750: (61025, 6674),
    990: (84561, 9248),
}


def write_manifest(path: Path, counts: dict[str, int]) -> Path:
    """Real training clips by class, one test clip of each, and a generated clip of the first class."""
    rows = [(f"{place}-{number}.mp4", label, "train", "real")
            for place, (label, count) in enumerate(counts.items()) for number in range(count)]  # fmt: skip
    rows += [(f"t{place}.mp4", label, "test", "real") for place, label in enumerate(counts)]
    rows.append(("made.mp4", next(iter(counts)), "train", "generated"))
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("path", "label", "split", "source"), *rows])
    return path


@pytest.fixture
def small(tmp_path) -> Path:
    return write_manifest(tmp_path / "m.csv", {"dog": 7, "cat": 3, "yak": 1})


@pytest.fixture(scope="module")
def publish(shared_data, tmp_path_factory):
    lists = shared_data / "protocols" / "gen2balance"
    if not lists.is_dir():
        pytest.skip("needs the published lists in ../shared/data/protocols/gen2balance")

    def make(name: str, folder: str) -> Manifest:
        out = tmp_path_factory.mktemp("published") / "m.csv"
        make_protocol(name, lists / folder, out)
        return read_manifest(out)

    return make


@pytest.fixture(scope="module")
def k100(publish) -> Manifest:
    return publish("k100-lt", "K100-LT")


def invoke(*arguments: str | Path):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize("fill", K100)
def test_k100_lt_takes_the_published_clips_and_gpu_hours(fill, k100):
    plan = plan_fill(k100, str(fill))
    assert plan.generated == K100[fill][0]
    assert abs(plan.gpu_hours - K100[fill][1]) < 1


def test_the_richest_class_of_k100_lt_is_full_balance(k100):
    plan = plan_fill(k100, "max")
    assert (plan.fill, plan.generated) == (990, K100[990][0])
    assert {each.total for each in plan.classes} == {990}


def test_ucf_lt_and_rareact_take_the_published_clips(publish):
    assert plan_fill(publish("ucf-lt", "UCF-LT"), "121").generated == 9195
    rareact = plan_fill(publish("rareact", "RareAct-K100-LT"), "330")
    assert (len(rareact.classes), rareact.generated) == (122, 29623)


def test_only_real_training_clips_are_counted(small):
    manifest = read_manifest(small)
    assert count_real(manifest) == {"cat": 3, "dog": 7, "yak": 1}
    assert list(count_real(manifest).values()) == count_training_clips(manifest)
    found = {each.label: each.generated for each in plan_fill(manifest, "5").classes}
    assert found == {"cat": 2, "dog": 0, "yak": 4}


@given(
    st.dictionaries(st.text(max_size=30), st.integers(0, 40), min_size=1, max_size=6),
    st.integers(0, 50),
    st.integers(0, 50),
)
def test_a_higher_filling_number_only_appends_clips_to_each_class(counts, low, more):
    lesser, greater = (
        Plan(
            fill,
            tuple(ClassPlan(label, counts[label], missing) for label, missing in count_missing(counts, fill).items()),
        )
        for fill in (low, low + more)
    )
    for label, ids in lesser.clip_ids().items():
        assert len(ids) == max(0, low - counts[label])
        assert greater.clip_ids()[label][: len(ids)] == ids
    every = [clip_id for ids in greater.clip_ids().values() for clip_id in ids]
    assert len(set(every)) == len(every)


@pytest.mark.parametrize("text", ["", "-1", "1.5", "most", "1e3", "٣", "nan", "10000000", "9" * 5000, "1001001"])
def test_what_is_no_number_of_clips_is_refused_in_one_line(text, small):
    done = invoke("plan", small, f"--fill={text}")
    assert done.exit_code == 2
    assert re.fullmatch("error: fill .* is no number of clips. Give .*\n", done.stderr)


@pytest.mark.parametrize("option", ["--seconds-per-clip=0", "--seconds-per-clip=nan", "--seconds-per-clip=inf",
                                    "--cost-per-hour=-1", "--cost-per-hour=nan"])  # fmt: skip
def test_seconds_and_prices_that_are_none_are_refused(option, small):
    done = invoke("plan", small, "--fill", "5", option)
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert option.split("=")[0] in done.stderr


def test_max_needs_a_real_clip(tmp_path):
    (tmp_path / "m.csv").write_text("path,label,split\na.mp4,dog,test\n")
    with pytest.raises(LongreelError, match="no real training clip"):
        plan_fill(read_manifest(tmp_path / "m.csv"), "max")
    assert plan_fill(read_manifest(tmp_path / "m.csv"), "128").generated == 128, "zero-shot"


def test_several_filling_numbers_are_a_line_each_and_one_comes_with_its_classes(small):
    both = invoke("plan", small, "--fill", "5", "--fill", "max", "--seconds-per-clip", "1800", "--cost-per-hour", "2")
    assert re.search(r"5 +│ +11 │ +6 │ +17 │ +3\.0 │ +6\.00 ", both.stdout)
    assert re.search(r"7 +│ +11 │ +10 │ +21 │ +5\.0 │ +10\.00 ", both.stdout)
    assert "yak" not in both.stdout
    one = invoke("plan", small, "--fill", "5")
    assert re.search(r"yak +│ +few │ +1 │ +4 │ +5 ", one.stdout)
    assert re.search(r"GPU-hours: 393.7 s a clip \(Gen2Balance .*H100", one.stdout)
    assert "Gen2Balance" not in both.stdout.split("GPU-hours:")[1], "another duration has another source"


def test_a_table_of_many_classes_is_cut_and_says_where_the_others_are(tmp_path):
    path = write_manifest(tmp_path / "m.csv", {f"class {number}": 1 + number % 3 for number in range(90)})
    shown = invoke("plan", path, "--fill", "4").stdout
    assert "50 more: --json or --out" in shown
    assert shown.count("│ class ") == 40
    document = json.loads(invoke("plan", path, "--fill", "4", "--json").stdout)
    assert len(document["plans"][0]["classes"]) == 90


def test_the_json_document_is_the_plan(small):
    document = json.loads(invoke("plan", small, "--fill", "5", "--cost-per-hour", "3", "--json").stdout)
    assert document["plans"] == [
        {
            "fill": 5,
            "real": 11,
            "generated": 6,
            "total": 17,
            "seconds_per_clip": 393.7,
            "gpu_hours": 0.656,
            "cost": 1.97,
            "classes": [
                {"label": "cat", "real": 3, "generated": 2, "group": "few", "total": 5},
                {"label": "dog", "real": 7, "generated": 0, "group": "few", "total": 7},
                {"label": "yak", "real": 1, "generated": 4, "group": "few", "total": 5},
            ],
        }
    ]


def test_the_folder_gets_json_csv_and_a_picture_of_the_same_bytes_each_time(small, tmp_path):
    contents = []
    for _ in range(2):
        assert invoke("plan", small, "--fill", "5", "--fill", "max", "--out", tmp_path / "p").exit_code == 0
        contents.append({path.name: path.read_bytes() for path in (tmp_path / "p").iterdir()})
    assert contents[0] == contents[1]
    assert set(contents[0]) == {"plan.json", "plan.csv", "plan.svg"}
    with (tmp_path / "p" / "plan.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    found = [f"{row['fill']} {row['label']} {row['generated']}" for row in rows]
    assert found == ["5 cat 2", "5 dog 0", "5 yak 4", "7 cat 4", "7 dog 0", "7 yak 6"]
    document = json.loads(contents[0]["plan.json"])
    assert document["manifest"] == read_manifest(small).digest
    assert [plan["generated"] for plan in document["plans"]] == [6, 10]
    assert b"at least 7" in contents[0]["plan.svg"]


SVG = "{http://www.w3.org/2000/svg}"


def test_a_bar_is_as_high_as_its_clips_and_the_richest_class_comes_first():
    plan = Plan(5, (ClassPlan("yak", 1, 4), ClassPlan("dog", 10, 0), ClassPlan("cat", 3, 2)))
    tree = ElementTree.fromstring(draw_plan(plan))
    bars = [group.findall(f"{SVG}rect") for group in tree.iter(f"{SVG}g")]
    assert [group.findtext(f"{SVG}title") for group in tree.iter(f"{SVG}g")] == [
        "dog: 10 real, 0 generated",
        "cat: 3 real, 2 generated",
        "yak: 1 real, 4 generated",
    ]
    heights = [[float(rect.get("height", "")) for rect in rects] for rects in bars]
    per_clip = heights[0][0] / 10
    expected = [10, 3, 2, 1, 4]
    assert [height / per_clip for found in heights for height in found] == pytest.approx(expected, abs=0.01)
    real, generated = bars[1]
    assert float(generated.get("y", "")) + float(generated.get("height", "")) == pytest.approx(float(real.get("y", "")))
    assert real.get("fill") != generated.get("fill")


@settings(deadline=None)
@given(st.lists(st.tuples(st.text(max_size=300), st.integers(0, 10**6), st.integers(0, 10**6)), max_size=130))
def test_any_class_names_and_counts_make_a_picture_that_is_whole(rows):
    plan = Plan(1, tuple(ClassPlan(*row) for row in rows))
    text = draw_plan(plan)
    tree = ElementTree.fromstring(text)
    assert len(list(tree.iter(f"{SVG}g"))) == len(rows)
    assert len(list(tree)) < 40 + 2 * len(rows), "no name is markup"
    assert all(
        math.isfinite(float(rect.get(side, "0"))) for rect in tree.iter(f"{SVG}rect") for side in ("y", "height")
    )


def test_a_long_name_is_cut_in_the_picture_and_the_table_and_kept_in_the_document(tmp_path):
    path = write_manifest(tmp_path / "m.csv", {"x" * 10_000: 2, "[red]<b>&": 1})
    done = invoke("plan", path, "--fill", "5", "--out", tmp_path / "p")
    assert len(done.stdout) < 5000
    assert "[red]<b>&" in done.stdout
    assert (tmp_path / "p" / "plan.svg").stat().st_size < 20_000
    assert describe_plan(plan_fill(read_manifest(path), "5"))["classes"][1]["label"] == "x" * 10_000


def test_the_page_has_the_published_clips_and_hours():
    page = (Path(__file__).parent.parent / "docs" / "generation.md").read_text(encoding="utf-8")
    for fill, (clips, hours) in K100.items():
        [row] = [line for line in page.splitlines() if re.match(rf"\| K100-LT \| {fill}\b", line)]
        *_, made, ours, published, _ = (cell.strip().replace(" ", "") for cell in row.split("|"))
        assert (int(made), int(published)) == (clips, hours)
        assert float(ours) == pytest.approx(clips * 393.7 / 3600, abs=0.05)


@pytest.mark.parametrize(
    ("text", "expected"), [("7", 7), ("0", 0), ("max", 60), ("100%", 60), ("33%", 20), ("150%", 90)]
)
def test_a_fill_is_a_number_or_a_share_of_the_richest_class(text, expected):
    assert read_fill(text, [5, 60, 12]) == expected


def test_the_seconds_of_a_clip_can_be_those_of_clips_that_are_there(small, tmp_path):
    for index, seconds in enumerate((10.0, 30.0)):
        prompt = Prompt(make_clip_id("dog", index), "dog", index, "a dog")
        finish(tmp_path / "made", prompt, seconds=seconds)
    done = invoke("plan", small, "--fill", "5", "--measured", str(tmp_path / "made"))
    assert done.exit_code == 0
    assert re.search(r"5 +│ +11 │ +6 │ +17 │ +0\.0 ", done.stdout)
    assert "GPU-hours: 20 s a clip, the mean of 2 in" in done.stdout.replace("\n", " ")
    none = invoke("plan", small, "--fill", "5", "--measured", str(tmp_path))
    assert (none.exit_code, none.stderr.count("\n")) == (2, 1)
