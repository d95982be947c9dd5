"""Densities against scikit-learn, NumPy in float64, and slow loops."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf
from torch import Tensor

from fastcutpaste.scoring.covariance import SHRINKAGE_FLOOR, ledoit_wolf
from fastcutpaste.scoring.density import (
    GaussianDensity,
    KernelDensity,
    LocationDensity,
    NearestDensity,
    density_from_state,
    make_density,
)

KINDS = ["gaussian", "kernel", "nearest"]


def draw_features(
    count: int, width: int, seed: int = 0, shift: float = 0.0, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Draw correlated features (count, width) of unequal scales, not Gaussian, around `shift`."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator, dtype=torch.float64) / width**0.5
    rows = torch.randn(count, width, generator=generator, dtype=torch.float64)
    rows = rows.sign() * rows.abs().pow(1.5) * torch.logspace(-1, 0.5, width, dtype=torch.float64)
    return (rows @ mixing + shift * torch.linspace(0.5, 1.5, width, dtype=torch.float64)).to(dtype)


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


def test_autocast_does_not_change_the_score() -> None:
    for kind in KINDS:
        density = make_density(kind).fit(draw_features(50, 8))
        features = draw_features(10, 8, seed=1)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = density.score(features)
        assert torch.equal(inside, density.score(features)), kind


def kernel_scores(training: Tensor, features: Tensor) -> Tensor:
    """Compute -(1/γ) log mean exp(-γ |x - x_i|²) one pair at a time in float64."""
    kept, rows = training.double().numpy(), features.double().numpy()
    gamma = 10 / (np.var(kept) * kept.shape[1])
    scores = []
    for row in rows:
        exponents = np.array([-gamma * np.sum((row - other) ** 2) for other in kept])
        top = exponents.max()
        scores.append(-(top + np.log(np.mean(np.exp(exponents - top)))) / gamma)
    return torch.tensor(scores, dtype=torch.float32)


@pytest.mark.parametrize("shift", [0.0, 20.0])
def test_kernel_score_equals_a_slow_loop(shift: float) -> None:
    training, features = draw_features(60, 12, shift=shift), draw_features(15, 12, seed=1, shift=shift)
    features[-1] += 100.0  # far away: every kernel value underflows
    score = KernelDensity().fit(training).score(features)
    torch.testing.assert_close(score, kernel_scores(training, features), rtol=1e-4, atol=1e-4)


def test_kernel_score_of_unit_features_is_that_of_the_paper_but_for_a_constant() -> None:
    training = torch.nn.functional.normalize(draw_features(60, 12).double(), dim=1)
    features = torch.nn.functional.normalize(draw_features(15, 12, seed=1).double(), dim=1)
    gamma = 10 / (training.var(correction=0) * 12)
    similarity = features @ training.T
    paper = -(2 * gamma * similarity).logsumexp(1) / gamma
    difference = KernelDensity().fit(training).score(features).double() - paper
    torch.testing.assert_close(difference, difference.mean().expand(15), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["kernel", "nearest"])
def test_the_score_is_the_same_in_chunks(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    density, features = make_density(kind).fit(draw_features(40, 6)), draw_features(33, 6, seed=1)
    whole = density.score(features)
    monkeypatch.setattr("fastcutpaste.scoring.memory._ENTRIES", 40 * 7)
    torch.testing.assert_close(density.score(features), whole)
    monkeypatch.setattr("fastcutpaste.scoring.memory._ENTRIES", 1)
    torch.testing.assert_close(density.score(features), whole)


@pytest.mark.parametrize("shift", [0.0, 20.0])
def test_the_nearest_score_is_the_smallest_distance_to_what_is_kept(shift: float) -> None:
    training, features = draw_features(60, 12, shift=shift), draw_features(15, 12, seed=1, shift=shift)
    score = NearestDensity(memory=60).fit(training).score(features)
    expected = torch.tensor([min(float((one - row).norm()) for row in training.double()) for one in features.double()])
    torch.testing.assert_close(score, expected, rtol=1e-4, atol=1e-4)


def test_each_feature_kept_is_the_farthest_from_those_before() -> None:
    training = draw_features(80, 5)  # of fewer than 64 dimensions, so nothing is projected
    state = NearestDensity(memory=20, candidates=80).fit(training).state()
    kept = (state["kept"] + state["middle"]).double()
    rows = training.double()
    chosen = [0]
    while len(chosen) < 20:
        nearest = torch.stack([(rows - rows[i]).norm(dim=1) for i in chosen]).amin(0)
        chosen.append(int(nearest.argmax()))
    torch.testing.assert_close(kept, rows[chosen])


def test_a_rare_kind_of_normal_feature_is_kept_where_few_of_many_are() -> None:
    training = torch.cat([draw_features(5000, 100), draw_features(3, 100, seed=1) + 30])  # projected to 64
    rare = training[-3:]
    assert NearestDensity(memory=10).fit(training).score(rare).max() < 50
    assert NearestDensity(memory=10).fit(training[:-3]).score(rare).min() > 100


def test_nearest_refuses_a_memory_that_candidates_cannot_fill() -> None:
    for memory, candidates in ((1, 5), (6, 5)):
        with pytest.raises(ValueError, match=rf"memory of 2 to candidates \(5\) required, got {memory}"):
            NearestDensity(memory, candidates)


def test_kernel_memory_keeps_rows_drawn_by_the_generator() -> None:
    training, features = draw_features(50, 6), draw_features(5, 6, seed=1)

    def fit(seed: int) -> KernelDensity:
        return KernelDensity(memory=20).fit(training, generator=torch.Generator().manual_seed(seed))

    density = fit(3)
    state = density.state()
    kept = state["rows"] + state["center"]
    places = (kept[:, None] - training).abs().amax(2).argmin(1)  # the training row nearest to each kept one
    assert len(kept) == len(places.unique()) == 20
    torch.testing.assert_close(kept, training[places])
    torch.testing.assert_close(density.score(features), kernel_scores(training[places], features), rtol=1e-4, atol=1e-4)
    assert torch.equal(fit(3).state()["rows"], state["rows"])
    assert not torch.equal(fit(4).state()["rows"], state["rows"])


def test_kernel_memory_larger_than_the_data_keeps_all_in_order() -> None:
    training = draw_features(50, 6)
    assert torch.equal(
        KernelDensity(memory=50).fit(training).state()["rows"], KernelDensity().fit(training).state()["rows"]
    )


@pytest.mark.parametrize("batch", [1, 9, 30])
def test_kernel_keeps_no_more_than_its_memory_of_batches_and_any_row_as_likely(batch: int) -> None:
    training = draw_features(50, 6)
    counts = torch.zeros(50)
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        state = KernelDensity(memory=10).fit(iter(torch.split(training, batch)), generator=generator).state()
        kept = state["rows"] + state["center"]
        counts[(kept[:, None] - training).abs().amax(2).argmin(1)] += 1
    assert counts.sum() == 2000
    assert counts.min() > 15  # 40 expected, standard deviation 5.7
    assert counts.max() < 65


def test_a_kernel_made_by_name_has_a_memory_and_keeps_the_same_rows_every_time() -> None:
    training = draw_features(10_050, 3)
    state = torch.get_rng_state()
    first, second = (make_density("kernel").fit(training) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert len(first.state()["rows"]) == 10_000
    assert torch.equal(first.state()["rows"], second.state()["rows"])


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


@pytest.mark.parametrize("kind", KINDS)
def test_features_further_out_score_higher(kind: str) -> None:
    training = draw_features(200, 6)
    direction = draw_features(1, 6, seed=5)
    line = training.mean(0) + torch.linspace(0, 20, 9)[:, None] * direction
    score = make_density(kind).fit(training).score(line)
    assert (score[2:].diff() > 0).all()
    assert score[-1] > make_density(kind).fit(training).score(training).max()


@pytest.mark.parametrize("kind", KINDS)
def test_leading_dimensions_are_batch_dimensions(kind: str) -> None:
    training, features = draw_features(60, 6), draw_features(24, 6, seed=1)
    flat = make_density(kind).fit(training)
    batched = make_density(kind).fit(training.reshape(3, 4, 5, 6))
    for name, tensor in flat.state().items():
        assert torch.equal(batched.state()[name], tensor)
    scores = flat.score(features)
    assert scores.shape == (24,)
    torch.testing.assert_close(flat.score(features.reshape(2, 3, 4, 6)), scores.reshape(2, 3, 4))
    torch.testing.assert_close(flat.score(features[7]), scores[7])
    assert flat.score(features[7]).shape == ()
    assert flat.score(features[:0].reshape(0, 3, 6)).shape == (0, 3)


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_features_score_as_their_float32_values(kind: str) -> None:
    training, features = draw_features(60, 6).bfloat16(), draw_features(9, 6, seed=1).bfloat16()
    score = make_density(kind).fit(training).score(features)
    assert torch.equal(score, make_density(kind).fit(training.float()).score(features.float()))


@pytest.mark.parametrize("kind", KINDS)
def test_score_passes_gradients_to_the_features_and_fit_none(kind: str) -> None:
    density = make_density(kind).fit(draw_features(60, 6).requires_grad_())
    assert not any(tensor.requires_grad for tensor in density.state().values())
    features = draw_features(9, 6, seed=1).requires_grad_()
    density.score(features).sum().backward()
    assert features.grad is not None
    assert (features.grad.norm(dim=1) > 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_state_round_trip_keeps_scores(kind: str) -> None:
    density, features = make_density(kind).fit(draw_features(60, 6)), draw_features(9, 6, seed=1)
    state = {name: tensor.clone() for name, tensor in density.state().items()}
    assert all(tensor.is_contiguous() and tensor.dtype == torch.float32 for tensor in density.state().values())
    for loaded in (density_from_state(state), type(density).from_state(state)):
        assert type(loaded) is type(density)
        assert loaded.kind == kind
        assert torch.equal(loaded.score(features), density.score(features))


@pytest.mark.parametrize("kind", KINDS)
def test_to_moves_every_tensor_and_returns_the_density(kind: str) -> None:
    density = make_density(kind).fit(draw_features(60, 6))
    assert density.to("meta") is density
    assert all(tensor.is_meta for tensor in density.state().values())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_fit_and_score_are_the_same_on_the_gpu(kind: str) -> None:
    training, features = draw_features(300, 64, shift=10.0), draw_features(20, 64, seed=1, shift=10.0)
    there = make_density(kind).fit(training.cuda())
    score = there.score(features.cuda())
    assert score.is_cuda
    torch.testing.assert_close(score.cpu(), make_density(kind).fit(training).score(features), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(there.to("cpu").score(features), score.cpu(), rtol=1e-4, atol=1e-4)


def test_importing_density_needs_torch_alone() -> None:
    code = (
        "import sys, fastcutpaste.scoring.density; "
        "print([name for name in ('sklearn', 'scipy', 'torchvision') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("kind", KINDS)
def test_errors_of_fit_say_what_came(kind: str) -> None:
    who = {"gaussian": "ledoit_wolf", "kernel": "KernelDensity", "nearest": "NearestDensity"}[kind]
    features = draw_features(10, 4)
    with pytest.raises(ValueError, match=f"{who}: at least 2 rows of features required, got 1"):
        make_density(kind).fit(features[:1])
    with pytest.raises(ValueError, match=f"{who}: features that differ between rows required, got 10 equal rows"):
        make_density(kind).fit(torch.tensor([0.1, 3.7, 1e4, -2.0]).expand(10, 4))
    with pytest.raises(ValueError, match=f"{who}: features that differ between rows required, got 10 equal rows"):
        make_density(kind).fit(torch.zeros(10, 4))
    make_density(kind).fit(torch.tensor([0.1, 3.7, 1e4, -2.0]) + 1e-2 * features)  # little, but more than rounding
    with pytest.raises(TypeError, match=f"{who}: floating point features required, got torch.int64"):
        make_density(kind).fit(features.long())
    features[2, 1], features[2, 3], features[7, 0] = torch.nan, torch.inf, -torch.inf
    with pytest.raises(ValueError, match=f"{who}: finite features required, got 2 of 10 rows with NaN or infinity"):
        make_density(kind).fit(features)
    with pytest.raises(ValueError, match=r"features \(\.\.\., D\) with D of at least 1 required, got \(5, 0\)"):
        make_density(kind).fit(torch.zeros(5, 0))
    with pytest.raises(ValueError, match=r"features \(\.\.\., D\) with D of at least 1 required, got \(\)"):
        make_density(kind).fit(torch.tensor(1.0))


@pytest.mark.parametrize("kind", KINDS)
def test_errors_of_score_say_what_came(kind: str) -> None:
    density = make_density(kind)
    who = type(density).__name__
    with pytest.raises(RuntimeError, match=f"{who}: fit or from_state required first, got neither"):
        density.score(torch.zeros(2, 4))
    with pytest.raises(RuntimeError, match=f"{who}: fit or from_state required first, got neither"):
        density.state()
    density.fit(draw_features(10, 4))
    with pytest.raises(ValueError, match=f"{who}: features of width 4 required, got 3"):
        density.score(torch.zeros(2, 3))
    with pytest.raises(ValueError, match=f"{who}: features of width 4 required, got a scalar"):
        density.score(torch.tensor(1.0))
    with pytest.raises(TypeError, match=f"{who}: floating point features required, got torch.uint8"):
        density.score(torch.zeros(2, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match=f"{who}: features on cpu required, got meta"):
        density.score(torch.zeros(2, 4, device="meta"))


def test_errors_of_settings_and_states_say_what_came() -> None:
    with pytest.raises(ValueError, match="ledoit_wolf: at least 2 rows of features required, got none"):
        ledoit_wolf([])
    with pytest.raises(ValueError, match="ledoit_wolf: features of width 4 required, got 5"):
        ledoit_wolf([torch.ones(2, 4), torch.ones(2, 5)])
    with pytest.raises(ValueError, match="LocationDensity: a rank of at least 1 required, got 0"):
        LocationDensity(rank=0)
    with pytest.raises(ValueError, match="KernelDensity: memory of at least 2 features required, got 1"):
        KernelDensity(memory=1)
    with pytest.raises(
        ValueError, match="make_density: one of gaussian, kernel, nearest, location required, got 'gauss'"
    ):
        make_density("gauss")
    with pytest.raises(ValueError, match="GaussianDensity: tensors mean, whitening, offset required, got mean"):
        GaussianDensity.from_state({"mean": torch.zeros(3)})
    names = r"gaussian \(mean, whitening, offset\) or kernel \(.*\) or location \(mean, directions, scale\)"
    with pytest.raises(ValueError, match=f"density_from_state: tensors of {names} required, got none"):
        density_from_state({})


def test_choosing_the_nearest_features_takes_no_more_memory_than_a_few_copies_of_them() -> None:
    """In a process of its own, whose largest size is asked for before and after; 20 MB of features."""
    code = """
import resource, torch
from fastcutpaste.scoring.density import NearestDensity
torch.set_num_threads(1)
features = torch.randn(20_000, 256)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
NearestDensity().fit(features)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 150_000  # KiB
