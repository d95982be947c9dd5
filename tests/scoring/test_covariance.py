"""The covariance against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf
from small_features import draw_features
from torch import Tensor

from fastcutpaste.scoring.covariance import SHRINKAGE_FLOOR, ledoit_wolf
from fastcutpaste.scoring.density import (
    GaussianDensity,
)

KINDS = ["gaussian", "kernel", "nearest"]


def assert_equals_sklearn(features: Tensor, batch: int | None = None) -> None:
    reference = LedoitWolf().fit(features.double().numpy())
    mean, covariance, shrinkage = ledoit_wolf(features if batch is None else torch.split(features, batch))
    scale = float(np.trace(reference.covariance_)) / features.shape[1]
    assert mean.dtype == covariance.dtype == torch.float64
    close = 1e-9 if len(features) < 2048 else 1e-6  # above, chunks are summed in float32
    torch.testing.assert_close(mean, torch.from_numpy(reference.location_), rtol=close, atol=close)
    torch.testing.assert_close(covariance, torch.from_numpy(reference.covariance_), rtol=1e-5, atol=1e-5 * scale)
    assert shrinkage == pytest.approx(reference.shrinkage_, rel=1e-5, abs=2 * SHRINKAGE_FLOOR)


@pytest.mark.parametrize(("count", "width"), [(2, 5), (3, 1), (7, 30), (60, 128), (300, 16), (1000, 64)])
def test_ledoit_wolf_equals_sklearn(count: int, width: int) -> None:
    assert_equals_sklearn(draw_features(count, width))
    assert_equals_sklearn(draw_features(count, width, seed=1, dtype=torch.float64))


@pytest.mark.parametrize("shift", [1e2, 1e4])
def test_ledoit_wolf_equals_sklearn_far_from_zero(shift: float) -> None:
    assert_equals_sklearn(draw_features(200, 24, shift=shift))


def test_ledoit_wolf_equals_sklearn_where_all_is_shrunk_to_the_identity() -> None:
    features = torch.cat([torch.eye(6), -torch.eye(6)]) + draw_features(12, 6) * 1e-3
    assert_equals_sklearn(features)
    assert ledoit_wolf(features)[2] == 1


def test_ledoit_wolf_equals_sklearn_with_a_feature_that_never_varies() -> None:
    features = draw_features(50, 8)
    features[:, 3] = 7.0
    assert_equals_sklearn(features)


@pytest.mark.parametrize("batch", [1, 7, 100, 333])
def test_batches_give_what_all_rows_at_once_do(batch: int) -> None:
    features = draw_features(333, 12, shift=50.0)
    features[:40] += 25.0  # the first rows are not like the rest: their mean is a poor shift
    assert_equals_sklearn(features, batch)
    whole, streamed = ledoit_wolf(features), ledoit_wolf(iter(torch.split(features, batch)))
    torch.testing.assert_close(streamed, whole, rtol=1e-5, atol=1e-5)
    exact = ledoit_wolf(iter(torch.split(features.double(), batch)))
    torch.testing.assert_close(exact, ledoit_wolf(features.double()), rtol=1e-9, atol=1e-9)


def test_more_rows_and_columns_than_one_product_takes_equal_sklearn() -> None:
    assert_equals_sklearn(draw_features(5000, 300))


def test_shrinkage_never_falls_below_its_floor() -> None:
    features = torch.tensor([[1.0, 2.0, 4.0], [0.0, -1.0, 3.0]])  # Ledoit-Wolf gives exactly 0 for two rows
    mean, covariance, shrinkage = ledoit_wolf(features)
    assert shrinkage == SHRINKAGE_FLOOR
    assert torch.linalg.eigvalsh(covariance).min() > 0
    assert GaussianDensity().fit(features).score(mean.float()) < 1e-3
