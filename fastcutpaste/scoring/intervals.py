"""Intervals: how far a rate or an area measured on so many images may lie from that of all images like them."""

import numpy as np

from fastcutpaste.scoring.metrics import Values, image_auroc, split_scores

CONFIDENCE = 0.95  # of every interval that is shown
_AT_ONCE = 2_000_000  # images drawn in one go


def rate_interval(events: int, count: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Give the exact interval of a rate: it holds the true one in at least a share `confidence` of all cases.

    Args:
        events: how often it happened, 0 to count.
        count: of how many independent cases, at least 1.
        confidence: in (0, 1).

    Returns:
        Lower and upper end, in [0, 1].

    Raises:
        ValueError: numbers out of bounds.

    Source: Clopper, Pearson, "The Use of Confidence or Fiducial Limits Illustrated in the Case of the Binomial",
        Biometrika 1934.
    """
    from scipy.special import betaincinv  # a third of a second, which `predict` can do without

    if not 0 <= events <= count or count < 1:
        raise ValueError(f"rate_interval: 0 to count events of at least 1 required, got {events} of {count}")
    _check_confidence("rate_interval", confidence)
    rest = (1 - confidence) / 2
    low = float(betaincinv(events, count - events + 1, rest)) if events else 0.0
    high = float(betaincinv(events + 1, count - events, 1 - rest)) if events < count else 1.0
    return low, high


def auroc_interval(
    scores: Values, labels: Values, confidence: float = CONFIDENCE, resamples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Give the bootstrap interval of `image_auroc`: of the area where images are drawn anew, with replacement.

    Normal and anomalous images are drawn apart, each as many as there are. Where every anomalous score lies above every
    normal one, or below, all draws give the same area and would feign certainty. The end that is open is then that of
    as many independent pairs of one normal and one anomalous image as can be made, all of which came out one way.

    Args:
        scores: (N,), finite, higher means more anomalous.
        labels: (N,) bool, True means anomalous; both must occur.
        confidence: share of the draws whose area lies between the ends, in (0, 1).
        resamples: draws, at least 1.
        seed: of the draws.

    Returns:
        Lower and upper end, in [0, 1].

    Raises:
        TypeError, ValueError: as `image_auroc`; confidence or resamples out of bounds.

    Cost:
        Time for N x resamples random numbers, and memory for 2 million of them.
    """
    _check_confidence("auroc_interval", confidence)
    if resamples < 1:
        raise ValueError(f"auroc_interval: at least 1 resample required, got {resamples}")
    anomalous, _, normal = split_scores("auroc_interval", scores, labels)
    area, pairs = image_auroc(scores, labels), min(len(anomalous), len(normal))
    if area in (0.0, 1.0):
        return rate_interval(pairs if area else 0, pairs, confidence)
    anomalous, normal = np.sort(anomalous), np.sort(normal)
    below, up_to = (np.searchsorted(normal, anomalous, side=side) for side in ("left", "right"))
    rng = np.random.default_rng(seed)
    areas = []
    for some in _parts(resamples, max(1, _AT_ONCE // max(len(anomalous), len(normal)))):
        drawn = np.zeros((some, len(normal) + 1))  # (R, M + 1) how many of the lowest 0, 1, … M normal scores are drawn
        np.cumsum(_drawn(rng, some, len(normal)), axis=1, out=drawn[:, 1:])
        beaten = drawn[:, below] + drawn[:, up_to]  # (R, K) twice the normal scores below each anomalous one, ties half
        areas.append((beaten * _drawn(rng, some, len(anomalous))).sum(1) / (2 * len(normal) * len(anomalous)))
    rest = (1 - confidence) / 2
    low, high = np.quantile(np.concatenate(areas), [rest, 1 - rest])
    return float(low), float(high)


def kept_interval(count: int, promised: float, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Give the interval of the rate that a threshold keeps which is one of so many held-out scores.

    A promise is of the mean over held-out images that might have been; those that were make it more or less.

    Args:
        count: held-out scores, at least 1, of which none are equal.
        promised: share of new scores like them that lies above the threshold, on average, at least 1 / (count + 1).
        confidence: share of the held-out images that might have been whose threshold keeps a rate between the ends.

    Returns:
        Lower and upper end, in [0, 1].

    Raises:
        ValueError: numbers out of bounds.

    Source: Vovk, "Conditional Validity of Inductive Conformal Predictors", ACML 2012: of rank k among n scores, a share
        of Beta(n + 1 - k, k).
    """
    from scipy.special import betaincinv  # a third of a second, which `predict` can do without

    places = int(promised * (count + 1) + 1e-9)  # n + 1 - k
    if not 1 <= places <= count:
        raise ValueError(f"kept_interval: a rate from 1 / {count + 1} to below 1 required, got {promised}")
    _check_confidence("kept_interval", confidence)
    rest = (1 - confidence) / 2
    low, high = betaincinv(places, count + 1 - places, [rest, 1 - rest])
    return float(low), float(high)


def _drawn(rng: np.random.Generator, times: int, count: int) -> np.ndarray[tuple[int, ...], np.dtype[np.int64]]:
    """Draw `count` of as many with replacement, so many times: how often each came, (times, count)."""
    rows = rng.integers(0, count, (times, count)) + count * np.arange(times)[:, None]
    return np.bincount(rows.reshape(-1), minlength=times * count).reshape(times, count)


def _parts(total: int, most: int) -> list[int]:
    return [min(most, total - first) for first in range(0, total, most)]


def _check_confidence(who: str, confidence: float) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"{who}: a confidence in (0, 1) required, got {confidence}")
