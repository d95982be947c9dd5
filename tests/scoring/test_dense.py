"""Dense scoring against slow loops over patches and pixels."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from fastcutpaste.scoring.dense import (
    blocks,
    continue_edges,
    continued_window,
    embed_patches,
    fitting_chunk,
    grid_shape,
    reach_weights,
    resize_map,
    score_maps,
    slabs,
    spread_scores,
    weights_between,
    widen_patches,
)

GEOMETRIES = [  # height, width, patch, stride
    (20, 29, 8, 3),
    (29, 20, 8, 3),
    (17, 17, 5, 1),
    (16, 24, 8, 8),
    (9, 31, 4, 6),
    (13, 18, 5, 3),
    (7, 7, 7, 4),
]


def draw_images(batch: int, height: int, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
    images = torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(0))
    return (images * 255).to(torch.uint8) if dtype == torch.uint8 else images.to(dtype)


def draw_scores(batch: int, height: int, width: int, patch: int, stride: int) -> Tensor:
    return torch.rand(batch, *grid_shape(height, width, patch, stride), generator=torch.Generator().manual_seed(1))


def embed(patches: Tensor) -> Tensor:
    """Weigh every pixel of a patch differently: any swap of rows, columns or channels changes the features."""
    pixels = patches.flatten(1).double()
    weights = torch.rand(pixels.shape[1], 5, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return pixels @ weights


def embed_slowly(images: Tensor, patch: int, stride: int) -> Tensor:
    height, width = images.shape[2:]
    result = []
    for image in images:
        rows = []
        for y in range(0, height - patch + 1, stride):
            row = [embed(image[None, :, y : y + patch, x : x + patch])[0] for x in range(0, width - patch + 1, stride)]
            rows.append(torch.stack(row))
        result.append(torch.stack(rows))
    return torch.stack(result)


def weigh(patch: int, dy: float, dx: float) -> float:
    """Give FCDD's Gaussian at an offset from a patch's centre."""
    sigma = 10 if patch >= 32 else math.log10(0.45 * patch + 1) + 0.25
    return math.exp(-(dy**2 + dx**2) / (2 * sigma**2))


def spread_slowly(scores: Tensor, size: tuple[int, int], patch: int, stride: int, normalized: bool) -> Tensor:
    batch, rows, columns = scores.shape
    result = torch.zeros(batch, *size, dtype=torch.float64)
    for y in range(size[0]):
        for x in range(size[1]):
            near_y, near_x = y, x  # the nearest pixel above and to the left that is in a patch
            while not any(0 <= near_y - row * stride < patch for row in range(rows)):
                near_y -= 1
            while not any(0 <= near_x - column * stride < patch for column in range(columns)):
                near_x -= 1
            total, coverage = torch.zeros(batch, dtype=torch.float64), 0.0
            for row in range(rows):
                for column in range(columns):
                    dy, dx = near_y - row * stride, near_x - column * stride
                    if 0 <= dy < patch and 0 <= dx < patch:
                        weight = weigh(patch, dy - (patch - 1) / 2, dx - (patch - 1) / 2)
                        total += scores[:, row, column] * weight
                        coverage += weight
            result[:, y, x] = total / coverage if normalized else total
    return result.float()


@pytest.mark.parametrize(("height", "width", "patch", "stride"), GEOMETRIES)
def test_the_grid_counts_the_patches_that_fit(height: int, width: int, patch: int, stride: int) -> None:
    rows = len(range(0, height - patch + 1, stride))
    assert grid_shape(height, width, patch, stride) == (rows, len(range(0, width - patch + 1, stride)))


def test_the_papers_grids() -> None:
    assert grid_shape(256, 256, 64, 4) == (49, 49)
    assert grid_shape(256, 256, 32, 4) == (57, 57)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize(("height", "width", "patch", "stride"), GEOMETRIES)
def test_features_of_patches_equal_those_of_slices(
    height: int, width: int, patch: int, stride: int, dtype: torch.dtype
) -> None:
    images = draw_images(2, height, width, dtype)
    features = embed_patches(images, embed, patch=patch, stride=stride)
    torch.testing.assert_close(features, embed_slowly(images, patch, stride), rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("chunk", [1, 7, 40, 10_000])
def test_the_chunk_bounds_the_patches_a_pass_and_changes_nothing(chunk: int) -> None:
    images = draw_images(2, 20, 29)  # 5 × 8 patches each
    passes = []

    def counted(patches: Tensor) -> Tensor:
        passes.append(len(patches))
        return embed(patches)

    features = embed_patches(images, counted, patch=8, stride=3, chunk=chunk)
    torch.testing.assert_close(features, embed_slowly(images, 8, 3), rtol=1e-12, atol=1e-9)
    assert max(passes) == min(chunk, 80)
    assert sum(passes) == 80


def test_the_chunk_is_chosen_from_the_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    free = {"SC_AVPHYS_PAGES": 0, "SC_PAGE_SIZE": 4096}
    monkeypatch.setattr("os.sysconf", free.__getitem__)
    chunks = []
    for megabytes in (0, 8, 64, 10_000):
        free["SC_AVPHYS_PAGES"] = megabytes * 256
        chunks.append(fitting_chunk(64, torch.device("cpu")))
    assert chunks == [1, 2, 16, 128]  # 1 MiB a patch, a quarter of what is free


@pytest.mark.parametrize("rows", [1, 2, 3, 100])
@pytest.mark.parametrize(("height", "width", "patch", "stride"), GEOMETRIES)
def test_slabs_one_under_the_other_hold_the_grid(height: int, width: int, patch: int, stride: int, rows: int) -> None:
    images = draw_images(2, height, width)
    whole = embed_patches(images, embed, patch=patch, stride=stride)
    parts = slabs(images, patch, stride, rows)
    assert len(parts) == -(-whole.shape[1] // rows)
    assert all(part.data_ptr() >= images.data_ptr() for part in parts)
    joined = torch.cat([embed_patches(part, embed, patch=patch, stride=stride) for part in parts], 1)
    torch.testing.assert_close(joined, whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("pixels", [1, 300, 900, 10**6])
@pytest.mark.parametrize("grid", [(1, 1), (7, 5), (40, 3), (3, 90)])
def test_blocks_divide_a_grid_and_are_no_larger_than_asked_for(grid: tuple[int, int], pixels: int) -> None:
    seen = torch.zeros(grid, dtype=torch.int64)
    for rows, columns in blocks(grid, 12, 4, pixels):
        seen[rows, columns] += 1
        h, w = rows.stop - rows.start, columns.stop - columns.start
        assert ((h - 1) * 4 + 12) * ((w - 1) * 4 + 12) <= max(pixels, 12 * 12)
    assert (seen == 1).all()


def test_blocks_are_equal_and_as_wide_as_the_image_allows() -> None:
    assert len(blocks((49, 49), 64, 4, 2**18)) == 1  # 256 × 256
    wide = blocks((49, 1009), 64, 4, 2**18)  # 256 × 4096
    assert all(rows == slice(0, 49) for rows, _ in wide)
    assert {columns.stop - columns.start for _, columns in wide} <= {201, 202}


@pytest.mark.parametrize("margin", [0, 5, 40])
@pytest.mark.parametrize("ends", [(0, 9), (3, 21), (20, 29)])
def test_a_window_of_continued_images_is_a_part_of_them(ends: tuple[int, int], margin: int) -> None:
    images = draw_images(2, 23, 31)
    first, last = ends[0], ends[1] + 2 * margin - 6
    window = continued_window(images, margin, (first, last), (first + 2, last + 2))
    assert torch.equal(window, continue_edges(images, margin)[..., first:last, first + 2 : last + 2])


@pytest.mark.parametrize(("side", "stride", "count"), [(64, 4, 50), (24, 8, 9), (32, 32, 4), (30, 7, 5)])
def test_weights_between_pixels_are_those_of_all(side: int, stride: int, count: int) -> None:
    length = (count - 1) * stride + side + stride - 1
    every = reach_weights(length, count, side, stride, True)
    for first in range(0, length, 13):
        last = min(length, first + 29)
        low, weights = weights_between(first, last, count, side, stride)
        placed = torch.zeros(last - first, count)
        placed[:, low : low + weights.shape[1]] = weights
        torch.testing.assert_close(placed, every[first:last])


def test_memory_format_and_strides_of_the_images_change_no_feature() -> None:
    images = draw_images(2, 20, 29)
    expected = embed_patches(images, embed, patch=8, stride=3)
    for laid_out in (images.contiguous(memory_format=torch.channels_last), images.mT.contiguous().mT):
        assert torch.equal(embed_patches(laid_out, embed, patch=8, stride=3), expected)


def test_patches_are_handed_over_as_they_are_and_without_gradients() -> None:
    images = draw_images(1, 9, 9, torch.uint8)
    weight = torch.ones(1, requires_grad=True)

    def checked(patches: Tensor) -> Tensor:
        assert patches.dtype == torch.uint8
        assert patches.shape[1:] == (3, 4, 4)
        return patches.float().mean((2, 3)) * weight

    assert not embed_patches(images, checked, patch=4, stride=4).requires_grad


@pytest.mark.parametrize(
    ("patch", "stride", "chunk", "message"),
    [
        (10, 1, 1, "patch grid: an image of at least 10×10 pixels required, got 9×20"),
        (0, 1, 1, "patch grid: .* required"),
        (4, 0, 1, "patch grid: a stride of at least 1 pixel required, got 0"),
        (4, 1, 0, "embed_patches: a chunk of at least 1 patch required, got 0"),
    ],
)
def test_wrong_grids_are_refused_before_any_work(patch: int, stride: int, chunk: int, message: str) -> None:
    def never(patches: Tensor) -> Tensor:
        raise AssertionError

    with pytest.raises(ValueError, match=message):
        embed_patches(draw_images(1, 9, 20), never, patch=patch, stride=stride, chunk=chunk)


@pytest.mark.parametrize("patch", [1, 4, 15, 31, 32, 33])
def test_one_patch_spreads_as_fcdds_gaussian(patch: int) -> None:
    centre = (patch - 1) / 2
    expected = torch.tensor([[weigh(patch, y - centre, x - centre) for x in range(patch)] for y in range(patch)])
    spread = spread_scores(torch.ones(1, 1, 1), (patch, patch), patch=patch, stride=1, normalized=False)
    torch.testing.assert_close(spread[0], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize(("height", "width", "patch", "stride"), [*GEOMETRIES, (34, 45, 32, 4)])
def test_spread_scores_equal_a_loop_over_pixels(
    height: int, width: int, patch: int, stride: int, normalized: bool
) -> None:
    scores = draw_scores(2, height, width, patch, stride)
    spread = spread_scores(scores, (height, width), patch=patch, stride=stride, normalized=normalized)
    assert spread.dtype == torch.float32
    expected = spread_slowly(scores, (height, width), patch, stride, normalized)
    torch.testing.assert_close(spread, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("patch", [1, 8, 16, 24, 29, 30, 31, 32, 64])
def test_a_constant_grid_spreads_to_the_same_constant_up_to_the_border(patch: int) -> None:
    size = (patch + 13, patch + 22)  # leaves rows and columns that are in no patch
    stride = min(4, patch)
    spread = spread_scores(torch.full((2, *grid_shape(*size, patch, stride)), 3.5), size, patch=patch, stride=stride)
    torch.testing.assert_close(spread, torch.full((2, *size), 3.5))


def test_a_normalized_map_stays_within_the_scores() -> None:
    scores = draw_scores(1, 40, 50, 8, 4)
    spread = spread_scores(scores, (40, 50), patch=8, stride=4)
    assert spread.min() >= scores.min() - 1e-6
    assert spread.max() <= scores.max() + 1e-6


def test_the_papers_plain_sum_is_lower_at_the_border() -> None:
    size = (80, 80)
    spread = spread_scores(torch.ones(1, *grid_shape(*size, 32, 4)), size, patch=32, stride=4, normalized=False)[0]
    assert spread[0, 40] < spread[40, 40] / 10
    assert spread[0, 0] < spread[0, 40] / 10


@pytest.mark.parametrize("normalized", [True, False])
@pytest.mark.parametrize(("row", "column"), [(7, 8), (6, 10), (9, 7)])
def test_a_hot_patch_peaks_at_its_centre(row: int, column: int, normalized: bool) -> None:
    size, patch, stride = (92, 104), 32, 4
    scores = torch.zeros(1, *grid_shape(*size, patch, stride))
    scores[0, row, column] = 1
    spread = spread_scores(scores, size, patch=patch, stride=stride, normalized=normalized)[0]
    y, x = divmod(int(spread.argmax()), size[1])
    assert abs(y - (row * stride + 15.5)) <= 1.5
    assert abs(x - (column * stride + 15.5)) <= 1.5
    outside = spread.clone()
    outside[row * stride : row * stride + patch, column * stride : column * stride + patch] = 0
    assert outside.max() == 0


@pytest.mark.parametrize("normalized", [True, False])
def test_pixels_in_no_patch_take_their_neighbours_value(normalized: bool) -> None:
    scores = draw_scores(1, 13, 18, 5, 3)  # covers 11 × 17 pixels
    spread = spread_scores(scores, (13, 18), patch=5, stride=3, normalized=normalized)[0]
    for y in (11, 12):
        torch.testing.assert_close(spread[y], spread[10])
    torch.testing.assert_close(spread[:, 17], spread[:, 16])


def test_half_precision_scores_spread_in_float32() -> None:
    scores = draw_scores(1, 20, 29, 8, 3).bfloat16()
    spread = spread_scores(scores, (20, 29), patch=8, stride=3)
    assert torch.equal(spread, spread_scores(scores.float(), (20, 29), patch=8, stride=3))


@pytest.mark.parametrize("shape", [(1, 5, 5), (1, 8, 5), (5, 8), (1, 1, 5, 8)])
def test_scores_of_another_grid_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"spread_scores: scores of shape \(B, 5, 8\) required, got \("):
        spread_scores(torch.zeros(shape), (20, 29), patch=8, stride=3)


@pytest.mark.parametrize("size", [(10, 40), (40, 10), (3, 5)])
def test_a_resized_map_has_the_size_asked_for_and_keeps_its_direction(size: tuple[int, int]) -> None:
    ramp = torch.arange(20.0).view(1, -1, 1) * 100 + torch.arange(30.0)  # grows downwards, and slowly to the right
    resized = resize_map(ramp.expand(2, -1, -1), size)
    assert resized.shape == (2, *size)
    assert (resized.diff(dim=1) > 0).all()
    assert (resized.diff(dim=2) > 0).all()
    ys = (torch.arange(size[0]) + 0.5) * 20 / size[0] - 0.5  # centres of the new pixels in old ones
    xs = (torch.arange(size[1]) + 0.5) * 30 / size[1] - 0.5
    expected = ys.clamp(0, 19)[:, None] * 100 + xs.clamp(0, 29)
    torch.testing.assert_close(resized[1], expected, rtol=1e-5, atol=1e-2)


def test_a_resized_constant_map_is_constant() -> None:
    torch.testing.assert_close(resize_map(torch.full((1, 8, 8), 2.0), (5, 21)), torch.full((1, 5, 21), 2.0))


def test_an_image_scores_the_highest_pixel_of_its_map() -> None:
    maps = draw_scores(3, 9, 11, 1, 1)
    assert score_maps(maps).tolist() == [max(max(row) for row in one) for one in maps.tolist()]


@pytest.mark.parametrize("along", [1, 2, 5])
def test_widened_features_are_the_mean_of_all_patches_inside(along: int) -> None:
    features = torch.rand(2, 5, 8, 3, generator=torch.Generator().manual_seed(3))
    windows = np.lib.stride_tricks.sliding_window_view(features.numpy(), (along, along), axis=(1, 2))
    expected = windows.mean((-2, -1))  # (B, h - along + 1, w - along + 1, D)
    assert expected.shape == (2, 6 - along, 9 - along, 3)
    torch.testing.assert_close(widen_patches(features, along), torch.from_numpy(expected))


@pytest.mark.parametrize("side", [288, 292, 384, 1024])
def test_weights_of_large_squares_are_finite_up_to_the_border_and_sum_to_one(side: int) -> None:
    weights = reach_weights(1024, (1024 - side) // 4 + 1, side, 4, True)
    torch.testing.assert_close(weights.sum(1), torch.ones(1024))
