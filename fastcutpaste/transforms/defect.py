"""Defects: any mask, filled with anything, blended in any way, for a whole batch at once."""

from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from fastcutpaste.op.blends import jittered, soft_label
from fastcutpaste.op.checks import check_images, check_values, touches_little
from fastcutpaste.op.color import JitterStrength, place_jitter
from fastcutpaste.op.paste import HAS_TRITON, Pasted
from fastcutpaste.op.spots import blend_spots, filled
from fastcutpaste.transforms.blends import Blend
from fastcutpaste.transforms.fills import Fill
from fastcutpaste.transforms.masks import Mask, masked
from fastcutpaste.transforms.ruled import check_augments, drawn

# Operations and reads from which on Inductor keeps a result in memory. It costs a launch and bytes, where computing it
# again costs neither: with its own numbers (30 and 4) `draem` takes four launches more, with 60 `memseg` two.
_COMPUTED_AGAIN = {"realize_opcount_threshold": 120, "realize_reads_threshold": 120}


class Made(NamedTuple):
    """Hold images with defects, and all that is known of these.

    Attributes:
        images: (B, C, H, W), as they came but for the mask.
        mask: (B, 1, H, W) bool.
        soft: (B, 1, H, W) float32, 0 to 1, how much each pixel changed: see `soft_label`.
        kind: (B,) int64, which defect: 0, none, where the mask is empty; else counted from 1.
    """

    images: Tensor
    mask: Tensor
    soft: Tensor
    kind: Tensor


class Maker(nn.Module):
    """Make defects of draws: the common part of the two below, which define `make`."""

    numbers: int
    _compiled: Callable[..., Made] | None = None

    def make(self, images: Tensor, draws: Tensor, soft: bool = True, only: Tensor | None = None) -> Made:
        """Do what `augment` does with checked images and draws, in some images (B,) bool alone if they are given.

        Without `soft` the soft labels are not made: an empty tensor comes in their place.
        """
        raise TypeError(f"{type(self).__name__}: a subclass that defines make() required")

    def augment(
        self,
        images: Tensor,
        generator: torch.Generator | None = None,
        draws: Tensor | None = None,
        soft: bool = True,
    ) -> Made:
        """Give images with defects, and where and what they are.

        Args:
            images: (B, C, H, W), uint8 0–255 or floating point 0–1, never written.
            generator: source of randomness on the images' device; the device's default generator if None.
            draws: (B, numbers) uniform in [0, 1), to be used instead of drawing: the same draws, the same defects.
            soft: whether soft labels are wanted; without, an empty tensor comes in their place.

        Raises:
            TypeError: images neither uint8 nor floating point.
            ValueError: images or draws of another shape; on a CPU, images that are normalized already.

        Cost: no loop over B and no host sync on a GPU, where the first call with a shape compiles, for a minute. On a
            CPU in eager mode only masked pixels are filled and blended.
        """
        draws = drawn(self, images, generator, draws)
        check_values(type(self).__name__, images)
        with torch.autocast(images.device.type, enabled=False):  # a training's: places are no matter of bfloat16
            return self._made(images, draws, soft)

    def forward(self, images: Tensor, generator: torch.Generator | None = None, draws: Tensor | None = None) -> Tensor:
        """Give the images (B, C, H, W) of `augment`."""
        return self.augment(images, generator, draws, soft=False).images

    def _made(self, images: Tensor, draws: Tensor, soft: bool) -> Made:
        return self._run(self.make, images, draws, soft)

    def _run(self, make: Callable[..., Made], images: Tensor, *others: Any) -> Made:
        """Call what makes defects, the same at each call, on a GPU compiled."""
        if torch.compiler.is_compiling() or images.device.type != "cuda" or not HAS_TRITON:
            return make(images, *others)
        self.to(images.device)  # textures, where they are not there yet
        if self._compiled is None:
            # Each compiles on its own: of one function torch keeps eight versions, and recipes are more.
            alone = "isolate_recompiles" in signature(torch.compile).parameters
            own: Any = {"options": _COMPUTED_AGAIN} | ({"isolate_recompiles": True} if alone else {})
            self._compiled = torch.compile(make, **own)
        return self._compiled(images, *others)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_compiled"}  # no copy of it works


class Defect(Maker):
    """Put a defect into each image: a mask × a fill × a blend.

    Args:
        mask: where, such as `Perlin()`.
        fill: what with, such as `Other()`.
        blend: how, such as `Transparent()`.
        p: share of the images that get one; the others come back unchanged, of kind 0.
        jitter: largest change of brightness, contrast, saturation and hue of the fill.

    An empty mask, as `Perlin` gives some, leaves its image as it is, of kind 0. So does `Poisson` with a mask too small
    or thin for it, which then comes back empty.
    """

    def __init__(self, mask: Mask, fill: Fill, blend: Blend, p: float = 1.0, jitter: JitterStrength = 0.0) -> None:
        super().__init__()
        for slot, part, kind in (("mask", mask, Mask), ("fill", fill, Fill), ("blend", blend, Blend)):
            if not isinstance(part, kind):
                raise TypeError(f"Defect: a {slot} of transforms.{slot}s required, got {type(part).__name__}")
        if not 0 <= p <= 1:
            raise ValueError(f"Defect: p from 0 to 1 required, got {p}")
        place_jitter((0.5,) * 5, jitter)
        self.mask, self.fill, self.blend, self.p, self.jitter = mask, fill, blend, p, jitter
        self.counts = [6, mask.numbers, fill.numbers, blend.numbers]
        self.numbers = sum(self.counts)

    def make(self, images: Tensor, draws: Tensor, soft: bool = True, only: Tensor | None = None) -> Made:
        self.fill.check(images)
        own, for_mask, for_fill, for_blend = torch.split(draws, self.counts, dim=1)
        if self.p < 1:
            only = own[:, 0] < self.p if only is None else only & (own[:, 0] < self.p)
        mask = masked(self.mask, images, for_mask, only)
        jitter = place_jitter(own[:, 1:].T, self.jitter)
        share = self.blend.share(mask, for_blend)
        kind = torch.ones_like(own[:, 0], dtype=torch.int64)
        packed = partial(self.fill.packed, images, for_fill)
        little = touches_little(images, *self.parameters())
        if little and share is not None:
            return _told(images, blend_spots(images, mask, packed, share, jitter), mask, kind, soft)
        if little:
            fill = filled(images, mask, packed, jitter)
        else:
            fill = self.fill(images, for_fill)
            fill = fill.to(images.dtype) if jitter is None else jittered(fill, mask, jitter, images.dtype)
        result = self.blend(images, fill, mask, for_blend)
        if share is None:  # of small masks gradients leave nothing
            mask = mask & _differ(images, result).view(-1, 1, 1, 1)
        return _told(images, result, mask, kind, soft)


class Mixture(Maker):
    """Put one of several defects into each image, drawn anew with equal chance; `kind` says which.

    Args:
        transforms: `Defect`, or anything else whose `augment(images, draws=…)` gives images and mask and that says how
            many `numbers` an image takes, such as `CutPaste` and `Confetti`; one alone is fine, too.

    Cost: each makes its defects for the whole batch, of which the drawn ones are taken.
    """

    def __init__(self, *transforms: nn.Module) -> None:
        super().__init__()
        if not transforms:
            raise ValueError("Mixture: at least one transform required, got 0")
        for transform in transforms:
            check_augments("Mixture", transform)
        self.transforms = nn.ModuleList(transforms)
        most = max(int(transform.numbers) for transform in transforms)  # type: ignore[arg-type]
        self.numbers = most + (len(transforms) > 1)

    @property
    def _alone(self) -> nn.Module | None:
        """Give the one transform whose own kernels do all: compiled around these an H100 took ten times as long."""
        several = len(self.transforms) > 1 or isinstance(self.transforms[0], Maker)
        return None if several else self.transforms[0]

    def forward(self, images: Tensor, generator: torch.Generator | None = None, draws: Tensor | None = None) -> Tensor:
        if self._alone is None:
            return super().forward(images, generator, draws)
        check_images(type(self).__name__, images)
        check_values(type(self).__name__, images)  # as `augment` does: a plain color has no need of it
        result: Tensor = self._alone(images, generator, draws)
        return result

    def _made(self, images: Tensor, draws: Tensor, soft: bool) -> Made:
        if self._alone is None:
            return super()._made(images, draws, soft)
        pasted, mask = augmented(self._alone, images, draws=draws)[:2]
        kind = torch.ones(len(images), dtype=torch.int64, device=images.device)
        return self._run(_told, images, pasted, mask, kind, soft)

    def make(self, images: Tensor, draws: Tensor, soft: bool = True, only: Tensor | None = None) -> Made:
        several = len(self.transforms) > 1
        kind = torch.ones(len(images), dtype=torch.int64, device=images.device)
        kind = kind + (draws[:, 0] * len(self.transforms)).long() if several else kind
        result, mask = images, torch.zeros_like(images[:, :1], dtype=torch.bool)
        for i, transform in enumerate(self.transforms, start=1):
            part = draws[:, several : several + int(transform.numbers)]  # type: ignore[arg-type]
            chosen = kind == i if only is None else (kind == i) & only
            made: Made | Pasted = (
                transform.make(images, part, False, chosen)
                if isinstance(transform, Maker)
                else augmented(transform, images, draws=part)
            )
            if not several and only is None:
                result, mask = made.images, made.mask
            else:
                chosen = chosen.view(-1, 1, 1, 1)
                result, mask = torch.where(chosen, made.images, result), torch.where(chosen, made.mask, mask)
        return _told(images, result, mask, kind, soft)


def _told(images: Tensor, result: Tensor, mask: Tensor, kind: Tensor, soft: bool) -> Made:
    labels = soft_label(images, result, mask) if soft else torch.empty(0, dtype=torch.float32, device=images.device)
    return Made(result, mask, labels, kind * _any(mask))


def _differ(images: Tensor, others: Tensor) -> Tensor:
    """Tell which images (B,) are not equal to others of the same shape."""
    if not touches_little(images, others):
        return _any(images != others)
    pairs = zip(images.numpy(), others.numpy(), strict=True)  # NumPy compares in a tenth of torch's time
    return torch.from_numpy(np.array([not np.array_equal(one, other) for one, other in pairs], bool))


def _any(marked: Tensor) -> Tensor:
    """Tell of which images (B,) anything is marked, (B, C, H, W) bool."""
    if touches_little(marked):
        return marked.view(torch.uint8).amax((1, 2, 3)) > 0  # a hundredth of the time that a sum takes
    return marked.sum((1, 2, 3), keepdim=True).flatten() > 0  # as `jittered` has it: one launch does for both


def augmented(
    transform: nn.Module, images: Tensor, generator: torch.Generator | None = None, draws: Tensor | None = None
) -> Made | Pasted:
    """Do what `augment` of any transform does, without soft labels."""
    if isinstance(transform, Maker):
        return transform.augment(images, generator, draws, soft=False)
    pasted: Pasted = transform.augment(images, generator, draws)  # type: ignore[operator]
    return pasted
