import numpy as np
import pytest
from PIL import Image

from longreel.errors import LongreelError
from longreel.extract.preprocessing import FILTERS, Preprocessing

PILLOW = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def photo(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A smooth picture with noise on it, so that every frequency is there."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = 127 + 80 * np.sin(x / 9)[..., None] * np.cos(y / 7)[..., None] * np.array([1, -1, 0.5])
    return np.clip(waves + rng.normal(0, 25, (height, width, 3)), 0, 255).astype(np.uint8)


SIZES = [(120, 160), (37, 53), (48, 64), (500, 20), (16, 16), (9, 300)]


def resize_in_float(frame: np.ndarray, size: tuple[int, int], name: str) -> np.ndarray:
    """Pillow's resize of each channel as real numbers: nothing is rounded or cut off between its two passes."""
    channels = [Image.fromarray(frame[..., c].astype(np.float32)).resize(size, PILLOW[name]) for c in range(3)]
    return np.stack([np.asarray(channel) for channel in channels], axis=-1)


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_resizing_is_pillows_on_real_numbers_rounded_once(name, height, width):
    frame = photo(height, width)
    ours = Preprocessing(48, 64, filter=name).apply(frame)
    assert ours.dtype == np.uint8
    np.testing.assert_allclose(ours, np.clip(resize_in_float(frame, (64, 48), name), 0, 255), atol=0.51)


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_resizing_is_pillows_within_one_grey_level(name, height, width):
    """Of a picture without black or white, where Pillow's 8-bit first pass cuts off what overshoots."""
    frame = photo(height, width) // 2 + 64
    ours = Preprocessing(48, 64, filter=name).apply(frame)
    theirs = np.asarray(Image.fromarray(frame).resize((64, 48), PILLOW[name]))
    assert np.abs(ours.astype(int) - theirs).max() <= 1


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize(("height", "width"), [(144, 256), (320, 180), (64, 64), (41, 90), (90, 41)])
def test_the_crop_is_the_centre_of_the_resized_frame(name, height, width):
    frame = photo(height, width) // 2 + 64
    ours = Preprocessing(56, 48, short_side=64, filter=name).apply(frame)
    short = min(height, width)
    size = 64 * height // short, 64 * width // short
    resized = np.asarray(Image.fromarray(frame).resize(size[::-1], PILLOW[name]))
    top, left = (size[0] - 56) // 2, (size[1] - 48) // 2
    assert np.abs(ours.astype(int) - resized[top : top + 56, left : left + 48]).max() <= 1


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("value", [0, 1, 127, 254, 255])
def test_an_even_frame_stays_as_it_is(name, value):
    frame = np.full((37, 61, 3), value, dtype=np.uint8)
    for preprocessing in (Preprocessing(20, 90, filter=name), Preprocessing(24, 24, short_side=30, filter=name)):
        assert (preprocessing.apply(frame) == value).all()


def test_a_frame_of_the_wanted_size_is_not_touched():
    frame = photo(48, 64)
    for name in FILTERS:
        np.testing.assert_array_equal(Preprocessing(48, 64, filter=name).apply(frame), frame)
        np.testing.assert_array_equal(Preprocessing(48, 64, short_side=48, filter=name).apply(frame), frame)


def test_halving_a_checkerboard_gives_grey_not_a_pattern():
    board = np.indices((64, 64)).sum(axis=0) % 2 * 255
    frame = np.repeat(board[..., None], 3, axis=2).astype(np.uint8)
    inner = Preprocessing(32, 32).apply(frame)[2:-2, 2:-2]
    assert np.abs(inner.astype(int) - 127.5).max() <= 1


def test_colour_channels_are_not_mixed():
    frame = photo(60, 80)
    frame[..., 1] = 0
    assert (Preprocessing(33, 44, filter="bicubic").apply(frame)[..., 1] == 0).all()


def test_a_crop_larger_than_the_short_side_does_not_leave_the_frame():
    assert Preprocessing(64, 64, short_side=32).apply(photo(100, 50)).shape == (64, 64, 3)


@pytest.mark.parametrize(
    ("own", "short_side", "crop", "expected"),
    [
        (Preprocessing(224, 200, 256, "bicubic"), None, None, Preprocessing(224, 200, 256, "bicubic")),
        (Preprocessing(224, 200, 256, "bicubic"), 320, None, Preprocessing(224, 200, 320, "bicubic")),
        (Preprocessing(224, 200, 256, "bicubic"), None, 192, Preprocessing(192, 192, 256, "bicubic")),
        (Preprocessing(224, 224), None, None, Preprocessing(224, 224)),
        (Preprocessing(224, 224), 256, None, Preprocessing(224, 224, 256)),
        (Preprocessing(224, 224), 224, 224, Preprocessing(224, 224, 224)),
    ],
)
def test_short_side_and_crop_take_the_place_of_the_models_own(own, short_side, crop, expected):
    assert own.resized(short_side, crop) == expected


@pytest.mark.parametrize("sizes", [(223, None), (None, 257), (200, 201), (0, 0), (256, 0), (256, -8), (-256, None)])
def test_a_crop_that_does_not_fit_the_short_side_is_refused(sizes):
    with pytest.raises(LongreelError, match=r"cannot be cut out of frames whose shorter side is -?\d+\. Give a larger"):
        Preprocessing(224, 200, 256).resized(*sizes)


def test_there_is_no_crop_of_frames_that_are_squashed():
    with pytest.raises(LongreelError, match=r"squashes whole frames to 192x192\. Give --short-side too"):
        Preprocessing(224, 224).resized(None, 192)


def test_names_for_the_spec():
    assert str(Preprocessing(224, 224)) == "bilinear to 224x224"
    assert str(Preprocessing(224, 200, 256, "bicubic")) == "bicubic to short side 256, centre 224x200"
