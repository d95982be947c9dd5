"""Densities against scikit-learn, NumPy in float64, and slow loops."""

import subprocess
import sys

import pytest
import torch
from small_features import draw_features

from fastcutpaste.scoring.covariance import ledoit_wolf
from fastcutpaste.scoring.density import (
    GaussianDensity,
    KernelDensity,
    LocationDensity,
    density_from_state,
    make_density,
)

KINDS = ["gaussian", "kernel", "nearest"]


def test_autocast_does_not_change_the_score() -> None:
    for kind in KINDS:
        density = make_density(kind).fit(draw_features(50, 8))
        features = draw_features(10, 8, seed=1)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = density.score(features)
        assert torch.equal(inside, density.score(features)), kind


@pytest.mark.parametrize("kind", ["kernel", "nearest"])
def test_the_score_is_the_same_in_chunks(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    density, features = make_density(kind).fit(draw_features(40, 6)), draw_features(33, 6, seed=1)
    whole = density.score(features)
    monkeypatch.setattr("fastcutpaste.scoring.memory._ENTRIES", 40 * 7)
    torch.testing.assert_close(density.score(features), whole)
    monkeypatch.setattr("fastcutpaste.scoring.memory._ENTRIES", 1)
    torch.testing.assert_close(density.score(features), whole)


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
