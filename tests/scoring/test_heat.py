"""Images at their own scale: heat maps without seams, in bands, of patches and of tiles."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_detector import KINDS, PATCHES, WHOLE, draw_images, make_fitted, network
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d

from fastcutpaste.networks.backbone import Network, NetworkConfig
from fastcutpaste.scoring import bands, heat
from fastcutpaste.scoring.bands import HeatMap, WholeMap, pool_highest, pool_mask
from fastcutpaste.scoring.config import DetectorConfig
from fastcutpaste.scoring.dense import resize_map, score_maps
from fastcutpaste.scoring.detector import Detector
from fastcutpaste.scoring.embedder import Embedder
from fastcutpaste.scoring.heat import MeanMap, ResizedMap
from fastcutpaste.scoring.regions import find_regions

LARGE = (131, 118)
OWN = [replace(config, resize=False) for config in KINDS if config.patch is not None]
OWN_NAMES = ["patches", "border-nearest-level", "areas"]
TILES = replace(WHOLE, size=(40, 48), resize=False, overlap=9, chunk=2)


def mixed(count: int, seed: int = 0) -> list[Tensor]:
    """Draw images (3, H, W) of sizes that all differ."""
    return [draw_images(1, seed + i, (44 + 3 * i, 80 - 4 * i))[0] for i in range(count)]


def whole_of(made: HeatMap) -> Tensor:
    return torch.from_numpy(np.concatenate(list(made.bands())))


def work_in_small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Embedder, "_pixels", 50 * 50)
    monkeypatch.setattr(bands, "BAND", 17 * LARGE[1])
    monkeypatch.setattr(heat, "_WIDE", 50)


@pytest.mark.parametrize("config", OWN, ids=OWN_NAMES)
def test_a_map_made_of_blocks_and_bands_is_that_of_the_whole_image(
    config: DetectorConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = make_fitted(replace(config, resize=True))
    image = draw_images(1, 5, LARGE)[0]
    image[:, 60:70, 70:80] = 250
    whole = detector.localize(image[None])[0]
    work_in_small_parts(monkeypatch)
    made = detector.heat_map(image)
    parts = list(made.bands())
    assert [len(band) for band in parts] == [17] * 7 + [12]
    torch.testing.assert_close(torch.from_numpy(np.concatenate(parts)), whole, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(detector.localize(image[None])[0], whole, rtol=1e-4, atol=1e-4)
    assert made.score == float(torch.from_numpy(np.concatenate(parts)).max())
    threshold = float(whole.quantile(0.9))
    assert made.regions(threshold) == find_regions(np.concatenate(parts), threshold)


def test_a_network_in_one_pass_has_no_seams_either(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    config = DetectorConfig((40, 72), 24, 4, border=True)
    detector = Detector(Network(NetworkConfig("patchnet", patch=24)), config)
    detector.fit(draw_images(6), draw_images(2, 1))
    image = draw_images(1, 5, LARGE)[0]
    whole = detector.localize(image[None])[0]
    monkeypatch.setattr(Embedder, "_pixels", 50 * 50)
    # bfloat16 networks, where there are some, round a block's sums otherwise than the whole's
    torch.testing.assert_close(whole_of(detector.heat_map(image)), whole, rtol=0.02, atol=0.02)


def test_tiles_give_a_pixel_the_highest_score_of_those_it_is_in(monkeypatch: pytest.MonkeyPatch) -> None:
    work_in_small_parts(monkeypatch)
    detector = Detector(network(), TILES).fit(mixed(6, 10), mixed(3, 20))
    image = draw_images(1, 5, LARGE)[0]
    rows, columns = (0, 30, 60, 91), (0, 35, 70)  # of 131 and 118 px: at least 9 px in common
    expected = torch.full(LARGE, -math.inf)
    for y in rows:
        for x in columns:
            score = detector.score(image[None, :, y : y + 40, x : x + 48])
            expected[y : y + 40, x : x + 48] = expected[y : y + 40, x : x + 48].clamp(min=float(score))
    torch.testing.assert_close(whole_of(detector.heat_map(image)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("config", OWN, ids=OWN_NAMES)
def test_images_of_equal_size_are_fitted_the_same_at_their_own_scale(config: DetectorConfig) -> None:
    learned, held_out = draw_images(8), draw_images(4, 3)
    resized = Detector(network(), replace(config, resize=True, fit_patches=60)).fit(learned, held_out)
    own = Detector(network(), replace(config, fit_patches=60)).fit(list(learned), list(held_out))
    assert own.threshold == pytest.approx(resized.threshold, rel=1e-3)
    assert own.typical == pytest.approx(resized.typical, rel=0.05)  # a thousand pixels of each are looked at
    torch.testing.assert_close(own.score(list(held_out)), score_maps(resized.localize(held_out)), rtol=1e-3, atol=1e-3)


def test_the_patches_of_images_of_any_size_are_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    embed = Embedder.embed
    monkeypatch.setattr(
        Embedder, "embed", lambda self, images, stride=None: seen.append(len(images)) or embed(self, images, stride)
    )
    images = mixed(5)
    detector = Detector(network(), replace(PATCHES, resize=False)).fit(images, images[:2])
    patches = torch.cat([
        one.unfold(1, 24, 8).unfold(2, 24, 8).permute(1, 2, 0, 3, 4).reshape(-1, 3, 24, 24) for one in images
    ])  # fmt: skip
    by_hand = torch.cat([embed(detector._embedder, patch[None]).view(1, -1) for patch in patches])
    assert detector.density is not None
    torch.testing.assert_close(detector.density.state()["mean"], by_hand.mean(0), rtol=1e-3, atol=1e-4)
    assert max(seen) == 1


def test_a_tile_detector_is_saved_and_read(tmp_path) -> None:
    detector = Detector(network(), TILES).fit(mixed(6, 10), mixed(3, 20))
    detector.save(tmp_path / "d.safetensors")
    read = Detector.load(tmp_path / "d.safetensors")
    assert read.config == TILES
    image = draw_images(1, 5, LARGE)[0]
    assert read.heat_map(image).score == detector.heat_map(image).score


@pytest.mark.parametrize("config", [TILES, OWN[0]], ids=["tiles", "patches"])
def test_progress_counts_images_whatever_is_made_of_them(config: DetectorConfig) -> None:
    seen: dict[str, int] = {}

    def progress(batches: Iterable[Tensor], total: int, what: str) -> Iterator[Tensor]:
        for batch in batches:
            seen[what] = seen.get(what, 0) + len(batch)
            yield batch
        assert seen[what] == total, what

    Detector(network(), config).fit(mixed(6, 10), mixed(3, 20), progress)
    assert seen == {"fitting the density": 6, "scoring": 3}


@pytest.mark.parametrize("side", [1, 7, 40, 130, 131, 200])
def test_smaller_maps_keep_the_highest_scores(side: int) -> None:
    whole = torch.rand(LARGE, generator=torch.Generator().manual_seed(0))
    size = (min(side, 131), max(1, round(118 * min(1, side / 131))))
    expected = adaptive_max_pool2d(whole[None], size)[0].numpy()
    assert np.array_equal(pool_highest(np.split(whole.numpy(), [13, 26, 99]), LARGE, side), expected)
    assert np.array_equal(WholeMap(whole.numpy()).smaller(side), expected)
    mask = whole > 0.999
    assert np.array_equal(pool_mask(mask.numpy(), side), (adaptive_max_pool2d(mask[None].float(), size)[0] > 0).numpy())


def test_maps_of_several_are_their_mean_on_one_scale() -> None:
    maps = [torch.rand(4, 5, generator=torch.Generator().manual_seed(i)) for i in range(2)]
    made = MeanMap([ResizedMap((8, 9), one) for one in maps], [(0.0, 2.0), (1.0, 2.0)])
    expected = (resize_map(maps[0][None], (8, 9))[0] / 2 + resize_map(maps[1][None], (8, 9))[0] - 1) / 2
    torch.testing.assert_close(whole_of(made), expected)
    torch.testing.assert_close(torch.from_numpy(made.band(3, 5)), expected[3:5])


def test_what_cannot_be_scored_at_its_own_scale_is_refused() -> None:
    detector = make_fitted(replace(PATCHES, areas=(32, 40)))
    with pytest.raises(ValueError, match="at least 40×40 pixels, which patches and areas take, required, got 39×80"):
        detector.heat_map(draw_images(1, 0, (39, 80))[0])
    nan = torch.rand(3, *LARGE)
    nan[0, 50, 50] = math.nan
    with pytest.raises(ValueError, match="finite pixels required"):
        detector.heat_map(nan)
    with pytest.raises(ValueError, match="of patches or tiles required"):
        make_fitted(WHOLE).heat_map(draw_images(1)[0])
    with pytest.raises(ValueError, match="at least 40×48 pixels, which a tile has, required, got 41×47"):
        Detector(network(), TILES).fit([draw_images(1, 0, (41, 47))[0]], mixed(2))
    with pytest.raises(ValueError, match="overlap: 0 to below a tile's 40 pixels required, got 40"):
        replace(TILES, overlap=40)
    with pytest.raises(ValueError, match="overlap: 0 required, but of whole tiles"):
        replace(PATCHES, overlap=4)
    with pytest.raises(ValueError, match="got 'location'"):
        replace(PATCHES, resize=False, density="location")
