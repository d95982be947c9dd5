"""Files scored in turn: a few images at a time, and of each only what is asked for at its original size."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from fastcutpaste.images.readable import AT_ONCE, Read, Unread, read_in_turn
from fastcutpaste.scoring.dense import resize_map, score_maps
from fastcutpaste.scoring.detector import Detector
from fastcutpaste.scoring.ensemble import Ensemble


class Scored(NamedTuple):
    """Hold what was found in an image file.

    path: the file.
    size: its (height, width), px.
    score: of the detector, or of all of an ensemble together.
    alone: the score of each detector of an ensemble; that of the one.
    maps: heat maps as they were scored, (M, h, w): of each detector; None of whole images.
    """

    path: Path
    size: tuple[int, int]
    score: float
    alone: tuple[float, ...]
    maps: Tensor | None

    def heat(self, detector: Detector | Ensemble) -> Tensor | None:
        """Give the heat map of the detector, or of all together, (H, W) at the size of the file."""
        if self.maps is None:
            return None
        if not isinstance(detector, Ensemble):
            return self.heat_of(0)
        _, together = detector.together([(torch.zeros(1), [one]) for one in self.maps])
        return None if together is None else resize_map(together[0][None], self.size)[0]

    def heat_of(self, member: int) -> Tensor | None:
        """Give the heat map of one detector, (H, W) at the size of the file."""
        return None if self.maps is None else resize_map(self.maps[member][None], self.size)[0]


def score_in_turn(
    detector: Detector | Ensemble, paths: Sequence[Path], strict: bool = False
) -> Iterator[list[Scored | Unread]]:
    """Score image files, 16 at a time, in their order; a file that cannot be read comes as an error.

    Raises:
        ValueError: a file that cannot be read, where `strict`.
    """
    for batch in read_in_turn(paths, detector.config.size, AT_ONCE, strict, detector.config.bits):
        images = [one for one in batch if isinstance(one, Read)]
        scored = iter(_score(detector, images) if images else ())
        yield [next(scored) if isinstance(one, Read) else one for one in batch]


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
               None if maps is None else maps[:, i])
        for i, image in enumerate(images)
    ]  # fmt: skip
