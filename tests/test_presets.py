"""What is known of published models agrees with the families, the guide and the command line."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from longreel.extract.backbones.families import FAMILIES
from longreel.extract.backbones.folding import FOLDED
from longreel.extract.backbones.presets import PRESETS, describe_presets

GUIDE = (Path(__file__).parent.parent / "docs" / "backbones.md").read_text()


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_in_the_guide(family):
    assert f"`{family}`" in GUIDE


@pytest.mark.parametrize(("name", "preset"), PRESETS.items(), ids=PRESETS)
def test_a_published_model_is_of_a_known_family(name, preset):
    assert re.fullmatch(r"[\w-]+/[\w.-]+", name)
    family = FAMILIES[preset.family]
    assert (preset.frames > 1) == (family.window is not None)
    assert (preset.projected is not None) == (family.projected is not None)


def test_folded_families_are_known():
    assert FOLDED <= FAMILIES.keys()


def test_a_folder_named_like_a_published_model_gets_its_facts_and_another_the_familys_first():
    assert " facebook/dinov2-large has" in describe_presets("dinov2", "dinov2-large")
    assert " facebook/dinov2-small has" in describe_presets("dinov2", "mine")
    assert describe_presets("unheard-of", "dinov2-large") == ""


def test_the_list_of_backbones_needs_no_torch_and_has_every_published_model():
    command = (
        "import sys, longreel.cli\ntry:\n  longreel.cli.app(['backbones', '--json'])\n"
        "finally:\n  assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-P", "-c", command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout)
    assert {"motion", "FOLDER", *PRESETS} <= listed.keys()
    assert listed["microsoft/xclip-base-patch32"]["projected"] == 512
