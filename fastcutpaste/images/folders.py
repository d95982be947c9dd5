"""Data sets: image folders, the MVTec layout, and their masks."""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from fastcutpaste.images.decode import decode, in_threads, read_mask

EXTENSIONS = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff")


@dataclass(frozen=True)
class ImageSet:
    """Image files with what is known of each: its kind ("good", a defect's name, None if unknown) and its mask."""

    paths: tuple[Path, ...]
    kinds: tuple[str | None, ...]
    masks: tuple[Path | None, ...]

    def __post_init__(self) -> None:
        if not len(self.paths) == len(self.kinds) == len(self.masks):
            came = f"{len(self.paths)} paths, {len(self.kinds)} kinds, {len(self.masks)} masks"
            raise ValueError(f"ImageSet: one kind and one mask (or None) per path required, got {came}")

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def labels(self) -> Tensor:
        """Which images are defective, bool (N,). Raises ValueError if the kind of any image is unknown."""
        unknown = [path for path, kind in zip(self.paths, self.kinds, strict=True) if kind is None]
        if unknown:
            raise ValueError(f"ImageSet: a kind for every image required, got none for {unknown[0]}")
        return torch.tensor([kind != "good" for kind in self.kinds], dtype=torch.bool)

    @property
    def has_masks(self) -> bool:
        """Whether the defective images come with masks (then each of them has one)."""
        return any(mask is not None for mask in self.masks)


def find_training_images(root: str | Path) -> ImageSet:
    """List the normal images of an MVTec category (`root/train/good/*`), or those directly in a plain folder.

    Hidden files, other file types and deeper folders are passed over. Names are sorted as people count: 2 before 10.

    Args:
        root: the folder.

    Returns:
        All images, of kind "good", without masks.

    Raises:
        ValueError: no folder, no images in it, `train` or `test` without `train/good`, a folder of categories.
    """
    who, root = "find_training_images", Path(root)
    _check_folder(who, root)
    good = root / "train" / "good"
    if good.is_dir():
        paths = _images_in(good)
        if not paths:
            raise ValueError(f"{who}: images ({' '.join(EXTENSIONS)}) required in {good}, got none")
    elif (root / "train").is_dir() or (root / "test").is_dir():
        came = f"train with {_holdings(root / 'train')}" if (root / "train").is_dir() else _holdings(root)
        raise ValueError(f"{who}: a folder train/good required in {root}, got {came}")
    else:
        paths = _plain_images(who, root)
    return ImageSet(paths, ("good",) * len(paths), (None,) * len(paths))


def find_calibration_images(root: str | Path) -> ImageSet | None:
    """List the normal images that a category keeps to set thresholds on, `root/validation/good/*`, as MVTec AD 2 does.

    Returns:
        The images, of kind "good", without masks; None if there is no such folder, or none beside `train/good`.

    Raises:
        ValueError: no images in it.
    """
    good = Path(root) / "validation" / "good"
    if not good.is_dir() or not (Path(root) / "train" / "good").is_dir():
        return None
    paths = _images_in(good)
    if not paths:
        raise ValueError(f"find_calibration_images: images ({' '.join(EXTENSIONS)}) required in {good}, got none")
    return ImageSet(paths, ("good",) * len(paths), (None,) * len(paths))


def find_test_images(root: str | Path) -> ImageSet:
    """List the test images of an MVTec category with their masks, or the unlabelled images of a folder or file.

    MVTec layout is `root/test/<kind>/<name>.*`, with masks `root/ground_truth/<kind>/<name>_mask.*` or `<name>.*`.
    Without the folder `ground_truth` there are no masks; with it every defective image needs its own, and
    `ground_truth/good` is not looked at. An image of a plain folder or a single file has neither kind nor mask.

    Args:
        root: the category's folder, a plain folder of images, or one image file.

    Returns:
        The images, kind by kind, sorted as people count.

    Raises:
        ValueError: nothing there, no images, an empty kind, masks and images that do not pair up.
    """
    who, root = "find_test_images", Path(root)
    if root.is_file():
        if root.suffix.lower() not in EXTENSIONS:
            raise ValueError(f"{who}: an image ({' '.join(EXTENSIONS)}) or a folder required, got {root}")
        return ImageSet((root,), (None,), (None,))
    _check_folder(who, root)
    test, truth = root / "test", root / "ground_truth"
    if not test.is_dir():
        if (root / "train").is_dir() or truth.is_dir():
            raise ValueError(f"{who}: a folder test/<kind> required in {root}, got {_holdings(root)}")
        paths = _plain_images(who, root)
        return ImageSet(paths, (None,) * len(paths), (None,) * len(paths))

    found: list[tuple[Path, str, Path | None]] = []
    folders = _folders_in(test)
    if not folders:
        raise ValueError(f"{who}: folders test/good and test/<defect> required in {root}, got {_holdings(test)}")
    for folder in folders:
        images = _images_in(folder)
        if not images:
            raise ValueError(f"{who}: images ({' '.join(EXTENSIONS)}) required in {folder}, got none")
        paired = folder.name != "good" and truth.is_dir()
        masks = _pair_masks(who, images, truth / folder.name) if paired else (None,) * len(images)
        found += [(image, folder.name, mask) for image, mask in zip(images, masks, strict=True)]
    for folder in _folders_in(truth) if truth.is_dir() else ():
        if folder.name not in {"good", *(kind.name for kind in folders)} and _images_in(folder):
            raise ValueError(f"{who}: an image for each mask required, got {folder} and no {test / folder.name}")
    return ImageSet(
        tuple(path for path, _, _ in found), tuple(kind for _, kind, _ in found), tuple(m for _, _, m in found)
    )


def _pair_masks(who: str, images: Sequence[Path], folder: Path) -> tuple[Path, ...]:
    """Find each image's mask in `folder`, `<name>_mask.*` before `<name>.*`; every mask must be used just once."""
    available: dict[str, Path] = {}
    for mask in _images_in(folder) if folder.is_dir() else ():
        other = available.setdefault(_stem(mask), mask)
        if other != mask:
            raise ValueError(f"{who}: one mask per image required, got {other} and {mask.name}")
    owners: dict[Path, Path] = {}
    for image in images:
        stem = _stem(image)
        found = available.get(f"{stem}_mask") or available.get(stem)
        if found is None:
            required = f"{image.stem}_mask.* or {image.stem}.*"
            raise ValueError(f"{who}: a mask {required} required in {folder}, got none for {image}")
        if found in owners:
            raise ValueError(f"{who}: a mask of its own per image required, {owners[found]} and {image} share {found}")
        owners[found] = image
    for mask in available.values():
        if mask not in owners:
            raise ValueError(f"{who}: an image for each mask required, got none in {images[0].parent} for {mask}")
    return tuple(owners)  # in the order of the images


def _check_folder(who: str, root: Path) -> None:
    """Refuse a root that is no folder, and a folder of MVTec categories."""
    if not root.is_dir():
        raise ValueError(f"{who}: a folder of images required, {root} {'is a file' if root.exists() else 'is missing'}")
    if not (root / "train").is_dir() and not (root / "test").is_dir():
        categories = [folder.name for folder in _folders_in(root) if (folder / "train" / "good").is_dir()]
        if categories:
            raise ValueError(f"{who}: one category required, {root} holds {', '.join(categories)}: pass one of them")


def _plain_images(who: str, root: Path) -> tuple[Path, ...]:
    """List the images directly in a folder; refuse a folder without any."""
    paths = _images_in(root)
    if not paths:
        raise ValueError(f"{who}: images ({' '.join(EXTENSIONS)}) required in {root}, got {_holdings(root)}")
    return paths


def _images_in(folder: Path) -> tuple[Path, ...]:
    """List the image files of one folder in natural order. Broken links stay: reading them says what is wrong."""
    names = (path for path in folder.iterdir() if path.suffix.lower() in EXTENSIONS and not path.name.startswith("."))
    return tuple(sorted((p for p in names if p.is_file() or (p.is_symlink() and not p.exists())), key=_natural))


def _folders_in(folder: Path) -> list[Path]:
    """List the visible folders of one folder in natural order."""
    return sorted((p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")), key=_natural)


def _holdings(folder: Path) -> str:
    """Tell what a folder holds, for an error message."""
    names = [path.name + "/" * path.is_dir() for path in sorted(folder.iterdir(), key=_natural)]
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "") or "an empty folder"


def _natural(path: Path) -> tuple[list[str | int], str]:
    """Give a sorting key that counts: 2.png before 10.png; letters in any case; the name itself breaks ties."""
    parts = re.split("([0-9]+)", path.name.casefold())  # text and digits in turn, so like is compared with like
    return [int(part) if part.isdecimal() and part.isascii() else part for part in parts], path.name


def _stem(path: Path) -> str:
    """Give the name without its extension; é is one letter, however the file system spells it."""
    return unicodedata.normalize("NFC", path.stem)


def load_masks(images: ImageSet, sizes: Sequence[tuple[int, int]] | None = None) -> list[Tensor]:
    """Read the masks of labelled images at their original sizes; a good image's is all False.

    A pixel is defective where any channel is above half of the type's range (above 127 of 255), which drops the grey
    fringe that JPEG once left in a mask. If a lossless mask has no such pixel, its numbers count classes (0 and 1, or
    0 to the number of classes): then every pixel that is not 0 is defective.

    Args:
        images: N images, each with a kind, each defective one with a mask.
        sizes: their (height, width), as `load_images` gives; without it every image is decoded again to know.

    Returns:
        N masks, bool (H_i, W_i).

    Raises:
        ValueError: an image without a kind, a defective one without a mask, a mask that cannot be read or is of
            another size than its image.
    """
    defective = images.labels.tolist()
    for path, mask, is_defective in zip(images.paths, images.masks, defective, strict=True):
        if is_defective and mask is None:
            raise ValueError(f"load_masks: a mask for every defective image required, got none for {path}")
    if sizes is None:
        sizes = in_threads("load_masks", lambda path: decode(path, None)[1], images.paths, None, False)
    if len(sizes) != len(images):
        raise ValueError(f"load_masks: one size per image required, got {len(sizes)} for {len(images)} images")

    def load(item: tuple[Path, Path | None, tuple[int, int]]) -> Tensor:
        path, mask_path, (height, width) = item
        if mask_path is None:
            return torch.zeros(height, width, dtype=torch.bool)
        mask = read_mask(mask_path)
        if mask.shape != (height, width):
            came = f"{mask_path} is {mask.shape[0]}×{mask.shape[1]}, {path} is {height}×{width}"
            raise ValueError(f"load_masks: a mask of its image's (height, width) required, {came}")
        return torch.from_numpy(mask)

    return in_threads("load_masks", load, list(zip(images.paths, images.masks, sizes, strict=True)), None, False)
