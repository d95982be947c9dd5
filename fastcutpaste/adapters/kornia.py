"""Kornia: the patch transforms as steps of an `AugmentationSequential`.

    steps = [RandomHorizontalFlip(), KorniaAugmentation(CutPaste()), Normalize(mean, std)]
    augment = AugmentationSequential(*steps, data_keys=["input", "mask"])
    images, mask = augment(images, torch.zeros_like(images[:, :1]))

The host decides which images get a patch, keeps the drawn numbers in `_params` and replays them; this page draws and
places, and pastes with the same op as everywhere else.
"""

from typing import Any

import torch
from torch import Tensor

from fastcutpaste.op.paste import paste
from fastcutpaste.op.placement import uniform
from fastcutpaste.transforms.defect import Maker, augmented
from fastcutpaste.transforms.patch import PatchTransform

OLDEST = "0.8"  # kornia whose hooks `generate_parameters`, `apply_transform` and `apply_transform_mask` are used below

try:
    import kornia
    from kornia.augmentation import IntensityAugmentationBase2D
except ImportError as error:
    raise ImportError(
        f"fastcutpaste.adapters.kornia: kornia {OLDEST} or newer required, got {error}: pip install 'kornia>={OLDEST}'"
    ) from error
if [int(number) for number in kornia.__version__.split(".")[:2]] < [int(number) for number in OLDEST.split(".")]:
    raise ImportError(
        f"fastcutpaste.adapters.kornia: kornia {OLDEST} or newer required, got {kornia.__version__}: "
        f"pip install 'kornia>={OLDEST}'"
    )

Params = dict[str, Tensor]


class KorniaAugmentation(IntensityAugmentationBase2D):  # type: ignore[misc]  # kornia's types are not read
    """Make a kornia augmentation out of CutPaste, CutPasteScar, Cutout, Scar, OneOf or a `Defect`.

    Each image (C, H, W) of the batch gets its own patch. Under the data key "mask" a mask comes back with the pasted
    pixels set in every channel and all others as they were (a list of masks needs kornia 0.9); boxes, key points and
    labels pass through. Images are floating point 0–1, so put it before `Normalize`: that an image was normalized
    cannot be seen.

    The drawn numbers are in `_params["draws"]` (B, numbers), uniform in [0, 1), one row for each image.
    `augment(other_images, params=augment._params)` pastes at the same places of other images. Numbers come from torch's
    default generator of the images' device when the augmentation is called by itself. A container draws before it hands
    over any image, on the device the augmentation was moved to: `AugmentationSequential(...).to("cuda")`, else the CPU,
    as kornia does, from where they are carried over without waiting.

    Args:
        patch_transform: what to paste and where, a `Defect` or `Mixture`, too, whose masks follow their images: "input"
            before "mask" among the data keys. Its own `p` counts too: 0.5 here and 0.5 there make a quarter.
        p: share of the images that get a patch, 0 to 1.
        same_on_batch: whether all images of a batch get a patch of the same size, place and color change.
        keepdim: whether (C, H, W) comes back as (C, H, W) instead of (1, C, H, W).
        mask_value: what pasted pixels are in masks: 1 for masks of 0 and 1, 255 for masks of 0 and 255, a class for
            masks of classes.

    Raises:
        TypeError: no patch transform; in use, images that are not floating point, or masks with `OnForeground`, whose
            places depend on the image: it augments images alone.
        ValueError: p out of bounds; in use, images of another shape.

    Cost: one paste of the batch. With kornia 0.9, images that p leaves out
        are pasted into and then dropped, as in kornia's own augmentations.
    """

    def __init__(
        self,
        patch_transform: PatchTransform | Maker,
        p: float = 1.0,
        same_on_batch: bool = False,
        keepdim: bool = False,
        mask_value: float = 1.0,
    ) -> None:
        if not isinstance(patch_transform, PatchTransform | Maker):
            came = type(patch_transform).__name__
            raise TypeError(f"KorniaAugmentation: a transform that pastes a patch required, got {came}")
        if not 0 <= p <= 1:
            raise ValueError(f"KorniaAugmentation: p from 0 to 1 required, got {p}")
        super().__init__(p=p, same_on_batch=same_on_batch, keepdim=keepdim)
        self.patch_transform, self.mask_value = patch_transform, mask_value
        self._made: tuple[Tensor, Tensor] | None = None  # draws and masks of the last defects

    def forward(self, input: Tensor, params: Params | None = None, **kwargs: Any) -> Tensor:
        """Augment images (B, C, H, W), (C, H, W) or (H, W), with new numbers or those of `params`."""
        if params is None and isinstance(input, Tensor):
            self.set_rng_device_and_dtype(input.device, self.dtype)
        augmented: Tensor = super().forward(input, params, **kwargs)
        return augmented

    def generate_parameters(self, batch_shape: tuple[int, ...]) -> Params:
        """Draw the numbers of a batch of shape (B, C, H, W)."""
        rows = 1 if self.same_on_batch else batch_shape[0]
        draws = uniform((rows, self.patch_transform.numbers), self.device or "cpu")
        return {"draws": draws.expand(batch_shape[0], -1)}

    def apply_transform(
        self, input: Tensor, params: Params, flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Paste into images (B, C, H, W) what the params say."""
        draws = params["draws"].to(input.device, non_blocking=True)
        made = augmented(self.patch_transform, input, draws=draws)
        if isinstance(self.patch_transform, Maker):  # whose masks depend on images, which masks come without
            self._made = params["draws"], made.mask
        return made.images

    def apply_transform_mask(
        self, input: Tensor, params: Params, flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        """Set the pasted pixels of masks (B, C, H, W)."""
        if isinstance(self.patch_transform, Maker):
            drawn, pasted = self._made or (None, input)
            if drawn is None or not torch.equal(drawn, params["draws"]):  # a container hands over copies
                raise TypeError("KorniaAugmentation: the images before their masks required, got masks first")
            return torch.where(pasted.to(input.device), self.mask_value, input)
        draws = params["draws"].to(input.device, non_blocking=True)
        patches = self.patch_transform.patches(draws, input.shape[-2], input.shape[-1])
        pasted = paste(input[:, :1], patches._replace(jitter=None, feather=None)).mask  # (B, 1, H, W)
        return torch.where(pasted, self.mask_value, input)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        # Only from some version after 0.8.0 on does kornia draw where .to(), .cuda() or a container's .to() moved it.
        moved = super()._apply(fn, recurse)
        self.set_rng_device_and_dtype(fn(torch.empty(0, device=self.device or "cpu")).device, self.dtype)
        return moved

    def __repr__(self) -> str:
        settings = f"p={self.p}, same_on_batch={self.same_on_batch}, keepdim={self.keepdim}"
        return f"{type(self).__name__}({self.patch_transform!r}, {settings}, mask_value={self.mask_value})"
