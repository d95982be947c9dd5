"""Densities of normal features: fitted once on features of normal images, then asked how unlikely new ones are.

The kinds share one shape: `fit(features (..., D), or batches of them)`, `score(features (..., D)) -> (...)` with higher
meaning more anomalous, `state()` and `from_state()` as a flat dict of tensors, and `to(device)`.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

import torch
from torch import Tensor

from fastcutpaste.covariance import SHRINKAGE_FLOOR, ledoit_wolf, row_batches

if TYPE_CHECKING:  # typing has Self from Python 3.11 on; nothing reads the annotation at run time
    from typing import Self

KERNEL_MEMORY = 10_000  # rows that a kernel density made by name keeps
_KERNEL_ENTRIES = 2**24  # kernel values held at a time while scoring: 64 MiB of float32


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
        width, device = state[center].shape[-1], state[center].device
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

    def fit(self, features: Tensor | Iterable[Tensor]) -> "Self":
        """Estimate mean and covariance of features (..., D), all leading dimensions taken as rows, or of batches.

        Raises:
            TypeError, ValueError: as `ledoit_wolf`.
        """
        mean, covariance, _ = ledoit_wolf(features)
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

    def fit(self, features: Tensor | Iterable[Tensor], *, generator: torch.Generator | None = None) -> "Self":
        """Keep features (..., D), all leading dimensions taken as rows, at most `memory` of them.

        Args:
            features: (..., D), any floating dtype, at least 2 rows, finite, not all equal; or batches of such, of
                which no more than the kept rows and one batch are held.
            generator: draws the kept features where there are more than `memory`; None: the same ones every time.

        Raises:
            TypeError: features are not floating point.
            ValueError: fewer than 2 rows, rows that are not finite, rows that are all equal.
        """
        generator = torch.Generator().manual_seed(0) if generator is None else generator
        rows, keys = torch.empty(0), torch.empty(0)
        for batch in row_batches("KernelDensity", features):
            rows = torch.cat([rows.to(batch), batch]) if len(rows) else batch
            if self.memory is not None:  # every row draws a key, and the smallest keys stay: any rows as likely
                drawn = torch.rand(len(batch), generator=generator, device=generator.device)
                keys = torch.cat([keys, drawn.cpu()])
                if len(rows) > self.memory:
                    kept = keys.topk(self.memory, largest=False).indices.sort().values
                    rows, keys = rows[kept.to(rows.device)], keys[kept]
        if len(rows) < 2:
            raise ValueError(f"KernelDensity: at least 2 rows of features required, got {len(rows)}")
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


class LocationDensity(_Density):
    """A Gaussian at every place of the grid, for objects that are always in the same position.

    Its covariance is Ledoit-Wolf's where no more than `rank` + 1 images are fitted: that of N images is a multiple of
    the identity but for N - 1 directions, so these and one number hold all of it. Of more images the `rank` strongest
    directions are kept, and all others share the mean of their variances. The score is the Mahalanobis distance.

    Args:
        rank: most directions kept at a place; 2,401 places of 256 features take 2.5 MB for each.

    Raises:
        ValueError: rank below 1.
    """

    kind: ClassVar[Literal["location"]] = "location"
    names = ("mean", "directions", "scale")

    def __init__(self, rank: int = 64) -> None:
        super().__init__()
        if rank < 1:
            raise ValueError(f"LocationDensity: a rank of at least 1 required, got {rank}")
        self.rank = rank

    def fit(self, features: Tensor | Iterable[Tensor]) -> "Self":
        """Estimate a mean and a covariance for every place.

        Args:
            features: (N, h, w, D) of N normal images, N at least 2, any floating dtype, finite, not all equal at any
                place; or bands (N, rows, w, D) of grid rows from the top, each of all images: no more than one band
                is held.

        Raises:
            TypeError: features are not floating point.
            ValueError: another shape, fewer than 2 images, features that are not finite, or equal in all images.

        Cost:
            N²·D multiply-adds and the eigenvectors of one N × N matrix a place, in float64.
        """
        rows: list[tuple[Tensor, Tensor, Tensor]] = []
        for band in (features,) if isinstance(features, Tensor) else features:
            if band.ndim != 4 or len(band) < 2:
                raise ValueError(f"LocationDensity: (N of at least 2, h, w, D) required, got {tuple(band.shape)}")
            for _ in row_batches("LocationDensity", band):
                pass  # checked
            rows.extend(self._fit_row(row.transpose(0, 1)) for row in band.detach().unbind(1))  # (N, w, D) each
        if not rows:
            raise ValueError("LocationDensity: features (N, h, w, D) required, got none")
        stacked = (torch.stack(parts) for parts in zip(*rows, strict=True))
        self._tensors = dict(zip(self.names, stacked, strict=True))
        return self

    def _fit_row(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Fit features (w, N, D) of one row of places: mean (w, D), directions (w, r, D), scale (w,)."""
        count, width = features.shape[1:]
        features = features.double()
        mean = features.mean(1, keepdim=True)  # (w, 1, D)
        z = features - mean
        gram = z @ z.mT / count  # (w, N, N), the covariance's own eigenvalues
        variance = gram.diagonal(dim1=1, dim2=2).sum(1) / width  # (w,)
        if (variance <= torch.finfo(torch.float32).eps ** 2 * mean.square().mean((1, 2))).any():
            raise ValueError("LocationDensity: features that differ between images at every place required")
        norm = gram.square().sum((1, 2))
        delta = norm - width * variance**2
        beta = ((gram.diagonal(dim1=1, dim2=2) ** 2).sum(1) * count - norm) / count
        shrinkage = torch.where(delta > 0, beta / delta, 0).clamp(SHRINKAGE_FLOOR, 1)
        values, vectors = torch.linalg.eigh(gram)  # rising
        rank = min(self.rank, count - 1, width)
        values, vectors = values[:, -rank:].clamp(min=0), vectors[..., -rank:]
        kept = (1 - shrinkage)[:, None] * values  # (w, r)
        left = (width * variance - values.sum(1)).clamp(min=0) / max(1, width - rank)  # mean variance not kept
        floor = shrinkage * variance + (1 - shrinkage) * left  # (w,), the variance of every direction not kept
        directions = vectors.mT @ z / (values * count).clamp(min=1e-300).sqrt()[..., None]  # (w, r, D), of length 1
        # distance² = |z|² / floor - sum over directions u of (1 / floor - 1 / variance along u) (u·z)²
        inverse = (1 / floor)[:, None] - 1 / (kept + (shrinkage * variance)[:, None])
        directions = directions * inverse.clamp(min=0).sqrt()[..., None]
        return mean.squeeze(1).float(), directions.float(), (1 / floor).float()

    def score(self, features: Tensor) -> Tensor:
        """Compute the Mahalanobis distance of each feature to the mean of its place.

        Args:
            features: (..., h, w, D) of the grid that was fitted, floating, on the density's device.

        Returns:
            (..., h, w) float32, >= 0; differentiable.

        Raises:
            RuntimeError: not fitted.
            TypeError: features are not floating point.
            ValueError: features of another grid or width, or on another device.

        Cost:
            rank·D float32 multiply-adds a feature in one batched matrix product.
        """
        state = self._checked(features, "mean")
        grid = state["mean"].shape
        if features.shape[-3:] != grid:
            came = tuple(features.shape)
            raise ValueError(f"LocationDensity: features (..., {grid[0]}, {grid[1]}, {grid[2]}) required, got {came}")
        with torch.autocast(features.device.type, enabled=False):
            z = features.float() - state["mean"]
            columns = z.reshape(-1, *grid).permute(1, 2, 3, 0)  # (..., h, w, D) → (h, w, D, n)
            along = (state["directions"] @ columns).square().sum(2)  # (h, w, r, n) → (h, w, n)
            squares = z.square().sum(-1) * state["scale"] - along.permute(2, 0, 1).reshape(z.shape[:-1])
        return squares.clamp(min=0).sqrt()


Density: TypeAlias = GaussianDensity | KernelDensity | LocationDensity

KINDS: dict[str, type[GaussianDensity] | type[KernelDensity] | type[LocationDensity]] = {
    "gaussian": GaussianDensity,
    "kernel": KernelDensity,
    "location": LocationDensity,
}


def make_density(kind: str) -> Density:
    """Build an unfitted density of the kind named "gaussian", "kernel" (of at most 10,000 rows) or "location".

    Raises:
        ValueError: no density of this name.
    """
    if kind not in KINDS:
        raise ValueError(f"make_density: one of {', '.join(KINDS)} required, got {kind!r}")
    return KernelDensity(memory=KERNEL_MEMORY) if kind == "kernel" else KINDS[kind]()


def density_from_state(state: Mapping[str, Tensor]) -> Density:
    """Build a fitted density from a `state()` of any kind, told apart by the names of the tensors.

    Raises:
        ValueError: the names are of no kind.
    """
    for density in KINDS.values():
        if set(state) == set(density.names):
            return density.from_state(state)
    required = " or ".join(f"{kind} ({', '.join(density.names)})" for kind, density in KINDS.items())
    raise ValueError(f"density_from_state: tensors of {required} required, got {_listed(state)}")


def _listed(state: Mapping[str, Tensor]) -> str:
    return ", ".join(state) if state else "none"
