"""Data sets: which images of a folder are normal, which are to be tested, of which kind, with which mask.

Folders `train` and `test` say so (MVTec AD, AD 2 and LOCO, BTAD, MPDD, KolektorSDD2); `labelled` reads layouts that
do not divide their images; all else is a plain folder of normal, or of unlabelled, images.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path

from fastcutpaste.images.image_set import ImageSet, all_of_kind, check_masks, joined, load_masks
from fastcutpaste.images.labelled import Labelled, by_masks, kinds_in, masks_beside, read_labelled
from fastcutpaste.images.masks import masks_among, pair_masks
from fastcutpaste.images.tree import (
    EXTENSIONS,
    folder_named,
    folders_in,
    holdings,
    holds_masks,
    images_directly_in,
    images_in,
    is_bad,
    is_good,
    page_of,
    some_of,
)

__all__ = ["EXTENSIONS", "ImageSet", "check_masks", "find_calibration_images", "find_test_images",
           "find_training_images", "label_images", "layout_of", "load_masks"]  # fmt: skip

PLAIN, TRAIN_ALONE = "a plain folder", "a folder train"
_TRAIN, _TEST, _VALIDATION = ("train", "training"), ("test", "test_public", "testing"), ("validation", "val", "valid")


def find_training_images(root: str | Path) -> ImageSet:
    """List the normal images of a category (`root/train/good/*`), or those of a plain folder.

    Folders in these count as well. Hidden files and other file types are passed over. Names are sorted as people count:
    2 before 10. Any usual word for good, in any case, is as good as "good".

    Args:
        root: the folder, or a CSV file with a column path and, as far as known, label, mask and split.

    Returns:
        All images, of kind "good", without masks.

    Raises:
        ValueError: no folder, no images in it, `train` or `test` without `train/good`, a folder of categories, masks
            among the images, defective images in a plain folder.
    """
    root = Path(root)
    labelled = _labelled(root)
    if labelled is not None:
        return labelled.part(root, "train")
    train = folder_named(root, *_TRAIN)
    if train is not None or folder_named(root, *_TEST) is not None:
        return _normal_of(root, train)
    paths = _plain_images(root)
    folders = folders_in(root)
    if any(is_bad(folder.name) for folder in folders) or (
        any(is_good(folder.name) for folder in folders) and images_directly_in(root)
    ):
        raise ValueError(f"{root}: folders of good and of defective images required, or images of one kind, got "
                         f"{holdings(root)}; pass one of the folders")  # fmt: skip
    _refuse_masks(root, paths)
    return all_of_kind(paths, "good")


def find_calibration_images(root: str | Path) -> ImageSet | None:
    """List the normal images that a category keeps to set thresholds on, `root/validation/good/*`, as MVTec AD 2 does.

    Returns:
        The images, of kind "good", without masks; None if there is no such folder, or none beside `train`.

    Raises:
        ValueError: no images in it, masks among them.
    """
    root = Path(root)
    labelled = _labelled(root)
    if labelled is not None:
        return labelled.part(root, "validation") if "validation" in labelled.splits else None
    validation = folder_named(root, *_VALIDATION)
    if validation is None or folder_named(root, *_TRAIN) is None:
        return None
    good = [folder for folder in folders_in(validation) if is_good(folder.name)]
    return _normal_in(good) if good else None


def find_test_images(root: str | Path, divided: bool = True) -> ImageSet:
    """List the test images of a category with their masks, or the unlabelled images of a folder or file.

    They are `root/test/<kind>/<name>.*`, with masks `root/ground_truth/<kind>/<name>_mask.*` or `<name>.*`, or several
    in a folder `<name>`, or beside the images. Without any there are no masks; with some every defective image needs
    its own, and those of good images are not looked at. Where images lie in `test` itself, each has a mask, which is
    black for a good one. An image of a plain folder or a single file has neither kind nor mask.

    Args:
        root: the category's folder, a plain folder of images, one image file, or a CSV file as for training.
        divided: leave out the good images that are for training, where the layout does not divide them itself.

    Returns:
        The images, kind by kind, sorted as people count. A warning says if none of them is good.

    Raises:
        ValueError: nothing there, no images, an empty kind, masks and images that do not pair up.
    """
    root = Path(root)
    file = page_of(root)[0]
    if file.is_file() and file.suffix.lower() != ".csv":
        if file.suffix.lower() not in EXTENSIONS:
            raise ValueError(f"{root}: an image ({' '.join(EXTENSIONS)}), a folder or a CSV file required")
        return all_of_kind((root,), None)
    labelled = _labelled(root)
    if labelled is not None and not divided and set(labelled.splits) == {None}:
        return labelled.images
    if labelled is not None:
        return _told_if_none_is_good(root, labelled.part(root, "test"))
    test = folder_named(root, *_TEST)
    if test is not None:
        return _told_if_none_is_good(test, _tested(root, test))
    train = folder_named(root, *_TRAIN)
    if train is not None or folder_named(root, "ground_truth") is not None:
        raise ValueError(f"{root}: a folder test/<kind> required in {root}, got {holdings(root)}")
    paths = _plain_images(root)
    masks = masks_among(paths, root)
    if masks:
        warnings.warn(f"{root}: {len(masks)} masks among the images are passed over: {some_of(list(masks))}",
                      stacklevel=2)  # fmt: skip
    images = [path for path in paths if path not in masks]
    if not images:
        raise ValueError(f"{root}: images required in {root}, got {len(masks)} masks alone: {some_of(list(masks))}")
    return all_of_kind(images, None)


def label_images(good: Sequence[Path], bad: Sequence[Path], masks: Path | None = None) -> ImageSet:
    """Label the images of folders or single files by hand.

    Args:
        good: where good images are.
        bad: where defective ones are; the kind is a folder's name.
        masks: folder with a mask for each of the latter, named as their images.

    Raises:
        ValueError: no images in one of them, masks that do not pair up.
    """
    sets = []
    for number, place in enumerate((*good, *bad)):
        kind = "good" if number < len(good) else place.name if place.is_dir() else place.parent.name
        paths = find_paths(place)
        beside = {} if place.is_file() else masks_among(paths, place)
        images = tuple(path for path in paths if path not in beside)
        if number < len(good):
            _refuse_masks(place, paths)
            sets.append(all_of_kind(images, "good"))
            continue
        kind = f"{kind} (bad)" if is_good(kind) else kind
        found = masks_beside(images, beside) if masks is None else (None,) * len(images)
        sets.append(ImageSet(images, (kind,) * len(images), found))
    found_set = joined(sets)
    if masks is not None:
        if not masks.is_dir():
            raise ValueError(f"--masks: a folder required, {masks} {'is a file' if masks.exists() else 'is missing'}")
        places = [place if place.is_dir() else place.parent for place in bad]
        if len(set(places)) == 1:
            images = tuple(p for p, kind in zip(found_set.paths, found_set.kinds, strict=True) if kind != "good")
            pairs = dict(zip(images, pair_masks(images, masks, places[0]), strict=True))
        else:
            pairs = {}
            for place in dict.fromkeys(places):
                images = tuple(p for p in found_set.paths if place in p.parents)
                own = folder_named(masks, place.name.casefold())
                if own is None:
                    raise ValueError(f"--masks: a folder {place.name} for the images of {place} required in {masks}, "
                                     f"got {holdings(masks)}")  # fmt: skip
                pairs |= dict(zip(images, pair_masks(images, own, place), strict=True))
        found_set = ImageSet(found_set.paths, found_set.kinds, tuple(pairs.get(path) for path in found_set.paths))
    return found_set


def find_paths(place: Path) -> tuple[Path, ...]:
    """List the images of a plain folder, or give the one file."""
    if place.is_file():
        if place.suffix.lower() not in EXTENSIONS:
            raise ValueError(f"{place}: an image ({' '.join(EXTENSIONS)}) or a folder required")
        return (place,)
    if not place.is_dir():
        raise ValueError(f"{place}: a folder of images required, {place} is missing")
    return _plain_images(place)


def layout_of(root: Path) -> str:
    """Tell as what a folder or a file is read."""
    labelled = _labelled(root)
    if labelled is not None:
        return labelled.layout
    train, test = folder_named(root, *_TRAIN), folder_named(root, *_TEST)
    if train is None and test is None:
        return PLAIN
    if test is None:
        return TRAIN_ALONE
    return f"folders {' and '.join(folder.name for folder in (train, test) if folder is not None)}"


def _labelled(root: Path) -> Labelled | None:
    """Read a layout that lists or names the kinds of all its images; None if it is another one."""
    if not root.exists():
        raise ValueError(f"{root}: a folder of images required, {root} is missing")
    if root.is_file():
        if root.suffix.lower() != ".csv":
            raise ValueError(f"{root}: a folder of images required, {root} is a file")
    elif folder_named(root, *_TRAIN, *_TEST) is not None:
        return None
    else:
        categories = [folder.name for folder in folders_in(root) if _is_category(folder)]
        if categories:
            raise ValueError(f"{root}: one category required, {root} holds {', '.join(categories)}: pass one of them")
    return read_labelled(root)


def _is_category(folder: Path) -> bool:
    train = folder_named(folder, *_TRAIN)
    if train is not None and any(is_good(inner.name) for inner in folders_in(train)):
        return True
    return (folder / "Data" / "Images").is_dir()  # of VisA


def _normal_of(root: Path, train: Path | None) -> ImageSet:
    """List the normal images of a folder `train`."""
    if train is None:
        raise ValueError(f"{root}: a folder train/good required in {root}, got {holdings(root)}")
    folders = folders_in(train)
    good = [folder for folder in folders if is_good(folder.name)]
    if good:
        found = _normal_in(good)
        if stray := images_directly_in(train):
            warnings.warn(f"{train}: {len(stray)} images beside {good[0].name} are passed over: {some_of(stray)}",
                          stacklevel=3)  # fmt: skip
        return found
    bad = [folder for folder in folders if is_bad(folder.name)]
    if bad or not images_directly_in(train):
        raise ValueError(f"{root}: a folder train/good required in {root}, got train with {holdings(train)}")
    paths = images_in(train)
    masks = masks_among(paths, train)
    if not masks:
        return all_of_kind(paths, "good")
    found = by_masks(train, paths, masks)
    good_ones = [i for i, kind in enumerate(found.kinds) if kind == "good"]
    if not good_ones:
        raise ValueError(f"{train}: normal images, with a black mask each, required, got {len(found)} defective ones")
    return all_of_kind(found.chosen(good_ones).paths, "good")


def _normal_in(folders: Sequence[Path]) -> ImageSet:
    """List the images of folders of normal ones; refuse masks among them."""
    sets = []
    for folder in folders:
        paths = images_in(folder)
        if not paths:
            raise ValueError(f"{folder}: images ({' '.join(EXTENSIONS)}) required in {folder}, got none")
        _refuse_masks(folder, paths)
        sets.append(all_of_kind(paths, "good"))
    return joined(sets)


def _refuse_masks(folder: Path, paths: Sequence[Path]) -> None:
    masks = list(masks_among(paths, folder)) if folder.is_dir() else []
    if masks:
        raise ValueError(f"{folder}: normal images alone required, got {len(masks)} masks, by their names and as they "
                         f"hold two values: {some_of(masks)}; move them to another folder")  # fmt: skip


def _tested(root: Path, test: Path) -> ImageSet:
    """List the images of a folder `test`, kind by kind."""
    truth = next((folder for place in (root, test) for folder in folders_in(place) if holds_masks(folder.name)), None)
    folders = [folder for folder in folders_in(test) if not holds_masks(folder.name)]
    if not folders:
        paths = images_directly_in(test)
        masks = masks_among(paths, test)
        if not masks:
            raise ValueError(f"{root}: folders test/good and test/<defect> required in {root}, got {holdings(test)}")
        return by_masks(test, paths, masks)
    if stray := images_directly_in(test):
        warnings.warn(f"{test}: {len(stray)} images beside the folders of kinds are passed over: {some_of(stray)}",
                      stacklevel=3)  # fmt: skip
    return kinds_in(folders, truth)


def _told_if_none_is_good(place: Path, images: ImageSet) -> ImageSet:
    if "good" not in images.kinds:
        kinds = list(dict.fromkeys(images.kinds))
        warnings.warn(f"{place}: no good images among {some_of(kinds)}, so that neither AUROC nor false alarms can be "
                      "measured; good ones lie in a folder good, ok, normal or the like", stacklevel=3)  # fmt: skip
    return images


def _plain_images(root: Path) -> tuple[Path, ...]:
    """List the images of a plain folder and all folders in it; refuse one without any."""
    if not root.is_dir():
        raise ValueError(f"{root}: a folder of images required, {root} is a file")
    paths = images_in(root)
    if not paths:
        raise ValueError(f"{root}: images ({' '.join(EXTENSIONS)}) required in {root}, got {holdings(root)}")
    return paths
