"""Torchvision: the patch transforms as steps of a `torchvision.transforms.v2` pipeline.

    pipeline = v2.Compose([v2.RandomResizedCrop(224), V2Transform(CutPaste()), v2.ToDtype(torch.float32, scale=True)])

The host decides what of a sample is an image, and walks dicts, tuples and lists; this page draws one patch per image
of the sample and pastes it with the same op as everywhere else.
"""

import math
from typing import Any

import torch
from torch import Tensor

from fastcutpaste.op.checks import check_images
from fastcutpaste.op.placement import uniform
from fastcutpaste.transforms.defect import Maker, augmented
from fastcutpaste.transforms.patch import PatchTransform

OLDEST = "0.24"  # torchvision whose hooks `make_params` and `transform`, and whose types, are those used below

try:
    import PIL.Image
    import torchvision
    from torchvision import tv_tensors
    from torchvision.transforms import v2
except ImportError as error:
    raise ImportError(
        f"fastcutpaste.adapters.torchvision: torchvision {OLDEST} or newer required, got {error}: "
        f"pip install 'torchvision>={OLDEST}'"
    ) from error
if [int(number) for number in torchvision.__version__.split(".")[:2]] < [int(number) for number in OLDEST.split(".")]:
    raise ImportError(
        f"fastcutpaste.adapters.torchvision: torchvision {OLDEST} or newer required, got {torchvision.__version__}: "
        f"pip install 'torchvision>={OLDEST}'"
    )


class V2Transform(v2.Transform):  # type: ignore[misc]  # torchvision has no types
    """Make a step of a torchvision v2 pipeline out of CutPaste, CutPasteScar, Cutout, Scar, OneOf or a `Defect`.

    Images of a sample are, as everywhere in v2, each PIL image and `tv_tensors.Image`; where there is none, the first
    plain tensor. A `tv_tensors.Mask` comes back with the pasted pixels marked, so that `mask.any()` tells whether there
    are any; an empty mask put into the sample comes back as the mask of the pasted pixels. Everything else, labels,
    boxes and key points included, passes through. No input is written.

    A batch gets one patch per image, where v2's own transforms share one. Several images of one sample, such as two
    views of a part, get the same patch. Randomness is that of torch's default generator: `torch.manual_seed` repeats
    it, and each worker of a DataLoader has its own.

    Args:
        patch_transform: what to paste and where, a `Defect` or `Mixture`, too; its `p` is the share of the images that
            get a patch. What takes other images of the batch needs a batch.
        mask_value: what pasted pixels are in masks that are not bool, 1 to 255, whatever they were before: 1 for
            masks of 0 and 1, 255 for masks of 0 and 255, a class for masks of classes. Bool masks get True.

    Raises:
        TypeError: no patch transform; in use, a sample without image, or an image neither uint8 0–255 nor floating
            point 0–1. Put the step before `v2.Normalize`: that an image was normalized cannot be seen.
        ValueError: a mask_value out of bounds; in use, a PIL image neither "L" nor "RGB", images of different sizes in
            one sample, or a mask whose shape is not the image's without channels, or with one.
    """

    def __init__(self, patch_transform: PatchTransform | Maker, *, mask_value: int = 1) -> None:
        super().__init__()
        if not isinstance(patch_transform, PatchTransform | Maker):
            came = type(patch_transform).__name__
            raise TypeError(f"V2Transform: a patch transform such as CutPaste() required, got {came}")
        if not 1 <= mask_value <= 255:
            raise ValueError(f"V2Transform: mask_value from 1 to 255 required, got {mask_value}")
        self.patch_transform, self.mask_value = patch_transform, mask_value

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the patches of a sample and paste them: v2 calls this once, with all the images and masks.

        Returns:
            "images": the pasted image by the id of the given one, because masks may come before the images whose patch
            they show; "mask": bool (..., 1, H, W), of what was pasted into any of them: on objects places differ.
        """
        found = [item for item in flat_inputs if _is_image(item)]
        masks = [item for item in flat_inputs if isinstance(item, tv_tensors.Mask)]
        images = [_to_tensor(item) for item in found]
        _check(images, masks, flat_inputs)
        leading, size = images[0].shape[:-3], images[0].shape[-2:]
        numbers = (math.prod(leading), self.patch_transform.numbers)
        draws = uniform(numbers, images[0].device)  # the same for all images of a sample
        results: dict[int, Tensor] = {}
        mask = torch.zeros(numbers[0], 1, *size, dtype=torch.bool, device=draws.device)
        for item, image in zip(found, images, strict=True):
            batch = image.flatten(0, -4) if image.ndim > 3 else image[None]  # (..., C, H, W) → (B, C, H, W)
            pasted, marked = augmented(self.patch_transform, batch, draws=draws.to(batch.device))[:2]
            results[id(item)], mask = pasted.reshape(image.shape), mask | marked.to(mask.device)
        return {"images": results, "mask": mask.reshape(*leading, 1, *size)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Give the image or mask with the patch, of the type it came as; v2 calls this for each part of a sample."""
        if isinstance(inpt, tv_tensors.Mask):
            marked = inpt.as_subclass(Tensor).masked_fill(params["mask"].reshape(inpt.shape), self.mask_value)
            return tv_tensors.wrap(marked, like=inpt)
        if not _is_image(inpt):
            return inpt
        image = params["images"][id(inpt)]
        if isinstance(inpt, PIL.Image.Image):
            return v2.functional.to_pil_image(image)
        return tv_tensors.wrap(image, like=inpt) if isinstance(inpt, tv_tensors.Image) else image


def _is_image(item: Any) -> bool:
    return isinstance(item, PIL.Image.Image | tv_tensors.Image) or v2.functional.is_pure_tensor(item)


def _to_tensor(image: Any) -> Tensor:
    """Give a PIL image, uint8, or a tensor of any kind as a plain tensor (..., C, H, W)."""
    if isinstance(image, PIL.Image.Image):
        if image.mode not in ("L", "RGB"):  # of a palette's numbers, or with transparency, jitter makes no sense
            raise ValueError(f"V2Transform: PIL images of mode L or RGB required, got {image.mode}: image.convert(…)")
        tensor: Tensor = v2.functional.pil_to_tensor(image)  # (C, H, W)
        return tensor
    plain: Tensor = image.as_subclass(Tensor)  # tv_tensors dispatch each operation in Python
    return plain


def _check(images: list[Tensor], masks: list[Tensor], sample: list[Any]) -> None:
    if not images:
        came = ", ".join(type(item).__name__ for item in sample) or "nothing that can be one"
        raise TypeError(f"V2Transform: an image (PIL, tv_tensors.Image or tensor) in the sample required, got {came}")
    for image in images:
        if image.ndim < 3:
            raise ValueError(
                f"V2Transform: an image of shape (…, C, H, W) required, got {tuple(image.shape)}; "
                "wrap the image in tv_tensors.Image where another tensor comes before it in the sample"
            )
        check_images("V2Transform", image.flatten(0, -4) if image.ndim > 3 else image[None])  # (B, C, H, W)
    shapes = [(*image.shape[:-3], *image.shape[-2:]) for image in images]  # without channels
    if len(set(shapes)) > 1:
        came = " and ".join(map(str, sorted(set(shapes))))
        raise ValueError(f"V2Transform: images of one size in a sample required, got {came}")
    plain, one_channel = shapes[0], (*shapes[0][:-2], 1, *shapes[0][-2:])
    for mask in masks:
        if mask.shape not in (plain, one_channel):
            raise ValueError(f"V2Transform: a mask of shape {plain} or {one_channel} required, got {tuple(mask.shape)}")
