"""Calibration: the promise holds over thousands of draws, is said where it cannot be given, and moves by three ways."""

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from small_detector import PATCHES, WHOLE, draw_images, make_fitted

from fastcutpaste.scoring.calibration import HISTORY, Calibration, calibrated, calibration_from
from fastcutpaste.scoring.detector import Detector
from fastcutpaste.scoring.ensemble import ENSEMBLE_FILE, Ensemble
from fastcutpaste.scoring.metrics import conformal_rank, threshold_at_fpr

SETS = 10_000
FINITE = st.floats(-1e6, 1e6, width=32)
RATES = st.floats(0.001, 0.999)

# A way to draw scores, and how likely a new one lies above each of some thresholds, exactly.
Draw = Callable[[np.random.Generator, tuple[int, int]], NDArray[Any]]
Above = Callable[[NDArray[Any]], NDArray[Any]]
DISTRIBUTIONS: dict[str, tuple[Draw, Above]] = {
    "even": (lambda rng, shape: rng.random(shape), lambda t: 1 - t),
    "heavy tail": (lambda rng, shape: 1 + rng.pareto(1, shape), lambda t: 1 / t),
    "ties": (lambda rng, shape: rng.geometric(0.3, shape).astype(float), lambda t: 0.7**t),
}


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("rate", [0.05, 0.2])
@pytest.mark.parametrize("count", [4, 20, 64, 500])
def test_the_mean_rate_of_false_alarms_is_what_was_promised(count: int, rate: float, distribution: str) -> None:
    draw, above = DISTRIBUTIONS[distribution]
    sets = draw(np.random.default_rng(count), (SETS, count))
    alarms = above(np.array([threshold_at_fpr(scores, rate) for scores in sets]))
    promised = calibrated(sets[0], rate).promised
    assert promised == (rate if count >= 1 / rate - 1 else 1 / (count + 1))
    error = alarms.std() / SETS**0.5
    places = max(1, count + 1 - conformal_rank(count, rate)) / (count + 1)  # that a new score may take above it
    assert places <= promised
    assert alarms.mean() <= promised + 3 * error
    if distribution != "ties":  # which only leave fewer above
        assert alarms.mean() == pytest.approx(places, abs=4 * error)


@settings(max_examples=300, deadline=None)
@given(st.lists(FINITE, min_size=1, max_size=60), RATES, st.lists(FINITE, min_size=1, max_size=8))
def test_an_image_is_called_defective_where_its_p_value_is_at_most_the_rate(
    held_out: list[float], rate: float, new: list[float]
) -> None:
    calibration = calibrated(held_out, rate)
    scores = [*new, *held_out, calibration.threshold]
    decisions = calibration.decide(scores)
    for score, decision in zip(scores, decisions, strict=True):
        assert decision.p_value == (1 + sum(other >= score for other in held_out)) / (len(held_out) + 1)
        assert decision.defective == (score > calibration.threshold)
        at_most = max(calibration.rate or 0, 1 / (calibration.count + 1))  # where nothing can be promised, the lowest
        assert decision.defective == (decision.p_value <= at_most + 1e-9)
        if calibration.threshold > 0:
            assert decision.relative is not None
            assert decision.defective == (decision.relative > 1)
        else:
            assert decision.relative is None
    assert calibration.p_values(torch.tensor(scores)).tolist() == [decision.p_value for decision in decisions]


def test_p_values_of_images_like_the_held_out_ones_are_rarely_small() -> None:
    rng = np.random.default_rng(0)
    small = np.array([
        calibrated(scores[:20], 0.05).p_values(scores[20:]).item() for scores in rng.standard_normal((SETS, 21))
    ])  # fmt: skip
    for level in (1 / 21, 0.1, 0.25, 0.5, 1):
        share = (small <= level + 1e-9).mean()
        assert share <= level + 4 * math.sqrt(level * (1 - level) / SETS)


TEXTS = [
    (10, 0.05, "10 images: 9 % at best, 5 % asked; 19 needed"),
    (18, 0.05, "18 images: 5.3 % at best, 5 % asked; 19 needed"),
    (19, 0.05, "19 images: 5 % asked and promised, if new normal images are like these"),
    (1, 0.001, "1 image: 50 % at best, 0.1 % asked; 999 needed"),
    (40, 0.075, "40 images: 7.5 % asked and promised, if new normal images are like these"),
]


@pytest.mark.parametrize(("count", "rate", "text"), TEXTS)
def test_what_can_be_promised_is_said(count: int, rate: float, text: str) -> None:
    assert calibrated(np.arange(count), rate).text == text


@pytest.mark.parametrize("rate", [0.001, 0.01, 0.05, 0.1, 0.29, 1 / 3, 0.5, 0.9])
def test_as_many_images_as_are_needed_are_enough_and_one_less_is_not(rate: float) -> None:
    needed = calibrated([1.0], rate).needed
    assert calibrated(np.arange(max(1, needed)), rate).promised == rate
    if needed > 1:
        assert calibrated(np.arange(needed - 1), rate).promised > rate


def test_equal_scores_and_thresholds_out_of_sight_are_said() -> None:
    assert calibrated([2.0] * 30, 0.05).text.endswith("; all have the same score")
    texts = {t: Calibration((1.0, 2.0, 3.0), None, t).text for t in (0.5, 1.0, 2.5, 3.0, 9.0)}
    assert texts == {
        0.5: "set by hand, nothing promised; lower than all scores seen, of 3 images",
        1.0: "set by hand, nothing promised; 2 of 3 images score higher",
        2.5: "set by hand, nothing promised; 1 of 3 images score higher",
        3.0: "set by hand, nothing promised; 0 of 3 images score higher",
        9.0: "set by hand, nothing promised; higher than all scores seen, of 3 images",
    }
    assert Calibration().text == "no threshold yet"
    assert Calibration(threshold=2.0).text == "a threshold without held-out images: nothing promised"


def test_without_held_out_scores_there_is_no_p_value() -> None:
    [decision] = Calibration(threshold=2.0).decide([3.0])
    assert decision == (3.0, None, 1.5, True)
    assert decision.text == "1.50 × threshold"
    assert calibrated([1.0, 2.0], 0.4).decide([3.0])[0].text == "1.50 × threshold, p 0.33"
    assert Calibration((-2.0, -1.0), None, -1.0).decide([0.0])[0].text == "p 0.33"


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_scores_that_are_no_numbers_are_refused(bad: float) -> None:
    for call in (calibrated([1.0], 0.5).p_values, calibrated([1.0], 0.5).decide, calibrated([1.0], 0.5).relative):
        with pytest.raises(ValueError, match="finite scores required, got NaN or infinity"):
            call([1.0, bad])
    with pytest.raises(ValueError, match="finite scores required"):
        calibrated([1.0, bad], 0.5)
    with pytest.raises(ValueError, match="finite scores that rise required"):
        Calibration((1.0, bad))


def test_a_calibration_comes_back_from_json() -> None:
    for one in (calibrated([0.1, 0.7, 0.3], 0.05), Calibration((1.0, 2.0), None, 7.0)):
        assert calibration_from(one.threshold, json.loads(json.dumps(one.told()))) == one
    with pytest.raises(ValueError, match=r"the threshold that its rate makes, 2\.0, required, got 1\.0"):
        Calibration((1.0, 2.0), 0.05, 1.0)


@pytest.mark.parametrize("config", [PATCHES, WHOLE], ids=["patches", "whole"])
def test_a_detector_takes_a_threshold_of_new_images_of_another_rate_or_by_hand(config: Any) -> None:
    detector = make_fitted(config)
    fitted = detector.calibration
    images = draw_images(6, seed=9)
    assert detector.calibrate(images) is detector
    assert detector.calibration == calibrated(detector.score(images), 0.05)
    middle = detector.score(images) if config.patch is None else detector.localize(images)
    assert detector.typical == float(middle.median())
    detector.calibrate(rate=0.4)
    assert detector.calibration == calibrated(detector.score(images), 0.4)
    scores = detector.calibration.scores
    detector.calibrate(threshold=5)
    assert detector.calibration == Calibration(scores, None, 5.0)
    detector.threshold = 7.0
    assert detector.calibrate(images, threshold=2.0).threshold == 2
    former = detector.provenance[HISTORY]
    assert [(one["rate"], one["count"]) for one in former] == [(0.05, 2), (0.05, 6), (0.4, 6), (None, 6), (None, 6)]
    assert former[0]["threshold"] == fitted.threshold
    assert former[0]["promised"] == pytest.approx(1 / 3)
    assert all("scores" not in one and one["until"] for one in former)
    assert detector.provenance["seed"] == 3


def test_what_no_threshold_can_be_made_of_is_refused_and_leaves_the_former_one() -> None:
    detector = make_fitted()
    before = detector.calibration, detector.typical, detector.provenance
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"images": draw_images(0)}, "at least 1 normal image required, got none"),
        ({"images": draw_images(1, size=(40, 40))}, r"calibrate: images of shape \(N, 3, 40, 72\) required"),
        ({"images": torch.full((2, 3, 40, 72), math.nan)}, "finite pixels required"),
        ({"rate": 0.5, "threshold": 1.0}, "a rate or a threshold required, got both"),
        ({"rate": 1.0}, "a rate above 0 and below 1 required, got 1.0"),
        ({"threshold": math.nan}, "a finite threshold required, got nan"),
        ({"threshold": math.inf}, "a finite threshold required, got inf"),
    ]
    for arguments, message in wrong:
        with pytest.raises(ValueError, match=message):
            detector.calibrate(**arguments)
        assert (detector.calibration, detector.typical, detector.provenance) == before
    bare = Detector(detector.network, PATCHES, detector.density, 1.0, 0.5)
    with pytest.raises(ValueError, match="normal images required, since no scores of held-out ones are kept"):
        bare.calibrate(rate=0.1)
    bare.threshold = 2.0
    assert [former["threshold"] for former in bare.provenance[HISTORY]] == [1.0]
    unset = Detector(detector.network, PATCHES).calibrate(threshold=3)
    assert (unset.threshold, unset.provenance) == (3.0, {})  # there was none to keep
    with pytest.raises(ValueError, match=r"its calibration's threshold, .* required, got 1\.0"):
        Detector(detector.network, PATCHES, detector.density, 1.0, 0.5, calibration=detector.calibration)


def test_an_ensembles_scale_stays_where_a_member_takes_another_threshold(tmp_path: Any) -> None:
    one, two = make_fitted(), make_fitted(count=20)
    images = draw_images(30, seed=5)
    ensemble = Ensemble([one, two]).calibrate(images)
    scores, _ = ensemble.together([(member.score(images), None) for member in (one, two)])
    assert ensemble.calibration == calibrated(scores, 0.05)
    assert ensemble.calibration.promised == 0.05
    assert [former["threshold"] for former in ensemble.provenance[HISTORY]] == [1.0]
    for name, member in (("one", one), ("two", two)):
        member.save(tmp_path / name)
    ensemble.save(tmp_path, ["one", "two"])
    Detector.load(tmp_path / "one").calibrate(threshold=1e6).save(tmp_path / "one")
    again = Ensemble.load(tmp_path)
    assert again.optimized().calibration == again.calibration == ensemble.calibration
    assert (again.scales, again.provenance) == (ensemble.scales, ensemble.provenance)
    again_scores, _ = again.together([(member.score(images), None) for member in again.members])
    assert torch.equal(again_scores, scores)
    before = again.calibration
    with pytest.raises(ValueError, match="calibrate: at least 1 normal image required"):
        again.calibrate(images[:0])
    assert again.calibration == before
    again.threshold = 3.0
    assert again.calibration == Calibration(before.scores, None, 3.0)

    old = json.loads((tmp_path / ENSEMBLE_FILE).read_text())  # from before there were scales and held-out scores
    (tmp_path / ENSEMBLE_FILE).write_text(json.dumps({name: old[name] for name in ("detectors", "threshold")}))
    assert Ensemble.load(tmp_path).calibration == Calibration(threshold=ensemble.threshold)
