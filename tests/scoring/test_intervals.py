"""Intervals: SciPy's ends, as many true rates inside as promised, and a bootstrap like one drawn image by image."""

import numpy as np
import pytest
from scipy.stats import binom, binomtest

from fastcutpaste.scoring.intervals import auroc_interval, kept_interval, rate_interval
from fastcutpaste.scoring.metrics import image_auroc


def draw_scores(normal: int, anomalous: int, apart: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    scores = np.concatenate([rng.normal(0, 1, normal), rng.normal(apart, 2, anomalous)])
    order = rng.permutation(len(scores))
    return scores[order], (np.arange(len(scores)) >= normal)[order]


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.99])
@pytest.mark.parametrize("count", [1, 4, 41, 1000])
def test_the_ends_of_a_rate_are_those_of_the_exact_test(count: int, confidence: float) -> None:
    for events in {0, 1, count // 20, count // 2, count - 1, count}:
        exact = binomtest(events, count).proportion_ci(confidence, method="exact")
        assert rate_interval(events, count, confidence) == pytest.approx((exact.low, exact.high), abs=1e-12)


@pytest.mark.parametrize("count", [3, 20, 60])
@pytest.mark.parametrize("rate", [0.0, 0.01, 0.05, 0.3, 0.5, 0.97, 1.0])
def test_the_true_rate_lies_inside_as_often_as_promised(rate: float, count: int) -> None:
    ends = [rate_interval(events, count) for events in range(count + 1)]
    inside = sum(binom.pmf(i, count, rate) for i, (low, high) in enumerate(ends) if low <= rate <= high)
    assert inside >= 0.95 - 1e-12


@pytest.mark.parametrize(("events", "count"), [(-1, 4), (5, 4), (0, 0)])
def test_events_that_cannot_be_are_refused(events: int, count: int) -> None:
    with pytest.raises(ValueError, match=f"rate_interval: 0 to count events .* required, got {events} of {count}"):
        rate_interval(events, count)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_a_confidence_out_of_bounds_is_refused(confidence: float) -> None:
    with pytest.raises(ValueError, match=rf"rate_interval: a confidence in \(0, 1\) required, got {confidence}"):
        rate_interval(1, 4, confidence)
    with pytest.raises(ValueError, match=rf"auroc_interval: a confidence in \(0, 1\) required, got {confidence}"):
        auroc_interval([0, 1], [False, True], confidence)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("normal", "anomalous"), [(30, 50), (6, 40), (90, 5)])
def test_an_areas_ends_are_those_of_images_drawn_one_by_one(normal: int, anomalous: int, ties: bool) -> None:
    scores, labels = draw_scores(normal, anomalous)
    scores = scores.round() if ties else scores
    rng = np.random.default_rng(5)
    areas = []
    for _ in range(3000):
        good = [scores[~labels][rng.integers(normal)] for _ in range(normal)]
        bad = [scores[labels][rng.integers(anomalous)] for _ in range(anomalous)]
        areas.append(image_auroc([*good, *bad], [False] * normal + [True] * anomalous))
    expected = np.quantile(areas, [0.1, 0.9])
    ends = auroc_interval(scores, labels, 0.8, resamples=3000)
    assert ends == pytest.approx(expected, abs=0.15 * float(np.std(areas)))


def test_the_same_seed_gives_the_same_ends_in_whatever_parts_they_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, labels = draw_scores(40, 60)
    assert auroc_interval(scores, labels) == auroc_interval(scores, labels)
    assert auroc_interval(scores, labels) != auroc_interval(scores, labels, seed=1)
    whole = auroc_interval(scores, labels)
    monkeypatch.setattr("fastcutpaste.scoring.intervals._AT_ONCE", 600)
    assert auroc_interval(scores, labels) == pytest.approx(whole, abs=0.02)
    assert auroc_interval(scores, labels, resamples=1)[0] == auroc_interval(scores, labels, resamples=1)[1]


def test_the_area_of_many_like_them_lies_inside_as_often_as_said() -> None:
    truth = image_auroc(*draw_scores(40_000, 40_000, seed=1))
    ends = [auroc_interval(*draw_scores(40, 60, seed=2 + i), resamples=300) for i in range(200)]
    inside = np.mean([low <= truth <= high for low, high in ends])
    assert 0.9 <= inside <= 0.99


@pytest.mark.parametrize(("normal", "anomalous"), [(20, 3), (3, 20), (1, 1)])
def test_scores_that_are_fully_apart_leave_the_doubt_of_their_number(normal: int, anomalous: int) -> None:
    scores, labels = draw_scores(normal, anomalous, apart=100.0)
    pairs = min(normal, anomalous)
    low, high = auroc_interval(scores, labels)
    assert high == 1
    assert low**pairs == pytest.approx(0.025)  # so rarely do all pairs come out right where one does with that chance
    assert auroc_interval(-scores, labels) == pytest.approx((0, 1 - low))


@pytest.mark.parametrize(("count", "promised"), [(4, 0.2), (19, 0.05), (64, 0.05), (100, 0.29)])
def test_a_threshold_keeps_what_lots_of_held_out_images_would(count: int, promised: float) -> None:
    rng = np.random.default_rng(0)
    rank = int(np.ceil((1 - promised) * (count + 1) - 1e-9))
    kept = 1 - np.sort(rng.random((20_000, count)), axis=1)[:, rank - 1]  # of even scores, 0 to 1
    assert kept.mean() <= promised + 0.01
    assert kept_interval(count, promised, 0.8) == pytest.approx(np.quantile(kept, [0.1, 0.9]), abs=0.01)


def test_a_rate_that_so_few_cannot_keep_has_no_interval() -> None:
    for count, promised in ((18, 0.05), (4, 1.0), (0, 0.5)):
        with pytest.raises(ValueError, match=rf"from 1 / {count + 1} to below 1 required, got {promised}"):
            kept_interval(count, promised)


def test_what_has_no_area_has_no_interval() -> None:
    with pytest.raises(ValueError, match="auroc_interval: both normal and anomalous images required"):
        auroc_interval([1.0, 2.0], [True, True])
    with pytest.raises(ValueError, match="auroc_interval: finite scores required"):
        auroc_interval([1.0, np.nan], [True, False])
    with pytest.raises(ValueError, match="auroc_interval: at least 1 resample required, got 0"):
        auroc_interval([1.0, 2.0], [True, False], resamples=0)
