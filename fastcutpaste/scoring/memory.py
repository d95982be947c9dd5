"""Densities that remember normal features: a kernel on each that is kept, or the distance to the nearest."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor

from fastcutpaste.networks.pooling import is_exported
from fastcutpaste.scoring.covariance import row_batches
from fastcutpaste.scoring.fitted import Fitted

if TYPE_CHECKING:  # typing has Self from Python 3.11 on; nothing reads the annotation at run time
    from typing import Self

_ENTRIES = 2**24  # distances held at a time while scoring: 64 MiB of float32


class KernelDensity(Fitted):
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
        rows = _sampled("KernelDensity", features, self.memory, generator)
        variances, center = torch.var_mean(rows, dim=0, correction=0)  # (D,)
        _check_differing("KernelDensity", variances, center, len(rows))
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
            for part in _parts(rows, len(kept)):
                # -γ |z - r|² - log M = -γ |z|² + (2γ z·r + offset), r a kept row
                logits = torch.nn.functional.linear(2 * gamma * part, kept, state["offset"])  # (n, M)
                scores.append(part.square().sum(1) - logits.logsumexp(1) / gamma)
        return torch.cat(scores).reshape(features.shape[:-1])  # (n,) -> (...)


class NearestDensity(Fitted):
    """The distance to the nearest of some features that are spread over all normal ones.

    The kept features are a coreset: each next one is the feature farthest from those already kept, so that what is
    rare but normal is remembered as well as what is frequent.

    Args:
        memory: most features to keep, at least 2.
        candidates: most features they are chosen from, drawn at random, at least `memory`.

    Raises:
        ValueError: numbers out of bounds.

    Source: Roth et al., "Towards Total Recall in Industrial Anomaly Detection" (PatchCore), CVPR 2022; the choice is
        the greedy one of Gonzalez 1985, on features projected at random to 64 dimensions.
    """

    kind: ClassVar[Literal["nearest"]] = "nearest"
    names = ("kept", "middle")

    def __init__(self, memory: int = 3_000, candidates: int = 20_000) -> None:
        super().__init__()
        if not 2 <= memory <= candidates:
            raise ValueError(f"NearestDensity: memory of 2 to candidates ({candidates}) required, got {memory}")
        self.memory, self.candidates = memory, candidates

    def fit(self, features: Tensor | Iterable[Tensor], *, generator: torch.Generator | None = None) -> "Self":
        """Choose which of the features (..., D), or of batches of them, to keep.

        Args:
            features: (..., D), any floating dtype, at least 2 rows, finite, not all equal; or batches of such, of
                which no more than the candidates and one batch are held.
            generator: on the CPU, draws candidates and projection; None: the same ones every time.

        Raises:
            TypeError: features are not floating point.
            ValueError: fewer than 2 rows, rows that are not finite, rows that are all equal.

        Cost: memory · candidates · 64 multiply-adds, one kept feature after another.
        """
        generator = torch.Generator().manual_seed(0) if generator is None else generator
        rows = _sampled("NearestDensity", features, self.candidates, generator)
        variances, middle = torch.var_mean(rows, dim=0, correction=0)  # (D,)
        _check_differing("NearestDensity", variances, middle, len(rows))
        rows = rows - middle
        kept = rows[_spread_out(rows, min(self.memory, len(rows)), generator)]
        self._tensors = {"kept": kept.contiguous(), "middle": middle}
        return self

    def score(self, features: Tensor) -> Tensor:
        """Compute the distance of each feature to the nearest kept one.

        Args:
            features: (..., D), floating, on the density's device.

        Returns:
            (...) float32, >= 0; differentiable but where it is 0.

        Raises:
            RuntimeError: not fitted.
            TypeError: features are not floating point.
            ValueError: features of another width or on another device.

        Cost:
            M·D float32 multiply-adds a feature for M kept ones; 64 MiB of distances at a time.
        """
        state = self._checked(features, "middle")
        kept = state["kept"]
        rows = (features.float() - state["middle"]).reshape(-1, features.shape[-1])  # (..., D) -> (n, D)
        squares = []
        with torch.autocast(features.device.type, enabled=False):
            for part in _parts(rows, len(kept)):
                # |z - r|² = |z|² + (|r|² - 2 z·r), r a kept row
                offsets = torch.nn.functional.linear(-2 * part, kept, kept.square().sum(1))  # (n, M)
                squares.append(part.square().sum(1) + offsets.amin(1))
        return torch.cat(squares).clamp(min=0).sqrt().reshape(features.shape[:-1])  # (n,) -> (...)


def _parts(rows: Tensor, kept: int) -> Sequence[Tensor]:
    """Split rows (n, D) that are measured against `kept` others; an exported graph, whose n is open, takes all."""
    return (rows,) if is_exported() else torch.split(rows, max(1, _ENTRIES // kept))


def _sampled(
    who: str, features: Tensor | Iterable[Tensor], most: int | None, generator: torch.Generator | None
) -> Tensor:
    """Give at most `most` rows (n, D) of features, float32, drawn without replacement; n at least 2."""
    generator = torch.Generator().manual_seed(0) if generator is None else generator
    rows, keys = torch.empty(0), torch.empty(0)
    for batch in row_batches(who, features):
        rows = torch.cat([rows.to(batch), batch]) if len(rows) else batch
        if most is not None:  # every row draws a key, and the smallest keys stay: any rows as likely
            drawn = torch.rand(len(batch), generator=generator, device=generator.device)
            keys = torch.cat([keys, drawn.cpu()])
            if len(rows) > most:
                kept = keys.topk(most, largest=False).indices.sort().values
                rows, keys = rows[kept.to(rows.device)], keys[kept]
    if len(rows) < 2:
        raise ValueError(f"{who}: at least 2 rows of features required, got {len(rows)}")
    return rows.float()


def _check_differing(who: str, variances: Tensor, mean: Tensor, count: int) -> None:
    if variances.mean() <= torch.finfo(torch.float32).eps ** 2 * mean.square().mean():
        raise ValueError(f"{who}: features that differ between rows required, got {count} equal rows")


def _spread_out(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Choose `count` of the rows (N, D), each the farthest from those before it: indices (count,), no host sync."""
    width = min(64, rows.shape[1])
    projection = torch.randn(rows.shape[1], width, generator=generator).to(rows.device)
    points = rows if width == rows.shape[1] else rows @ projection  # (N, width)
    chosen = torch.zeros(count, dtype=torch.int64, device=rows.device)
    distance = torch.full((len(rows),), torch.inf, device=rows.device)
    # Written over each time: thousands of fresh ones, and between them the indices that stayed, once left so many holes
    # in the heap that a process took 14 GB; and it took 2.0 s for 3,000 of 20,000 where it takes 1.1.
    offsets, squares = torch.empty_like(points), torch.empty_like(distance)
    for i in range(1, count):
        torch.sub(points, points[chosen[i - 1 : i]], out=offsets)
        torch.sum(offsets.square_(), 1, out=squares)
        torch.minimum(distance, squares, out=distance)
        chosen[i] = distance.argmax()
    return chosen
