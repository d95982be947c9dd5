"""Trees of files: which images lie in them, in the order in which people count, and what folders' names say."""

import os
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

EXTENSIONS = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")

# Compared without case, spaces and punctuation.
_GOOD = {"good", "ok", "okay", "normal", "pass", "passed", "free", "mtfree", "intact", "clean", "healthy", "io"}
_GOOD |= {"defectfree", "nodefect", "nodefects", "nondefective", "faultless", "flawless", "negative"}
_BAD = {"bad", "ko", "ng", "nok", "notok", "nio", "defect", "defects", "defective", "fail", "failed", "reject"}
_BAD |= {"rejects", "anomaly", "anomalies", "anomalous", "abnormal", "faulty", "damaged", "broken", "positive"}
_MASKS = {"groundtruth", "gt", "mask", "masks", "label", "labels", "annotation", "annotations", "segmentation"}


def page_of(path: Path) -> tuple[Path, int | None]:
    """Give the file and the number, from 1, of a page's path: scan.tif and 2 of `scan.tif#2`; None of a file's own."""
    name, mark, number = path.name.rpartition("#")
    is_page = mark and Path(name).suffix.lower() in EXTENSIONS and number.isascii() and number.isdecimal()
    return (path.with_name(name), int(number)) if is_page else (path, None)


def is_good(name: str) -> bool:
    """Tell whether a name is a usual word for good parts, in any case: good, OK, Normal, defect-free, …"""
    return _plain_word(name) in _GOOD


def is_bad(name: str) -> bool:
    """Tell whether a name is a usual word for defective parts: bad, KO, NG, defect, Anomaly, …"""
    return _plain_word(name) in _BAD


def holds_masks(name: str) -> bool:
    """Tell whether a folder's name is a usual one for masks: ground_truth, masks, labels, …"""
    return _plain_word(name) in _MASKS


def _plain_word(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())


def images_in(folder: Path) -> tuple[Path, ...]:
    """List the visible image files of a folder and of all folders in it, in natural order.

    Links are followed, but into no folder that is being listed. Broken links stay: reading them says what is wrong.
    """
    return tuple(path for path in files_in(folder) if path.suffix.lower() in EXTENSIONS)


def images_directly_in(folder: Path) -> tuple[Path, ...]:
    """List the visible image files of a folder alone, in natural order."""
    return tuple(path for path, is_folder in _entries(folder) if not is_folder and path.suffix.lower() in EXTENSIONS)


def files_in(folder: Path) -> list[Path]:
    """List all visible files of a tree, in natural order."""
    found: list[Path] = []
    _walk(folder, found, {folder.resolve()})
    return found


def _walk(folder: Path, found: list[Path], above: set[Path]) -> None:
    for path, is_folder in _entries(folder):
        if not is_folder:
            found.append(path)
        elif (there := path.resolve()) not in above:
            _walk(path, found, above | {there})


def folders_in(folder: Path) -> list[Path]:
    """List the visible folders of one folder in natural order."""
    with os.scandir(folder) as entries:  # no paths of a thousand files beside them
        found = [folder / entry.name for entry in entries if entry.is_dir()]
    return sorted((path for path in found if not is_hidden(path)), key=natural)


def _entries(folder: Path) -> list[tuple[Path, bool]]:
    """List the visible files and folders in a folder, in natural order, and which are folders.

    A broken link is a file; a pipe, whose opening would wait for ever, is not listed.
    """
    with os.scandir(folder) as entries:  # which knows most of it without asking for each file
        found = [
            (folder / entry.name, entry.is_dir())
            for entry in entries
            if entry.is_dir() or entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))
        ]
    return sorted((item for item in found if not is_hidden(item[0])), key=lambda item: natural(item[0]))


def is_hidden(path: Path) -> bool:
    """Tell what a system keeps for itself: names with a dot before them, and what macOS adds to archives."""
    return path.name.startswith(".") or path.name == "__MACOSX"


def folder_named(folder: Path, *names: str) -> Path | None:
    """Give the folder of one of these names in a folder, in any case; the first name wins."""
    folders = {path.name.casefold(): path for path in reversed(folders_in(folder))} if folder.is_dir() else {}
    return next((folders[name] for name in names if name in folders), None)


def holdings(folder: Path) -> str:
    """Tell what a folder holds, for an error message."""
    names = [path.name + "/" * path.is_dir() for path in sorted(folder.iterdir(), key=natural)]
    return some_of(names) or "an empty folder"


def some_of(names: Sequence[object]) -> str:
    """Name the first six, and how many more there are."""
    return ", ".join(map(str, names[:6])) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def natural(path: Path) -> tuple[list[str | int], str]:
    """Give a sorting key that counts: 2.png before 10.png; letters in any case; the name itself breaks ties."""
    parts = re.split("([0-9]+)", path.name.casefold())  # text and digits in turn, so like is compared with like
    return [int(part) if part.isdecimal() and part.isascii() else part for part in parts], path.name


def stem_of(path: Path) -> str:
    """Give the name without its extension; é is one letter, however the file system spells it."""
    return unicodedata.normalize("NFC", path.stem)
