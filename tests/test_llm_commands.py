"""A language model's server that fails, seen from the command: what is kept, what is said, and how it ends."""

import json
from dataclasses import dataclass

import pytest
from small_llm_server import BEHAVIOURS, free_port, small_server
from small_prompts import read_lines, texts, write, write_manifest

from longreel.generate.llm import Asker

SECRET = "sk-very-secret-0123456789abcdef"


@pytest.fixture
def server():
    with small_server() as running:
        yield running


@dataclass
class Hasty(Asker):
    """Waits shortly between two tries."""

    first_wait: float = 0.001


@pytest.fixture
def no_waiting(monkeypatch):
    """The command does not wait for long between two tries."""
    monkeypatch.setattr("longreel.generate.llm.Asker", Hasty)


def llm(server, *options: object) -> tuple:
    return ("--from", "profiles", "--llm-url", server.url, "--llm-model", "small", "--exemplars", 0, *options)


@pytest.mark.parametrize("name", ["unauthorised", "forbidden", "no quota", "not found"])
def test_a_server_that_will_never_answer_ends_the_run_and_what_is_done_is_kept(name, server, tmp_path):
    manifest = write_manifest(tmp_path)
    assert write(manifest, tmp_path / "gen", 3, *llm(server, "--profiles", 1)).code == 0
    kept = texts(tmp_path / "gen")
    server.script = ["good", "good", name]
    ended = write(manifest, tmp_path / "gen", 40, *llm(server, "--profiles", 1, "--parallel", 1))
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.count("error: ") == 1
    assert ("run the same command" in ended.err) or ("--llm-model 'small'" in ended.err)
    more = texts(tmp_path / "gen")
    assert {label: prompts[: len(kept.get(label, []))] for label, prompts in more.items()}.items() >= kept.items()
    assert len(more["BrushHair"]) == 25  # of 35, by the one call that was answered
    asked = len(server.asked)
    assert write(manifest, tmp_path / "gen", 40, *llm(server, "--profiles", 1)).code == 0
    assert len({each.digest for each in server.paid}) == len(server.paid)
    assert len(server.asked) > asked


def test_nobody_at_the_address_is_said_in_a_line(tmp_path, no_waiting):
    manifest, port = write_manifest(tmp_path), free_port()
    options = ("--from", "profiles", "--exemplars", 0, "--llm-url", f"http://127.0.0.1:{port}/v1", "--llm-model", "m")
    ended = write(manifest, tmp_path / "gen", 9, *options)
    assert ended.code == 5
    assert "no server answers at 127.0.0.1" in ended.err
    assert "run the same command: what is done is kept" in ended.err


def test_a_server_that_fails_again_and_again_is_left_alone(server, tmp_path, no_waiting):
    manifest = write_manifest(tmp_path, {f"class {letter}": 1 for letter in "abcdefgh"})
    server.always = "broken"
    ended = write(manifest, tmp_path / "gen", 4, *llm(server, "--parallel", 1))
    assert ended.code == 3
    assert len(server.asked) == 3 * 5  # three classes, five tries each
    assert {row["missing"] for row in ended.classes.values()} == {3}
    assert "3 times in a row" in ended.classes["class h"]["reason"]


def test_one_failure_is_of_its_class_alone(server, tmp_path, no_waiting):
    server.always = lambda asked: BEHAVIOURS["broken" if asked.label == "brush hair" else "good"](asked)
    manifest = write_manifest(tmp_path)
    ended = write(manifest, tmp_path / "gen", 6, *llm(server))
    assert ended.code == 3
    assert {label: row["missing"] for label, row in ended.classes.items()} == {
        "BrushHair": 1, "archery": 0, "playing guitar": 0,
    }  # fmt: skip
    server.always = "good"
    assert write(manifest, tmp_path / "gen", 6, *llm(server)).code == 0


def test_refused_classes_are_short_or_get_templates_where_asked_for(server, tmp_path):
    server.always = lambda asked: BEHAVIOURS["refusal" if asked.label == "archery" else "good"](asked)
    manifest = write_manifest(tmp_path)
    ended = write(manifest, tmp_path / "gen", 6, *llm(server))
    assert ended.code == 3
    assert (ended.classes["archery"]["missing"], ended.classes["BrushHair"]["missing"]) == (5, 0)
    assert ended.classes["archery"]["reason"] == "refused: the model declines (a refusal)"
    asked = len(server.asked)
    ended = write(manifest, tmp_path / "gen", 6, *llm(server, "--fallback", "templates"))
    assert ended.code == 0
    assert len(server.asked) == asked  # its refusals are kept too
    lines = [line for line in read_lines(tmp_path / "gen") if line["label"] == "archery"]
    assert [line["origin"]["kind"] for line in lines] == ["template"] * 5
    assert all("refused" in line["origin"]["instead"] for line in lines)


def test_an_outage_gets_no_templates_since_it_passes(server, tmp_path, no_waiting):
    server.always = "broken"
    ended = write(write_manifest(tmp_path), tmp_path / "gen", 6, *llm(server, "--fallback", "templates"))
    assert ended.code == 3
    assert read_lines(tmp_path / "gen") == []


@pytest.mark.parametrize("name", ["too few", "too many"])
def test_another_number_of_prompts_than_asked_for_still_ends_in_the_number_wanted(name, server, tmp_path):
    server.always = name
    ended = write(write_manifest(tmp_path), tmp_path / "gen", 12, *llm(server, "--per-call", 5))
    assert ended.code == 0
    assert {label: len(set(prompts)) for label, prompts in texts(tmp_path / "gen").items()} == {
        "BrushHair": 7, "playing guitar": 9, "archery": 11,
    }  # fmt: skip
    assert ended.report["events"][name] > 0
    assert not any("more" in prompt for prompts in texts(tmp_path / "gen").values() for prompt in prompts)


def test_prompts_without_the_action_are_dropped_unless_any_wording_will_do(server, tmp_path):
    server.always = "without the action"
    manifest = write_manifest(tmp_path)
    ended = write(manifest, tmp_path / "gen", 6, *llm(server, "--max-calls", 8, "--per-call", 4))
    assert ended.code == 3
    assert read_lines(tmp_path / "gen") == []
    assert ended.classes["archery"]["events"]["without the action"] == 3 * 4  # behind five profiles
    assert ended.classes["archery"]["reason"] == "used up: 8 calls are used up (--max-calls)"
    ended = write(manifest, tmp_path / "gen", 6, *llm(server, "--max-calls", 8, "--per-call", 4, "--any-wording"))
    assert {label: len(prompts) for label, prompts in texts(tmp_path / "gen").items()} == {
        "BrushHair": 1, "playing guitar": 1, "archery": 1,
    }  # fmt: skip


def test_a_model_that_repeats_itself_ends_at_the_bound_of_calls(server, tmp_path):
    server.always = "the same again"
    ended = write(write_manifest(tmp_path), tmp_path / "gen", 6, *llm(server, "--max-calls", 9, "--profiles", 1))
    assert ended.code == 3
    assert ended.classes["archery"]["written"] == 1
    assert ended.classes["archery"]["events"]["duplicate"] == 8 * 5 - 1
    assert len([asked for asked in server.asked if asked.label == "archery"]) == 9


def test_calls_in_all_are_bounded_and_the_next_run_goes_on(server, tmp_path):
    manifest = write_manifest(tmp_path)
    for runs in range(1, 10):
        ended = write(manifest, tmp_path / "gen", 6, *llm(server, "--max-calls-in-all", 4, "--parallel", 1))
        assert len(server.asked) <= 4 * runs
        if ended.code == 0:
            break
        assert "--max-calls-in-all" in ended.classes["playing guitar"]["reason"]
    assert ended.code == 0
    assert runs == 5  # 18 calls
    assert len({asked.digest for asked in server.asked}) == len(server.asked) == 18


def test_prompts_hold_no_control_characters_and_are_bounded(server, tmp_path):
    server.always = "hostile"
    ended = write(write_manifest(tmp_path), tmp_path / "gen", 6, *llm(server))
    assert ended.code == 0
    first = texts(tmp_path / "gen")["archery"][0]
    assert first.startswith("[2JA person archery")
    assert "[red]very very" in first
    assert first.isprintable()
    assert len(first) <= 1000


@pytest.mark.parametrize("name", ["good", "unauthorised", "broken", "refusal", "garbage", "another schema"])
def test_the_key_is_sent_and_is_nowhere_else(name, server, tmp_path, monkeypatch, caplog, no_waiting):
    """A server that repeats the key in everything it says does not get it into a file or onto the screen either."""
    monkeypatch.setenv("LONGREEL_LLM_KEY", SECRET)

    def telltale(asked):
        found = BEHAVIOURS[name](asked)
        code, body, headers = found if isinstance(found, tuple) else (200, found, {})
        if isinstance(body, bytes):
            return code, body + asked.headers["Authorization"].encode(), headers
        said = f"you sent {asked.headers['Authorization']}"
        text = json.dumps(body | {"echo": said}).replace("A person", f"A person {said}")
        return code, {**json.loads(text), **({"error": {"message": "x" * 270 + said}} if code > 200 else {})}, headers

    server.always = telltale
    with caplog.at_level(0):
        ended = write(write_manifest(tmp_path), tmp_path / "gen", 6, *llm(server, "--fallback", "templates"))
    assert server.asked[0].headers["Authorization"] == f"Bearer {SECRET}"
    kept = b"\n".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    everything = f"{kept!r}{ended}{caplog.text}"
    assert SECRET not in everything
    assert SECRET[:12] not in everything
    assert SECRET[-12:] not in everything


def test_the_own_key_goes_before_that_of_openai(server, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-openai")
    write(write_manifest(tmp_path), tmp_path / "a", 6, *llm(server))
    assert server.asked[-1].headers["Authorization"] == "Bearer sk-of-openai"
    monkeypatch.setenv("LONGREEL_LLM_KEY", SECRET)
    write(write_manifest(tmp_path), tmp_path / "b", 6, *llm(server))
    assert server.asked[-1].headers["Authorization"] == f"Bearer {SECRET}"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("localhost:8000", "is no address"),
        ("ftp://127.0.0.1/v1", "is no address"),
        ("http://me:sk-secret@127.0.0.1/v1", "holds a user, a password or a query"),
        ("http://127.0.0.1/v1?key=sk-secret", "holds a user, a password or a query"),
        ("https://models.example.org/v1", "needs a key. Set the environment variable LONGREEL_LLM_KEY"),
    ],
)
def test_an_address_that_cannot_be_used_is_refused_without_showing_it(url, says, tmp_path, monkeypatch):
    for name in ("LONGREEL_LLM_KEY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    options = ("--from", "profiles", "--llm-url", url, "--llm-model", "m")
    ended = write(write_manifest(tmp_path), tmp_path / "gen", 6, *options)
    assert ended.code == 2
    assert says in ended.err
    assert "sk-secret" not in ended.err


def test_a_key_that_no_header_takes_is_refused_without_showing_it(server, tmp_path, monkeypatch):
    monkeypatch.setenv("LONGREEL_LLM_KEY", "sk-secret\nX-Evil: 1")
    ended = write(write_manifest(tmp_path), tmp_path / "gen", 6, *llm(server))
    assert ended.code == 2
    assert "LONGREEL_LLM_KEY" in ended.err
    assert "sk-secret" not in ended.err
    assert server.asked == []
