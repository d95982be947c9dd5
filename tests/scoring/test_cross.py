"""Cross-calibration: each image by those that have not seen it, and thresholds that hold for ensembles."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fastcutpaste.scoring.cross import Unseen, cross_scores
from fastcutpaste.scoring.metrics import threshold_at_fpr

RATE = 0.05


def detector(typical, scores, rate=RATE):
    """Stand for a detector whose scale was set on some scores."""
    threshold = threshold_at_fpr(scores, rate)
    return SimpleNamespace(typical=typical, threshold=threshold, config=SimpleNamespace(false_positive_rate=rate))


def on_the_scale_without(scores, typical, rate):
    """Put each score on the scale that all others set, the slow way."""
    made, rank = [], sorted(scores, reverse=True).index(threshold_at_fpr(scores, rate))
    for i, score in enumerate(scores):
        others = sorted(np.delete(np.asarray(scores), i), reverse=True)
        made.append((score - typical) / (others[min(rank, len(others) - 1)] - typical))
    return made


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.3])
@pytest.mark.parametrize("count", [2, 3, 4, 7, 19, 20, 39, 40])
def test_each_image_lies_on_the_scale_that_the_others_set(count, rate):
    for seed in range(10):
        scores = torch.rand(count, generator=torch.Generator().manual_seed(seed)) + 1
        if seed % 2:
            scores = (scores * 5).round() / 5 + 0.01  # ties
        got = cross_scores([Unseen(detector(0.5, scores, rate), torch.arange(count), scores)])
        wanted = on_the_scale_without(scores.numpy(), 0.5, rate)
        torch.testing.assert_close(got.double(), torch.tensor(wanted).double(), rtol=1e-5, atol=1e-5)


def test_an_image_counts_by_the_mean_of_those_that_have_not_seen_it():
    one, two, three = torch.tensor([1.0, 2, 3]), torch.tensor([4.0, 6, 9]), torch.tensor([2.0, 5, 7, 1])
    unseen = [
        Unseen(detector(0.0, one), torch.tensor([0, 1, 2]), one),
        Unseen(detector(1.0, two), torch.tensor([2, 4, 7]), two),
        Unseen(detector(0.5, three), torch.tensor([0, 4, 5, 7]), three),
    ]
    by_image = {}
    for each in unseen:
        scaled = on_the_scale_without(each.scores.numpy(), each.detector.typical, RATE)
        for image, value in zip(each.images.tolist(), scaled, strict=True):
            by_image.setdefault(image, []).append(value)
    wanted = [sum(by_image[i]) / len(by_image[i]) for i in sorted(by_image)]
    assert sorted(by_image) == [0, 1, 2, 4, 5, 7]
    torch.testing.assert_close(cross_scores(unseen), torch.tensor(wanted, dtype=torch.float32))


def test_images_that_are_all_alike_but_one_keep_the_detectors_own_scale():
    scores = torch.tensor([2.0, 2, 2, 5])
    got = cross_scores([Unseen(detector(2.0, scores), torch.arange(4), scores)])
    assert got.tolist() == [0, 0, 0, 1]


def test_too_few_images_are_refused():
    with pytest.raises(ValueError, match=r"detectors with at least 2 images each required, got \[\]"):
        cross_scores([])
    one = torch.tensor([1.0])
    with pytest.raises(ValueError, match=r"got \[1\]"):
        cross_scores([Unseen(detector(0.0, one), torch.tensor([0]), one)])


def simulate(count, members, noise, sets):
    """Give rates of false alarms of ensembles in expectation, with the threshold of `cross_scores` and with the one of
    scores on each detector's own scale."""
    random = np.random.default_rng(count)
    across, own = [], []
    for _ in range(sets):
        # An image's score by a detector: what is in the image, and what each network makes of it.
        held, new = (random.gumbel(size=(n, 1)) + noise * random.gumbel(size=(n, members)) for n in (count, 200))
        folds = np.arange(count) % 5
        unseen, scaled, fresh = [], [], []
        for i in range(members):
            mine = np.flatnonzero(folds == i % 5)
            scores = torch.from_numpy(held[mine, i])
            made = detector(-3.0, scores)
            unseen.append(Unseen(made, torch.from_numpy(mine), scores))
            scaled.append((scores - made.typical) / (made.threshold - made.typical))
            fresh.append((new[:, i] - made.typical) / (made.threshold - made.typical))
        together = np.mean(fresh, axis=0)
        across.append(float(np.mean(together > threshold_at_fpr(cross_scores(unseen), RATE))))
        own.append(float(np.mean(together > threshold_at_fpr(torch.cat(scaled), RATE))))
    error = np.std(across, ddof=1) / math.sqrt(sets)
    return float(np.mean(across)), float(error), float(np.mean(own))


@pytest.mark.parametrize("noise", [0.2, 0.5, 1.0])
@pytest.mark.parametrize("count", [20, 40, 100, 195])
def test_new_normal_images_are_called_defective_no_more_often_than_asked(count, noise):
    rate, error, own = simulate(count, members=5, noise=noise, sets=300)
    assert rate <= RATE + 3 * error
    if count == 20:
        assert own > 0.1  # on its own scale the highest of four is 1, and a new image is not
