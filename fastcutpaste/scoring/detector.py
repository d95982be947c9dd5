"""The detector: network, density, preprocessing and threshold as one object."""

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fastcutpaste.networks.backbone import Network
from fastcutpaste.networks.fusing import faster
from fastcutpaste.op.checks import check_images, check_values
from fastcutpaste.scoring.bands import HeatMap
from fastcutpaste.scoring.calibration import Calibration, calibrated, check_wanted, recalibrated, with_former
from fastcutpaste.scoring.config import DetectorConfig
from fastcutpaste.scoring.dense import fitting_chunk, grid_shape, score_maps
from fastcutpaste.scoring.density import Density
from fastcutpaste.scoring.detector_file import Parts, read_detector, write_detector
from fastcutpaste.scoring.embedder import Embedder
from fastcutpaste.scoring.fitting import Images, Progress, fit_densities, mean_brightness
from fastcutpaste.scoring.heat import score_at_own_scale, score_normal
from fastcutpaste.scoring.replay import Replayed
from fastcutpaste.scoring.scorer import Scorer, check_finite, collect

_MOST_SIZES = 4  # of images, for which a scorer is kept


class Detector:
    """Score images and tell where they are defective.

    A network without padding (PatchNet) scores all patches of an image in one pass, if the stride allows; any other
    one patch by patch.

    Args:
        network: trained on crops of side `config.patch`, or on whole images where that is None.
        config: how images are scored.
        density: fitted on features of normal images; None until `fit`.
        threshold: images with a higher score are called defective; NaN until `fit`, or where a calibration has it.
        typical: median of the heat maps, or of the scores, of normal images; NaN until `fit`.
        provenance: settings, versions, seed and data summary: what JSON can hold, kept in the file.
        area_densities: one for each of `config.areas`, in their order; none until `fit`.
        brightness: to which images are brought where `config.level` says so, 0–1; NaN until `fit`.
        calibration: the threshold with what it comes from and can promise; None: a threshold alone.

    Raises:
        ValueError: a density of features of another width or on another grid, more or fewer of them than areas, none of
            the brightness where it is needed, patches smaller than the network's field, a threshold that is not its
            calibration's.
    """

    def __init__(
        self, network: Network, config: DetectorConfig | None = None, density: Density | None = None,
        threshold: float = math.nan, typical: float = math.nan, provenance: dict[str, Any] | None = None,
        area_densities: Sequence[Density] = (), brightness: float = math.nan, calibration: Calibration | None = None,
    ) -> None:  # fmt: skip
        self.network = network.to(memory_format=torch.channels_last).eval()
        self.config = config or DetectorConfig()
        self.density, self.area_densities = density, tuple(area_densities)
        self.calibration = calibration or Calibration(threshold=threshold)
        self.typical = typical
        self.brightness = brightness
        self.provenance = provenance or {}
        self._optimized = False
        self._assemble()
        patch = self.config.patch
        if patch is not None and network.field is not None and patch < network.field:
            raise ValueError(f"Detector: patches of at least the network's {network.field} px required, got {patch}")
        if not math.isnan(threshold) and threshold != self.threshold:
            raise ValueError(f"Detector: its calibration's threshold, {self.threshold}, required, got {threshold}")
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

    @property
    def threshold(self) -> float:
        """Images with a higher score are called defective; NaN until `fit`. Setting it is `calibrate(threshold=…)`."""
        return self.calibration.threshold

    @threshold.setter
    def threshold(self, threshold: float) -> None:
        self.calibrate(threshold=threshold)

    def to(self, device: torch.device | str) -> "Detector":
        """Move network and density to a device."""
        self.network.to(device)
        for density in (self.density, *self.area_densities):
            if density is not None:
                density.to(device)
        self._assemble()
        return self

    def optimized(self) -> "Detector":
        """Give a copy that scores the same, to rounding, with less work.

        Its batch norms are folded into the convolutions, and on a GPU all work on a batch is one CUDA graph from the
        second batch of a shape on. Where the network's flow cannot be followed, or no graph recorded, that is left as
        it was, and a warning says why. What is trained or fitted later is not in the copy; it saves the file that this
        one saves. On a GPU it is not for several threads at a time.

        Raises:
            RuntimeError: not fitted.

        Cost: the memory of the network twice more, and on a GPU that of the work on up to 4 shapes of batch. On a CPU
            it takes 1 to 6 % of the time off (benchmarks/README.md).
        """
        fast = Detector(*copy.deepcopy(self._parts()))
        fast._optimized = True
        fast._assemble()
        return fast

    def fit(self, images: Images, calibration: Images, progress: Progress | None = None) -> "Detector":
        """Fit the densities on normal images as they are, and set the threshold on others.

        A network scores the images it was trained on too low, so the threshold comes from images that neither the
        network nor the density has seen; `hold_out` chooses some.

        Args:
            images: (N, 3, H, W), normal, not augmented, uint8 0–255 or floating point 0–1, of `config.size`;
                where `config.resize` is false, (3, H, W) each, of any size.
            calibration: (K, 3, H, W), as normal, K at least 1, kept out of training. The threshold is that of their
                scores which new ones exceed at a rate of `config.false_positive_rate`, if K is enough for it.
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
            self._embedder.brightness = self.brightness = mean_brightness(images)
        self.density, *areas = fit_densities(self._embedder, images, progress)
        self.area_densities = tuple(areas)
        self._scorers.clear()
        scores, self.typical = self._normal_scores(calibration, progress)
        self.calibration = calibrated(scores, self.config.false_positive_rate)
        return self

    def calibrate(
        self, images: Images | None = None, rate: float | None = None, threshold: float | None = None,
        progress: Progress | None = None,
    ) -> "Detector":  # fmt: skip
        """Set another threshold, and keep the former one in the provenance.

        Args:
            images: (K, 3, H, W) as for `fit`, normal, neither trained nor fitted on; None: the scores that are kept.
            rate: share of normal images that may be called defective; None: `config.false_positive_rate`.
            threshold: by hand instead, any finite number.
            progress: wraps the batches, for a progress bar.

        Returns:
            Itself; as it was after an error.

        Raises:
            ValueError: no images, of another size or with pixels that are not finite; a rate and a threshold, or one
                out of bounds; neither images nor scores that are kept.
            RuntimeError: images, and not fitted.
        """
        check_wanted(rate, threshold, images)
        scores, typical = None, self.typical
        if images is not None:
            self._check("calibrate", images)
            scores, typical = self._normal_scores(images, progress)
        rate = self.config.false_positive_rate if rate is None else rate
        made = recalibrated(self.calibration, scores, rate, threshold)
        self.provenance = with_former(self.provenance, self.calibration)
        self.calibration, self.typical = made, typical
        return self

    def score(self, images: Images, progress: Progress | None = None, device: torch.device | str = "cpu") -> Tensor:
        """Score images: the higher, the more anomalous.

        Args:
            images: (N, 3, H, W), uint8 0–255 or floating point 0–1, on any device, of a size that `localize` takes, or
                of `config.size` where whole images are scored; or (3, H, W) each, as `heat_map` takes them.
            progress: wraps the batches, for a progress bar.
            device: where the scores are wanted, as for `localize`.

        Returns:
            (N,) float32: the distance of the image's features, or the maximum of its heat map.

        Raises:
            ValueError: images of another size, pixels that are not finite, as for `localize`.
        """
        if not isinstance(images, Tensor):
            return score_normal(self.heat_map, images, len(images), progress)[0].to(device)
        whole = self.config.patch is None
        made = self._made("score" if whole else "localize", images, progress)
        scores = collect(made if whole else map(score_maps, made), (len(images),), self.device, device)
        if scores.device.type == "cpu":
            check_finite("score", scores.sum())
        return scores

    def localize(self, images: Tensor, progress: Progress | None = None, device: torch.device | str = "cpu") -> Tensor:
        """Draw a heat map of each image.

        Args:
            images: (N, 3, H, W), uint8 0–255 or floating point 0–1, on any device, at the scale of the images it was
                fitted on, at least as large as a patch and, continued where the border is, as the areas; with a
                density per location, of `config.size`.
            progress: wraps the batches, for a progress bar.
            device: where the maps are wanted. On that of the detector, a GPU, they stay: nothing is copied and nothing
                waited for, so the call returns before the work is done, and images in page-locked memory may be written
                to only after it.

        Returns:
            (N, H, W) float32, in the units of the scores. To the CPU from a GPU: in page-locked memory up to 256 MiB.

        Raises:
            ValueError: a detector of whole images, images of another size. Pixels that are not finite, where the maps
                are wanted on the CPU; a GPU would have to be waited for to know, and the whole map of such an image is
                NaN, which is not above a threshold: call normal what is at most the threshold.

        Cost: memory for the maps, and for some 2¹⁸ pixels at a time (2²² on a GPU): a large image is scored in
            overlapping blocks, which leave no seams. `heat_map` needs none for the map.
        """
        if self.config.patch is None:
            raise ValueError("localize: a detector trained on patches required, got one of whole images")
        made = self._made("localize", images, progress)
        shape = len(images), *images.shape[-2:]
        if torch.device(device).type != "cpu":
            return collect(made, shape, self.device, device)
        sums: list[Tensor] = []  # a number a batch, finite if all its pixels are; looked at when all are there

        def summed() -> Iterator[Tensor]:
            for maps in made:
                sums.append(maps.sum())
                yield maps

        maps = collect(summed(), shape, self.device, device)
        if sums:
            check_finite("localize", reduce(torch.add, sums))
        return maps

    def heat_map(self, image: Tensor) -> HeatMap:
        """Score an image at its own scale, however large: tile by tile, without seams where patches are scored.

        Args:
            image: (3, H, W) as for `localize`, at least of `config.least`.

        Raises:
            ValueError: a detector of whole images that are resized, a smaller image, pixels that are not finite.
        """
        if self.config.patch is None and self.config.resize:
            raise ValueError("heat_map: a detector of patches or tiles required, got one of whole images")
        return score_at_own_scale(self._embedder, (self._fitted(), *self.area_densities), image)

    def save(self, path: str | Path) -> None:
        """Write the detector to one safetensors file, whole or not at all.

        Raises:
            RuntimeError: not fitted.
        """
        write_detector(path, self._parts())

    @classmethod
    def load(cls, path: str | Path, device: torch.device | str = "cpu") -> "Detector":
        """Read a detector; nothing in the file can run code.

        Raises:
            ValueError: no such file, not a detector, damaged, or from a newer version.
        """
        return read_detector(path, cls).to(device)

    def _assemble(self) -> None:
        """Put together what scores, anew where a part of it has changed."""
        network, config = self.network, self.config
        if self._optimized:
            network = faster(network)
            if (
                config.patch is not None and self.device.type == "cuda"
            ):  # asked for once: a graph's chunks are of a size
                config = replace(config, chunk=config.chunk or fitting_chunk(config.patch, self.device))
        self._embedder = Embedder(network, config, self.brightness)
        self._scorers: dict[tuple[int, int], Callable[[Tensor], Tensor]] = {}

    def _scorer(self, size: tuple[int, int]) -> Callable[[Tensor], Tensor]:
        """Give what scores images of (H, W)."""
        scorer = self._scorers.get(size)
        if scorer is None:
            scorer = Scorer(self._embedder, (self._fitted(), *self.area_densities), size)
            if self._optimized and self.device.type == "cuda":
                scorer = Replayed(scorer, self.device)
            if len(self._scorers) >= _MOST_SIZES:
                self._scorers.clear()
            self._scorers[size] = scorer
        return scorer

    def _made(self, who: str, images: Tensor, progress: Progress | None) -> Iterator[Tensor]:
        """Make scores (B,), or heat maps (B, H, W), batch after batch, on its device."""
        self._check(who, images)
        scorer = self._scorer((images.shape[2], images.shape[3]))
        batches: Iterable[Tensor] = self._embedder.batches(images) if len(images) else []
        if progress is not None:
            batches = progress(batches, len(images), "scoring")
        return map(scorer, batches)

    def _normal_scores(self, images: Images, progress: Progress | None) -> tuple[Tensor, float]:
        """Score normal images; give what is typical of them, too."""
        if not self.config.resize or not isinstance(images, Tensor):
            return score_normal(self.heat_map, images, len(images), progress)
        whole = self.config.patch is None
        middle = self.score(images, progress) if whole else self.localize(images, progress)
        return middle if whole else score_maps(middle), float(middle.median())

    def _parts(self) -> Parts:
        return Parts(self.network, self.config, self._fitted(), self.threshold, self.typical, self.provenance,
                     self.area_densities, self.brightness, self.calibration)  # fmt: skip

    def _fitted(self) -> Density:
        if self.density is None:
            raise RuntimeError("Detector: fit or load required first, got neither")
        return self.density

    def _check(self, who: str, images: Images) -> None:
        if not self.config.resize and who in ("fit", "calibrate"):
            return  # each is looked at when it is read
        if not isinstance(images, Tensor):
            raise TypeError(f"{who}: images as a tensor required, where they are resized, got {type(images).__name__}")
        check_images(who, images)
        check_values(who, images)
        size, patch = self.config.size, self.config.patch
        free = who == "localize" and self.config.density != "location"
        if images.shape[1] != 3 or not (free or images.shape[2:] == size):
            wanted = "H, W" if free else f"{size[0]}, {size[1]}"
            raise ValueError(f"{who}: images of shape (N, 3, {wanted}) required, got {tuple(images.shape)}")
        if patch is not None:
            grid_shape(images.shape[2], images.shape[3], self.config.least[0], self.config.stride)
