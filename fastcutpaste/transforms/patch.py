"""Transforms: they remember settings, call `paste` and keep nothing else."""

import math
from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor, nn

from fastcutpaste.op.checks import Range
from fastcutpaste.op.color import JitterStrength, place_jitter, strengths_of
from fastcutpaste.op.paste import Pasted, paste, paste_images, translate
from fastcutpaste.op.placement import (
    DRAWS,
    AspectDistribution,
    Patches,
    combined,
    place_cutpaste,
    place_scar,
    uniform,
)
from fastcutpaste.op.rules import Kind, Rule, Rules, rules_of
from fastcutpaste.transforms.ruled import Ruled, drawn, picked

Source = Literal["same", "other"]
SOURCES: tuple[Source, ...] = ("same", "other")


class PatchTransform(Ruled):
    """Paste one patch into each image of a batch: the common part of the transforms below.

    Subclasses say where (`place`) and, if it is not the image itself, with what (`fill`); both are pure functions of
    the drawn numbers.

    Args:
        p: share of the images that get a patch, 0 to 1; the others come back unchanged, with an empty mask.
        feather: pixels from the edge over which a patch fades in; 0: a hard edge.

    Attributes:
        numbers: how many random numbers an image takes.
    """

    def __init__(self, p: float = 1.0, feather: float = 0.0) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"{type(self).__name__}: p from 0 to 1 required, got {p}")
        if not 0 <= feather < math.inf:
            raise ValueError(f"{type(self).__name__}: feather of at least 0 pixels required, got {feather}")
        self.p, self.feather, self.numbers = p, feather, DRAWS

    def place(self, draws: Tensor, height: int, width: int) -> Patches:
        """Turn draws (B, DRAWS) into one patch per image of height × width pixels."""
        raise TypeError(f"{type(self).__name__}: a subclass that defines place() required")

    def patches(self, draws: Tensor, height: int, width: int) -> Patches:
        """Give the patches of draws (B, numbers): those of `place`, empty in the share of images that gets none."""
        patches = self.place(draws[:, :DRAWS], height, width)
        if self.p < 1:
            patches = patches._replace(height=patches.height * (draws[:, 12] < self.p))
        return patches._replace(feather=torch.full_like(patches.angle, self.feather)) if self.feather else patches

    def rules(self) -> tuple[Rule, ...]:
        """Give what `place` and the settings do as rules, one a member; none where only `place` knows."""
        return ()

    def ruled(self, rule: Rule, known: type["PatchTransform"]) -> tuple[Rule, ...]:
        """Give the rule, unless a subclass of the class it is of does something else."""
        names = ("place", "fill", "patches", "choose")
        return (rule,) if all(getattr(type(self), name) is getattr(known, name) for name in names) else ()

    def task_rules(self) -> Rules | None:
        rules = self.rules()
        return rules_of((rules,)) if rules else None

    def choose(self, images: Tensor, draws: Tensor) -> tuple[Patches, Tensor | None]:
        """Give patches and fill of images (B, C, H, W) and draws (B, numbers), for `paste`."""
        return self.patches(draws, images.shape[-2], images.shape[-1]), self.fill(images, draws)

    def augment(self, images: Tensor, generator: torch.Generator | None = None, draws: Tensor | None = None) -> Pasted:
        """Augment images and tell where.

        Args:
            images: (B, C, H, W), uint8 0–255 or floating point 0–1, never written; augment first, normalize after.
            generator: source of randomness on the images' device; the device's default generator if None.
            draws: (B, numbers) uniform in [0, 1), to be used instead of drawing: the same draws, the same patches.

        Returns:
            Images of the same shape, dtype, device and memory format, and a bool mask (B, 1, H, W).

        Raises:
            TypeError: images neither uint8 nor floating point.
            ValueError: images or draws of another shape; normalized images, as `paste` finds them.
        """
        made = self.by_rules(images, generator, draws)
        if made is not None:
            return Pasted(made.images, made.mask)
        return paste(images, *self.choose(images, drawn(self, images, generator, draws)))

    def forward(self, images: Tensor, generator: torch.Generator | None = None, draws: Tensor | None = None) -> Tensor:
        """Augment images (B, C, H, W); see `augment`, which gives the mask as well."""
        made = self.by_rules(images, generator, draws, masked=False)
        if made is not None:
            return made.images
        return paste_images(images, *self.choose(images, drawn(self, images, generator, draws)))

    def extra_repr(self) -> str:
        settings = {k: v for k, v in vars(self).items() if not k.startswith("_") and k not in ("training", "numbers")}
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
        feather: pixels from the edge over which the patch fades in; 0, as in the paper: a hard edge.

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
        feather: float = 0.0,
    ) -> None:
        super().__init__(p, feather)
        self.area, self.aspect, self.aspect_distribution, self.jitter = area, aspect, aspect_distribution, jitter
        self.source = _checked_source(source)
        self.place(uniform((0, DRAWS), "cpu"), 1, 1)  # wrong settings fail here, not at the first batch

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

    def fill(self, images: Tensor, draws: Tensor) -> Tensor | None:
        return images.roll(1, 0) if self.source == "other" else None

    def rules(self) -> tuple[Rule, ...]:
        return self.ruled(self.rule(), CutPaste)

    def rule(self) -> Rule:
        """Give the settings as a rule."""
        log = self.aspect_distribution == "log_uniform"
        low, high = (math.log(each) / 2 if log else each for each in self.aspect)
        return Rule(
            Kind.RECTANGLE if log else Kind.TWO_HALVES, *self.area, low, high, 0, 0, 0, *strengths_of(self.jitter),
            self.p, self.feather, self.source == "other",
        )  # fmt: skip


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
        feather: pixels from the edge over which the scar fades in; 0, as in the paper: a hard edge.

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
        feather: float = 0.0,
    ) -> None:
        super().__init__(p, feather)
        self.scar_width, self.scar_length, self.rotation = scar_width, scar_length, rotation
        self.reference, self.jitter, self.source = reference, jitter, _checked_source(source)
        self.place(uniform((0, DRAWS), "cpu"), 1, 1)

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

    def fill(self, images: Tensor, draws: Tensor) -> Tensor | None:
        return images.roll(1, 0) if self.source == "other" else None

    def rules(self) -> tuple[Rule, ...]:
        return self.ruled(self.rule(), CutPasteScar)

    def rule(self) -> Rule:
        """Give the settings as a rule."""
        return Rule(
            Kind.STRIP, *self.scar_length, *self.scar_width, *self.rotation, self.reference or 0,
            *strengths_of(self.jitter), self.p, self.feather, self.source == "other",
        )  # fmt: skip


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
        self.numbers = 1 + max(transform.numbers for transform in transforms)

    def patches(self, draws: Tensor, height: int, width: int) -> Patches:
        return self._pick_patches(draws, [member.patches(part, height, width) for member, part in self._members(draws)])

    def choose(self, images: Tensor, draws: Tensor) -> tuple[Patches, Tensor | None]:
        chosen = [member.choose(images, part) for member, part in self._members(draws)]
        patches = self._pick_patches(draws, [patches for patches, _ in chosen])
        if all(fill is None for _, fill in chosen):
            return patches, None
        fills = [(images if fill is None else fill).expand_as(images) for _, fill in chosen]
        return patches, self._pick(draws, fills)

    def rules(self) -> tuple[Rule, ...]:
        each = [member.rules() for member in self.transforms]  # type: ignore[operator]
        plain = all(len(rules) == 1 and not rules[0].colored and not rules[0].candidates for rules in each)
        return tuple(rules[0].after(1)._replace(choice=0, members=len(each)) for rules in each) if plain else ()

    def _members(self, draws: Tensor) -> Iterator[tuple[PatchTransform, Tensor]]:
        """Give each transform and its draws: the same for all, since each image takes its patch from one of them."""
        for transform in self.transforms:
            yield transform, draws[:, 1 : 1 + transform.numbers]  # type: ignore[misc, operator]

    def _pick_patches(self, draws: Tensor, options: list[Patches]) -> Patches:
        return combined(options, lambda fields: self._pick(draws, fields))

    def _pick(self, draws: Tensor, options: list[Tensor]) -> Tensor:
        """Take each image's part (B, …) of the option its first number points at."""
        return picked((draws[:, 0] * len(options)).view(-1, *[1] * (options[0].ndim - 1)), options)


class BaseAugmentation(Ruled):
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
        self.shift, self.jitter, self.numbers = shift, jitter, 7
        place_jitter((0.5,) * 5, jitter)

    def forward(self, images: Tensor, generator: torch.Generator | None = None, draws: Tensor | None = None) -> Tensor:
        """Augment images (B, C, H, W), uint8 0–255 or floating point 0–1; shape, dtype and format are kept."""
        made = self.by_rules(images, generator, draws, masked=False)
        if made is not None:
            return made.images
        draws = drawn(self, images, generator, draws)
        height, width = images.shape[-2:]
        if self.shift:
            images = translate(images, (draws[:, :2] * 2 - 1) * self.shift)
        jitter = place_jitter(draws[:, 2:7].T, self.jitter)
        if jitter is None:
            return images
        zero = torch.zeros_like(draws[:, 0], dtype=torch.int64)
        whole = Patches(zero, zero, zero, zero, zero + height, zero + width, torch.zeros_like(draws[:, 0]), jitter)
        return paste_images(images, whole)

    def task_rules(self) -> Rules:
        # its jitter's draws come five places before those of a patch's
        return rules_of(((Rule(Kind.WHOLE, self.shift, 0, 0, 0, 0, 0, 0, *strengths_of(self.jitter), column=-5),),))

    def extra_repr(self) -> str:
        return f"shift={self.shift}, jitter={self.jitter}"


def _checked_source(source: Source) -> Source:
    if source not in SOURCES:
        raise ValueError(f"source: 'same' or 'other' required, got {source!r}")
    return source
