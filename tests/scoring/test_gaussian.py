"""The Gaussian densities, one and one a place, against NumPy in float64."""

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf
from small_features import draw_features
from torch import Tensor

from fastcutpaste.scoring.covariance import ledoit_wolf
from fastcutpaste.scoring.density import (
    GaussianDensity,
    LocationDensity,
    density_from_state,
)

KINDS = ["gaussian", "kernel", "nearest"]


def mahalanobis(training: Tensor, features: Tensor) -> Tensor:
    """Compute distances one row at a time, in NumPy float64, with scikit-learn's covariance."""
    reference = LedoitWolf().fit(training.double().numpy())
    rows = features.double().numpy().reshape(-1, features.shape[-1]) - reference.location_
    distances = [np.sqrt(row @ np.linalg.solve(reference.covariance_, row)) for row in rows]
    return torch.tensor(distances, dtype=torch.float32).reshape(features.shape[:-1])


@pytest.mark.parametrize("shift", [0.0, 30.0, 1000.0])
@pytest.mark.parametrize(("count", "width"), [(40, 64), (500, 32)])
def test_gaussian_score_is_the_mahalanobis_distance(count: int, width: int, shift: float) -> None:
    training = draw_features(count, width, shift=shift)
    features = training[:20] + draw_features(20, width, seed=2)
    score = GaussianDensity().fit(training).score(features)
    assert score.dtype == torch.float32
    torch.testing.assert_close(score, mahalanobis(training, features), rtol=1e-4, atol=1e-4)


def test_rounding_the_mean_to_float32_does_not_change_the_gaussian_score() -> None:
    spread = torch.tensor([1.0, -1.0])[:, None] * torch.eye(3).repeat_interleave(4, 0)[:, None]  # (12, 2, 3)
    training = torch.tensor([2.0**20, 2.0**20, 2.0**20 + 1]) + spread  # float32 steps of 1/8 here
    training[0, 0] += torch.tensor([4.0, 0.0, 0.0])  # the mean falls between two steps: 2²⁰ + 4/24
    features = 2.0**20 + torch.tensor([[0.0, 0, 0], [1, 0, 0], [-1, 0, 0], [3, -2, 1]])
    score = GaussianDensity().fit(training).score(features)
    torch.testing.assert_close(score, mahalanobis(training.reshape(-1, 3), features), rtol=1e-4, atol=1e-4)


def test_gaussian_score_is_independent_of_the_unit_of_the_features() -> None:
    training, features = draw_features(100, 8), draw_features(10, 8, seed=1)
    score = GaussianDensity().fit(training).score(features)
    tiny = GaussianDensity().fit(training * 1e-4).score(features * 1e-4)
    torch.testing.assert_close(tiny, score, rtol=1e-4, atol=1e-4)


def draw_grid(count: int, height: int, width: int, features: int, seed: int = 0) -> Tensor:
    """Draw features (count, height, width, features) of another mean and mixing at every place."""
    places = [draw_features(count, features, seed * 1000 + i, shift=i) for i in range(height * width)]
    return torch.stack(places, 1).view(count, height, width, features)


@pytest.mark.parametrize(("count", "width"), [(2, 5), (7, 30), (40, 12), (65, 80)])
def test_location_score_is_the_mahalanobis_distance_of_each_place(count: int, width: int) -> None:
    training, features = draw_grid(count, 2, 3, width), draw_grid(4, 2, 3, width, seed=1)
    score = LocationDensity().fit(training).score(features)
    assert score.shape == (4, 2, 3)
    for y in range(2):
        for x in range(3):
            if count == 2:  # scikit-learn shrinks two rows by 0 and is left with a singular matrix
                expected = GaussianDensity().fit(training[:, y, x]).score(features[:, y, x])
            else:
                expected = mahalanobis(training[:, y, x], features[:, y, x])
            torch.testing.assert_close(score[:, y, x], expected, rtol=2e-3, atol=2e-3)


def test_of_a_low_rank_the_strongest_directions_are_kept_and_the_rest_share_their_variance() -> None:
    training, features = draw_grid(50, 1, 2, 20), draw_grid(6, 1, 2, 20, seed=1)
    density = LocationDensity(rank=4).fit(training)
    assert density.state()["directions"].shape == (1, 2, 4, 20)
    for x in range(2):
        mean, covariance, _ = ledoit_wolf(training[:, 0, x])
        values, vectors = torch.linalg.eigh(covariance)
        values[:-4] = values[:-4].mean()
        low = vectors @ values.diag() @ vectors.T
        z = features[:, 0, x].double() - mean
        expected = (z * torch.linalg.solve(low, z.T).T).sum(1).sqrt().float()
        torch.testing.assert_close(density.score(features)[:, 0, x], expected, rtol=1e-3, atol=1e-3)


def test_location_bands_give_what_the_whole_grid_does_and_a_state_round_trip_keeps_scores() -> None:
    training, features = draw_grid(9, 5, 2, 6), draw_grid(3, 5, 2, 6, seed=1)
    whole = LocationDensity().fit(training)
    banded = LocationDensity().fit(training[:, top : top + 2] for top in (0, 2, 4))
    for name, tensor in whole.state().items():
        assert tensor.dtype == torch.float32
        assert torch.equal(banded.state()[name], tensor)
    loaded = density_from_state(whole.state())
    assert isinstance(loaded, LocationDensity)
    assert torch.equal(loaded.score(features), whole.score(features))
    assert torch.equal(whole.score(features[0]), whole.score(features)[0])


def test_location_errors_say_what_came() -> None:
    training = draw_grid(5, 2, 3, 4)
    with pytest.raises(ValueError, match=r"LocationDensity: \(N of at least 2, h, w, D\) required, got \(1, 2, 3, 4\)"):
        LocationDensity().fit(training[:1])
    with pytest.raises(ValueError, match=r"LocationDensity: features \(N, h, w, D\) required, got none"):
        LocationDensity().fit([])
    with pytest.raises(ValueError, match="features that differ between images at every place required"):
        LocationDensity().fit(training[:1].expand(5, -1, -1, -1))
    density = LocationDensity().fit(training)
    with pytest.raises(ValueError, match=r"features \(\.\.\., 2, 3, 4\) required, got \(5, 3, 2, 4\)"):
        density.score(training.transpose(1, 2))
    training[1, 1, 1, 1] = torch.nan
    with pytest.raises(ValueError, match="LocationDensity: finite features required, got 1 of 30 rows"):
        LocationDensity().fit(training)
