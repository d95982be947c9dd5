"""The detector: shapes, threshold and file, on a network cut after its first stage."""

import math
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_detector import (
    PATCHES,
    SIZE,
    WHOLE,
    assert_refused,
    draw_images,
    make_fitted,
    make_network,
    network,
    put_aside,
    write_changed,
)
from torch import Tensor

from fastcutpaste.networks.backbone import Network, NetworkConfig
from fastcutpaste.scoring.calibration import calibrated
from fastcutpaste.scoring.config import DetectorConfig
from fastcutpaste.scoring.dense import slabs
from fastcutpaste.scoring.density import GaussianDensity, KernelDensity, LocationDensity
from fastcutpaste.scoring.detector import Detector
from fastcutpaste.scoring.embedder import Embedder


@pytest.fixture(scope="module")
def whole() -> Detector:
    return make_fitted(WHOLE)


def test_heat_maps_have_the_images_size_and_scores_are_their_maxima(patches: Detector) -> None:
    images = draw_images(5, seed=1)
    maps = patches.localize(images)
    assert maps.shape == (5, *SIZE)
    assert maps.dtype == torch.float32
    assert torch.equal(patches.score(images), maps.flatten(1).max(1).values)


def test_whole_images_score_the_distance_of_their_features(whole: Detector) -> None:
    images = draw_images(7, seed=1)  # two batches of the chunk
    scores = whole.score(images)
    assert scores.shape == (7,)
    assert isinstance(whole.density, GaussianDensity)
    features = torch.cat([whole._embedder.embed(image[None]) for image in images])  # autocast as in score
    torch.testing.assert_close(scores, whole.density.score(features), rtol=1e-2, atol=1e-2)


def test_the_density_is_of_the_kind_asked_for() -> None:
    assert isinstance(make_fitted(replace(WHOLE, density="kernel")).density, KernelDensity)
    assert isinstance(make_fitted(replace(WHOLE, density="gaussian")).density, GaussianDensity)


def test_a_planted_defect_is_scored_higher_and_found(patches: Detector, whole: Detector) -> None:
    images = draw_images(3, seed=2)
    images[1, :, 8:20, 44:56] = 255
    for fitted in (patches, whole):
        scores = fitted.score(images)
        assert scores.argmax() == 1
        assert scores[1] > fitted.threshold
    y, x = divmod(int(patches.localize(images)[1].argmax()), SIZE[1])
    assert 0 <= y < 28
    assert 36 <= x < 64


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.5])
def test_the_threshold_is_one_of_the_held_out_scores_that_the_calibration_keeps(rate: float) -> None:
    images, calibration = put_aside(draw_images(40), 0.25)
    fitted = Detector(network(), replace(WHOLE, false_positive_rate=rate)).fit(images, calibration)
    scores = fitted.score(calibration)
    assert int((scores > fitted.threshold).sum()) == int(rate * 11 + 1e-9) - (rate * 11 >= 1)
    assert fitted.calibration == calibrated(scores, rate)
    assert fitted.threshold in scores.tolist()
    assert scores.min() <= fitted.typical <= scores.max()


def test_calibration_images_set_the_threshold_and_stay_out_of_the_density() -> None:
    images, calibration = put_aside(draw_images(12))
    first, second = (Detector(network(), WHOLE).fit(images, given) for given in (calibration, 255 - calibration))
    assert first.density and second.density  # noqa: PT018, for mypy
    assert torch.equal(first.density.state()["mean"], second.density.state()["mean"])
    assert first.threshold != second.threshold


def test_the_density_is_fitted_on_features_of_the_images_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastcutpaste.networks.backbone.computes_bf16", lambda _: False)
    images = draw_images(12)
    for config in (WHOLE, PATCHES):
        fitted = Detector(network(), config).fit(*put_aside(images, 0.25))
        rows = []
        for i in range(9):
            if config.patch is None:
                rows.append(images[i : i + 1])
                continue
            rows += [images[i : i + 1, :, y : y + 24, x : x + 24] for y in (0, 8, 16) for x in range(0, 49, 8)]
        with torch.inference_mode():
            features = torch.cat([network().embed(row) for row in rows])
        assert fitted.density is not None
        torch.testing.assert_close(fitted.density.state()["mean"], features.mean(0), rtol=1e-4, atol=1e-4)


def test_typical_is_the_median_of_held_out_heat_maps() -> None:
    images, calibration = put_aside(draw_images(12))
    fitted = Detector(network(), PATCHES).fit(images, calibration)
    pixels = fitted.localize(calibration).flatten().sort().values
    assert pixels[len(pixels) // 2 - 1] <= fitted.typical <= pixels[len(pixels) // 2]


def test_three_images_are_enough_and_no_images_are_too_few() -> None:
    assert math.isfinite(make_fitted(count=3).threshold)
    with pytest.raises(ValueError, match="fit: at least 1 normal image for calibration required, got none"):
        Detector(network(), PATCHES).fit(draw_images(2), draw_images(0))


@pytest.mark.parametrize("limit", [150, 40, 8, 1])
def test_the_grid_is_thinned_out_until_the_patches_are_few_enough(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    counts: list[int] = []
    fit = GaussianDensity.fit

    def counted(self: GaussianDensity, features: Iterable[Tensor]) -> GaussianDensity:
        batches = list(features)
        counts.append(sum(batch[..., 0].numel() for batch in batches))
        return fit(self, batches)

    monkeypatch.setattr(GaussianDensity, "fit", counted)
    make_fitted(replace(PATCHES, fit_patches=limit), count=10)  # 8 images, 21 patches each
    expected = {150: 8 * 8, 40: 8 * 3, 8: 8 * 1, 1: 8 * 1}  # strides 16, 24, 48 and, one patch being the least, 48
    assert counts == [expected[limit]]


def test_fit_and_score_change_no_weight_and_no_batch_norm() -> None:
    looked_at = make_network().train()
    before = {name: value.clone() for name, value in looked_at.state_dict().items()}
    fitted = Detector(looked_at, PATCHES).fit(*put_aside(draw_images(5)))
    fitted.score(draw_images(2))
    after = looked_at.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not any(part.training for part in looked_at.modules())


def test_fit_draws_no_random_number_and_gives_the_same_twice(fitted: Detector) -> None:
    state = torch.get_rng_state()
    first, second = (Detector(fitted.network, fitted.config).fit(*put_aside(draw_images(12))) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert first.threshold == second.threshold == fitted.threshold
    assert torch.equal(first.score(draw_images(2)), second.score(draw_images(2)))


def test_images_score_by_themselves_and_the_chunk_changes_no_score(
    fitted: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastcutpaste.networks.backbone.computes_bf16", lambda _: False)
    images = draw_images(6, seed=3)
    scores = fitted.score(images)
    tolerance = 0.01 * float(scores.std())
    assert tolerance > 0
    alone = torch.cat([fitted.score(image[None]) for image in images])
    torch.testing.assert_close(scores, alone, rtol=0, atol=tolerance)
    chunked = Detector(
        fitted.network,
        replace(fitted.config, chunk=2),
        fitted.density,
        area_densities=fitted.area_densities,
        brightness=fitted.brightness,
    )
    torch.testing.assert_close(scores, chunked.score(images), rtol=0, atol=tolerance)


def test_floating_point_images_score_as_uint8_ones(fitted: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastcutpaste.networks.backbone.computes_bf16", lambda _: False)
    images = draw_images(3, seed=3)
    scores = fitted.score(images)
    assert scores.std() > 0
    torch.testing.assert_close(fitted.score(images / 255), scores, rtol=0, atol=0.01 * float(scores.std()))


def test_no_images_give_no_scores(fitted: Detector) -> None:
    assert fitted.score(draw_images(0)).shape == (0,)
    if fitted.config.patch is not None:
        assert fitted.localize(draw_images(0)).shape == (0, *SIZE)


def test_progress_sees_every_batch() -> None:
    heard: list[tuple[int, int, str]] = []

    def progress(batches: Iterable[Tensor], total: int, what: str) -> Iterable[Tensor]:
        batches = list(batches)
        heard.append((sum(len(batch) for batch in batches), total, what))
        return batches

    for config in (PATCHES, WHOLE, replace(PATCHES, areas=(32, 40))):
        Detector(network(), config).fit(*put_aside(draw_images(10)), progress)
        assert heard == [(8, 8, "fitting the density"), (2, 2, "scoring")]
        heard.clear()


def test_images_of_another_size_are_refused_where_they_cannot_be_scored(fitted: Detector) -> None:
    message = r": images of shape \(N, 3, 40, 72\) required, got \(4, 3, 72, 40\)"
    turned = draw_images(4, size=(72, 40))
    with pytest.raises(ValueError, match="fit" + message):
        Detector(fitted.network, fitted.config).fit(turned, turned)
    with pytest.raises(ValueError, match=r"required, got \(4, 1, 40, 72\)"):
        fitted.score(draw_images(4)[:, :1])
    if fitted.config.patch is None:
        with pytest.raises(ValueError, match="score" + message):
            fitted.score(turned)
        return
    assert fitted.localize(turned).shape == (4, 72, 40)
    least = max([24, *fitted.config.areas])
    with pytest.raises(
        ValueError, match=f"patch grid: an image of at least {least}×{least} pixels required, got 23×40"
    ):
        fitted.localize(draw_images(2, size=(23, 40)))


def test_pixels_that_are_not_finite_are_refused(patches: Detector) -> None:
    images = draw_images(2) / 255
    images[1, 0, 3, 4] = torch.nan
    with pytest.raises(ValueError, match="localize: images of finite pixels required, got NaN or infinity"):
        patches.localize(images)


def make_patchnet(config: DetectorConfig, count: int = 12) -> Detector:
    torch.manual_seed(0)
    network = Network(NetworkConfig("patchnet", patch=config.patch or 64, head=()))
    with torch.no_grad():
        for seed in range(10):
            network(draw_images(8, seed))  # batch norms that have seen images
    return Detector(network, config).fit(*put_aside(draw_images(count, size=config.size)))


@pytest.mark.parametrize("density", ["gaussian", "location"])
def test_a_network_without_padding_scores_densely_what_it_scores_patch_by_patch(
    density: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = make_patchnet(DetectorConfig(SIZE, patch=24, stride=4, border=False, density=density))
    images = draw_images(3, seed=1)
    passes: list[tuple[int, ...]] = []
    embed_map = detector.network.embed_map

    def counted(batch: Tensor) -> Tensor:
        passes.append(tuple(batch.shape))
        return embed_map(batch)

    monkeypatch.setattr(detector.network, "embed_map", counted)
    dense = detector.localize(images)
    assert passes == [(3, 3, *SIZE)]
    monkeypatch.setattr(detector.network, "field", None)
    exact = detector.localize(images)
    assert sum(count for count, *_ in passes[1:]) == 3 * 5 * 13  # patches, of each image
    assert {shape[1:] for shape in passes[1:]} == {(3, 24, 24)}
    assert exact.std() > 0.01
    torch.testing.assert_close(dense, exact, rtol=1e-3, atol=1e-3)


def test_a_stride_between_the_positions_of_the_map_is_scored_patch_by_patch() -> None:
    images = draw_images(2, seed=1)
    odd = make_patchnet(DetectorConfig(SIZE, patch=24, stride=3))
    assert odd.localize(images).shape == (2, *SIZE)
    assert odd._embedder.embed(images).shape == (2, 6, 17, 256)


@pytest.mark.parametrize("backbone", ["patchnet", "resnet18"])
def test_a_large_image_has_no_seams(backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastcutpaste.networks.backbone.computes_bf16", lambda _: False)
    detector = make_fitted() if backbone == "resnet18" else make_patchnet(DetectorConfig(SIZE, patch=24, stride=8))
    image = draw_images(1, seed=5, size=(131, 77))
    whole = detector.localize(image)
    for rows in (1, 3):
        monkeypatch.setattr(Embedder, "_pixels", 77 * (24 + (rows - 1) * 8))
        torch.testing.assert_close(detector.localize(image), whole, rtol=1e-3, atol=1e-3)


def test_a_density_per_location_finds_what_is_normal_elsewhere(tmp_path: Path) -> None:
    """A bright square on the left is normal, on the right it is a defect: only a density per location can tell."""
    config = DetectorConfig(SIZE, patch=24, stride=8, density="location")
    images = draw_images(14)
    images[:, :, 8:20, 4:16] = 255
    moved = draw_images(2, seed=9)
    moved[:, :, 8:20, 4:16] = 255
    moved[1, :, 8:20, 52:64] = 255
    located = Detector(network(), config).fit(*put_aside(images))
    scores = located.score(moved)
    assert scores[0] <= located.threshold * 1.5
    assert scores[1] > located.threshold * 2
    assert located.localize(moved)[1].argmax() % SIZE[1] > 40
    located.save(tmp_path / "located.safetensors")
    torch.testing.assert_close(Detector.load(tmp_path / "located.safetensors").score(moved), scores)
    with pytest.raises(ValueError, match=r"localize: images of shape \(N, 3, 40, 72\) required"):
        located.localize(draw_images(1, size=(48, 72)))


def test_with_a_border_the_map_is_that_of_the_image_continued_with_the_pixels_of_its_edge(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fastcutpaste.networks.backbone.computes_bf16", lambda _: False)
    images = draw_images(14)
    with_border = Detector(network(), replace(PATCHES, border=True)).fit(*put_aside(images))
    assert with_border.config.grid == (6, 10)
    continued = torch.from_numpy(np.pad(images.numpy(), ((0, 0), (0, 0), (12, 12), (12, 12)), mode="edge"))
    size = (SIZE[0] + 24, SIZE[1] + 24)
    without = Detector(network(), replace(PATCHES, size=size)).fit(*put_aside(continued))
    expected = without.localize(continued)[:, 12:-12, 12:-12]
    torch.testing.assert_close(with_border.localize(images), expected, rtol=1e-3, atol=1e-3)
    tall = draw_images(2, seed=3, size=(72, 40))
    assert with_border.localize(tall).shape == (2, 72, 40)


def test_what_lies_near_the_edge_is_found_where_it_is_and_not_spread_to_the_edge() -> None:
    images = draw_images(2, seed=2)
    images[1, :, 4:10, 4:10] = 255
    found = []
    for border in (True, False):
        fitted = make_fitted(replace(PATCHES, stride=4, border=border), count=30)
        found.append(divmod(int(fitted.localize(images)[1].argmax()), SIZE[1]))
    assert found[1] == (0, 0)
    assert 4 <= min(found[0]) <= max(found[0]) <= 10


@pytest.mark.parametrize("density", ["gaussian", "location"])
@pytest.mark.parametrize("whole", [False, True])
def test_levelled_images_score_alike_however_they_were_exposed(whole: bool, density: Any) -> None:
    if whole and density == "location":
        pytest.skip("whole images have one place")
    config = replace(WHOLE if whole else PATCHES, density=density, border=not whole)
    images = draw_images(6, seed=2).float() / 255
    dark = images * torch.linspace(0.5, 1, 6).view(-1, 1, 1, 1)
    spread = []
    for level in (True, False):
        fitted = Detector(network(), replace(config, level=level)).fit(*put_aside(draw_images(20)))
        assert fitted.brightness == pytest.approx(127.5 / 255, abs=0.01) or not level
        plain = fitted.score(images)
        spread.append((fitted.score(dark) - plain).abs().max() / plain.mean())
    assert spread[0] < 0.01
    assert spread[1] > 0.5


def test_a_detector_that_levels_needs_a_brightness(patches: Detector, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Detector: a brightness above 0 required, to level images, got nan"):
        Detector(network(), replace(PATCHES, level=True), patches.density)
    whole, torn = tmp_path / "whole.safetensors", tmp_path / "torn.safetensors"
    make_fitted(replace(PATCHES, level=True)).save(whole)
    write_changed(whole, torn, lambda header, _: header.update(brightness=None))
    assert_refused(torn, "a whole detector file required, got one that is damaged")


def test_location_features_are_fitted_slab_by_slab(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastcutpaste.networks.backbone.computes_bf16", lambda _: False)
    config = DetectorConfig(SIZE, patch=24, stride=8, border=True, density="location")  # 6 × 10 places, border and all
    images = put_aside(draw_images(8))
    whole = Detector(network(), config).fit(*images)
    monkeypatch.setattr(Embedder, "slabs_of_all", lambda self, images: slabs(images, 24, 8, 1))
    banded = Detector(network(), config).fit(*images)
    assert whole.density
    assert banded.density
    scores = (detector.localize(draw_images(3, seed=1)) for detector in (whole, banded))
    torch.testing.assert_close(*scores, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("settings", [{"density": "gaussian"}, {"density": "kernel"}, {"areas": (48,)}], ids=str)
def test_memory_does_not_grow_with_the_number_of_images(settings: dict[str, object]) -> None:
    """In a process of its own, whose largest size is asked for after 200 images and after 1,000."""
    code = f"""
import resource, torch
from fastcutpaste.scoring.detector import Detector
from fastcutpaste.scoring.config import DetectorConfig
from fastcutpaste.networks.backbone import Network, NetworkConfig
torch.set_num_threads(1)
network = Network(NetworkConfig("patchnet", patch=32, head=()))
images = torch.randint(0, 256, (1000, 3, 64, 64), dtype=torch.uint8)
detector = Detector(network, DetectorConfig((64, 64), 32, 4, fit_patches=1_000, **{settings}))
for count in (200, 200, 1000):
    detector.fit(images[:count], images[:2]).localize(images[:count])
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    _, before, after = map(int, done.stdout.split())  # MiB; 800 more images have 63 of features
    assert after - before < 60


def test_a_density_of_another_network_or_grid_is_refused() -> None:
    narrow = GaussianDensity().fit(torch.rand(20, 7))
    with pytest.raises(ValueError, match="GaussianDensity: features of width 7 required, got 64"):
        Detector(network(), PATCHES, narrow)
    located = LocationDensity().fit(torch.rand(4, 3, 7, 64))
    assert Detector(network(), replace(PATCHES, density="location"), located).density is located
    with pytest.raises(ValueError, match=r"LocationDensity: features \(\.\.\., 3, 7, 64\) required, got \(2, 4, 64\)"):
        Detector(network(), replace(PATCHES, stride=16), located)
    with pytest.raises(ValueError, match="patches of at least the network's 19 px required, got 18"):
        Detector(Network(NetworkConfig("patchnet", patch=19)), replace(PATCHES, patch=18))
    with pytest.raises(ValueError, match="'gaussian', 'kernel' or 'nearest' required for whole images, got 'location'"):
        replace(WHOLE, density="location")


def test_a_detector_of_whole_images_draws_no_heat_map(whole: Detector) -> None:
    with pytest.raises(ValueError, match="localize: a detector trained on patches required, got one of whole images"):
        whole.localize(draw_images(1))


@pytest.mark.parametrize("config", [PATCHES, WHOLE])
def test_an_unfitted_detector_scores_and_saves_nothing(config: DetectorConfig, tmp_path: Path) -> None:
    unfitted = Detector(network(), config)
    assert math.isnan(unfitted.threshold)
    with pytest.raises(RuntimeError, match="fit or load required first"):
        unfitted.score(draw_images(1))
    with pytest.raises(RuntimeError, match="fit or load required first"):
        unfitted.save(tmp_path / "detector.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("patch", 41),
        ("patch", 0),
        ("stride", 0),
        ("false_positive_rate", 0.0),
        ("false_positive_rate", 1.0),
        ("fit_patches", 0),
        ("chunk", 0),
        ("density", "cauchy"),
    ],
)
def test_settings_out_of_bounds_are_refused(setting: str, value: object) -> None:
    with pytest.raises(ValueError, match=r"required, got"):
        replace(PATCHES, **{setting: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("backbone", ["patchnet", "resnet18", "resnet18 at layer2", "efficientnet_lite0"])
def test_an_optimized_detector_draws_the_same_maps_and_saves_the_same_file(
    backbone: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastcutpaste.networks.backbone.computes_bf16", lambda _: False)
    monkeypatch.setattr("fastcutpaste.networks.fusing.computes_bf16", lambda _: False)
    if "lite" in backbone:
        pytest.importorskip("timm", reason="pip install 'fastcutpaste[timm]'")
    name, _, stage = backbone.partition(" at ")
    torch.manual_seed(0)
    network = Network(NetworkConfig(name, patch=24, stage=stage or None, head=()))
    with torch.no_grad():
        for seed in range(10):
            network(draw_images(8, seed))  # batch norms that have seen images
    detector = Detector(network, DetectorConfig(SIZE, 24, 8), provenance={"seed": 3}).fit(*put_aside(draw_images(14)))
    fast, images = detector.optimized(), draw_images(3, seed=1)
    maps = detector.localize(images)
    made = fast.localize(images)
    assert not torch.equal(made, maps)
    torch.testing.assert_close(made, maps, rtol=0, atol=1e-4 * float(maps.max() - maps.min()))
    assert fast.threshold == detector.threshold
    for each, path in ((detector, tmp_path / "plain"), (fast, tmp_path / "fast")):
        each.save(path)
    assert (tmp_path / "plain").read_bytes() == (tmp_path / "fast").read_bytes()
    assert torch.equal(detector.localize(images), maps)


def test_an_optimized_detector_shares_nothing_and_can_be_moved_fitted_and_optimized_again(patches: Detector) -> None:
    images = draw_images(14, seed=6)
    before = patches.score(images)
    fast = patches.optimized()
    assert fast.density is not patches.density
    assert not {id(each) for each in fast.network.parameters()} & {id(each) for each in patches.network.parameters()}
    fast.to("cpu").fit(images, images)
    assert fast.threshold != patches.threshold
    assert torch.equal(patches.score(images), before)
    again = fast.optimized()
    assert torch.equal(again.score(images), fast.score(images))
    with pytest.raises(RuntimeError, match="fit or load required first"):
        Detector(network(), PATCHES).optimized()
