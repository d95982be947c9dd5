"""Pretext tasks: a list of transforms made into a classification problem."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fastcutpaste.op.color import JitterStrength, normalize
from fastcutpaste.op.paste import paste, paste_images, paste_normalized
from fastcutpaste.op.placement import Patches, joined
from fastcutpaste.op.rules import Rule, Rules, rules_of
from fastcutpaste.transforms.defect import Made, Maker, augmented
from fastcutpaste.transforms.patch import CutPaste, CutPasteScar, PatchTransform
from fastcutpaste.transforms.ruled import Ruled, check_augments, drawn


class PretextBatch(NamedTuple):
    """Hold images ((k+1)·B, C, H, W), labels ((k+1)·B,) int64 from 0 to k, and masks ((k+1)·B, 1, H, W) bool."""

    images: Tensor
    labels: Tensor
    masks: Tensor


class PretextTask(Ruled):
    """Make a classification task of a list of transforms: which one, if any, was applied to the image?

    Args:
        transforms: k modules whose `augment(images, generator, draws)` gives images and masks and that tell how many
            `numbers` an image takes, as those of `transforms` and `baselines` do; class 0 is the untouched image,
            class i the i-th transform, but for images in which a `Defect` made none, which stay of class 0.

    Raises:
        TypeError: something that cannot augment.
        ValueError: no transform, or one that leaves images out (p below 1): they would be labelled as changed.

    Attributes:
        numbers: how many random numbers an image takes, those of all transforms one after another.
    """

    def __init__(self, *transforms: nn.Module) -> None:
        super().__init__()
        if not transforms:
            raise ValueError("PretextTask: at least one transform required, got 0")
        for transform in transforms:
            check_augments("PretextTask", transform)
            # A defect says itself which images it left out, so that what its parts do is no matter.
            for module in [transform] if isinstance(transform, Maker) else transform.modules():
                if getattr(module, "p", 1) != 1:
                    came = f"{type(module).__name__}(p={module.p})"
                    raise ValueError(f"PretextTask: p=1 required, since every image is labelled as changed, got {came}")
        self.transforms = nn.ModuleList(transforms)
        self.numbers = sum(self._counts())

    def _counts(self) -> list[int]:
        return [int(transform.numbers) for transform in self.transforms]  # type: ignore[arg-type]

    @property
    def classes(self) -> int:
        """Number of classes, k + 1."""
        return len(self.transforms) + 1

    def augment(
        self, images: Tensor, generator: torch.Generator | None = None, draws: Tensor | None = None
    ) -> PretextBatch:
        """Give the images untouched and once through each transform, class after class.

        Args:
            images: (B, C, H, W), uint8 0–255 or floating point 0–1; never written.
            generator: source of randomness on the images' device.
            draws: (B, numbers) uniform in [0, 1), to be used instead of drawing.

        Returns:
            Images, labels and masks; the masks of class 0 are empty.
        """
        made = self.by_rules(images, generator, draws)
        if made is not None:
            return PretextBatch(made.images, made.classes, made.mask)
        draws = drawn(self, images, generator, draws)
        patches = self._patches(images, draws)
        if patches is None:
            return self._one_by_one(images, draws)
        pasted, masks = paste(images, patches)
        return PretextBatch(pasted, self._labels(images), masks)

    def forward(
        self, images: Tensor, generator: torch.Generator | None = None, draws: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Give the images ((k+1)·B, C, H, W) and labels ((k+1)·B,) of `augment`."""
        made = self.by_rules(images, generator, draws, masked=False)
        if made is not None:
            return made.images, made.classes
        draws = drawn(self, images, generator, draws)
        patches = self._patches(images, draws)
        if patches is None:
            return self._one_by_one(images, draws)[:2]
        return paste_images(images, patches), self._labels(images)

    def normalized(
        self,
        images: Tensor,
        mean: Tensor,
        std: Tensor,
        dtype: torch.dtype = torch.float32,
        generator: torch.Generator | None = None,
        draws: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Give the images of `augment`, normalized, and the labels.

        Args:
            images: as for `augment`.
            mean: as for `normalize`.
            std: as for `normalize`.
            dtype: of the images given, as for `normalize`.
            generator: as for `augment`.
            draws: as for `augment`.

        Returns:
            ((k+1)·B, C, H, W) of `dtype`, as `paste_normalized` gives them, and labels ((k+1)·B,).

        Cost: see `paste_normalized`.
        """
        made = self.by_rules(images, generator, draws, masked=False, normalization=(mean, std, dtype))
        if made is not None:
            return made.images, made.classes
        draws = drawn(self, images, generator, draws)
        patches = self._patches(images, draws)
        if patches is None:
            result, labels, _ = self._one_by_one(images, draws)
            return normalize(result, mean, std, dtype), labels
        return paste_normalized(images, patches, mean, std, dtype), self._labels(images)

    def _labels(self, images: Tensor) -> Tensor:
        return torch.arange(self.classes, device=images.device).repeat_interleave(len(images))

    def _parts(self, draws: Tensor) -> Sequence[Tensor]:
        return torch.split(draws, self._counts(), dim=1)

    def task_rules(self) -> Rules | None:
        """Give the rules of all classes, unless they have different foregrounds, or colors beside others."""
        classes: list[tuple[Rule, ...]] = [(Rule(),)]
        columns, column, colored = [0], 0, False
        for transform in self.transforms:
            rules = transform.rules() if isinstance(transform, PatchTransform) else ()
            if not rules:
                return None
            colored |= bool(rules[0].colored)
            classes.append(rules)
            columns.append(column)
            column += int(transform.numbers)  # type: ignore[arg-type]
        alike = len({transform.foreground for transform in self._on_foreground()}) <= 1
        several = colored and len(self.transforms) > 1
        return rules_of(tuple(classes), tuple(columns)) if alike and not several else None

    def fill(self, images: Tensor, draws: Tensor) -> Tensor | None:
        color: Tensor | None = self.transforms[0].fill(images, draws)  # type: ignore[operator]
        return color

    def foreground_sums(self, images: Tensor) -> Tensor | None:
        sums: Tensor | None = next(self._on_foreground()).foreground_sums(images)  # type: ignore[operator]
        return sums

    def _on_foreground(self) -> Iterator[nn.Module]:
        return (transform for transform in self.transforms if hasattr(transform, "foreground"))

    def _patches(self, images: Tensor, draws: Tensor) -> Patches | None:
        """Give the patches of all classes if one paste of the images themselves does for all, else None."""
        if not all(isinstance(transform, PatchTransform) for transform in self.transforms):
            return None
        members = zip(self.transforms, self._parts(draws), strict=True)
        chosen = [transform.choose(images, part) for transform, part in members]  # type: ignore[operator]
        if any(fill is not None for _, fill in chosen):
            return None
        patches = [patches for patches, _ in chosen]
        nothing = patches[0]._replace(height=torch.zeros_like(patches[0].height))
        return joined([nothing, *patches])

    def _one_by_one(self, images: Tensor, draws: Tensor) -> PretextBatch:
        members = zip(self.transforms, self._parts(draws), strict=True)
        results = [augmented(transform, images, draws=part) for transform, part in members]
        labels = list(self._labels(images).view(self.classes, -1))  # (B,) each
        for i, result in enumerate(results, start=1):
            if isinstance(result, Made):
                labels[i] = labels[i] * (result.kind > 0)
        empty = torch.zeros_like(images[:, :1], dtype=torch.bool)
        return PretextBatch(
            torch.cat([images, *(result.images for result in results)]),
            torch.cat(labels),
            torch.cat([empty, *(result.mask for result in results)]),
        )


class CutPaste3Way(PretextTask):
    """Ask which of three an image is: untouched (0), CutPaste (1) or CutPaste-Scar (2); the paper's best task.

    Args:
        jitter: largest change of brightness, contrast, saturation and hue of the patches.
    """

    def __init__(self, jitter: JitterStrength = 0.1) -> None:
        super().__init__(CutPaste(jitter=jitter), CutPasteScar(jitter=jitter))
