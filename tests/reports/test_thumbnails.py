"""Thumbnails: small enough, in the right place, and with what decides still in sight."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import draw_noise, draw_waves, write_picture
from PIL import Image, ImageDraw

from fastcutpaste.reports.thumbnails import heat_jpeg, outline, show, small_jpeg


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    assert image.format == "JPEG"
    return image


@pytest.mark.parametrize(("size", "small"), [((300, 600), (120, 240)), ((900, 300), (240, 80)), ((50, 40), (50, 40))])
def test_a_thumbnail_keeps_the_shape_and_is_never_larger_than_the_image(
    size: tuple[int, int], small: tuple[int, int]
) -> None:
    image = Image.fromarray(draw_waves(*size))
    made = opened(small_jpeg(image))
    assert (made.height, made.width) == small
    assert image.size == size[::-1]
    expected = np.asarray(image.resize(small[::-1]), np.float32)
    assert np.abs(np.asarray(made, np.float32) - expected).mean() < 4


def test_a_thumbnail_takes_nine_thousand_bytes_at_most() -> None:
    assert len(small_jpeg(Image.fromarray(draw_waves(500, 500)))) < 9_000
    assert len(small_jpeg(Image.fromarray(draw_noise(500, 500)))) < 9_000
    assert len(small_jpeg(Image.fromarray(draw_noise(240, 240)))) < 9_000


def test_a_heat_map_is_black_up_to_low_white_from_high_on_and_linear_between() -> None:
    heat = torch.full((40, 60), -5.0)
    heat[:20, 30:] = 12.0
    heat[20:, :30] = 4.0
    made = np.asarray(opened(heat_jpeg(heat, 2.0, 10.0))).astype(int)
    assert made.shape == (40, 60)
    for (y, x), value in {(10, 15): 0, (10, 45): 255, (30, 15): 64, (30, 45): 0}.items():
        assert abs(made[y, x] - value) <= 4


def test_one_hot_pixel_of_a_large_heat_map_is_still_seen() -> None:
    heat = torch.zeros(1000, 500)
    heat[811, 203] = 1.0
    made = np.asarray(opened(heat_jpeg(heat, 0.0, 1.0))).astype(int)
    assert made.shape == (80, 40)
    assert np.unravel_index(made.argmax(), made.shape) == (64, 16)
    assert made.max() > 200


def test_a_range_of_no_width_makes_a_step() -> None:
    made = np.asarray(opened(heat_jpeg(torch.tensor([[1.0] * 16, [1.1] * 16] * 8), 1.0, 1.0)))
    assert set((made > 127).mean(1)) == {0.0, 1.0}


def filled(path: str, height: int, width: int) -> np.ndarray:
    """Paint the insides of an SVG path of parts of height and width, by the even-odd rule."""
    inside = np.zeros((height, width), bool)
    for line in path.split("M")[1:]:
        points = [tuple(map(float, point.split(","))) for point in line.split()]
        canvas = Image.new("1", (width, height))
        ImageDraw.Draw(canvas).polygon([(x * width - 0.5, y * height - 0.5) for x, y in points], fill=1)
        inside ^= np.asarray(canvas)
    return inside


def test_an_outline_encloses_the_mask_where_it_is_holes_and_edges_included() -> None:
    mask = torch.zeros(120, 200, dtype=torch.bool)
    mask[10:40, 20:90] = True
    mask[20:30, 40:60] = False
    mask[70:, 150:] = True
    inside = filled(outline(mask), 120, 200)
    wrong = inside ^ mask.numpy()
    assert wrong.mean() < 0.015  # a pixel about the edges
    assert inside[[12, 119, 71], [50, 199, 151]].all()
    assert not inside[[25, 60], [50, 140]].any()


def test_a_mask_of_many_spots_is_outlined_more_coarsely_and_of_none_not_at_all() -> None:
    generator = torch.Generator().manual_seed(0)
    spots = torch.rand(400, 300, generator=generator) > 0.995
    assert 0 < len(outline(spots)) < 4_000
    assert outline(torch.zeros(30, 40, dtype=torch.bool)) == ""


def test_one_defective_pixel_of_a_large_mask_has_an_outline() -> None:
    mask = torch.zeros(1000, 1000, dtype=torch.bool)
    mask[500, 250] = True
    points = np.array([[float(one) for one in point.split(",")] for point in outline(mask)[1:].split()])
    assert np.abs(points - [0.25, 0.5]).max() < 0.006


def test_what_is_shown_of_an_image_comes_from_its_file(tmp_path: Path) -> None:
    path = write_picture(tmp_path / "large.jpg", draw_waves(1000, 1600))
    shown = show(path, "crack", 2.5, torch.ones(1000, 1600), torch.ones(1000, 1600) > 0, (0.0, 1.0), {"a": "b"})
    assert (shown.path, shown.kind, shown.score, shown.size, shown.details) == (
        path,
        "crack",
        2.5,
        (1000, 1600),
        {"a": "b"},
    )
    assert opened(shown.thumbnail).size == (240, 150)
    assert shown.heat is not None
    assert opened(shown.heat).size == (80, 50)
    assert shown.outline.startswith("M")
    bare = show(path, None, 1.0)
    assert (bare.heat, bare.outline, bare.details) == (None, "", {})
