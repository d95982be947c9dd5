"""Densities of normal features: fitted once on features of normal images, then asked how unlikely new ones are.

Two kinds share one shape: `fit(features (..., D))`, `score(features (..., D)) -> (...)` with higher meaning more
anomalous, `state()` and `from_state()` as a flat dict of tensors, and `to(device)`.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

import torch
from torch import Tensor

if TYPE_CHECKING:  # typing has Self from Python 3.11 on; nothing reads the annotation at run time
    from typing import Self

# Smallest part of the mean variance that every direction keeps. Ledoit-Wolf alone may ask for no shrinkage at all
# (it always does for N = 2) and leave a singular covariance; 1e-6 keeps the whitening below 1e3 times the scale of the
# features, which float32 carries, and is far below any shrinkage seen on real features.
SHRINKAGE_FLOOR = 1e-6

_KERNEL_ENTRIES = 2**24  # kernel values held at a time while scoring: 64 MiB of float32


class _Moments:
    """Hold the sums over rows that Ledoit-Wolf shrinkage needs, up to the fourth order, in float64.

    All sums are of rows minus `shift`, the mean of the rows first added, so that no precision is lost on features far
    from zero; `ledoit_wolf` below moves them to the true mean.
    """

    def __init__(self, first: Tensor) -> None:
        width = first.shape[1]
        self.shift = first.double().mean(0)
        self.count = 0
        self.first = self.shift.new_zeros(width)  # sum of z
        self.second = self.shift.new_zeros(width, width)  # sum of z zᵀ
        self.third = self.shift.new_zeros(width)  # sum of |z|² z
        self.fourth = self.shift.new_zeros(())  # sum of |z|⁴

    def add(self, rows: Tensor) -> None:
        """Add rows (n, D) to the sums."""
        z = rows.double() - self.shift
        squares = z.square().sum(1)
        self.count += len(z)
        self.first += z.sum(0)
        self.second.addmm_(z.T, z)
        self.third += squares @ z
        self.fourth += squares @ squares

    def ledoit_wolf(self) -> tuple[Tensor, Tensor, float]:
        """Return the mean (D,), the shrunk covariance (D, D) and the shrinkage of all rows added."""
        n, width = self.count, len(self.shift)
        m = self.first / n  # true mean minus shift
        mm = m @ m
        covariance = self.second / n - torch.outer(m, m)
        # sum of |z - m|⁴, expanded
        fourth = self.fourth - 4 * m @ self.third + 4 * m @ self.second @ m + 2 * mm * self.second.trace()
        fourth -= 3 * n * mm.square()

        mean = self.shift + m
        variance = covariance.trace() / width
        # Rows that are equal still leave a variance of rounding errors: compare it with the float32 grid at the mean.
        if variance <= torch.finfo(torch.float32).eps ** 2 * mean.square().mean():
            raise ValueError(f"ledoit_wolf: features that differ between rows required, got {n} equal rows")
        spread = covariance.clone()
        spread.diagonal().sub_(variance)
        delta = float(spread.square().sum())
        beta = float((fourth / n - covariance.square().sum()) / n)
        # delta is 0 where the covariance is its own target (always for D = 1): any shrinkage gives the same
        shrinkage = max(min(beta / delta, 1.0), SHRINKAGE_FLOOR) if delta > 0 else SHRINKAGE_FLOOR
        covariance *= 1 - shrinkage
        covariance.diagonal().add_(shrinkage * variance)
        return mean, covariance, shrinkage


def ledoit_wolf(features: Tensor, *, chunk: int = 2048) -> tuple[Tensor, Tensor, float]:
    """Estimate mean and covariance, the covariance shrunk towards a multiple of the identity.

    Returns `(1 - s) S + s (tr S / D) I` with the Ledoit-Wolf optimal s, also where N < D and S is singular. s is never
    below `SHRINKAGE_FLOOR` (1e-6), so the covariance is always positive definite.

    Args:
        features: (N, D), any floating dtype, N >= 2, finite, not all rows equal.
        chunk: rows converted to float64 at a time; changes memory, not the result.

    Returns:
        mean (D,) and covariance (D, D), float64 on the features' device, and the shrinkage s in [1e-6, 1].

    Raises:
        TypeError: features are not floating point.
        ValueError: not two dimensions, fewer than 2 rows, rows that are not finite, rows that are all equal.

    Source:
        Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", 2004; equal to
        scikit-learn's LedoitWolf.

    Cost:
        One pass of N·D² float64 multiply-adds; a few times 8·D·(D + chunk) bytes besides the input. For 100,000 rows of
        512 on one CPU core, 1.7 to 1.9 s in chunks of 2048 and 2.5 s in chunks of 16384, which outgrow the cache.
    """
    if features.ndim != 2:
        raise ValueError(f"ledoit_wolf: features (N, D) required, got {tuple(features.shape)}")
    features = _rows("ledoit_wolf", features.detach())
    _check_rows("ledoit_wolf", features, chunk)
    chunks = torch.split(features, chunk)
    moments = _Moments(chunks[0])
    for rows in chunks:
        moments.add(rows)
    return moments.ledoit_wolf()


class _Density:
    """Hold the tensors of a fitted density; `fit` and `score` are each kind's own."""

    kind: ClassVar[str]
    names: ClassVar[tuple[str, ...]]

    def __init__(self) -> None:
        self._tensors: dict[str, Tensor] = {}

    def state(self) -> dict[str, Tensor]:
        """Return the fitted tensors by name, contiguous and float32.

        Raises:
            RuntimeError: not fitted.
        """
        if not self._tensors:
            raise RuntimeError(f"{type(self).__name__}: fit or from_state required first, got neither")
        return dict(self._tensors)

    @classmethod
    def from_state(cls, state: Mapping[str, Tensor]) -> "Self":
        """Build a fitted density from what `state` returned.

        Raises:
            ValueError: the names of the tensors are not this kind's.
        """
        if set(state) != set(cls.names):
            raise ValueError(f"{cls.__name__}: tensors {', '.join(cls.names)} required, got {_listed(state)}")
        density = cls()
        density._tensors = {name: state[name] for name in cls.names}
        return density

    def to(self, device: torch.device | str) -> "Self":
        """Move the fitted tensors to a device, in this object, and return it."""
        self._tensors = {name: tensor.to(device) for name, tensor in self._tensors.items()}
        return self

    def _checked(self, features: Tensor, center: str) -> dict[str, Tensor]:
        """Return the fitted tensors after a check that `features` fit them."""
        state, who = self.state(), type(self).__name__
        width, device = state[center].shape[0], state[center].device
        if features.ndim == 0 or features.shape[-1] != width:
            got = features.shape[-1] if features.ndim else "a scalar"
            raise ValueError(f"{who}: features of width {width} required, got {got}")
        if not features.is_floating_point():
            raise TypeError(f"{who}: floating point features required, got {features.dtype}")
        if features.device != device:
            raise ValueError(f"{who}: features on {device} required, got {features.device}")
        return state


class GaussianDensity(_Density):
    """One Gaussian over all features, its covariance shrunk by Ledoit-Wolf.

    The score is the Mahalanobis distance (not squared) to the mean: about sqrt(D) on normal features, higher on
    anomalous ones.
    """

    kind: ClassVar[Literal["gaussian"]] = "gaussian"
    names = ("mean", "whitening", "offset")

    def fit(self, features: Tensor) -> "Self":
        """Estimate mean and covariance of features (..., D), all leading dimensions taken as rows.

        Raises:
            TypeError, ValueError: as `ledoit_wolf`.
        """
        mean, covariance, _ = ledoit_wolf(_rows("GaussianDensity", features))
        factor = torch.linalg.cholesky(covariance)
        identity = torch.eye(len(mean), dtype=mean.dtype, device=mean.device)
        whitening = torch.linalg.solve_triangular(factor, identity, upper=False)
        rounded = mean.float()
        # What rounding the mean lost is put back after whitening: x - rounded is exact in float32 for x near the mean,
        # so features far from zero cost no accuracy.
        offset = whitening @ (rounded.double() - mean)
        self._tensors = {"mean": rounded, "whitening": whitening.float().contiguous(), "offset": offset.float()}
        return self

    def score(self, features: Tensor) -> Tensor:
        """Compute the Mahalanobis distance of each feature to the mean.

        Args:
            features: (..., D), floating, on the density's device.

        Returns:
            (...) float32, >= 0; differentiable.

        Raises:
            RuntimeError: not fitted.
            TypeError: features are not floating point.
            ValueError: features of another width or on another device.

        Cost:
            D² float32 multiply-adds a feature in one matrix product, two temporaries of the input's size. TF32 keeps
            only 10 bits of the features, too few where some directions vary 1000 times less than others.
        """
        state = self._checked(features, "mean")
        with torch.autocast(features.device.type, enabled=False):  # a bfloat16 product would lose the small directions
            whitened = torch.nn.functional.linear(features.float() - state["mean"], state["whitening"], state["offset"])
        distances: Tensor = torch.linalg.vector_norm(whitened, dim=-1)
        return distances


class KernelDensity(_Density):
    """A Gaussian kernel on every kept feature.

    The score is `-(1/γ) · log mean_i exp(-γ |x - x_i|²)` over the M kept features x_i: a soft minimum of the squared
    distances to them, never below 0. `γ = 10 / (var · D)`, var taken over all M·D entries of the kept features.

    Args:
        memory: the most features to keep, chosen at random without replacement; None keeps all.

    Raises:
        ValueError: memory below 2.

    Source:
        Sohn, Li, Yoon, Jin, Pfister, "Learning and Evaluating Representations for Deep One-Class Classification",
        2021. There the features have unit length, where their `-logsumexp(2γ · similarity) / γ` differs from this score
        only by a constant; normalise features before `fit` and `score` to follow it.
    """

    kind: ClassVar[Literal["kernel"]] = "kernel"
    names = ("rows", "center", "gamma", "offset")

    def __init__(self, memory: int | None = None) -> None:
        super().__init__()
        if memory is not None and memory < 2:
            raise ValueError(f"KernelDensity: memory of at least 2 features required, got {memory}")
        self.memory = memory

    def fit(self, features: Tensor, *, generator: torch.Generator | None = None) -> "Self":
        """Keep features (..., D), all leading dimensions taken as rows, at most `memory` of them.

        Args:
            features: (..., D), any floating dtype, at least 2 rows, finite, not all rows equal.
            generator: draws the kept features where there are more than `memory`; torch's default one if None.

        Raises:
            TypeError: features are not floating point.
            ValueError: fewer than 2 rows, rows that are not finite, rows that are all equal.
        """
        rows = _rows("KernelDensity", features).detach()
        _check_rows("KernelDensity", rows)
        if self.memory is not None and len(rows) > self.memory:
            device = generator.device if generator is not None else "cpu"
            kept = torch.randperm(len(rows), generator=generator, device=device)[: self.memory]
            rows = rows[kept.to(rows.device)]
        rows = rows.float()
        variances, center = torch.var_mean(rows, dim=0, correction=0)  # (D,)
        if variances.mean() <= torch.finfo(torch.float32).eps ** 2 * center.square().mean():
            raise ValueError(f"KernelDensity: features that differ between rows required, got {len(rows)} equal rows")
        variance = variances.mean() + center.var(correction=0)  # of all entries: inside columns and between them
        gamma = 10 / (variance * rows.shape[1])
        rows = rows - center  # distances are expanded into products below: near zero they cancel least
        offset = -gamma * rows.square().sum(1) - torch.tensor(float(len(rows))).log().to(rows.device)  # (M,)
        self._tensors = {"rows": rows, "center": center, "gamma": gamma, "offset": offset}
        return self

    def score(self, features: Tensor) -> Tensor:
        """Compute the negative log density of each feature, in units of squared distance.

        Args:
            features: (..., D), floating, on the density's device.

        Returns:
            (...) float32; differentiable.

        Raises:
            RuntimeError: not fitted.
            TypeError: features are not floating point.
            ValueError: features of another width or on another device.

        Cost:
            M·D float32 multiply-adds a feature for M kept ones; 64 MiB of kernel values at a time.
        """
        state = self._checked(features, "center")
        gamma, kept = state["gamma"], state["rows"]
        rows = (features.float() - state["center"]).reshape(-1, features.shape[-1])  # (..., D) -> (n, D)
        scores = []
        with torch.autocast(features.device.type, enabled=False):
            for part in torch.split(rows, max(1, _KERNEL_ENTRIES // len(kept))):
                # -γ |z - r|² - log M = -γ |z|² + (2γ z·r + offset), r a kept row
                logits = torch.nn.functional.linear(2 * gamma * part, kept, state["offset"])  # (n, M)
                scores.append(part.square().sum(1) - logits.logsumexp(1) / gamma)
        return torch.cat(scores).reshape(features.shape[:-1])  # (n,) -> (...)


Density: TypeAlias = GaussianDensity | KernelDensity

_KINDS: dict[str, type[GaussianDensity] | type[KernelDensity]] = {"gaussian": GaussianDensity, "kernel": KernelDensity}


def make_density(kind: str) -> Density:
    """Build an unfitted density of the kind named "gaussian" or "kernel".

    Raises:
        ValueError: no density of this name.
    """
    if kind not in _KINDS:
        raise ValueError(f"make_density: one of {', '.join(_KINDS)} required, got {kind!r}")
    return _KINDS[kind]()


def density_from_state(state: Mapping[str, Tensor]) -> Density:
    """Build a fitted density from a `state()` of either kind, told apart by the names of the tensors.

    Raises:
        ValueError: the names are of neither kind.
    """
    for density in _KINDS.values():
        if set(state) == set(density.names):
            return density.from_state(state)
    required = " or ".join(f"{kind} ({', '.join(density.names)})" for kind, density in _KINDS.items())
    raise ValueError(f"density_from_state: tensors of {required} required, got {_listed(state)}")


def _rows(who: str, features: Tensor) -> Tensor:
    if features.ndim == 0 or features.shape[-1] == 0:
        raise ValueError(f"{who}: features (..., D) with D of at least 1 required, got {tuple(features.shape)}")
    return features.reshape(-1, features.shape[-1])  # (..., D) -> (N, D)


def _check_rows(who: str, rows: Tensor, chunk: int = 2048) -> None:
    """Check rows (N, D) to be fitted; the one check here that reads the contents, once a fit."""
    if not rows.is_floating_point():
        raise TypeError(f"{who}: floating point features required, got {rows.dtype}")
    if len(rows) < 2:
        raise ValueError(f"{who}: at least 2 rows of features required, got {len(rows)}")
    if chunk < 1:
        raise ValueError(f"{who}: chunk of at least 1 row required, got {chunk}")
    bad = int(torch.stack([(~part.isfinite()).any(1).sum() for part in torch.split(rows, chunk)]).sum())
    if bad:
        raise ValueError(f"{who}: finite features required, got {bad} of {len(rows)} rows with NaN or infinity")


def _listed(state: Mapping[str, Tensor]) -> str:
    return ", ".join(state) if state else "none"
