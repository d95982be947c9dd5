"""Tiles cover an image evenly, with at least the overlap, and are as few as can be."""

from itertools import pairwise

import pytest

from fastcutpaste.scoring.tiles import tile_starts


@pytest.mark.parametrize(("length", "tile", "overlap"), [(40, 40, 0), (41, 40, 39), (131, 40, 9), (1000, 512, 64)])
def test_tiles_cover_a_side(length: int, tile: int, overlap: int) -> None:
    starts = tile_starts(length, tile, overlap)
    assert starts[0] == 0
    assert starts[-1] + tile == length
    steps = [after - before for before, after in pairwise(starts)]
    assert all(0 < step <= tile - overlap for step in steps)
    assert max(steps, default=0) - min(steps, default=0) <= 1
    assert len(starts) == 1 or (len(starts) - 2) * (tile - overlap) + tile < length  # one fewer would not do
