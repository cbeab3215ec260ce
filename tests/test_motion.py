"""The ``motion`` descriptor: what its numbers mean, and that a row depends on its own frames alone."""

import numpy as np
import pytest
import torch

from longreel.extract import embed
from longreel.extract.backbones.motion import (
    DIRECTIONS,
    GRID,
    Motion,
    cells,
    coarse_energy,
    colour,
    doubled,
    energy,
    gradients,
    lobes,
    normal_flow,
    normalised,
    opponent,
)

CELLS = GRID * GRID
COLOUR, HISTOGRAM = 6 * CELLS, DIRECTIONS * CELLS
# The row's layout, written out once more: colour, shape, energy, coarse energy, flow, boundaries.
MOTION_PARTS = slice(COLOUR + HISTOGRAM, None)


def noise(frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, 48, 48, 3), dtype=np.uint8)


def drifting(direction: int, frames: int = 4, speed: float = 1.0, wavelength: float = 16.0) -> torch.Tensor:
    """``(T, 64, 64)``: a grating in [0, 1] that moves ``speed`` pixels a frame towards ``45 * direction`` degrees."""
    angle = np.pi / 4 * direction
    down, right, time = np.arange(64)[:, None], np.arange(64)[None, :], np.arange(frames)[:, None, None]
    along = right * np.cos(angle) + down * np.sin(angle)
    return torch.from_numpy(0.5 + 0.4 * np.sin(2 * np.pi * (along - speed * time) / wavelength)).float()


def change_and_gradient(luma: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return luma[1:] - luma[:-1], gradients((luma[1:] + luma[:-1]) / 2)


@pytest.mark.parametrize(("frames", "rows"), [(1, 1), (3, 1), (4, 1), (5, 2), (8, 2), (32, 8), (33, 9)])
def test_there_is_one_row_for_each_window_begun(frames: int, rows: int):
    out = embed(Motion(), noise(frames))
    assert out.shape == (rows, Motion.dim)
    assert out.dtype == np.float32


def test_the_frames_it_asks_for_are_the_frames_it_takes():
    frame = np.random.default_rng(0).integers(0, 256, (90, 160, 3), dtype=np.uint8)
    assert embed(Motion(), Motion.preprocessing.apply(frame)[None]).shape == (1, Motion.dim)
    assert len(Motion.sampling.times(0.0, 2.0)) == 3 * Motion.window


@pytest.mark.parametrize("size", [4, 8, 12, 16, 32])
def test_rows_are_the_same_bits_however_the_frames_are_cut_into_chunks(size: int):
    motion, frames = Motion(), noise(37)
    chunked = np.concatenate([embed(motion, frames[i : i + size]) for i in range(0, len(frames), size)])
    np.testing.assert_array_equal(chunked, embed(motion, frames))


def test_a_row_is_the_same_bits_whatever_the_other_windows_show():
    motion, frames = Motion(), noise(12)
    other = frames.copy()
    other[:4], other[8:] = 0, 255
    np.testing.assert_array_equal(embed(motion, other)[1], embed(motion, frames)[1])
    assert (embed(motion, other)[0] != embed(motion, frames)[0]).any()


def test_a_short_last_window_repeats_its_last_frame():
    motion, frames = Motion(), noise(6)
    np.testing.assert_array_equal(
        embed(motion, frames), embed(motion, np.concatenate([frames, frames[-1:], frames[-1:]]))
    )


def test_a_second_object_gives_the_same_bits():
    np.testing.assert_array_equal(embed(Motion(), noise(8)), embed(Motion(), noise(8)))


def test_frames_are_left_as_they_were_and_may_be_read_only():
    frames = noise(5)
    frames.flags.writeable = False
    embed(Motion(), frames)
    np.testing.assert_array_equal(frames, noise(5))


def test_a_still_clip_has_no_motion_but_keeps_its_appearance():
    row = embed(Motion(), np.repeat(noise(1), 4, axis=0))[0]
    assert (row[MOTION_PARTS] == 0).all()
    assert (row[:COLOUR] != 0).mean() > 0.9
    assert (row[COLOUR : COLOUR + HISTOGRAM] > 0).all()


def test_one_changed_pixel_is_motion_in_its_own_cell_only():
    frames = np.full((4, 48, 48, 3), 100, dtype=np.uint8)
    frames[2, 18, 30] = 255  # the cell in row 1, column 2
    boundaries = embed(Motion(), frames)[0][-HISTOGRAM:].reshape(DIRECTIONS, CELLS)
    assert set(np.flatnonzero(boundaries.any(axis=0))) == {1 * GRID + 2}


@pytest.mark.parametrize("value", [0, 1, 127, 255])
def test_constant_frames_give_finite_numbers(value: int):
    assert np.isfinite(embed(Motion(), np.full((5, 48, 48, 3), value, dtype=np.uint8))).all()


def test_numbers_stay_well_inside_float16_for_the_wildest_frames():
    blink = np.zeros((8, 48, 48, 3), dtype=np.uint8)
    blink[1::2] = 255
    corner = np.zeros_like(blink)
    corner[1::2, :2, :2] = 255
    checks = np.zeros_like(blink)
    checks[::2, ::2, ::2] = checks[1::2, 1::2, 1::2] = 255
    for frames in (blink, corner, checks, noise(8)):
        out = embed(Motion(), frames)
        assert np.isfinite(out).all()
        assert np.abs(out).max() < 12  # a block of 128 numbers is at most sqrt(128) long


@pytest.mark.parametrize("direction", range(DIRECTIONS))
@pytest.mark.parametrize("kind", [energy, normal_flow])
def test_a_drifting_grating_has_most_energy_in_its_direction_and_none_against_it(direction: int, kind):
    channels = lobes(kind(*change_and_gradient(drifting(direction)))).reshape(DIRECTIONS, CELLS).sum(1)
    assert channels.argmax() == direction
    assert channels[(direction + DIRECTIONS // 2) % DIRECTIONS] < 0.02 * channels[direction]


def test_coarse_energy_still_tells_the_direction_where_the_fine_scale_is_weakest():
    fast = drifting(0, speed=5.0, wavelength=16.0)
    channels = lobes(coarse_energy(fast)).reshape(DIRECTIONS, CELLS).sum(1)
    assert channels.argmax() == 0
    assert channels[0] > 50 * channels[DIRECTIONS // 2]


@pytest.mark.parametrize("speed", [0.5, 1.0, 2.0])
def test_normal_flow_is_the_speed_of_the_grating_in_pixels_a_frame(speed: float):
    change, gradient = change_and_gradient(drifting(0, speed=speed, wavelength=32.0))
    inside = gradient[0, :, 2:-2, 2:-2].abs() > 0.07  # where the slope is steep, the floor in the divisor is small
    right = normal_flow(change, gradient)[0, :, 2:-2, 2:-2][inside]
    assert inside.sum() > 500
    torch.testing.assert_close(right.median(), torch.tensor(speed), rtol=0.5, atol=0.0)
    assert (right > 0).all()


def test_the_row_of_a_film_played_backwards_has_its_directions_turned_round():
    film = noise(4)
    rows = [embed(Motion(), way)[0][COLOUR + HISTOGRAM :][:HISTOGRAM] for way in (film, film[::-1])]
    forth, back = (row.reshape(DIRECTIONS, CELLS) for row in rows)
    np.testing.assert_allclose(back, np.roll(forth, DIRECTIONS // 2, axis=0), rtol=1e-3, atol=1e-4)


def test_a_row_is_its_six_blocks_in_order_each_normalised_by_itself():
    window = torch.from_numpy(noise(4))
    planes = opponent(window)
    luma = planes[0]
    change, gradient = change_and_gradient(luma)
    blocks = [
        colour(planes),
        lobes(doubled(gradients(luma[[0, 2]]))),
        lobes(energy(change, gradient)),
        lobes(coarse_energy(luma)),
        lobes(normal_flow(change, gradient)),
        lobes(doubled(gradients(change.abs()))),
    ]
    expected = [block.sqrt() if i else block.sign() * block.abs().sqrt() for i, block in enumerate(blocks)]
    expected = [root * len(root) ** 0.5 / (root.square().sum().sqrt() + 0.05) for root in expected]
    np.testing.assert_allclose(embed(Motion(), window.numpy())[0], torch.cat(expected).numpy(), rtol=1e-3, atol=1e-4)


def test_colour_is_the_mean_and_deviation_of_each_cell():
    frames = noise(4)
    r, g, b = np.moveaxis(frames.astype(np.float64) / 255, -1, 0)
    planes = [0.299 * r + 0.587 * g + 0.114 * b, r - g, (r + g) / 2 - b]
    parts = [p[:, y : y + 12, x : x + 12] for p in planes for y in range(0, 48, 12) for x in range(0, 48, 12)]
    expected = [p.mean() for p in parts] + [p.std() for p in parts]
    np.testing.assert_allclose(colour(opponent(torch.from_numpy(frames))).numpy(), expected, atol=1e-5)


def test_cells_are_the_block_means_row_by_row():
    planes = np.arange(2 * 3 * 8 * 12, dtype=np.float32).reshape(2, 3, 8, 12)
    corners = [(y, x) for y in range(0, 8, 2) for x in range(0, 12, 3)]
    expected = [[plane[:, y : y + 2, x : x + 3].mean() for y, x in corners] for plane in planes]
    np.testing.assert_allclose(cells(torch.from_numpy(planes)).numpy(), expected, rtol=1e-6)


def test_gradients_are_central_differences_inside_and_zero_on_the_border():
    image = noise(2)[..., 0].astype(np.float32)
    field = gradients(torch.from_numpy(image)).numpy()
    down, right = np.gradient(image, axis=1), np.gradient(image, axis=2)
    np.testing.assert_allclose(field[0, :, :, 1:-1], right[:, :, 1:-1])
    np.testing.assert_allclose(field[1, :, 1:-1], down[:, 1:-1])
    assert not field[0, :, :, [0, -1]].any()
    assert not field[1, :, [0, -1]].any()


def test_doubling_makes_opposite_gradients_one_orientation_of_the_same_length():
    field = torch.from_numpy(np.random.default_rng(2).normal(size=(2, 1, 4, 4)) * 10).float()
    x, y = field.numpy()
    square = (x + 1j * y) ** 2 / np.abs(x + 1j * y)
    np.testing.assert_allclose(doubled(field).numpy(), [square.real, square.imag], rtol=5e-3, atol=5e-3)
    torch.testing.assert_close(doubled(-field), doubled(field))


def test_lobes_are_rectified_projections_averaged_over_a_cell():
    field = torch.from_numpy(np.random.default_rng(1).normal(size=(2, 3, 8, 8))).float()
    x, y = field.double().numpy()
    expected = []
    for d in range(DIRECTIONS):
        along = np.maximum(x * np.cos(d * np.pi / 4) + y * np.sin(d * np.pi / 4), 0)
        expected += [along[:, i : i + 2, j : j + 2].mean() for i in range(0, 8, 2) for j in range(0, 8, 2)]
    np.testing.assert_allclose(lobes(field).numpy(), expected, rtol=1e-5, atol=1e-6)


def test_normalising_keeps_signs_roots_the_ratios_and_sets_the_length():
    out = normalised(torch.tensor([[4.0, -9.0, 0.0, 16.0], [0.0, 0.0, 0.0, 0.0]])).numpy()
    np.testing.assert_allclose(out[0] / out[0, 0], [1, -1.5, 0, 2], rtol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(out[0]), 2.0, rtol=0.02)
    assert not out[1].any()


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((0, 48, 48, 3), np.uint8),
        np.zeros((4, 48, 40, 3), np.uint8),
        np.zeros((4, 48, 48), np.uint8),
        np.zeros((4, 48, 48, 3), np.float32),
    ],
    ids=["none", "narrow", "grey", "float"],
)
def test_other_frames_are_refused(frames: np.ndarray):
    with pytest.raises(ValueError, match=r"motion takes \(T >= 1, 48, 48, 3\) uint8, got"):
        embed(Motion(), frames)
