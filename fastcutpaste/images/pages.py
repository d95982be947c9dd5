"""Pages: those of a TIFF and the frames of a GIF, WebP or PNG, each as an image of its own: `scan.tif#2`."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from fastcutpaste.images.decode import in_threads, opened
from fastcutpaste.images.image_set import ImageSet
from fastcutpaste.images.masks import Mask
from fastcutpaste.images.tree import page_of

_PAGED = ("TIFF", "GIF", "WEBP", "PNG")  # a photograph's second picture (MPO) is a preview, or for its depth
_SUBFILE, _NO_IMAGE = 254, 1 | 4  # the tag of TIFF, and its bits for a smaller copy and for a transparency mask


def with_pages(images: ImageSet) -> ImageSet:
    """Give a set in which each page of a file of several is an image of its kind; smaller copies in a TIFF are none.

    The mask of a file of several pages has as many, in their order. What cannot be read stays as it is.

    Raises:
        ValueError: a mask of another number of pages than its image.
    """
    masks = sorted({*images.mask_files})
    of = dict(zip(masks, in_threads("pages", find_pages, masks, None, False), strict=True))
    found: list[tuple[Path, str | None, Mask | None]] = []
    several = in_threads("pages", find_pages, images.paths, None, False)
    for path, pages, kind, mask in zip(images.paths, several, images.kinds, images.masks, strict=True):
        files = () if mask is None else mask if isinstance(mask, tuple) else (mask,)
        for file in files:
            if len(of[file]) != len(pages):
                raise ValueError(f"{file}: a mask of as many pages as its image required, it has {len(of[file])}, "
                                 f"{path} has {len(pages)}")  # fmt: skip
        for number, page in enumerate(pages):
            drawn = tuple(of[file][number] for file in files)
            found.append((page, kind, drawn if isinstance(mask, tuple) else drawn[0] if drawn else None))
    paths, kinds, drawings = zip(*found, strict=True) if found else ((), (), ())
    return ImageSet(tuple(paths), tuple(kinds), tuple(drawings))


def all_pages(paths: Sequence[Path]) -> tuple[Path, ...]:
    """List the pages of all files, in turn."""
    return tuple(page for pages in in_threads("pages", find_pages, paths, None, False) for page in pages)


def find_pages(path: Path) -> Sequence[Path]:
    """List the pages of a file of several as paths of their own; of all others give the path itself.

    Cost: of a GIF or WebP, whose frames build upon each other, reading page n later decodes all before it.
    """
    if page_of(path)[1] is not None:
        return [path]
    try:
        with opened(path) as image:
            count = getattr(image, "n_frames", 1) if image.format in _PAGED else 1
            numbers = [number for number in range(count) if count == 1 or _is_image(image, number)]
    except ValueError:  # whoever reads it says so
        return [path]
    return [path.with_name(f"{path.name}#{number + 1}") for number in numbers] if count > 1 else [path]


def _is_image(image: Image.Image, number: int) -> bool:
    if image.format != "TIFF":
        return True
    image.seek(number)
    return not int(image.tag_v2.get(_SUBFILE, 0)) & _NO_IMAGE  # type: ignore[attr-defined]
