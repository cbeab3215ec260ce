"""`generate prompts`: what the clips to be generated shall show."""

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..console import Steps, printable, say
from ..errors import LongreelError, unknown
from .options import Json, ManifestFile, Root, print_json

if TYPE_CHECKING:
    from ..generate.llm import Asker, Backend
    from ..generate.prompts import Filled, Source, Wanted
    from ..manifest import Manifest

SHOWN = 20  #: classes that are named.
LONGEST_LINE = 400


def prompts(
    manifest: ManifestFile,
    folder: Annotated[Path, typer.Argument(metavar="GEN", help="Folder of generated clips, to make or to go on with.")],
    fill: Annotated[
        str,
        typer.Option(help="Training clips that each class is filled up to, max: as the richest, or 33% of that."),
    ],
    source: Annotated[
        str, typer.Option("--from", help="templates, profiles, enhanced, or a .txt, .csv or .jsonl file of prompts.")
    ] = "templates",
    llm_url: Annotated[str | None, typer.Option(help="Base URL of an OpenAI-compatible server, ending in /v1.")] = None,
    llm_model: Annotated[str | None, typer.Option(help="The model's name on that server.")] = None,
    llm_folder: Annotated[
        Path | None, typer.Option(help="In place of a server: a model's folder as transformers saves it.")
    ] = None,
    llm_timeout: Annotated[float, typer.Option(min=0.1, help="Seconds that an answer may take.")] = 300.0,
    profiles: Annotated[int, typer.Option(min=1, max=100, help="profiles: action profiles a class.")] = 5,
    exemplars: Annotated[int, typer.Option(min=0, max=50, help="profiles: real training clips a profile.")] = 5,
    frames: Annotated[int, typer.Option(min=1, max=64, help="profiles: frames of each exemplar.")] = 8,
    per_call: Annotated[int, typer.Option(min=1, max=200, help="profiles: prompts that a call asks for.")] = 25,
    enhance: Annotated[str, typer.Option(help="enhanced: basic, environment, character or both.")] = "both",
    max_calls: Annotated[
        int | None, typer.Option(min=1, help="Most calls for a class, those of earlier runs included.")
    ] = None,
    max_calls_in_all: Annotated[int | None, typer.Option(min=0, help="Most calls that this run sends.")] = None,
    max_tokens: Annotated[int, typer.Option(min=16, help="Tokens that an answer may have.")] = 4096,
    temperature: Annotated[float, typer.Option(min=0, max=2, help="Of the model's sampling.")] = 1.0,
    fallback: Annotated[
        str, typer.Option(help="For a class whose model refuses or gives nothing usable: none, or templates.")
    ] = "none",
    any_wording: Annotated[
        bool, typer.Option("--any-wording", help="Take also a model's prompts that do not name the action.")
    ] = False,
    parallel: Annotated[int, typer.Option(min=1, max=64, help="Classes that are asked about at a time.")] = 4,
    seed: Annotated[int, typer.Option(min=0, help="Of all draws.")] = 0,
    root: Root = None,
    as_json: Json = False,
) -> None:
    """Write a prompt for each clip that fills a class of MANIFEST up; run it again to go on, or with a larger --fill.

    A clip keeps its prompt for ever, and no answer of a model is paid for twice. The key of a server is read from the
    environment: LONGREEL_LLM_KEY, else OPENAI_API_KEY. Ends with exit code 3 when some prompts are missing.

    Example: longreel generate prompts videos.csv made --fill 5
    """
    from ..generate.handwritten import Templates
    from ..generate.llm import Asker
    from ..generate.prompts import bound_calls, check_model, claimed, plan_prompts, write_prompts
    from ..generate.responses import Responses
    from ..manifest import read_manifest

    if fallback not in ("none", "templates"):
        raise unknown("fallback", fallback, ("none", "templates"))
    clips = read_manifest(manifest, root)
    with ExitStack() as held, Steps() as steps:
        held.enter_context(claimed(folder))
        chosen = _choose_source(held, source, clips, folder, seed, profiles, exemplars, frames, per_call, enhance)
        asker = None
        if chosen.needs_model and (backend := _find_backend(held, llm_url, llm_model, llm_folder, llm_timeout)):
            answers = Responses(folder)
            asker = Asker(backend, answers, seed, max_tokens, temperature, calls_in_all=max_calls_in_all)
        check_model(chosen, source, asker)
        plan = plan_prompts(clips, folder, fill)
        _announce(plan, steps)
        done = write_prompts(
            folder,
            plan,
            chosen,
            asker=asker,
            fallback=Templates(seed) if fallback == "templates" else None,
            calls=lambda wanted: max_calls or bound_calls(wanted, per_call),
            any_wording=any_wording,
            parallel=1 if llm_folder else parallel,
            on_class=lambda filled: steps.advance(),
            on_wait=_say_waiting,
        )
    _finish(plan, done, asker, folder, as_json)


def _say_waiting(classes: int) -> None:
    if classes:
        say(f"stopping: at most 10 s for what {classes} classes have under way, which is paid for; Ctrl-C leaves it.")


def _choose_source(
    held: ExitStack,
    source: str,
    clips: "Manifest",
    folder: Path,
    seed: int,
    profiles: int,
    exemplars: int,
    frames: int,
    per_call: int,
    enhance: str,
) -> "Source":
    """What --from names."""
    from ..generate.enhance import Enhanced
    from ..generate.exemplars import FrameReader
    from ..generate.handwritten import Templates, read_handwritten
    from ..generate.profiles import PROFILES, ProfileBook, Profiles

    if source == "templates":
        return Templates(seed)
    if source == "enhanced":
        return Enhanced(enhance)
    if source == "profiles":
        reader = held.enter_context(FrameReader(clips, frames=frames))
        return Profiles(clips, ProfileBook(folder / PROFILES), reader, seed, profiles, exemplars, per_call)
    if Path(source).suffix:
        return read_handwritten(Path(source))
    error = unknown("source", source, ("templates", "profiles", "enhanced"))
    raise LongreelError(f"{error} A .txt, .csv or .jsonl file of prompts works too.")


def _find_backend(
    held: ExitStack, url: str | None, model: str | None, folder: Path | None, timeout: float
) -> "Backend | None":
    """The language model that the options name, if they name one."""
    if url and folder:
        raise LongreelError("--llm-url, --llm-folder: both name a model. Give one.")
    if folder is not None:
        from ..generate.local import LocalModel

        return LocalModel(folder)
    if url is None:
        return None
    if not model:
        raise LongreelError("--llm-model: which model of the server? Give its name.")
    from ..generate.server import Server

    server = held.enter_context(Server(url, model, timeout=timeout))
    if server.exposed:
        say(f"warning: the key is sent to {server.host} unencrypted. Use https where the way there is not your own.")
    return server


def _announce(plan: "Sequence[Wanted]", steps: Steps) -> None:
    total, missing = sum(wanted.total for wanted in plan), sum(len(wanted.missing) for wanted in plan)
    open_classes = sum(bool(wanted.missing) for wanted in plan)
    say(f"{total} prompts wanted, {total - missing} already there, {missing} to write for {open_classes} classes")
    steps.begin("classes", max(1, open_classes))


def _finish(
    plan: "Sequence[Wanted]", done: "Sequence[Filled]", asker: "Asker | None", folder: Path, as_json: bool
) -> None:
    """Say what was done and what is missing; end with exit code 3 where something is."""
    short = [filled for filled in done if filled.missing]
    events = sum((filled.events for filled in done), Counter())
    facts = {
        "folder": str(folder),
        "wanted": sum(wanted.total for wanted in plan),
        "already": sum(wanted.total - len(wanted.missing) for wanted in plan),
        "written": sum(len(filled.prompts) for filled in done),
        "missing": sum(filled.missing for filled in short),
        "sent": asker.sent if asker else 0,
        "events": dict(sorted(events.items())),
    }
    if as_json:
        print_json(facts | {"classes": [filled.document() for filled in done]})
    else:
        for note in [f"{filled.wanted.label}: {note}" for filled in done for note in filled.notes][:SHOWN]:
            say(_short(note))
        for filled in short[:SHOWN]:
            say(_short(f"short: {filled.wanted.label}: {filled.missing} of {filled.wanted.total}: {filled.reason}"))
        if len(short) > SHOWN:
            say(f"and {len(short) - SHOWN} more classes; --json lists all")
        sent = f", {facts['sent']} calls" if asker else ""
        print(
            f"{facts['written']} written, {facts['already']} already there, {facts['missing']} missing{sent} -> ",
            end="",
        )
        print(printable(str(folder)))
    raise typer.Exit(3 if short else 0)


def _short(line: str) -> str:
    return line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]} ..."
