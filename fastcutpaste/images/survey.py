"""Surveys: what is read as what in a folder, and what in it may lead astray, before any work."""

import hashlib
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fastcutpaste.images.decode import find_bits, in_threads, peek
from fastcutpaste.images.folders import (
    PLAIN,
    TRAIN_ALONE,
    ImageSet,
    find_calibration_images,
    find_test_images,
    find_training_images,
    layout_of,
    load_masks,
)
from fastcutpaste.images.looks import Looks, differences
from fastcutpaste.images.pages import with_pages
from fastcutpaste.images.tree import files_in, page_of, some_of

_MOST = 4  # sizes and modes that are told


@dataclass(frozen=True)
class Survey:
    """Hold what a folder is read as.

    Attributes:
        root: the folder, or list.
        layout: what it is laid out as.
        parts: the images "to learn from", "for the threshold" and "to test", as far as there are some.
        notes: what may lead astray, most important first.
        passed_over: image files that are in no part and no mask of one.
    """

    root: Path
    layout: str
    parts: dict[str, ImageSet]
    notes: tuple[str, ...]
    passed_over: tuple[Path, ...]

    @property
    def headline(self) -> str:
        """What is read as what, in a line."""
        parts = (f"{part}: {counted(images)}" for part, images in self.parts.items())
        return f"{self.root} is read as {self.layout}; {'; '.join(parts)}"

    @property
    def groups(self) -> dict[str, ImageSet]:
        """The images of each part and kind, kinds in turn, the good ones first."""
        found = {}
        for part, images in self.parts.items():
            kinds = dict.fromkeys(images.kinds)
            for kind in sorted(kinds, key=lambda kind: kind not in ("good", None)):
                indices = [i for i, one in enumerate(images.kinds) if one == kind]
                found[f"{part}: {kind or 'unlabelled'}"] = images.chosen(indices)
        return found


def survey(root: Path, pages: bool = False) -> Survey:
    """Find what a folder or a list is read as, by names, and masks by their pixels where names speak of masks.

    Raises:
        ValueError: there is nothing to read in it.
    """
    finders: dict[str, Callable[[Path], ImageSet | None]] = {
        "to learn from": find_training_images,
        "for the threshold": find_calibration_images,
        "to test": find_test_images,
    }
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        layout = layout_of(root)
        if layout in (PLAIN, TRAIN_ALONE):
            del finders["to test"]  # the same images, unlabelled, or none
        found = {part: _try(find, root) for part, find in finders.items()}
    parts = {part: images for part, images in found.items() if isinstance(images, ImageSet)}
    files = {page_of(path)[0] for images in parts.values() for path in (*images.paths, *images.mask_files)}
    if pages:
        parts = {part: with_pages(images) for part, images in parts.items()}
    errors = [error for error in found.values() if isinstance(error, str)]
    if not parts:
        raise ValueError(errors[0])
    every = [] if root.is_file() else files_in(root)
    left = tuple(path for path in every if path not in files)
    notes = list(dict.fromkeys([*errors, *(str(warning.message) for warning in caught)]))
    if left:
        names = [path.relative_to(root).as_posix() for path in left]
        notes.append(f"{len(left)} other files are not read: {some_of(names)}")
    return Survey(root, layout, parts, tuple(notes), left)


def counted(images: ImageSet) -> str:
    """Count images by their kind, and their masks."""
    kinds = Counter(images.kinds)
    good, defective = kinds.pop("good", 0), sum(kinds.values())
    if None in kinds:
        return f"{len(images)} unlabelled images"
    if not defective:
        return f"{good} good images"
    names = some_of([f"{count} {kind}" for kind, count in kinds.items()])
    masks = sum(mask is not None for mask in images.masks)
    return f"{good} good and {defective} defective images ({names}), {masks or 'no'} masks"


def inspect_closely(found: Survey) -> tuple[Survey, dict[str, dict[str, Any]]]:
    """Look into the files of a survey: sizes and modes of all, brightness of 64 of each group at most, masks, doubles.

    Returns:
        The survey with more notes; and for each group the number of images, the commonest sizes as height×width, the
        range of sizes, Pillow's modes as counts, bits, and mean brightness, 0-1, with its standard
        deviation from image to image.
    """
    notes: list[str] = []
    facts: dict[str, dict[str, Any]] = {}
    looks: dict[str, Looks] = {}
    for group, images in found.groups.items():
        heads = in_threads("inspect", partial(_try, peek), images.paths, None, False)
        broken = [str(error) for error in heads if isinstance(error, str)]
        whole = [path for path, head in zip(images.paths, heads, strict=True) if not isinstance(head, str)]
        read = [head for head in heads if not isinstance(head, str)]
        facts[group] = {
            "images": len(images),
            "sizes": _common(f"{height}×{width}" for (height, width), _ in read),
            "range": _range([size for size, _ in read]),
            "modes": _common(mode for _, mode in read),
            "bits": _try(find_bits, whole) or 8,
            "masks": sum(mask is not None for mask in images.masks),
        }
        if broken:
            notes.append(f"{len(broken)} files cannot be read, such as {broken[0]}")
        if whole:
            try:
                looks[group] = Looks.of(whole, find_bits(whole))
            except ValueError as error:
                notes.append(str(error))
            else:
                facts[group] |= {"brightness": looks[group].brightness, "spread": looks[group].spread}
    notes = [*_doubles(found.parts), *_unlike(looks), *notes]
    test = found.parts.get("to test")
    if test is not None and test.has_masks:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                empty = [path.name for path, mask, bad in zip(test.paths, load_masks(test), test.labels, strict=True)
                         if bad and not mask.any()]  # fmt: skip
            except ValueError as error:
                notes.insert(0, str(error))
            else:
                notes += [f"{len(empty)} masks of defective images are empty: {some_of(empty)}"] if empty else []
        notes += [str(warning.message) for warning in caught]
    return Survey(found.root, found.layout, found.parts, (*notes, *found.notes), found.passed_over), facts


def _try(read: Callable[[Any], Any], path: Path | Sequence[Path]) -> Any:
    """Give what is read of a path, or why it cannot be."""
    try:
        return read(path)
    except ValueError as error:
        return str(error)


def _range(sizes: Sequence[tuple[int, int]]) -> str:
    """Tell the smallest and the largest height and width."""
    sides = [(min(side), max(side)) for side in zip(*sizes, strict=True)]
    return " × ".join(str(low) if low == high else f"{low}-{high}" for low, high in sides)


def _common(values: Any) -> dict[Any, int]:
    return dict(Counter(values).most_common(_MOST))


def _doubles(parts: dict[str, ImageSet]) -> list[str]:
    """Tell which files have the same content: those of two parts first, as a test image that was learned from."""
    of = {path: part for part, images in parts.items() for path in images.paths if path.is_file()}
    sizes = Counter(path.stat().st_size for path in of)
    asked = [path for path in of if sizes[path.stat().st_size] > 1]
    digests = in_threads("inspect", lambda path: hashlib.sha1(path.read_bytes()).digest(), asked, None, False)
    same: dict[bytes, list[Path]] = {}
    for path, digest in zip(asked, digests, strict=True):
        same.setdefault(digest, []).append(path)
    groups = [paths for paths in same.values() if len(paths) > 1]
    across = [paths for paths in groups if len({of[path] for path in paths}) > 1]
    within = [paths for paths in groups if paths not in across]
    told = []
    if across:
        pairs = [" = ".join(map(str, paths[:: len(paths) - 1])) for paths in across]
        told.append(f"{len(across)} images are in two parts, by their content: {some_of(pairs)}")
    if within:
        count = sum(len(paths) - 1 for paths in within)
        told.append(f"{count} images are there twice, by their content, such as {some_of(within[0])}")
    return told


def _unlike(looks: dict[str, Looks]) -> list[str]:
    """Tell what sets the good images of the test and of the threshold apart from those to learn from."""
    learned = looks.get("to learn from: good")
    told = []
    for group, what in (
        ("to test: good", "good images to test"),
        ("for the threshold: good", "those for the threshold"),
    ):
        if learned is not None and group in looks:
            told += [f"{what} differ from those to learn from: {one}" for one in differences(looks[group], learned)]
    return told


def sampled(paths: Sequence[Any], most: int) -> list[Any]:
    """Give so many at most, evenly spaced."""
    return [paths[i * len(paths) // most] for i in range(most)] if len(paths) > most else list(paths)
