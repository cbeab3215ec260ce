"""Parts by name with options."""

from dataclasses import dataclass

import pytest

from longreel.errors import LongreelError
from longreel.parts import build_part, options_of


@dataclass(frozen=True)
class Wheel:
    """A part with an option of each kind."""

    size: int = 3
    speed: float = 0.5
    turns: bool = False
    colour: str = "red"
    limit: float | None = None


def make_cart(load: int, *, wheels: int = 4) -> tuple[int, int]:
    return load, wheels


KINDS = {"wheel": Wheel, "plain": object}


def test_a_name_alone_has_the_defaults():
    assert build_part("part", KINDS, "wheel") == Wheel()


def test_options_are_read_as_what_their_defaults_are():
    found = build_part("part", KINDS, "wheel:size=7, speed=1e-3,turns=TRUE,colour=blue,limit=2")
    assert found == Wheel(7, 1e-3, True, "blue", 2.0)


def test_parameters_without_a_default_are_given_and_no_options():
    assert build_part("cart", {"cart": make_cart}, "cart:wheels=2", 9) == (9, 2)
    assert options_of(make_cart) == {"wheels": 4}
    with pytest.raises(LongreelError, match="no option of cart cart called 'load'"):
        build_part("cart", {"cart": make_cart}, "cart:load=2", 9)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("weel", "no part called 'weel'. Did you mean 'wheel'?"),
        ("plain:size=3", "part plain has no options. Leave out 'size=3'."),
        ("wheel:sise=3", "no option of part wheel called 'sise'. Did you mean 'size'?"),
        ("wheel:size=big", "part wheel: size='big' is not a whole number"),
        ("wheel:size=2.5", "part wheel: size='2.5' is not a whole number"),
        ("wheel:speed=", "part wheel: speed='' is not a number"),
        ("wheel:turns=yes", "part wheel: turns='yes' is not true or false"),
        ("wheel:size=2,size=3", "part wheel: size is given twice"),
        ("wheel:limit=x", "part wheel: limit='x' is not a number"),
    ],
)
def test_what_cannot_be_read_is_named(text, message):
    with pytest.raises(LongreelError) as caught:
        build_part("part", KINDS, text)
    assert str(caught.value).startswith(message)
