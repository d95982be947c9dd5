"""Densities that keep normal features, kernel and nearest, against slow loops."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from small_features import draw_features
from torch import Tensor

from fastcutpaste.scoring.density import (
    KernelDensity,
    NearestDensity,
    make_density,
)

KINDS = ["gaussian", "kernel", "nearest"]


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
