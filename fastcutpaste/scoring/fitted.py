"""What every density has in common: tensors that were fitted, checked, moved, saved and read."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

if TYPE_CHECKING:  # typing has Self from Python 3.11 on; nothing reads the annotation at run time
    from typing import Self


class Fitted:
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
            raise ValueError(f"{cls.__name__}: tensors {', '.join(cls.names)} required, got {listed(state)}")
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


def listed(state: Mapping[str, Tensor]) -> str:
    """Name the tensors of a state."""
    return ", ".join(state) if state else "none"
