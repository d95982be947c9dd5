"""Cross-calibration: scores of an ensemble for images that some of its detectors have learned from, as if none had."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fastcutpaste.scoring.detector import Detector
from fastcutpaste.scoring.metrics import threshold_at_fpr


class Unseen(NamedTuple):
    """Hold a detector, indices of images it has not seen, int64 (K,), and its scores of these, (K,)."""

    detector: Detector
    images: Tensor
    scores: Tensor


def cross_scores(unseen: Sequence[Unseen]) -> Tensor:
    """Score each normal image that is held out of any detector by the mean over the detectors that have not seen it.

    An ensemble's score is the mean over all detectors, each on a scale where 0 is what is typical of its held-out
    images and 1 its threshold (`Ensemble`). Two things set the scores here apart from those of new images, and a
    threshold made of them has to stand both:

    - The scale of a detector comes from the very images it has held out, so that these can hardly lie above 1: of four,
      the highest is 1. A new image can. So each image is put on the scale that its detector would have without it:
      where the threshold is the highest score but two, that is the highest but two of the others. (What is typical is
      a median, which one image hardly moves; it stays.)
    - The mean over one detector varies more than that over five. Its high quantiles lie higher, so the threshold is
      rather too high: fewer false alarms than asked for, not more.

    Simulated with five detectors, 5 % asked and 20, 40, 100 and 320 normal images (`tests/scoring/test_cross.py`),
    new images are called defective at a rate of 1 to 4 %; on the detectors' own scales at up to 17, 9, 4 and 4 %.

    Args:
        unseen: one for each detector, its images those that set its threshold; 2 of them at least, other ones or the
            same for several detectors.

    Returns:
        (N,) float32 on the CPU: a score for each image that is named, in the order of the indices.

    Raises:
        ValueError: nobody, fewer than 2 images of one.
    """
    if not unseen or any(len(one.images) < 2 for one in unseen):
        came = [len(one.images) for one in unseen]
        raise ValueError(f"cross_scores: detectors with at least 2 images each required, got {came}")
    count = 1 + max(int(one.images.max()) for one in unseen)
    total, times = torch.zeros(count), torch.zeros(count)
    for one in unseen:
        total[one.images] += _scaled(one.detector, one.scores.float().cpu())
        times[one.images] += 1
    return total[times > 0] / times[times > 0]


def _scaled(detector: Detector, scores: Tensor) -> Tensor:
    """Put scores (K,) on the scale that the detector would have without the image in question."""
    threshold = threshold_at_fpr(scores, detector.config.false_positive_rate)
    above = int((scores > threshold).sum())
    # Without an image at or above the threshold, the next score below takes its place.
    lower = float(scores.sort(descending=True).values[min(above + 1, len(scores) - 1)])
    span = torch.where(scores >= threshold, lower, threshold) - detector.typical
    # Where the others are all alike there is no scale without the image.
    span = torch.where(span > 0, span, threshold - detector.typical)
    return (scores - detector.typical) / span
