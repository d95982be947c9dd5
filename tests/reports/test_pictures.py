"""Pictures: the overlay pixel by pixel, and files that can be read and are whole or absent."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from fastcutpaste.reports.pictures import overlay, write_heat_map, write_heat_maps, write_preview
from fastcutpaste.transforms.patch import CutPaste, CutPasteScar, PatchTransform

CUTPASTE: dict[str, PatchTransform] = {"CutPaste": CutPaste()}


def draw_image(height: int = 20, width: int = 30, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)


def read(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        picture.load()
        return np.asarray(picture.convert("RGB")).astype(int)


def draw_preview(path: Path) -> None:
    write_preview(draw_image()[None], CUTPASTE, path)


def draw_heat_maps(path: Path) -> None:
    write_heat_maps([draw_image()], [torch.rand(20, 30)], path, low=0.0, high=1.0)


@pytest.mark.parametrize("score", [-3.0, 1.0])
def test_scores_up_to_low_leave_the_image_as_it_is(score: float) -> None:
    image = draw_image()
    assert torch.equal(overlay(image, torch.full((20, 30), score), 1.0, 2.0), image)


@pytest.mark.parametrize("score", [2.0, 50.0])
@pytest.mark.parametrize("opacity", [0.0, 0.3, 1.0])
def test_scores_from_high_on_take_the_last_color_as_far_as_it_is_opaque(score: float, opacity: float) -> None:
    image = draw_image()
    last = torch.tensor(matplotlib.colormaps["inferno"](1.0)[:3]).view(3, 1, 1) * 255
    expected = image.double() * (1 - opacity) + last * opacity
    result = overlay(image, torch.full((20, 30), score), 1.0, 2.0, opacity)
    torch.testing.assert_close(result.double(), expected, rtol=0, atol=0.51)


def test_each_pixel_is_colored_by_its_own_score() -> None:
    image = draw_image()
    scores = torch.linspace(0, 1, 600).view(20, 30)
    result = overlay(image, scores, 0.2, 0.7)
    assert result.dtype == torch.uint8
    assert result.shape == image.shape
    for y, x in [(0, 0), (6, 3), (11, 29), (13, 0), (19, 29)]:
        heat = min(max((float(scores[y, x]) - 0.2) / 0.5, 0.0), 1.0)
        share = min(2 * heat, 1) * 0.5
        color = matplotlib.colormaps["inferno"](heat)
        for channel in range(3):
            expected = int(image[channel, y, x]) * (1 - share) + color[channel] * 255 * share
            assert int(result[channel, y, x]) == pytest.approx(expected, abs=2)


def test_a_range_of_no_width_is_a_step() -> None:
    image = draw_image()
    scores = torch.ones(20, 30)
    scores[0], scores[5:] = 0, 2
    result = overlay(image, scores, 1.0, 1.0)
    assert torch.equal(result[:, :5], image[:, :5])
    assert torch.equal(result[:, 5:], overlay(image, scores, 0.0, 1.0)[:, 5:])


@pytest.mark.parametrize("shape", [(30, 20), (1, 20, 30), (20, 31)])
def test_a_map_of_another_size_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"overlay: a map of shape \(20, 30\) required, got \("):
        overlay(draw_image(), torch.zeros(shape), 0.0, 1.0)


def test_overlay_writes_into_neither_image_nor_map() -> None:
    image, scores = draw_image(), torch.rand(20, 30)
    before = image.clone(), scores.clone()
    overlay(image, scores, 0.0, 1.0)
    assert torch.equal(image, before[0])
    assert torch.equal(scores, before[1])


def test_a_preview_has_a_row_for_each_image_and_transform(tmp_path: Path) -> None:
    heights = []
    for count, transforms in ((1, CUTPASTE), (2, CUTPASTE), (2, CUTPASTE | {"Scar": CutPasteScar()})):
        path = tmp_path / f"preview-{len(heights)}.png"
        write_preview(torch.stack([draw_image()] * count), transforms, path)
        picture = read(path)
        assert 600 < picture.shape[1] < 900
        assert picture.std() > 10
        heights.append(picture.shape[0])
    assert heights[0] < 250
    assert heights[2] - heights[1] == pytest.approx(2 * (heights[1] - heights[0]), abs=2)  # 1, 2 and 4 rows
    assert heights[2] > 3 * heights[0]


def test_a_preview_shows_the_patch_of_its_seed_and_writes_into_no_image(tmp_path: Path) -> None:
    images = draw_image()[None]
    kept = images.clone()
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        write_preview(images, CUTPASTE, tmp_path / f"{name}.png", seed)
    first, again, other = (read(tmp_path / f"{name}.png") for name in ("first", "again", "other"))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert torch.equal(images, kept)


@pytest.mark.parametrize(("count", "lines"), [(1, 1), (3, 1), (4, 2)])
def test_heat_maps_stand_three_to_a_line_whatever_the_sizes(count: int, lines: int, tmp_path: Path) -> None:
    images = [draw_image(20 + 9 * i, 30) for i in range(count)]
    maps = [torch.rand(20 + 9 * i, 30) for i in range(count)]
    path = tmp_path / "new" / "folder" / "maps.png"
    write_heat_maps(images, maps, path, low=0.2, high=0.9, titles=[f"image {i}" for i in range(count)])
    height, width, _ = read(path).shape
    assert 900 < width < 1300
    assert 100 * lines < height < 250 * lines


def test_true_defects_are_outlined_and_nothing_else_is(tmp_path: Path) -> None:
    image = torch.full((3, 20, 30), 128, dtype=torch.uint8)
    mask = torch.zeros(20, 30, dtype=torch.bool)
    mask[5:12, 8:20] = True
    greens = []
    for name, masks in (("none", None), ("unknown", [None]), ("good", [mask & False]), ("defect", [mask])):
        path = tmp_path / f"{name}.png"
        write_heat_maps([image], [torch.zeros(20, 30)], path, low=0.0, high=1.0, masks=masks)
        picture = read(path)
        greens.append(int(((picture[..., 1] > 160) & (picture[..., 0] < 120)).sum()))
    assert greens[:3] == [0, 0, 0]
    assert greens[3] > 50


@pytest.mark.parametrize("draw", [draw_preview, draw_heat_maps])
def test_a_failed_write_leaves_the_old_picture_and_no_other_file(
    draw: Callable[[Path], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "picture.png"
    path.write_bytes(b"old")

    def fail(self: Figure, target: Any, **_: Any) -> None:
        Path(target).write_bytes(b"half a picture")
        raise OSError("disk full")

    with monkeypatch.context() as patched:
        patched.setattr(Figure, "savefig", fail)
        with pytest.raises(OSError, match="disk full"):
            draw(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["picture.png"]
    assert path.read_bytes() == b"old"
    draw(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["picture.png"]
    assert read(path).size


def test_an_unknown_picture_format_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="format"):
        draw_preview(tmp_path / "picture.abc")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("size", "drawn"),
    [((20, 30), (278, 776)), ((500, 400), (522, 808)), ((64, 1024), (158, 1024)), ((1024, 64), (1046, 320))],
)
def test_a_heat_map_by_itself_is_as_large_as_its_image(
    size: tuple[int, int], drawn: tuple[int, int], tmp_path: Path
) -> None:
    path, scores = tmp_path / "map.png", torch.zeros(size)
    write_heat_map(draw_image(*size), scores, path, low=0.2, high=0.9, threshold=0.5, title="one of $2 and \u0438")
    assert read(path).shape[:2] == drawn


def test_what_exceeds_the_threshold_is_outlined_in_the_heat_map_alone(tmp_path: Path) -> None:
    path, image = tmp_path / "map.png", torch.full((3, 200, 400), 128, dtype=torch.uint8)
    scores = torch.zeros(200, 400)
    scores[50:100, 100:150] = 0.8
    found = []
    for threshold in (0.9, 0.5):
        write_heat_map(image, scores, path, low=5.0, high=9.0, threshold=threshold, title="")  # no color on it
        rows, columns = np.nonzero(read(path).std(-1) > 20)
        found.append((rows.size, columns))
    assert found[0][0] == 0
    assert found[1][0] > 150
    assert found[1][1].min() >= 408 + 98
    assert found[1][1].max() <= 408 + 152


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1)])
def test_a_line_of_pixels_has_a_picture_too(size: tuple[int, int], tmp_path: Path) -> None:
    path = tmp_path / "map.png"
    write_heat_map(draw_image(*size), torch.ones(size), path, low=0.2, high=0.9, threshold=0.5, title="one")
    assert max(read(path).shape) >= 384
