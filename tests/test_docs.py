"""Docs keep up with the code: every command and every choice is documented, and every documented command exists."""

import re
from pathlib import Path

import pytest
import typer.main

from longreel.balance import ADJUSTMENTS, CURRICULA, LOSSES, METHODS, MIXERS, SAMPLERS, SKELETON_MIXERS, TRUSTS
from longreel.balance.counts import RULES
from longreel.cli import app, generate_app, protocol_app, store_app
from longreel.experiments.protocols import PROTOCOLS
from longreel.experiments.suites import suite_names
from longreel.extract import BACKBONES
from longreel.generate.recipes import RECIPES
from longreel.heads import HEADS, SKELETON_HEADS

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "docs" / "cli.md").read_text()
PAGES = "\n".join(page.read_text() for page in sorted(ROOT.glob("docs/*.md")))
COMMANDS = typer.main.get_group(app).commands
APPS = {"store": store_app, "protocol": protocol_app, "generate": generate_app}
GROUPS = {name: typer.main.get_group(group).commands for name, group in APPS.items()}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_section_and_an_example(name):
    assert f"## longreel {name}\n" in GUIDE
    assert f"\nlongreel {name}" in GUIDE


@pytest.mark.parametrize(
    "choice",
    [
        *(
            *HEADS,
            *SKELETON_HEADS,
            *METHODS,
            *LOSSES,
            *SAMPLERS,
            *MIXERS,
            *SKELETON_MIXERS,
            *ADJUSTMENTS,
            *CURRICULA,
            *TRUSTS,
        ),
        *(*PROTOCOLS, *suite_names(), *RULES, *BACKBONES, *RECIPES),
    ],
)
def test_every_choice_is_in_the_docs(choice):
    assert f"`{choice}`" in PAGES


@pytest.mark.parametrize("page", ["README.md", "docs/cli.md", "docs/benchmarks.md"])
def test_documented_commands_and_options_exist(page):
    for line in re.findall(r"^longreel (.*)$", (ROOT / page).read_text(), flags=re.MULTILINE):
        name, *rest = line.split("#")[0].split()
        command = GROUPS[name][rest[0]] if name in GROUPS else COMMANDS[name]
        known = {option for parameter in command.params for option in [*parameter.opts, *parameter.secondary_opts]}
        assert {word for word in rest if word.startswith("--")} <= known


@pytest.mark.parametrize(
    "page", [*sorted(ROOT.glob("docs/*.md")), ROOT / "README.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name
)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert "://" in target or (page.parent / target).exists(), target


@pytest.mark.parametrize("page", [*sorted(ROOT.glob("docs/*.md")), ROOT / "README.md"], ids=lambda page: page.name)
def test_no_figure_is_still_to_be_filled_in(page):
    assert "@@" not in page.read_text()
