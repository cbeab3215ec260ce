"""Which clips get a prompt, from where, and that nothing of it ever changes or leaves its folder."""

import itertools
import json
import math
import resource
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from small_llm_server import small_server
from small_prompts import COUNTS, options, read_lines, texts, write, write_manifest

from longreel.errors import InUse, LongreelError, ManifestError
from longreel.generate.clips import make_clip_id, read_prompts
from longreel.generate.prompts import claimed, plan_prompts
from longreel.generate.responses import append
from longreel.generate.templates import DIFFERENT, SLOTS, in_words, normalise, write_template
from longreel.manifest import read_manifest


@pytest.fixture
def server():
    with small_server() as running:
        yield running


@pytest.fixture
def manifest(tmp_path) -> Path:
    return write_manifest(tmp_path / "data")


SOURCES = ["templates", "profiles", "enhanced"]
FAST = ["--exemplars", 0, "--per-call", 4]


# Which clips.


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize(("fill", "level"), [(7, 7), ("max", 5), (2, 2)])
def test_each_class_gets_what_it_lacks_to_the_filling_level(source, fill, level, server, manifest, tmp_path):
    ended = write(manifest, tmp_path / "gen", fill, *options(source, server, *FAST))
    assert ended.code == 0
    expected = {(label, index) for label, real in COUNTS.items() for index in range(level - real)}
    lines = read_lines(tmp_path / "gen")
    assert {(line["label"], line["index"]) for line in lines} == expected
    assert len(lines) == len(expected)
    assert all(line["clip_id"] == make_clip_id(line["label"], line["index"]) for line in lines)
    assert [prompt.prompt for prompt in read_prompts(tmp_path / "gen")] == [line["prompt"] for line in lines]


@pytest.mark.parametrize("source", SOURCES)
def test_a_higher_level_only_appends_and_ends_in_the_prompts_of_one_run(source, server, manifest, tmp_path):
    begin = b""
    for fill in (4, 6, 13, 13):
        assert write(manifest, tmp_path / "grown", fill, *options(source, server, *FAST)).code == 0
        content = (tmp_path / "grown" / "prompts.jsonl").read_bytes()
        assert content.startswith(begin)
        begin = content
    grown = len(server.paid)
    write(manifest, tmp_path / "once", 13, *options(source, server, *FAST))
    assert texts(tmp_path / "grown") == texts(tmp_path / "once")
    assert len(server.paid) == 2 * grown
    assert write(manifest, tmp_path / "once", 4, *options(source, server, *FAST)).report["written"] == 0


def test_prompts_stay_when_another_source_goes_on(server, manifest, tmp_path):
    write(manifest, tmp_path / "gen", 6)
    before = texts(tmp_path / "gen")
    assert write(manifest, tmp_path / "gen", 9, *options("profiles", server, *FAST)).code == 0
    after = texts(tmp_path / "gen")
    assert {label: prompts[: len(before[label])] for label, prompts in after.items()} == before
    kinds = Counter(line["origin"]["kind"] for line in read_lines(tmp_path / "gen"))
    assert kinds == {"template": 9, "llm": 9}


def test_a_prompt_whose_line_was_removed_comes_back_the_same(manifest, tmp_path):
    write(manifest, tmp_path / "gen", 20)
    path, before = tmp_path / "gen" / "prompts.jsonl", texts(tmp_path / "gen")
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:3] + lines[8:]))
    assert write(manifest, tmp_path / "gen", 20).report["written"] == 5
    assert texts(tmp_path / "gen") == before


def test_torn_last_lines_are_cut_off_and_made_again(server, manifest, tmp_path):
    gen = tmp_path / "gen"
    more = options("profiles", server, *FAST, "--parallel", 1)
    write(manifest, gen, 9, *more)
    whole = {name: (gen / name).read_bytes() for name in ("prompts.jsonl", "responses.jsonl")}
    paid = len(server.paid)
    for name, content in whole.items():
        (gen / name).write_bytes(content[:-25])
    assert write(manifest, gen, 9, *more).code == 0
    assert (gen / "prompts.jsonl").read_bytes() == whole["prompts.jsonl"]
    assert len(server.paid) == paid + 1
    assert len(read_lines(gen, "responses.jsonl")) == len(whole["responses.jsonl"].splitlines())


def test_an_answer_that_lacks_its_end_of_line_alone_is_not_paid_for_again(server, manifest, tmp_path):
    gen = tmp_path / "gen"
    write(manifest, gen, 9, *options("profiles", server, *FAST))
    whole, paid = (gen / "responses.jsonl").read_bytes(), len(server.paid)
    (gen / "responses.jsonl").write_bytes(whole[:-1])
    (gen / "prompts.jsonl").unlink()
    assert write(manifest, gen, 9, *options("profiles", server, *FAST)).code == 0
    assert (gen / "responses.jsonl").read_bytes() == whole
    assert len(server.paid) == paid


@pytest.mark.parametrize("name", ["prompts.jsonl", "responses.jsonl", "profiles.json"])
def test_a_damaged_file_is_named(name, server, manifest, tmp_path):
    gen = tmp_path / "gen"
    write(manifest, gen, 9, *options("profiles", server, *FAST))
    content = (gen / name).read_bytes()
    (gen / name).write_bytes(b"damage" + content)
    ended = write(manifest, gen, 12, *options("profiles", server, *FAST))
    assert ended.code == 2
    assert str(gen / name) in ended.err
    assert (gen / name).read_bytes() == b"damage" + content


def test_one_process_writes_prompts_at_a_time(manifest, tmp_path):
    with claimed(tmp_path / "gen"):
        script = "import sys; from small_prompts import app; app()"
        command = [sys.executable, "-c", script, "prompts", str(manifest), str(tmp_path / "gen"), "--fill", "9"]
        done = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=60)
        assert done.returncode == InUse.exit_code
        assert "is in use by process" in done.stderr
    assert not (tmp_path / "gen" / "prompts.jsonl").exists()


# Templates.


def test_templates_differ_for_every_clip_of_a_class():
    assert DIFFERENT > 100_000
    assert all(math.gcd(len(one), len(other)) == 1 for one, other in itertools.combinations(SLOTS, 2))
    prompts = [write_template("archery", index, 0) for index in range(3000)]
    assert len({normalise(prompt) for prompt in prompts}) == 3000


def test_neighbouring_clips_differ_in_every_slot():
    for index in range(50):
        one, other = write_template("archery", index, 0), write_template("archery", index + 1, 0)
        for slot in SLOTS:
            words = [max((part for part in slot if part in text.lower()), key=len) for text in (one, other)]
            assert words[0] != words[1]


def test_templates_depend_on_class_index_and_seed_alone(manifest, tmp_path):
    write(manifest, tmp_path / "a", 40)
    write(manifest, tmp_path / "b", 40, "--seed", 1)
    a, b = texts(tmp_path / "a"), texts(tmp_path / "b")
    assert a["archery"] == [write_template("archery", index, 0) for index in range(39)]
    assert a["archery"][0] != b["archery"][0]
    assert len({a[label][0].replace(in_words(label), "") for label in a}) == 3


# Files.


def test_a_file_of_templates_is_filled_in_and_says_what_it_lacks(manifest, tmp_path):
    lines = [
        "# comment",
        "",
        "A cat does {class} {{0}} %s.",
        "A dog does {class}.",
        "a DOG does {class}!",
        "One {class}",
    ]
    (tmp_path / "own.txt").write_text("\n".join(lines))
    ended = write(manifest, tmp_path / "gen", 7, "--from", tmp_path / "own.txt")
    assert ended.code == 3
    assert texts(tmp_path / "gen") == {
        "BrushHair": ["A cat does brush hair {{0}} %s.", "A dog does brush hair."],
        "archery": ["A cat does archery {{0}} %s.", "A dog does archery.", "One archery"],
        "playing guitar": ["A cat does playing guitar {{0}} %s.", "A dog does playing guitar.", "One playing guitar"],
    }
    assert {label: row["missing"] for label, row in ended.classes.items()} == {
        "BrushHair": 0, "archery": 3, "playing guitar": 1,
    }  # fmt: skip
    assert ended.classes["archery"]["reason"] == "there are no more different ones"
    assert write(manifest, tmp_path / "gen", 7, "--from", tmp_path / "own.txt", "--fallback", "templates").code == 0


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_file_of_prompts_gives_each_class_its_own_in_order(suffix, manifest, tmp_path):
    rows = [("archery", "Aim, at {class}"), ("BrushHair", "Brush"), ("archery", "Draw"), ("archery", "Draw."),
            ("BrushHair", "Comb"), ("yodelling", "Sing"), ("archery", "Loose")]  # fmt: skip
    if suffix == ".csv":
        content = "note,label,prompt\n" + "".join(f'x,{label},"{prompt}"\n' for label, prompt in rows)
    else:
        content = "".join(json.dumps({"label": label, "prompt": prompt}) + "\n" for label, prompt in rows)
    (tmp_path / f"own{suffix}").write_text(content)
    ended = write(manifest, tmp_path / "gen", 6, "--from", tmp_path / f"own{suffix}")
    assert ended.code == 3
    assert texts(tmp_path / "gen") == {"BrushHair": ["Brush"], "archery": ["Aim, at {class}", "Draw", "Loose"]}
    assert ended.classes["playing guitar"]["missing"] == 3


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("own.txt", b"A dog runs.", "own.txt:1: lacks {class}"),
        ("own.csv", b"class,text\na,b", "own.csv:1: expected a header line with label and prompt"),
        ("own.csv", b'label,prompt\na,"b', "is not CSV"),
        ("own.csv", b"label,prompt\na,\n", "own.csv:2: column 'prompt'"),
        ("own.jsonl", b'{"label": "a", "prompt": 3}', "own.jsonl:1: column 'prompt': 3"),
        ("own.jsonl", b"[]", "own.jsonl:1: is not an object"),
        ("own.jsonl", b"[" * 100_000, "own.jsonl:1: is not JSON"),
        ("own.txt", b"\xff{class}", "is not UTF-8"),
        ("own.docx", b"x", "are a .txt, .csv, .jsonl file"),
        ("templatse", None, "Did you mean 'templates'"),
        ("gone.txt", None, "gone.txt: cannot be read"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_its_line(name, content, says, manifest, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path(name).write_bytes(content)
    ended = write(manifest, tmp_path / "gen", 6, "--from", name)
    assert ended.code == 2
    assert says in ended.err


def test_a_full_disk_leaves_whole_lines(tmp_path):
    path = tmp_path / "lines"
    append(path, "one\n")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        with pytest.raises(LongreelError, match="cannot be written"):
            append(path, "x" * 50 + "\n")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_text() == "one\n"


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--from", "profiles"], "needs a language model"),
        (["--from", "enhanced"], "needs a language model"),
        (["--from", "profiles", "--llm-url", "http://127.0.0.1:1/v1"], "--llm-model: which model"),
        (["--from", "profiles", "--llm-folder", "gone"], "gone has no config.json"),
        (["--from", "profiles", "--llm-url", "http://x", "--llm-folder", "y"], "both name a model"),
        (["--from", "enhanced", "--enhance", "people"], "no enhancement called 'people'"),
        (["--fallback", "other"], "no fallback called 'other'"),
        (["--fill", "many"], "many"),
    ],
)
def test_options_that_do_not_go_together_are_refused(more, says, manifest, tmp_path):
    ended = write(manifest, tmp_path / "gen", 9, *more)
    assert ended.code == 2
    assert says in ended.err


def test_a_folder_that_is_a_file_is_refused(manifest, tmp_path):
    (tmp_path / "gen").write_text("")
    ended = write(manifest, tmp_path / "gen", 9)
    assert ended.code == 2
    assert "is, or lies in, a file" in ended.err


def test_two_prompts_for_a_clip_are_refused(manifest, tmp_path):
    write(manifest, tmp_path / "gen", 6)
    path = tmp_path / "gen" / "prompts.jsonl"
    path.write_text(path.read_text() + path.read_text().splitlines()[0] + "\n")
    with pytest.raises(ManifestError, match="stands there twice"):
        plan_prompts(read_manifest(manifest), tmp_path / "gen", "9")
