"""Transforms: they remember settings, call `functional` and keep nothing else."""

from typing import Literal

import torch
from torch import Tensor, nn

from fastcutpaste.checks import Range, check_images
from fastcutpaste.color import Jitter, JitterStrength, place_jitter
from fastcutpaste.functional import (
    DRAWS,
    AspectDistribution,
    Pasted,
    Patches,
    draw,
    paste,
    place_cutpaste,
    place_scar,
    translate,
    uniform,
)

Source = Literal["same", "other"]


class PatchTransform(nn.Module):
    """Paste one patch into each image of a batch: the common part of the transforms below.

    Subclasses say where (`place`) and, if it is not the image itself, with what (`fill`).

    Args:
        p: share of the images that get a patch, 0 to 1; the others come back unchanged, with an empty mask.
    """

    def __init__(self, p: float = 1.0) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"{type(self).__name__}: p from 0 to 1 required, got {p}")
        self.p = p

    def place(self, draws: Tensor, height: int, width: int) -> Patches:
        """Turn draws (B, DRAWS) into one patch per image of height × width pixels."""
        raise TypeError(f"{type(self).__name__}: a subclass that defines place() required")

    def fill(self, images: Tensor, generator: torch.Generator | None) -> Tensor | None:
        """Give what is pasted into images (B, C, H, W): None for the images themselves, or as `paste` takes it."""
        return None

    def choose(self, images: Tensor, generator: torch.Generator | None) -> tuple[Patches, Tensor | None]:
        """Draw and place the patches of a batch and give what fills them, for `paste`."""
        draws = draw(len(images), images.device, generator)
        patches = self.place(draws, images.shape[-2], images.shape[-1])
        if self.p < 1:
            patches = patches._replace(height=patches.height * (draws[:, 12] < self.p))
        return patches, self.fill(images, generator)

    def augment(self, images: Tensor, generator: torch.Generator | None = None) -> Pasted:
        """Augment images and tell where.

        Args:
            images: (B, C, H, W), uint8 0–255 or floating point 0–1, before any normalization; never written.
            generator: source of randomness on the images' device; the device's default generator if None.

        Returns:
            Images of the same shape, dtype, device and memory format, and a bool mask (B, 1, H, W).

        Raises:
            TypeError: images neither uint8 nor floating point.
            ValueError: images of another shape.
        """
        check_images(type(self).__name__, images)
        return paste(images, *self.choose(images, generator))

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Augment images (B, C, H, W); see `augment`, which gives the mask as well."""
        return self.augment(images, generator).images

    def extra_repr(self) -> str:
        settings = {k: v for k, v in vars(self).items() if not k.startswith("_") and k != "training"}
        return ", ".join(f"{name}={value!r}" for name, value in settings.items())


class CutPaste(PatchTransform):
    """Cut a rectangle out of each image and paste it, color-jittered, elsewhere in the same image.

    Args:
        area: smallest and largest patch area, fractions of the image.
        aspect: smallest and largest height : width of the patch.
        aspect_distribution: "log_uniform" or "two_uniforms", see `place_cutpaste`.
        jitter: largest change of brightness, contrast, saturation and hue of the patch.
        source: "same", the patch is cut from the image itself; "other", from its neighbour in the batch.
        p: share of the images that get a patch.

    Source: Li et al. 2021, App. A.2; the defaults are the paper's.
    """

    def __init__(
        self,
        area: Range = (0.02, 0.15),
        aspect: Range = (0.3, 3.3),
        aspect_distribution: AspectDistribution = "log_uniform",
        jitter: JitterStrength = 0.1,
        source: Source = "same",
        p: float = 1.0,
    ) -> None:
        super().__init__(p)
        self.area, self.aspect, self.aspect_distribution, self.jitter = area, aspect, aspect_distribution, jitter
        self.source = _checked_source(source)
        self.place(torch.empty(0, DRAWS), 1, 1)  # wrong settings fail here, not at the first batch

    def place(self, draws: Tensor, height: int, width: int) -> Patches:
        return place_cutpaste(
            draws,
            height,
            width,
            area=self.area,
            aspect=self.aspect,
            aspect_distribution=self.aspect_distribution,
            jitter=self.jitter,
        )

    def fill(self, images: Tensor, generator: torch.Generator | None) -> Tensor | None:
        return images.roll(1, 0) if self.source == "other" else None


class CutPasteScar(PatchTransform):
    """Cut a thin strip out of each image, turn it, jitter its color and paste it elsewhere in the same image.

    Args:
        scar_width: thinnest and thickest scar, pixels of an image whose shorter side is `reference`.
        scar_length: shortest and longest scar, the same pixels.
        rotation: smallest and largest angle, degrees.
        reference: image side those pixels refer to; None: pixels as they are, whatever the image's size.
        jitter: largest change of brightness, contrast, saturation and hue of the scar.
        source: "same", the scar is cut from the image itself; "other", from its neighbour in the batch.
        p: share of the images that get a scar.

    Source: Li et al. 2021, App. A.2; the defaults are the paper's.
    """

    def __init__(
        self,
        scar_width: Range = (2, 16),
        scar_length: Range = (10, 25),
        rotation: Range = (-45, 45),
        reference: int | None = 256,
        jitter: JitterStrength = 0.1,
        source: Source = "same",
        p: float = 1.0,
    ) -> None:
        super().__init__(p)
        self.scar_width, self.scar_length, self.rotation = scar_width, scar_length, rotation
        self.reference, self.jitter, self.source = reference, jitter, _checked_source(source)
        self.place(torch.empty(0, DRAWS), 1, 1)

    def place(self, draws: Tensor, height: int, width: int) -> Patches:
        return place_scar(
            draws,
            height,
            width,
            scar_width=self.scar_width,
            scar_length=self.scar_length,
            rotation=self.rotation,
            reference=self.reference,
            jitter=self.jitter,
        )

    def fill(self, images: Tensor, generator: torch.Generator | None) -> Tensor | None:
        return images.roll(1, 0) if self.source == "other" else None


class OneOf(PatchTransform):
    """Apply one of several patch transforms to each image, drawn anew with equal chance.

    `PretextTask(OneOf(CutPaste(), CutPasteScar()))` is the paper's binary union. Patches are chosen before anything
    is pasted, so it costs one paste whatever the number of transforms.
    """

    def __init__(self, *transforms: PatchTransform) -> None:
        super().__init__()
        if not transforms:
            raise ValueError("OneOf: at least one transform required, got 0")
        for transform in transforms:
            if not isinstance(transform, PatchTransform):
                raise TypeError(f"OneOf: transforms that paste a patch required, got {type(transform).__name__}")
        self.transforms = nn.ModuleList(transforms)

    def choose(self, images: Tensor, generator: torch.Generator | None) -> tuple[Patches, Tensor | None]:
        choice = uniform((len(images),), images.device, generator) * len(self.transforms)
        chosen = [transform.choose(images, generator) for transform in self.transforms]  # type: ignore[operator]
        jittered = any(patches.jitter is not None for patches, _ in chosen)
        filled = any(fill is not None for _, fill in chosen)
        result: tuple[Tensor, ...] = ()
        for i, (patches, fill) in enumerate(chosen):
            fields = [*patches[:-1], *(_jitter_of(patches) if jittered else ())]
            if filled:
                fields.append((images if fill is None else fill).expand_as(images))
            here = choice >= i
            result = tuple(
                torch.where(here.view(-1, *[1] * (new.ndim - 1)), new, old)
                for new, old in zip(fields, result or fields, strict=True)
            )
        jitter = Jitter._make(result[7:12]) if jittered else None
        return Patches._make([*result[:7], jitter]), result[-1] if filled else None


class BaseAugmentation(nn.Module):
    """Shift and color-jitter whole images: what every image gets before a pretext task looks at it.

    Args:
        shift: largest translation, as a fraction of each side; the border is mirrored, nothing black comes in.
        jitter: largest change of brightness, contrast, saturation and hue of the image.

    Source: Li et al. 2021, §3.1, "random translation and color jittering"; the magnitudes are not in the paper.
    """

    def __init__(self, shift: float = 0.05, jitter: JitterStrength = 0.1) -> None:
        super().__init__()
        if not 0 <= shift < 1:
            raise ValueError(f"BaseAugmentation: shift from 0 to below 1 required, got {shift}")
        self.shift, self.jitter = shift, jitter
        place_jitter(torch.empty(0, 5), jitter)

    def forward(self, images: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Augment images (B, C, H, W), uint8 0–255 or floating point 0–1; shape, dtype and format are kept."""
        check_images("BaseAugmentation", images)
        height, width = images.shape[-2:]
        draws = draw(len(images), images.device, generator)
        if self.shift:
            images = translate(images, (draws[:, :2] * 2 - 1) * self.shift)
        jitter = place_jitter(draws[:, 7:12], self.jitter)
        if jitter is None:
            return images
        zero = torch.zeros_like(draws[:, 0], dtype=torch.int64)
        whole = Patches(zero, zero, zero, zero, zero + height, zero + width, torch.zeros_like(draws[:, 0]), jitter)
        return paste(images, whole).images

    def extra_repr(self) -> str:
        return f"shift={self.shift}, jitter={self.jitter}"


def _checked_source(source: Source) -> Source:
    if source not in ("same", "other"):
        raise ValueError(f"source: 'same' or 'other' required, got {source!r}")
    return source


def _jitter_of(patches: Patches) -> Jitter:
    """Give the jitter of patches, or one that changes nothing."""
    if patches.jitter is not None:
        return patches.jitter
    one, zero = torch.ones_like(patches.angle), torch.zeros_like(patches.angle)
    return Jitter(one, one, one, zero, zero)
