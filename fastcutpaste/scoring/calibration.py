"""Calibration: the threshold, the normal images' scores it comes from, and what the two can promise.

Conformal: of n held-out scores and that of a new normal image like them, each is as likely as any other to have any
rank. So the score of rank k is exceeded by the new one with a chance of 1 - k / (n + 1) at most, whatever their
distribution, and with fewer than 1 / rate - 1 held-out images no threshold that is one of their scores keeps a rate.
"""

import math
from collections.abc import Sized
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastcutpaste.scoring.metrics import Values, as_array, conformal_rank, threshold_at_fpr

HISTORY = "former_thresholds"  # under which provenance keeps them, the oldest first


class Decision(NamedTuple):
    """Hold what is said of an image.

    score: in the detector's units; the higher, the more anomalous.
    p_value: the share of normal images, itself among them, that score at least as high, (1 + count) / (n + 1); None
        where no held-out scores are known.
    relative: the score over the threshold; None where that is not above 0.
    defective: whether the score lies above the threshold.
    """

    score: float
    p_value: float | None
    relative: float | None
    defective: bool

    @property
    def text(self) -> str:
        """Say in a few words how the score lies: "1.24 × threshold, p 0.012"."""
        parts = [] if self.relative is None else [f"{self.relative:.2f} × threshold"]
        return ", ".join(parts + ([] if self.p_value is None else [f"p {self.p_value:.2g}"]))

    @property
    def details(self) -> dict[str, str]:
        """Say the same by names, for a page on which the threshold can be moved away from the detector's."""
        told = {} if self.relative is None else {"over the detector's threshold": f"{self.relative:.2f} ×"}
        return told | ({} if self.p_value is None else {"p-value": f"{self.p_value:.2g}"})


@dataclass(frozen=True)
class Calibration:
    """Hold a threshold and where it comes from. Made by `calibrated`, or by hand without a rate.

    Args:
        scores: of normal images that were held out, rising; none where they are not known.
        rate: share of normal images that may be called defective, of which the threshold is made; None: set by hand.
        threshold: images with a higher score are called defective; NaN: not set yet.

    Raises:
        ValueError: scores that do not rise or are not finite, a rate of which the scores make another threshold.
    """

    scores: tuple[float, ...] = ()
    rate: float | None = None
    threshold: float = math.nan

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, self.scores)) or list(self.scores) != sorted(self.scores):
            raise ValueError("Calibration: finite scores that rise required, got others")
        if self.rate is not None and threshold_at_fpr(self.scores, self.rate) != self.threshold:
            made = threshold_at_fpr(self.scores, self.rate)
            raise ValueError(f"Calibration: the threshold that its rate makes, {made}, required, got {self.threshold}")

    @property
    def count(self) -> int:
        """Number of held-out images, n."""
        return len(self.scores)

    @property
    def promised(self) -> float:
        """The share of new normal images, if they are like the held-out ones, that is called defective at most.

        An expectation over held-out and new images together. The rate asked where n is enough, 1 / (n + 1) where not,
        and 1, which promises nothing, where the threshold was set by hand.
        """
        if self.rate is None:
            return 1.0
        return self.rate if conformal_rank(self.count, self.rate) <= self.count else 1 / (self.count + 1)

    @property
    def needed(self) -> int:
        """Fewest held-out images with which the rate asked can be promised; 0 where none was asked."""
        return 0 if self.rate is None else math.ceil(1 / self.rate - 1 - 1e-9)

    @property
    def text(self) -> str:
        """Say what can be promised: "10 images: 9 % at best, 5 % asked; 19 needed"."""
        if self.rate is None:
            return self._text_by_hand()
        alike = "; all have the same score" if self.count > 1 and self.scores[0] == self.scores[-1] else ""
        asked, counted = f"{round(100 * self.rate, 6):g}", _counted(self.count)
        if self.promised <= self.rate:
            return f"{counted}: {asked} % asked and promised, if new normal images are like these{alike}"
        digits = 0  # as many as show that more is promised than was asked
        while float(best := f"{100 * self.promised:.{digits}f}") <= 100 * self.rate:
            digits += 1
        return f"{counted}: {best} % at best, {asked} % asked; {self.needed} needed{alike}"

    def p_values(self, scores: Values) -> NDArray[np.float64]:
        """Give the share of normal images that score at least as high, counting the image itself as one of them.

        An image is called defective where it is at most `rate`, if that can be promised.

        Args:
            scores: (N,), finite.

        Returns:
            (N,) float64: (1 + number of held-out scores at least as high) / (n + 1).

        Raises:
            ValueError: scores that are not (N,) or not finite.
        """
        below = np.searchsorted(np.asarray(self.scores, np.float64), _checked("p_values", scores), side="left")
        return np.asarray((1 + self.count - below) / (self.count + 1))

    def relative(self, scores: Values) -> NDArray[np.float64]:
        """Give scores (N,) over the threshold, float64: above 1 where defective; NaN of a threshold not above 0."""
        checked = _checked("relative", scores)
        return checked / self.threshold if self.threshold > 0 else np.full_like(checked, math.nan)

    def decide(self, scores: Values) -> list[Decision]:
        """Say of each of the scores (N,) what is to be said of it.

        Raises:
            ValueError: scores that are not (N,) or not finite.
        """
        values = _checked("decide", scores).tolist()
        p_values = self.p_values(scores).tolist() if self.scores else [None] * len(values)
        relative = self.relative(scores).tolist() if self.threshold > 0 else [None] * len(values)
        return [Decision(s, p, r, s > self.threshold) for s, p, r in zip(values, p_values, relative, strict=True)]

    @property
    def summary(self) -> dict[str, Any]:
        """Tell all but the scores, as JSON has it."""
        return {"threshold": self.threshold, "rate": self.rate, "count": self.count, "promised": self.promised}

    def told(self) -> dict[str, Any]:
        """Tell all of it, as files have it; `calibration_from` reads it."""
        return self.summary | {"scores": list(self.scores)}

    def _text_by_hand(self) -> str:
        if math.isnan(self.threshold):
            return "no threshold yet"
        if not self.count:
            return "a threshold without held-out images: nothing promised"
        above = sum(score > self.threshold for score in self.scores)
        where = f"{above} of {_counted(self.count)} score{'s' if self.count == 1 else ''} higher"
        if self.threshold > self.scores[-1] or self.threshold < self.scores[0]:
            where = f"{'lower' if above else 'higher'} than all scores seen, of {_counted(self.count)}"
        return f"set by hand, nothing promised; {where}"


def calibrated(scores: Values, rate: float) -> Calibration:
    """Make the threshold that keeps a rate of false alarms, or where too few scores can, the highest of them.

    Args:
        scores: (N,) of normal images that were held out, in any order; finite, N at least 1.
        rate: share of normal images that may be called defective, in (0, 1).

    Raises:
        ValueError: no scores, scores that are not finite, a rate out of bounds.
    """
    threshold = threshold_at_fpr(scores, rate)
    return Calibration(tuple(sorted(_checked("calibrated", scores).tolist())), rate, threshold)


def check_wanted(rate: float | None, threshold: float | None, images: Sized | None) -> None:
    """Refuse what no calibration can be made with, before any image is scored.

    Raises:
        ValueError: both a rate and a threshold, a rate outside (0, 1), a threshold that is not finite, no images.
    """
    if images is not None and not len(images):
        raise ValueError("calibrate: at least 1 normal image required, got none")
    if rate is not None and threshold is not None:
        raise ValueError(f"calibrate: a rate or a threshold required, got both, {rate} and {threshold}")
    if rate is not None and not 0 < rate < 1:
        raise ValueError(f"calibrate: a rate above 0 and below 1 required, got {rate}")
    if threshold is not None and not math.isfinite(threshold):
        raise ValueError(f"calibrate: a finite threshold required, got {threshold}")


def recalibrated(former: Calibration, scores: Values | None, rate: float, threshold: float | None) -> Calibration:
    """Make another calibration in place of a former one.

    Args:
        former: whose scores are taken where there are no new ones.
        scores: (N,) of new normal images, finite, N at least 1.
        rate: share of normal images that may be called defective, in (0, 1).
        threshold: by hand, instead of one that keeps the rate.

    Raises:
        ValueError: no scores to make a threshold of, scores that are not finite.
    """
    if scores is None:
        scores = former.scores
        if not scores and threshold is None:
            raise ValueError("calibrate: normal images required, since no scores of held-out ones are kept, got none")
    if threshold is None:
        return calibrated(scores, rate)
    return Calibration(tuple(sorted(_checked("calibrate", scores).tolist())), None, float(threshold))


def with_former(provenance: dict[str, Any], former: Calibration) -> dict[str, Any]:
    """Give a provenance that also tells a calibration which is replaced now; nothing of one without a threshold."""
    if math.isnan(former.threshold):
        return provenance
    until = datetime.now(timezone.utc).isoformat(timespec="seconds")
    return provenance | {HISTORY: [*provenance.get(HISTORY, []), former.summary | {"until": until}]}


def calibration_from(threshold: float, told: Any) -> Calibration:
    """Read what `Calibration.told` gave; None, of files from before there was any, is a threshold alone.

    Raises:
        KeyError, TypeError, ValueError: it is not that.
    """
    if told is None:
        return Calibration(threshold=threshold)
    rate = None if told["rate"] is None else float(told["rate"])
    return Calibration(tuple(map(float, told["scores"])), rate, threshold)


def _checked(who: str, scores: Values) -> NDArray[np.float64]:
    """Give scores as an array (N,)."""
    values = as_array(scores).astype(np.float64)
    if values.ndim != 1:
        raise ValueError(f"{who}: scores (N,) required, got {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{who}: finite scores required, got NaN or infinity")
    return values


def _counted(images: int) -> str:
    return "1 image" if images == 1 else f"{images} images"
