"""Densities of normal features: fitted once on features of normal images, then asked how unlikely new ones are.

The kinds share one shape: `fit(features (..., D), or batches of them)`, `score(features (..., D)) -> (...)` with higher
meaning more anomalous, `state()` and `from_state()` as a flat dict of tensors, and `to(device)`.
"""

from collections.abc import Mapping
from typing import TypeAlias

from torch import Tensor

from fastcutpaste.scoring.fitted import listed
from fastcutpaste.scoring.gaussian import GaussianDensity, LocationDensity
from fastcutpaste.scoring.memory import KernelDensity, NearestDensity

__all__ = ["Density", "GaussianDensity", "KernelDensity", "LocationDensity", "NearestDensity", "density_from_state"]
__all__ += ["make_density"]

KERNEL_MEMORY = 10_000  # rows that a kernel density made by name keeps

Density: TypeAlias = GaussianDensity | KernelDensity | NearestDensity | LocationDensity

KINDS: dict[str, type[GaussianDensity] | type[KernelDensity] | type[NearestDensity] | type[LocationDensity]] = {
    "gaussian": GaussianDensity,
    "kernel": KernelDensity,
    "nearest": NearestDensity,
    "location": LocationDensity,
}


def make_density(kind: str) -> Density:
    """Build an unfitted density: "gaussian", "kernel" (of at most 10,000 rows), "nearest" or "location".

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
    raise ValueError(f"density_from_state: tensors of {required} required, got {listed(state)}")
