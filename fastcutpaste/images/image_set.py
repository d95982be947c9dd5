"""Image files with what is known of each, and their masks."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fastcutpaste.images.decode import in_threads, peek
from fastcutpaste.images.masks import Mask, read_mask

if TYPE_CHECKING:  # a folder is listed without torch
    from torch import Tensor


@dataclass(frozen=True)
class ImageSet:
    """Image files with what is known of each: its kind ("good", a defect's name, None if unknown) and its mask.

    A mask is one file, or a tuple of several that are united.
    """

    paths: tuple[Path, ...]
    kinds: tuple[str | None, ...]
    masks: tuple[Mask | None, ...]

    def __post_init__(self) -> None:
        if not len(self.paths) == len(self.kinds) == len(self.masks):
            came = f"{len(self.paths)} paths, {len(self.kinds)} kinds, {len(self.masks)} masks"
            raise ValueError(f"ImageSet: one kind and one mask (or None) per path required, got {came}")

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def labels(self) -> "Tensor":
        """Which images are defective, bool (N,). Raises ValueError if the kind of any image is unknown."""
        import torch

        unknown = [path for path, kind in zip(self.paths, self.kinds, strict=True) if kind is None]
        if unknown:
            raise ValueError(f"ImageSet: a kind for every image required, got none for {unknown[0]}")
        return torch.tensor([kind != "good" for kind in self.kinds], dtype=torch.bool)

    @property
    def has_masks(self) -> bool:
        """Whether the defective images come with masks (then each of them has one)."""
        return any(mask is not None for mask in self.masks)

    @property
    def mask_files(self) -> tuple[Path, ...]:
        """The files of all masks."""
        found = (mask if isinstance(mask, tuple) else (mask,) for mask in self.masks if mask is not None)
        return tuple(path for paths in found for path in paths)

    def chosen(self, indices: Sequence[int]) -> "ImageSet":
        """Give those images of it."""
        return ImageSet(
            tuple(self.paths[i] for i in indices),
            tuple(self.kinds[i] for i in indices),
            tuple(self.masks[i] for i in indices),
        )


def all_of_kind(paths: Sequence[Path], kind: str | None) -> ImageSet:
    """Give images of one kind, without masks."""
    return ImageSet(tuple(paths), (kind,) * len(paths), (None,) * len(paths))


def joined(sets: Sequence[ImageSet]) -> ImageSet:
    """Give the images of several sets in turn."""
    return ImageSet(
        tuple(path for some in sets for path in some.paths),
        tuple(kind for some in sets for kind in some.kinds),
        tuple(mask for some in sets for mask in some.masks),
    )


def check_masks(images: ImageSet) -> None:
    """Refuse masks that do not fit their images, by the heads of the files alone; warn of those that are resized.

    What cannot be read is left to be found when it is needed.

    Raises:
        ValueError: a mask of another aspect ratio than its image.
    """
    pairs = [
        (path, one)
        for path, mask in zip(images.paths, images.masks, strict=True)
        for one in (() if mask is None else mask if isinstance(mask, tuple) else (mask,))
    ]

    def sizes(pair: tuple[Path, Path]) -> tuple[tuple[int, int], tuple[int, int]] | None:
        try:
            return peek(pair[0])[0], peek(pair[1])[0]
        except ValueError:
            return None

    resized = []
    for (path, mask), both in zip(pairs, in_threads("masks", sizes, pairs, None, False), strict=True):
        if both is None or both[0] == both[1]:
            continue
        came = f"{mask} is {both[1][0]}×{both[1][1]}, {path} is {both[0][0]}×{both[0][1]}"
        if not _is_resized(*both):
            raise ValueError(f"{mask}: a mask of its image's (height, width) required, {came}")
        resized.append(came)
    if resized:
        _warn_of(resized)


def load_masks(images: ImageSet, sizes: Sequence[tuple[int, int]] | None = None) -> "list[Tensor]":
    """Read the masks of labelled images at their original sizes; a good image's is all False.

    Which pixels are defective is said at `read_mask`. A mask that is smaller or larger than its image, to the same
    aspect ratio, is resized to the nearest pixels, which a warning says.

    Args:
        images: N images, each with a kind, each defective one with a mask.
        sizes: their (height, width), as `load_images` gives; without it the head of every image is read to know.

    Returns:
        N masks, bool (H_i, W_i).

    Raises:
        ValueError: an image without a kind, a defective one without a mask, a mask that cannot be read or is of
            another aspect ratio than its image.
    """
    import torch

    defective = images.labels.tolist()
    for path, mask, is_defective in zip(images.paths, images.masks, defective, strict=True):
        if is_defective and mask is None:
            raise ValueError(f"{path}: a mask for every defective image required, got none for {path}")
    if sizes is None:
        sizes = [size for size, _ in in_threads("masks", peek, images.paths, None, False)]
    if len(sizes) != len(images):
        raise ValueError(f"load_masks: one size per image required, got {len(sizes)} for {len(images)} images")
    resized: list[str] = []

    def load(item: tuple[Path, Mask | None, tuple[int, int]]) -> "Tensor":
        path, mask, (height, width) = item
        drawn = torch.zeros(height, width, dtype=torch.bool)
        for mask_path in () if mask is None else mask if isinstance(mask, tuple) else (mask,):
            one = torch.from_numpy(read_mask(mask_path))
            if one.shape != drawn.shape:
                came = f"{mask_path} is {one.shape[0]}×{one.shape[1]}, {path} is {height}×{width}"
                if not _is_resized(one.shape, drawn.shape):
                    raise ValueError(f"{mask_path}: a mask of its image's (height, width) required, {came}")
                resized.append(came)
                rows, columns = (
                    (torch.arange(to) * 2 + 1) * of // (2 * to) for of, to in zip(one.shape, drawn.shape, strict=True)
                )  # nearest pixels' centers
                one = one[rows[:, None], columns]  # (H, W)
            drawn |= one
        return drawn

    masks = in_threads("masks", load, list(zip(images.paths, images.masks, sizes, strict=True)), None, False)
    if resized:
        _warn_of(resized)
    return masks


def _warn_of(resized: list[str]) -> None:
    warnings.warn(f"{len(resized)} masks of another size than their images are resized to these, of the same aspect "
                  f"ratio (one of them: {resized[0]})", stacklevel=3)  # fmt: skip


def _is_resized(size: Sequence[int], other: Sequence[int]) -> bool:
    """Tell whether two (height, width) have one aspect ratio, but for rounding to whole pixels."""
    (small, large) = sorted((tuple(size), tuple(other)))
    return any(2 * abs(small[i] * large[1 - i] - large[i] * small[1 - i]) <= large[i] for i in (0, 1))
