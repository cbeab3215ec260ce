"""What an import may call the network that made its features."""

import pytest

from longreel.errors import LongreelError
from longreel.extract.importing import Given


@pytest.mark.parametrize("text", ["", "  ", "a\x1b[3m", "two\nlines"])
@pytest.mark.parametrize("option", ["backbone", "weights"])
def test_a_blank_name_or_one_with_control_characters_is_refused(option, text):
    with pytest.raises(LongreelError, match=f"--{option}: .* is blank or holds control characters"):
        Given(**{"backbone": "clip", option: text})


def test_other_names_are_taken_as_they_are():
    assert Given("clip ünï-b/32", "v1.0").spec(4).backbone == "clip ünï-b/32"
