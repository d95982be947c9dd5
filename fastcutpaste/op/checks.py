"""What every op asks of its arguments before any work: of shapes and Python numbers, on a CPU a glance at values."""

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.autograd.forward_ad import unpack_dual

_NUMPY_TYPES = (torch.bool, torch.uint8, torch.float32, torch.float64)
Range = tuple[float, float]
_LOWEST, _HIGHEST = -0.5, 1.5  # a resize that sharpens goes beyond 0–1, and so does noise, but not so far


def check_images(who: str, images: Tensor) -> None:
    """Raise unless images are a (B, C, H, W) tensor, uint8 or floating point, with at least one pixel each."""
    if not isinstance(images, Tensor):
        raise TypeError(f"{who}: images as a tensor required, got {type(images).__name__}")
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise TypeError(f"{who}: images of dtype uint8 (0–255) or floating point (0–1) required, got {images.dtype}")
    if images.ndim != 4 or 0 in images.shape[1:]:
        raise ValueError(f"{who}: images of shape (B, C, H, W) required, got {tuple(images.shape)}")


def check_values(who: str, images: Tensor) -> None:
    """Raise if floating-point images (B, C, H, W) on a CPU are plainly not of 0–1: normalized already, or 0–255.

    A GPU would have to be waited for, and what is compiled stopped, so there nobody looks.

    Cost: every eighth pixel of every eighth row is read: 0.12 ms for 32 float32 images of 3 × 256² on one core.
    """
    if images.device.type != "cpu" or not images.is_floating_point() or torch.compiler.is_compiling():
        return
    some = images.detach()[..., ::8, ::8]
    if not some.numel():
        return
    low, high = (float(value) for value in some.aminmax())
    if low < _LOWEST or high > _HIGHEST:
        raise ValueError(f"{who}: images of floating point 0–1 required, got values from {low:.3g} to {high:.3g}; "
                         "augment or score images first, and normalize them after, or not at all")  # fmt: skip


def check_range(who: str, name: str, values: Range, lowest: float, highest: float) -> None:
    """Raise unless values are two numbers with lowest <= values[0] <= values[1] <= highest."""
    if not isinstance(values, tuple | list) or len(values) != 2:
        raise TypeError(f"{who}: {name} as two numbers (low, high) required, got {values!r}")
    if not lowest <= values[0] <= values[1] <= highest:
        raise ValueError(f"{who}: {name} with {lowest:g} <= low <= high <= {highest:g} required, got {tuple(values)}")


def memory_format_of(images: Tensor) -> torch.memory_format:
    """Tell whether images (B, C, H, W) lie in memory as channels_last or contiguous."""
    channels_last = images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()
    return torch.channels_last if channels_last else torch.contiguous_format


def touches_little(images: Tensor, *others: Tensor | None) -> bool:
    """Tell whether few pixels shall be computed, not all: on a CPU, in eager mode, of types that NumPy is fast in.

    Not where a gradient is asked for.
    """
    known = images.device.type == "cpu" and images.dtype in _NUMPY_TYPES
    return known and not torch.compiler.is_compiling() and not followed(images, *others)


def followed(*tensors: Tensor | None) -> bool:
    """Tell whether a gradient of what becomes of tensors is asked for: backward, forward or by `torch.func`."""
    given = [each for each in tensors if each is not None]
    if torch.compiler.is_compiling() or any(each.requires_grad for each in given):
        return any(each.requires_grad for each in given)
    return any(is_functorch_wrapped_tensor(each) or unpack_dual(each).tangent is not None for each in given)  # type: ignore[no-untyped-call]
