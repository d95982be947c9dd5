"""An evaluation on its way: what is kept of each image once its heat map is gone."""

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from fastcutpaste.images.decode import load_images
from fastcutpaste.images.folders import ImageSet, load_masks
from fastcutpaste.images.readable import Unread
from fastcutpaste.reports.page import Shown
from fastcutpaste.reports.scored import Scored
from fastcutpaste.reports.thumbnails import heat_range, show
from fastcutpaste.scoring.bands import HeatMap, pool_mask
from fastcutpaste.scoring.detector import Detector
from fastcutpaste.scoring.ensemble import Ensemble
from fastcutpaste.scoring.pixels import PixelScores
from fastcutpaste.training.shares import Alone, gathered

if TYPE_CHECKING:
    from lightning_fabric import Fabric

_EXAMPLE_SIDE = 512  # px of the longer side, of which a picture shows some 180
_PAGE_SIDE = 2048  # px of the longer side of what is made smaller still for the page


class Example(NamedTuple):
    """Hold what is drawn of an image: itself uint8 (3, h, w), its heat map (h, w) and mask (h, w) or None."""

    image: Tensor
    heat: Tensor
    mask: Tensor | None


class Seen(NamedTuple):
    """Hold what is kept of an image: its kind, scores of all together and of each detector, its part of the page."""

    kind: str
    score: float
    alone: tuple[float, ...]
    shown: Shown
    example: Example | None


class Evaluation:
    """Gather what is measured on labelled images, and what is shown of them, image by image.

    Args:
        detector: that scores them.
        images: N images, each with a kind.

    Attributes:
        seen: by the image's number, rising once all are there.
        unread: files that could not be read, their image's or their mask's, by the same number.
        pixels: of the detector or of all together, then, of an ensemble, of each.
    """

    def __init__(self, detector: Detector | Ensemble, images: ImageSet) -> None:
        self.detector, self.images = detector, images
        self.seen: dict[int, Seen] = {}
        self.unread: dict[int, Unread] = {}
        members = len(detector.members) if isinstance(detector, Ensemble) else 0
        self.pixels = [PixelScores() for _ in range(1 + members)]
        self._drawn = set(_examples(images.kinds)) if detector.config.patch is not None else set()

    def add(self, number: int, one: Scored | Unread, mask: Tensor | None = None, strict: bool = False) -> None:
        """Add an image.

        Args:
            number: its place among the images.
            one: what was found in it.
            mask: (H, W) bool, where it is known already; None: read, where there is one.
            strict: raise what is wrong with its mask or its file.
        """
        if isinstance(one, Unread):
            self.unread[number] = one
            return
        heat = one.heat(self.detector)
        try:
            if mask is None and heat is not None and self.images.has_masks:
                mask = _mask_of(self.images, number, one.size)
            shown = self._show(number, one, heat, mask)
            example = (
                _example(one, heat, mask, self.detector.config.bits)
                if number in self._drawn and heat is not None
                else None
            )
        except ValueError as error:
            if strict:
                raise
            self.unread[number] = Unread(one.path, str(error))
            return
        self.seen[number] = Seen(str(self.images.kinds[number]), one.score, one.alone, shown, example)
        if heat is not None and mask is not None:
            for pixels, each in zip(self.pixels, (heat, *(one.maps or ())), strict=False):  # of one alone, one is kept
                pixels.add(each.bands(), mask)

    def gather(self, fabric: "Fabric | Alone") -> None:
        """Join what the processes have; every one then has all."""
        if fabric.world_size == 1:
            return
        parts = gathered([(self.seen, self.unread, self.pixels)], fabric)
        self.seen, self.unread, self.pixels = {}, {}, [PixelScores() for _ in self.pixels]
        for seen, unread, pixels in parts:
            self.seen |= seen
            self.unread |= unread
            for mine, theirs in zip(self.pixels, pixels, strict=True):
                mine.join(theirs)
        self.seen = dict(sorted(self.seen.items()))
        self.unread = dict(sorted(self.unread.items()))

    @property
    def kinds(self) -> list[str]:
        """Kinds of the images that were seen."""
        return [seen.kind for seen in self.seen.values()]

    @property
    def scores(self) -> Tensor:
        """Scores (N,) of the images that were seen."""
        return torch.tensor([seen.score for seen in self.seen.values()])

    def scores_of(self, member: int) -> Tensor:
        """Scores (N,) by one detector of the images that were seen."""
        return torch.tensor([seen.alone[member] for seen in self.seen.values()])

    def _show(self, number: int, one: Scored, heat: HeatMap | None, mask: Tensor | None) -> Shown:
        [decision] = self.detector.calibration.decide([one.score])
        kind, drawn = self.images.kinds[number], heat_range(self.detector)
        bits = self.detector.config.bits
        small = None if heat is None else heat.smaller(_PAGE_SIDE)
        outlined = None if mask is None else pool_mask(mask.numpy(), _PAGE_SIDE)
        return show(one.path, kind, one.score, small, outlined, heat_range=drawn, details=decision.details, bits=bits)


def _mask_of(images: ImageSet, number: int, size: tuple[int, int]) -> Tensor:
    alone = ImageSet((images.paths[number],), (images.kinds[number],), (images.masks[number],))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*masks of another size than their images")  # `check_masks` has said it
        return load_masks(alone, [size])[0]


def _example(one: Scored, heat: HeatMap, mask: Tensor | None, bits: int | None) -> Example:
    """Make an image, its heat map and its mask small enough to be kept, so that the highest score is still seen."""
    small = heat.smaller(_EXAMPLE_SIDE)
    image = load_images([one.path], (small.shape[0], small.shape[1]), bits=bits).pixels[0]
    marked = None if mask is None else torch.from_numpy(pool_mask(mask.numpy(), _EXAMPLE_SIDE))
    return Example(image, torch.from_numpy(small), marked)


def _examples(kinds: Sequence[str | None], each: int = 3) -> list[int]:
    """Choose up to `each` images of every kind, evenly spread: not the best, not the worst."""
    chosen: list[int] = []
    for kind in dict.fromkeys(kinds):
        of_kind = [i for i, other in enumerate(kinds) if other == kind]
        step = max(1, len(of_kind) / each)
        chosen += [of_kind[int(i * step)] for i in range(min(each, len(of_kind)))]
    return chosen
