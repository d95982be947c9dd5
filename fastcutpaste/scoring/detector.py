"""The detector: network, density, preprocessing and threshold as one object."""

import math
from collections.abc import Callable, Iterable, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastcutpaste.networks.backbone import Network
from fastcutpaste.op.checks import check_images
from fastcutpaste.op.color import level_brightness
from fastcutpaste.scoring.config import DetectorConfig
from fastcutpaste.scoring.dense import continue_edges, grid_shape, score_maps, spread_scores, widen_patches
from fastcutpaste.scoring.density import Density, LocationDensity, make_density
from fastcutpaste.scoring.detector_file import Parts, read_detector, write_detector
from fastcutpaste.scoring.embedder import Embedder
from fastcutpaste.scoring.metrics import threshold_at_fpr

Progress = Callable[[Iterable[Tensor], int, str], Iterable[Tensor]]


class Detector:
    """Score images and tell where they are defective.

    A network without padding (PatchNet) scores all patches of an image in one pass, if the stride allows; any other
    one patch by patch.

    Args:
        network: trained on crops of side `config.patch`, or on whole images where that is None.
        config: how images are scored.
        density: fitted on features of normal images; None until `fit`.
        threshold: images with a higher score are called defective; NaN until `fit`.
        typical: median of the heat maps, or of the scores, of normal images; NaN until `fit`.
        provenance: settings, versions, seed and data summary: what JSON can hold, kept in the file.
        area_densities: one for each of `config.areas`, in their order; none until `fit`.
        brightness: to which images are brought where `config.level` says so, 0–1; NaN until `fit`.

    Raises:
        ValueError: a density of features of another width or on another grid, more or fewer of them than areas, none of
            the brightness where it is needed, patches smaller than the network's field.
    """

    def __init__(
        self,
        network: Network,
        config: DetectorConfig | None = None,
        density: Density | None = None,
        threshold: float = math.nan,
        typical: float = math.nan,
        provenance: dict[str, Any] | None = None,
        area_densities: Sequence[Density] = (),
        brightness: float = math.nan,
    ) -> None:
        self.network = network.to(memory_format=torch.channels_last).eval()
        self.config = config or DetectorConfig()
        self._embedder = Embedder(self.network, self.config)
        self.density, self.area_densities = density, tuple(area_densities)
        self.threshold = threshold
        self.typical = typical
        self.brightness = brightness
        self.provenance = provenance or {}
        patch = self.config.patch
        if patch is not None and network.field is not None and patch < network.field:
            raise ValueError(
                f"Detector: patches of at least the network's {network.field} pixels required, got {patch}"
            )
        wanted = len(self.config.areas) if density is not None else 0
        if len(self.area_densities) != wanted:
            raise ValueError(f"Detector: a density for each of {wanted} areas required, got {len(area_densities)}")
        if density is not None and self.config.level and not brightness > 0:
            raise ValueError(f"Detector: a brightness above 0 required, to level images, got {brightness}")
        if density is not None:  # one of another network or grid fails here, not at the first image
            density.score(torch.zeros(*self.config.grid, network.features, device=self.device))
            for each in self.area_densities:
                each.score(torch.zeros(network.features, device=self.device))

    @property
    def device(self) -> torch.device:
        """Where the network and the density are."""
        return self.network.mean.device

    def to(self, device: torch.device | str) -> "Detector":
        """Move network and density to a device."""
        self.network.to(device)
        for density in (self.density, *self.area_densities):
            if density is not None:
                density.to(device)
        return self

    def fit(self, images: Tensor, calibration: Tensor, progress: Progress | None = None) -> "Detector":
        """Fit the densities on normal images as they are, and set the threshold on others.

        A network scores the images it was trained on too low, so the threshold comes from images that neither the
        network nor the density has seen; `hold_out` puts some aside.

        Args:
            images: (N, 3, H, W), normal, not augmented, uint8 0–255 or floating point 0–1, of `config.size`.
            calibration: (K, 3, H, W), as normal, K at least 1, kept out of training. The threshold is the score that
                at most `config.false_positive_rate` of them exceed.
            progress: wraps the batches, for a progress bar.

        Returns:
            Itself.

        Raises:
            ValueError: no images, or images of another size.

        Cost: without areas, patches that `fit_patches` leaves out are not embedded. With areas all are: with a backbone
            with padding, 2,401 forward passes an image of 256² at 64/4.
        """
        for name, given in (("images", images), ("calibration", calibration)):
            self._check("fit", given)
            if len(given) < 1:
                raise ValueError(f"fit: at least 1 normal image for {name} required, got none")
        if self.config.level:
            sums = [batch.mean((1, 2, 3), dtype=torch.float32).sum() for batch in self._embedder.batches(images)]
            self.brightness = float(sum(sums)) / len(images) / (255 if images.dtype == torch.uint8 else 1)
        self.density, *areas = self._fit_densities(images, progress)
        self.area_densities = tuple(areas)
        if self.config.patch is None:
            scores = middle = self.score(calibration, progress)
        else:
            middle = self.localize(calibration, progress)
            scores = score_maps(middle)
        self.typical = float(middle.median())
        self.threshold = threshold_at_fpr(scores, self.config.false_positive_rate)
        return self

    def score(self, images: Tensor, progress: Progress | None = None) -> Tensor:
        """Score images: the higher, the more anomalous.

        Args:
            images: (N, 3, H, W), uint8 0–255 or floating point 0–1, on any device, of a size that `localize` takes, or
                of `config.size` where whole images are scored.
            progress: wraps the batches, for a progress bar.

        Returns:
            (N,) float32 on the CPU: the distance of the image's features, or the maximum of its heat map.
        """
        if self.config.patch is not None:
            return score_maps(self.localize(images, progress))
        self._check("score", images)
        batches: Iterable[Tensor] = self._embedder.batches(images)
        if progress is not None:
            batches = progress(batches, len(images), "scoring")
        scores = (self._fitted().score(self._embedder.embed(self._levelled(batch))).cpu() for batch in batches)
        return torch.cat([torch.empty(0), *scores])

    def localize(self, images: Tensor, progress: Progress | None = None) -> Tensor:
        """Draw a heat map of each image.

        Args:
            images: (N, 3, H, W), uint8 0–255 or floating point 0–1, on any device, at the scale of the images it was
                fitted on, at least as large as a patch and, continued where the border is, as the areas; with a
                density per location, of `config.size`.
            progress: wraps the batches, for a progress bar.

        Returns:
            (N, H, W) float32 on the CPU, in the units of the scores.

        Raises:
            ValueError: a detector of whole images, images of another size, pixels that are not finite.

        Cost: memory for the maps, and for some 2¹⁸ pixels at a time (2²² on a GPU): a large image is scored in
            overlapping slabs, which leave no seams. With areas, a few copies of the features of as many rows besides;
            levelled, a float32 copy of an image.
        """
        if self.config.patch is None:
            raise ValueError("localize: a detector trained on patches required, got one of whole images")
        self._check("localize", images)
        self._fitted()
        stride, margin = self.config.stride, self.config.margin
        height, width = images.shape[-2:]
        size = (height + 2 * margin, width + 2 * margin)
        batches: Iterable[Tensor] = self._embedder.batches(images) if len(images) else []
        if progress is not None:
            batches = progress(batches, len(images), "scoring")
        maps = [torch.empty(0, height, width)]
        for batch in batches:
            grids = zip(self.config.sides, self._score_grids(self._continued(batch)), strict=True)
            spread = (spread_scores(scores, size, patch=side, stride=stride) for side, scores in grids)
            mean = reduce(torch.add, spread) / len(self.config.sides)
            maps.append(mean[:, margin : margin + height, margin : margin + width].cpu())
            if not maps[-1].isfinite().all():
                raise ValueError("localize: images of finite pixels required, got NaN or infinity")
        return torch.cat(maps)

    def save(self, path: str | Path) -> None:
        """Write the detector to one safetensors file, whole or not at all.

        Raises:
            RuntimeError: not fitted.
        """
        write_detector(path, Parts(self.network, self.config, self._fitted(), self.threshold, self.typical,
                                   self.provenance, self.area_densities, self.brightness))  # fmt: skip

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> "Detector":
        """Read a detector; nothing in the file can run code.

        Raises:
            ValueError: no such file, not a detector, damaged, or from a newer version.
        """
        return read_detector(path, cls).to(device)

    def _fit_densities(self, images: Tensor, progress: Progress | None) -> list[Density]:
        """Fit the density of the patches, or of whole images, and that of each kind of area, in one pass."""
        config, embedder = self.config, self._embedder
        densities = [make_density(config.density) for _ in range(1 + len(config.areas))]
        first, located = densities[0], isinstance(densities[0], LocationDensity)
        parts: Iterable[Tensor] = embedder.batches(images)
        if located:
            levelled = torch.cat([self._levelled(batch) for batch in parts]) if config.level else images
            parts = embedder.slabs_of_all(continue_edges(levelled, config.margin))
        if progress is not None:
            parts = progress(parts, sum(len(part) for part in parts), "fitting the density")
        if located:
            return [first.fit(embedder.embed_all(slab) for slab in parts)]
        continued = (self._continued(batch) for batch in parts)
        if not config.areas:  # patches that are left out need not be embedded
            stride = config.stride * self._fit_step(len(images), config.grid)
            return [first.fit(embedder.embed(batch, stride) for batch in continued)]
        steps = [self._fit_step(len(images), config.grid_of(side)) for side in config.sides]
        kept: list[list[Tensor]] = [[] for _ in steps]
        for batch in continued:
            grid = torch.cat(list(embedder.rows(batch)), 1)  # (B, h, w, D)
            for features, side, step in zip(kept, config.sides, steps, strict=True):
                features.append(widen_patches(grid, config.patches_along(side))[:, ::step, ::step].contiguous())
        return [density.fit(features) for density, features in zip(densities, kept, strict=True)]

    def _score_grids(self, continued: Tensor) -> list[Tensor]:
        """Score the patches, and each kind of area, of continued images: a grid (B, h, w) for each side."""
        sides, densities = self.config.sides, (self._fitted(), *self.area_densities)
        along = [self.config.patches_along(side) for side in sides]
        scores: list[list[Tensor]] = [[] for _ in sides]
        before: list[Tensor] = []  # the last rows of the grid, which the next areas reach into
        for features in self._embedder.rows(continued):
            known = torch.cat([*before, features], 1) if before else features
            for i, density in enumerate(densities):
                reached = known[:, max(0, known.shape[1] - features.shape[1] - along[i] + 1) :]
                if reached.shape[1] >= along[i]:
                    scores[i].append(density.score(widen_patches(reached, along[i])))
            if max(along) > 1:
                before = [known[:, max(0, known.shape[1] - max(along) + 1) :]]
        return [torch.cat(parts, 1) for parts in scores]

    def _levelled(self, images: Tensor) -> Tensor:
        return level_brightness(images, self.brightness) if self.config.level else images

    def _continued(self, images: Tensor) -> Tensor:
        return continue_edges(self._levelled(images), self.config.margin)

    def _fitted(self) -> Density:
        if self.density is None:
            raise RuntimeError("Detector: fit or load required first, got neither")
        return self.density

    def _fit_step(self, count: int, grid: tuple[int, int]) -> int:
        """Give the smallest step over the grids of `count` images at which at most `fit_patches` places are left."""
        step = 1
        while True:
            rows, columns = (-(-side // step) for side in grid)  # rounded up
            if count * rows * columns <= self.config.fit_patches or rows * columns == 1:
                return step
            step += 1

    def _check(self, who: str, images: Tensor) -> None:
        check_images(who, images)
        size, patch = self.config.size, self.config.patch
        free = who == "localize" and self.config.density != "location"
        if images.shape[1] != 3 or not (free or images.shape[2:] == size):
            wanted = "H, W" if free else f"{size[0]}, {size[1]}"
            raise ValueError(f"{who}: images of shape (N, 3, {wanted}) required, got {tuple(images.shape)}")
        if patch is not None:
            least = max([patch, *(area - 2 * self.config.margin for area in self.config.areas)])
            grid_shape(images.shape[2], images.shape[3], least, self.config.stride)


def hold_out(images: Tensor, share: float = 0.2) -> tuple[Tensor, Tensor]:
    """Put the last of the normal images aside for the threshold.

    They are taken from the end, not at random: neighbours in a folder are often photographs of one object, and an
    object on both sides would make the threshold too low.

    Args:
        images: (N, 3, H, W), N at least 3.
        share: of the images to put aside, above 0 and below 1; at least 1 image, at most N - 2.

    Returns:
        The images to train on and those to set the threshold on, both views.

    Raises:
        ValueError: fewer than 3 images, a share out of bounds.
    """
    if not 0 < share < 1:
        raise ValueError(f"hold_out: a share above 0 and below 1 required, got {share}")
    if len(images) < 3:
        raise ValueError(f"hold_out: at least 3 normal images required, got {len(images)}")
    count = min(max(1, round(len(images) * share)), len(images) - 2)
    return images[:-count], images[-count:]
