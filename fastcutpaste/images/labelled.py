"""Layouts whose images are labelled but not divided by folders: VisA, KolektorSDD, Magnetic Tile, good and bad, CSV.

Where nothing else divides them, a fifth of the good images is for the test, in blocks (`hold_out`), as are all others.
"""

import csv
import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fastcutpaste.images.decode import in_threads
from fastcutpaste.images.hold_out import hold_out
from fastcutpaste.images.image_set import ImageSet, all_of_kind, joined
from fastcutpaste.images.masks import Mask, masks_among, pair_masks, read_mask
from fastcutpaste.images.tree import (
    EXTENSIONS,
    folder_named,
    folders_in,
    holdings,
    holds_masks,
    images_directly_in,
    images_in,
    is_good,
    page_of,
    some_of,
)

_TESTED = 0.2  # share of the good images that is for the test, where nothing else divides them
_SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
_SPLITS |= {"validation": "validation", "val": "validation", "valid": "validation"}


@dataclass(frozen=True)
class Labelled:
    """Hold all images of a layout, what it is called, and which part each image is of.

    Attributes:
        layout: its name, for people.
        images: N of them.
        splits: N times "train", "validation" or "test"; None throughout: good images are divided.
        groups: N names; good images of one name are on one side.
    """

    layout: str
    images: ImageSet
    splits: tuple[str | None, ...]
    groups: tuple[Hashable, ...] | None = None

    def part(self, root: Path, split: str) -> ImageSet:
        """Give the images of a part; of "train" and "validation" the good ones alone.

        Raises:
            ValueError: none in it, or defective ones where good ones are learned from.
        """
        kinds = self.images.kinds
        if any(one is not None for one in self.splits):
            indices = [i for i, one in enumerate(self.splits) if one == split]
        else:
            good = [i for i, kind in enumerate(kinds) if kind == "good"]
            learned, tested = self._divided(good)
            indices = learned if split == "train" else sorted({*range(len(kinds))} - set(learned))
            if tested:
                warnings.warn(f"{root}: read as {self.layout}, which divides no images: {len(tested)} of {len(good)} "
                              "good ones are for the test alone, in blocks", stacklevel=4)  # fmt: skip
        if split != "test":
            bad = [i for i in indices if kinds[i] != "good"]
            if bad:
                named = some_of([self.images.paths[i].name for i in bad])
                warnings.warn(f"{root}: {len(bad)} defective images of {split} are passed over: {named}", stacklevel=4)
            indices = [i for i in indices if kinds[i] == "good"]
        if not indices:
            what = "images to test" if split == "test" else "good images to learn from"
            counts = {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
            came = ", ".join(f"{count} {kind}" for kind, count in counts.items())
            raise ValueError(f"{root}: {what} required, got {came}, of {self.layout}")
        found = self.images.chosen(indices)
        return found if split == "test" else all_of_kind(found.paths, "good")

    def _divided(self, good: Sequence[int]) -> tuple[list[int], list[int]]:
        groups = None if self.groups is None else [self.groups[i] for i in good]
        groups = groups if groups is not None and len(set(groups)) > 2 else None
        if len(good) < 3:
            return list(good), []
        learned, tested = hold_out([self.images.paths[i] for i in good], _TESTED, groups=groups)
        return [good[i] for i in learned.tolist()], [good[i] for i in tested.tolist()]


def read_labelled(root: Path) -> Labelled | None:
    """Read a folder without `train` and `test`, or a CSV file; None if it is a plain folder."""
    if root.is_file():
        return _csv(root)
    if (root / "image_anno.csv").is_file() or (root / "Data" / "Images").is_dir():
        return _visa(root)
    folders = [folder for folder in folders_in(root) if not holds_masks(folder.name) and images_in(folder)]
    if images_directly_in(root) or len(folders) < 2:
        return None
    if any(is_good(folder.name) for folder in folders):
        truth = next((folder for folder in folders_in(root) if holds_masks(folder.name)), None)
        images = kinds_in(folders, truth)
        return Labelled("a folder for each kind", images, (None,) * len(images))
    paths = images_in(root)
    masks = masks_among(paths, root)
    if masks and set(masks.values()) == set(paths) - set(masks):
        images = by_masks(root, paths, masks)
        return Labelled("images labelled by masks beside them", images, (None,) * len(images),
                        tuple(path.parent for path in images.paths))  # fmt: skip
    return None


def kinds_in(folders: Sequence[Path], truth: Path | None) -> ImageSet:
    """Read a folder for each kind, with masks in folders of the same names in `truth`, or beside the images."""
    sets = []
    for folder in folders:
        paths = images_in(folder)
        beside = masks_among(paths, folder)
        images = tuple(path for path in paths if path not in beside)
        if not images:
            raise ValueError(f"{folder}: images ({' '.join(EXTENSIONS)}) required in {folder}, got none")
        if is_good(folder.name):
            sets.append(all_of_kind(images, "good"))
            continue
        masks: Sequence[Mask | None]
        if truth is not None:
            masks = pair_masks(images, folder_named(truth, folder.name.casefold()) or truth / folder.name, folder)
        else:
            masks = masks_beside(images, beside)
        sets.append(ImageSet(images, (folder.name,) * len(images), tuple(masks)))
    if truth is not None:
        known = {folder.name.casefold() for folder in folders}
        for folder in folders_in(truth):
            if folder.name.casefold() not in known and not is_good(folder.name) and images_in(folder):
                raise ValueError(f"{truth}: an image for each mask required, got {folder} and no "
                                 f"{folders[0].parent / folder.name}")  # fmt: skip
    return joined(sets)


def masks_beside(images: Sequence[Path], beside: dict[Path, Path | None]) -> tuple[Mask | None, ...]:
    """Give each image the mask that lies beside it; with some, each must have one."""
    of = {image: mask for mask, image in beside.items() if image is not None}
    if of and (without := [image for image in images if image not in of]):
        raise ValueError(f"{without[0].parent}: a mask for every defective image required, as for {next(iter(of))}, "
                         f"got none for {some_of(without)}")  # fmt: skip
    return tuple(of.get(image) for image in images)


def by_masks(root: Path, paths: Sequence[Path], masks: dict[Path, Path | None]) -> ImageSet:
    """Label images by the masks beside them: those of a black mask are good."""
    images = [path for path in paths if path not in masks]
    if not images:
        raise ValueError(f"{root}: images required in {root}, got {len(masks)} masks alone: {some_of(list(masks))}")
    of = {image: mask for mask, image in masks.items() if image is not None}
    if without := [image for image in images if image not in of]:
        raise ValueError(f"{root}: a mask beside every image required, as {some_of(list(of.values())[:1])}, got none "
                         f"for {some_of(without)}")  # fmt: skip
    defective = in_threads("masks", lambda image: bool(read_mask(of[image]).any()), images, None, False)
    return ImageSet(
        tuple(images),
        tuple("defect" if is_one else "good" for is_one in defective),
        tuple(of[image] if is_one else None for image, is_one in zip(images, defective, strict=True)),
    )


def _visa(root: Path) -> Labelled:
    """Read a category of VisA: by its list, or by folders Normal and Anomaly; `split_csv` may divide it."""
    data = root / "Data" if (root / "Data").is_dir() else root
    if (root / "image_anno.csv").is_file():
        rows = _rows(root / "image_anno.csv", ("image", "label"))
        found = _listed(root / "image_anno.csv", rows, (root.parent, root), "image")
    else:
        folders = [folder for folder in folders_in(data / "Images") if images_in(folder)]
        if not folders:
            raise ValueError(f"{root}: folders Normal and Anomaly required in {data / 'Images'}, got "
                             f"{holdings(data / 'Images') if (data / 'Images').is_dir() else 'none'}")  # fmt: skip
        truth = data / "Masks"
        found = kinds_in(folders, truth if truth.is_dir() else None)
    splits: tuple[str | None, ...] = (None,) * len(found)
    division = root.parent / "split_csv" / "1cls.csv"
    if division.is_file():
        rows = [row for row in _rows(division, ("object", "split", "image")) if row["object"] == root.name]
        of = {(root.parent / row["image"]).resolve(): _SPLITS.get(row["split"]) for row in rows}
        splits = tuple(of.get(path.resolve()) for path in found.paths)
    return Labelled("VisA", found, splits)


def _csv(file: Path) -> Labelled:
    """Read a list with a column path (or image) and, as far as known, label (or kind), mask and split."""
    rows = _rows(file, ())
    columns = set(rows[0])
    path = next((name for name in ("path", "image", "file", "filename") if name in columns), None)
    if path is None:
        raise ValueError(f"{file}: a column path required, got {', '.join(sorted(columns))}")
    found = _listed(file, rows, (file.parent,), path)
    splits: list[str | None] = []
    for number, row in enumerate(rows):
        word = row.get("split", "").casefold()
        if word and word not in _SPLITS:
            raise ValueError(f"{file}: a split of train, validation or test required, got {row['split']!r} in line "
                             f"{number + 2}")  # fmt: skip
        splits.append(_SPLITS.get(word))
    if any(splits) and None in splits:
        raise ValueError(f"{file}: a split for every image, or for none, required, got none in line "
                         f"{splits.index(None) + 2}")  # fmt: skip
    return Labelled("CSV", found, tuple(splits))


def _rows(file: Path, required: Sequence[str]) -> list[dict[str, str]]:
    """Read the rows of a CSV file, columns in any case; a semicolon may separate them."""
    try:
        with open(file, newline="", encoding="utf-8-sig") as stream:
            lines = stream.read().splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: text in UTF-8 required, got {error}") from error
    separator = ";" if lines and ";" in lines[0] and "," not in lines[0] else ","
    rows = [
        {name.strip().casefold(): (value or "").strip() for name, value in row.items() if name is not None}
        for row in csv.DictReader(lines, delimiter=separator)
    ]
    if not rows:
        raise ValueError(f"{file}: a line with the columns' names and one for each image required, got {len(lines)} "
                         "lines")  # fmt: skip
    if missing := [name for name in required if name not in rows[0]]:
        raise ValueError(f"{file}: a column {', '.join(missing)} required, got {', '.join(rows[0])}")
    return rows


def _listed(file: Path, rows: Sequence[dict[str, str]], places: Sequence[Path], column: str) -> ImageSet:
    """Read the images of a list; paths are relative to the first place where they are."""

    def found(name: str, line: int) -> Path:
        for place in places:
            if page_of(place / name)[0].exists():
                return place / name
        raise ValueError(f"{file}: a file {places[0] / name} required by line {line}, got none")

    paths, kinds, masks = [], [], []
    for line, row in enumerate(rows, 2):
        if not row[column]:
            raise ValueError(f"{file}: a path required in every line, got none in line {line}")
        path = found(row[column], line)
        label = row.get("label", "") or row.get("kind", "")
        if not label and ("label" in row or "kind" in row):
            raise ValueError(f"{file}: a label for every image required, got none in line {line}")
        good = not label or is_good(label) or label == "0"
        paths.append(path)
        kinds.append("good" if good else "defect" if label == "1" else label)
        masks.append(found(row["mask"], line) if row.get("mask") and not good else None)
    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise ValueError(f"{file}: each image once required, got {twice} more than once")
    bad = [mask for mask, kind in zip(masks, kinds, strict=True) if kind != "good"]
    if any(bad) and None in bad:
        lone = next(path for path, kind, mask in zip(paths, kinds, masks, strict=True) if kind != "good" and not mask)
        raise ValueError(f"{file}: a mask for every defective image, or for none, required, got none for {lone}")
    return ImageSet(tuple(paths), tuple(kinds), tuple(masks))
