"""Files scored in turn: a few images at a time, and of each only what is asked for at its original size."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from fastcutpaste.images.originals import as_tensor
from fastcutpaste.images.readable import AT_ONCE, Read, Unread, originals_in_turn, read_in_turn
from fastcutpaste.scoring.bands import HeatMap
from fastcutpaste.scoring.dense import score_maps
from fastcutpaste.scoring.detector import Detector
from fastcutpaste.scoring.ensemble import Ensemble
from fastcutpaste.scoring.heat import MeanMap, ResizedMap
from fastcutpaste.scoring.tiles import check_size
from fastcutpaste.training.allocation import give_back

_LARGE = 2**26  # values of an image after which freed memory goes back to the system, which takes some milliseconds


class Scored(NamedTuple):
    """Hold what was found in an image file.

    path: the file.
    size: its (height, width), px.
    score: of the detector, or of all of an ensemble together.
    alone: the score of each detector of an ensemble; that of the one.
    maps: the heat map of each detector; None of whole images that are resized.
    """

    path: Path
    size: tuple[int, int]
    score: float
    alone: tuple[float, ...]
    maps: tuple[HeatMap, ...] | None

    def heat(self, detector: Detector | Ensemble) -> HeatMap | None:
        """Give the heat map of the detector, or of all together, at the size of the file."""
        if self.maps is None:
            return None
        return MeanMap(self.maps, detector.scales) if isinstance(detector, Ensemble) else self.maps[0]


def score_in_turn(
    detector: Detector | Ensemble, paths: Sequence[Path], strict: bool = False
) -> Iterator[list[Scored | Unread]]:
    """Score image files in their order, 16 or, at their own scale, 1 at a time; one that cannot be read is an error.

    Raises:
        ValueError: a file that cannot be read, or is too small for its detector, where `strict`.
    """
    if not detector.config.resize:
        for one in originals_in_turn(paths, strict, detector.config.bits):
            is_large = isinstance(one, Read) and one.pixels.size > _LARGE
            if is_large:
                give_back()  # what decoding took
            scored = _score_original(detector, one, strict)
            del one  # its pixels, before the next are read
            if is_large:
                give_back()
            yield [scored]
        return
    for batch in read_in_turn(paths, detector.config.size, AT_ONCE, strict, detector.config.bits):
        images = [one for one in batch if isinstance(one, Read)]
        some = iter(_score(detector, images) if images else ())
        yield [next(some) if isinstance(one, Read) else one for one in batch]


def _score_original(detector: Detector | Ensemble, one: Read | Unread, strict: bool) -> Scored | Unread:
    if isinstance(one, Unread):
        return one
    members = detector.members if isinstance(detector, Ensemble) else [detector]
    try:
        check_size(one.path, one.size, detector.config)
    except ValueError as error:
        if strict:
            raise
        return Unread(one.path, str(error))
    pixels = as_tensor(one.pixels)
    maps = tuple(member.heat_map(pixels) for member in members)
    alone = tuple(heat.score for heat in maps)
    score = alone[0]
    if isinstance(detector, Ensemble):
        score = float(detector.together([(torch.tensor([one]), None) for one in alone])[0])
    return Scored(one.path, one.size, score, alone, maps)


def _score(detector: Detector | Ensemble, images: Sequence[Read]) -> list[Scored]:
    pixels = torch.from_numpy(np.stack([image.pixels for image in images]))  # (N, 3, h, w)
    members = detector.members if isinstance(detector, Ensemble) else [detector]
    if detector.config.patch is None:
        maps = None
        alone = torch.stack([member.score(pixels) for member in members])  # (M, N)
    else:
        maps = torch.stack([member.localize(pixels) for member in members])  # (M, N, h, w)
        alone = torch.stack([score_maps(one) for one in maps])
    scores = detector.together([(one, None) for one in alone])[0] if isinstance(detector, Ensemble) else alone[0]
    return [
        Scored(image.path, image.size, float(scores[i]), tuple(alone[:, i].tolist()),
               None if maps is None else tuple(ResizedMap(image.size, one[i]) for one in maps))
        for i, image in enumerate(images)
    ]  # fmt: skip
