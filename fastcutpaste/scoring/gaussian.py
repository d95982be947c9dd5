"""Gaussians of normal features, their covariance shrunk by Ledoit-Wolf: one for all places, or one a place."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor

from fastcutpaste.scoring.covariance import SHRINKAGE_FLOOR, ledoit_wolf, row_batches
from fastcutpaste.scoring.fitted import Fitted

if TYPE_CHECKING:  # typing has Self from Python 3.11 on; nothing reads the annotation at run time
    from typing import Self


class GaussianDensity(Fitted):
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


class LocationDensity(Fitted):
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
