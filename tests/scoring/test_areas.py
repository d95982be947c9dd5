"""Areas: larger squares scored besides the patches, each by the mean of the features of its patches."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from small_detector import PATCHES, SIZE, assert_refused, draw_images, make_fitted, network, put_aside, write_changed
from torch import Tensor

from fastcutpaste.scoring.dense import continue_edges, embed_patches, spread_scores
from fastcutpaste.scoring.density import GaussianDensity
from fastcutpaste.scoring.detector import Detector
from fastcutpaste.scoring.embedder import Embedder
from fastcutpaste.scoring.ensemble import Ensemble
from fastcutpaste.scoring.metrics import pixel_auroc


@pytest.mark.parametrize("border", [False, True])
def test_areas_are_scored_by_the_mean_of_their_features_in_windows_of_the_grid(
    border: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastcutpaste.networks.backbone.computes_bf16", lambda _: False)
    images, calibration = put_aside(draw_images(14))
    config = replace(PATCHES, areas=(40,), border=border)
    margin = 12 if border else 0
    height, width = SIZE[0] + 2 * margin, SIZE[1] + 2 * margin
    both, alone = (Detector(network(), each).fit(images, calibration) for each in (config, replace(config, areas=())))

    def features_of(given: Tensor) -> Tensor:
        """Average over 3 × 3 patches by hand."""
        grid = embed_patches(continue_edges(given, margin), network().embed, patch=24, stride=8)
        rows, columns = grid.shape[1] - 2, grid.shape[2] - 2
        return torch.stack([grid[:, i : i + rows, j : j + columns] for i in range(3) for j in range(3)]).mean(0)

    wide = GaussianDensity().fit(features_of(images))
    tests = draw_images(3, seed=1)
    spread = spread_scores(wide.score(features_of(tests)), (height, width), patch=40, stride=8)
    expected = (alone.localize(tests) + spread[:, margin : margin + SIZE[0], margin : margin + SIZE[1]]) / 2
    torch.testing.assert_close(both.localize(tests), expected, rtol=1e-3, atol=1e-3)
    assert both.threshold != alone.threshold
    monkeypatch.setattr(Embedder, "_pixels", width * 24)  # one row of patches a pass
    torch.testing.assert_close(both.localize(tests), expected, rtol=1e-3, atol=1e-3)


def test_areas_find_a_region_whose_patches_each_look_nearly_normal() -> None:
    """A region a few levels brighter: the noise of a single patch hides it, the mean over an area does not."""

    def shifted(count: int, seed: int) -> Tensor:
        """Draw images of which every 8 × 8 block has a brightness of its own."""
        generator = torch.Generator().manual_seed(seed)
        blocks = 20 * torch.randn(count, 1, 6, 12, generator=generator)
        light = blocks.repeat_interleave(8, 2).repeat_interleave(8, 3)
        return (draw_images(count, seed, size=(48, 96)) + light).clamp(0, 255).to(torch.uint8)

    defective = shifted(8, 3)
    defective[:, :, :, 56:] = (defective[:, :, :, 56:].float() + 14).clamp(0, 255).to(torch.uint8)
    masks = torch.zeros(8, 48, 96, dtype=torch.bool)
    masks[:, :, 56:] = True
    areas = []
    for config in (replace(PATCHES, size=(48, 96)), replace(PATCHES, size=(48, 96), areas=(48,))):
        fitted = Detector(network(), config).fit(*put_aside(shifted(60, 1)))
        areas.append(pixel_auroc(list(fitted.localize(defective)), list(masks)))
    assert areas[1] > areas[0] + 0.03


def test_the_grids_of_patches_and_of_areas_are_thinned_until_few_enough_are_left() -> None:
    """Of 11 images with 5 × 13 patches and 3 × 11 areas each: every third place leaves 2 × 5 and 1 × 4."""
    config = replace(PATCHES, stride=4, areas=(32,), fit_patches=110)
    assert (config.grid, config.grid_of(32)) == ((5, 13), (3, 11))
    images, calibration = put_aside(draw_images(14))
    fitted = Detector(network(), config).fit(images, calibration)
    seen: list[Tensor] = []

    class Recorder(GaussianDensity):
        def fit(self, features: Any) -> "Recorder":
            seen.append(torch.cat(list(features)))
            return super().fit(seen[-1])  # type: ignore[return-value]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fastcutpaste.scoring.fitting.make_density", lambda _: Recorder())
        again = Detector(network(), config).fit(images, calibration)
    assert [tuple(features.shape[:3]) for features in seen] == [(11, 2, 5), (11, 1, 4)]
    assert torch.equal(again.localize(images), fitted.localize(images))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"areas": (24,)}, r"areas: sides of 32 pixels, or a multiple of 8 more up to 40, required, got 24"),
        ({"areas": (36,)}, r"areas: sides of 32 pixels, or a multiple of 8 more up to 40, required, got 36"),
        ({"areas": (32, 48)}, r"areas: sides of .* up to 40, required, got 48"),
        ({"areas": (32, 32)}, r"areas: different sides required, got \(32, 32\)"),
        ({"areas": (32,), "patch": None}, r"areas: none, of whole images, required, got \(32,\)"),
        *(
            ({"areas": (32,), "density": density}, f"density: 'gaussian' required with areas, got '{density}'")
            for density in ("kernel", "nearest", "location")
        ),
    ],
)
def test_areas_that_cannot_be_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(PATCHES, **settings)


@pytest.mark.parametrize("areas", [[32], (32.0,), 32, ("32",)])
def test_areas_of_another_type_are_named(areas: Any) -> None:
    with pytest.raises(TypeError, match="areas: a tuple of whole numbers required, got "):
        replace(PATCHES, areas=areas)


def test_images_are_at_least_as_large_as_the_areas() -> None:
    for border, least in ((False, 40), (True, 24)):
        fitted = make_fitted(replace(PATCHES, areas=(40,), border=border))
        assert fitted.localize(draw_images(1, size=(least, 56))).shape == (1, least, 56)
        with pytest.raises(
            ValueError, match=f"an image of at least {least}×{least} pixels required, got {least - 1}×56"
        ):
            fitted.localize(draw_images(1, size=(least - 1, 56)))


@pytest.mark.parametrize("border", [False, True])
def test_areas_of_a_large_image_have_no_seams(border: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many rows of patches a pass as the image has, or one, two, three: an area is 4 × 4 patches."""
    monkeypatch.setattr("fastcutpaste.networks.backbone.computes_bf16", lambda _: False)
    fitted = make_fitted(replace(PATCHES, size=(56, 72), areas=(32, 48), border=border))
    images = draw_images(2, seed=5, size=(104, 88))
    expected = fitted.localize(images)
    width = 88 + (24 if border else 0)
    for rows in (1, 2, 3):
        monkeypatch.setattr(Embedder, "_pixels", width * (24 + 8 * (rows - 1)))
        torch.testing.assert_close(fitted.localize(images), expected, rtol=1e-4, atol=1e-4)


def test_a_detector_has_a_density_for_each_area() -> None:
    density = make_fitted().density
    with pytest.raises(ValueError, match="Detector: a density for each of 1 areas required, got 0"):
        Detector(network(), replace(PATCHES, areas=(32,)), density)
    assert density is not None
    with pytest.raises(ValueError, match="Detector: a density for each of 0 areas required, got 1"):
        Detector(network(), PATCHES, area_densities=[density])


def test_a_file_without_the_density_of_an_area_is_refused(tmp_path: Path) -> None:
    whole, torn = tmp_path / "whole.safetensors", tmp_path / "torn.safetensors"
    make_fitted(replace(PATCHES, areas=(32, 40))).save(whole)
    write_changed(whole, torn, lambda _, tensors: [tensors.pop(name) for name in list(tensors) if "area.40." in name])
    assert_refused(torn, "a whole detector file required, got one that is damaged")


def test_detectors_of_different_areas_are_scored_together() -> None:
    members = [make_fitted(replace(PATCHES, areas=areas)) for areas in ((), (32,))]
    images = draw_images(3, seed=1)
    maps = [list(member.localize(images)) for member in members]
    _, together = Ensemble(members).together([(torch.stack(each).amax((1, 2)), each) for each in maps])
    scaled = [
        (each[0] - member.typical) / (member.threshold - member.typical)
        for member, each in zip(members, maps, strict=True)
    ]
    torch.testing.assert_close(together[0], sum(scaled) / 2, rtol=1e-4, atol=1e-5)
