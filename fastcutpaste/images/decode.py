"""Decoding: image files as upright 8-bit RGB, in parallel, into one resident uint8 tensor.

Every image is decoded and resized once and then kept, one byte a value: 320 images of 256×256 are 63 MB.
"""

import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from fastcutpaste.images.depth import DEEPEST, bits_for, bits_of, brightest, read_deep_color, to_eight
from fastcutpaste.images.tree import page_of

if TYPE_CHECKING:  # a file is decoded without torch
    import torch
    from torch import Tensor

_FORMATS = (
    "BMP",
    "GIF",
    "JPEG",
    "PNG",
    "TIFF",
    "WEBP",
)  # by content: a JPEG named .png is read, a PostScript file is not

_ORIENTATION, _TURNED = 0x0112, (5, 6, 7, 8)  # the tag of EXIF, and its values for 90° and 270°

_DEEP = "had 12 or 16 bits a channel, reduced to 8"
_UNUSED = "had 16 bits a channel but used a quarter at most, reduced to 8; give bits if they are a camera's 10, 12, 14"
_ABOVE = "had values above the highest of the bits given, made white"
_TRANSPARENT = "had transparent pixels, alpha dropped"
_MORE_PAGES = "had more than one page or frame, the first is used (--pages, or a path such as scan.tif#2: others)"
_CMYK = "were CMYK, converted without a colour profile"

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class LoadedImages(NamedTuple):
    """Images of one size in one tensor: pixels uint8 (N, 3, H, W), and the (height, width) each file had."""

    pixels: "Tensor"
    sizes: list[tuple[int, int]]


def read_image(path: str | Path, bits: int | None = None) -> Image.Image:
    """Read one file as an upright RGB image of 8 bits a channel.

    The EXIF orientation is applied; grey, palette and CMYK become RGB. What loses information is done and said in a
    warning: 16 bits a channel keep the highest 8 (one scale, so images stay comparable), alpha is dropped if anything
    was transparent, only the first page or frame is used.

    Args:
        path: a BMP, GIF, JPEG, PNG, TIFF or WebP file; the content counts, not the extension. A page of a TIFF, or a
            frame, is `scan.tif#2`, counted from 1.
        bits: of the values in files of more than 8, 8 to 16: 12 for a camera's 0-4095 in files of 16. `find_bits` gives
            those of a set of images, and `DetectorConfig.bits` those of a detector, whose images are all to be read
            so. None: as many as the files have.

    Returns:
        An image of mode RGB.

    Raises:
        ValueError: the file is missing, broken, of another format, has channels of whole numbers of 32 bits, or
            floating-point ones beyond 0–1; more than twice the pixels of PIL.Image.MAX_IMAGE_PIXELS.
    """
    _check_bits("read_image", bits)
    image, _, notes = decode(Path(path), None, bits)
    say_losses([notes], [path])
    return image.convert("RGB")


def load_images(
    paths: Sequence[str | Path],
    size: int | tuple[int, int],
    *,
    bits: int | None = None,
    workers: int | None = None,
    progress: bool = False,
    memory_format: "torch.memory_format | None" = None,
) -> LoadedImages:
    """Decode images in parallel, resize them to one size and put them into one tensor.

    Each is read as by `read_image` and resized by Pillow's antialiased bilinear filter (torchvision's `Resize` of a
    PIL image), without keeping the aspect ratio. A JPEG at least four times as large as asked for is decoded at a
    half, quarter or eighth, never below twice the size: 2.5 times faster at 3000×2000, and on four photographs values
    moved by 0.2 to 1.2 of 255 on average, 10 at most.

    Args:
        paths: N files.
        size: (height, width), or one number for both.
        bits: as for `read_image`.
        workers: threads, default one per usable core. Pillow decodes and resizes outside the interpreter's lock.
        progress: show a bar on stderr.
        memory_format: of the pixels, contiguous or channels_last; None: contiguous.

    Returns:
        pixels, uint8 (N, 3, H, W), in the order of `paths`; sizes, each file's upright (height, width).

    Raises:
        ValueError: the first file in order that cannot be read, as by `read_image`; a size or workers below one,
            bits out of bounds.

    Cost:
        Memory: 3·N·H·W bytes, and one decoded image per thread.
    """
    height, width = _height_width("load_images", size)
    _check_bits("load_images", bits)
    import torch

    memory_format = memory_format or torch.contiguous_format
    pixels = torch.empty(len(paths), 3, height, width, dtype=torch.uint8, memory_format=memory_format)
    target = pixels.numpy()  # the same memory

    def load(index: int) -> tuple[tuple[int, int], list[str]]:
        image, full_size, notes = decode(Path(paths[index]), (height, width), bits)
        resized = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))
        target[index] = resized if resized.ndim == 2 else resized.transpose(2, 0, 1)  # (H,W) or (H,W,3) -> (3,H,W)
        return full_size, notes

    loaded = in_threads("load_images", load, range(len(paths)), workers, progress)
    say_losses([notes for _, notes in loaded], paths)
    return LoadedImages(pixels, [full_size for full_size, _ in loaded])


def find_bits(paths: Sequence[str | Path], *, workers: int | None = None) -> int | None:
    """Find how many bits the values of a set of images have: one scale for all of them, which `load_images` takes.

    A camera's 10, 12 or 14 bits often lie in files of 16, whose highest 8 then say little or nothing.

    Args:
        paths: N files, all that are to be compared.
        workers: threads, as for `load_images`.

    Returns:
        8, 10, 12, 14 or 16: the fewest that hold the brightest value of all; None if no file has more than 8 bits.

    Raises:
        ValueError: the first file in order that cannot be read.

    Cost: files of more than 8 bits are read whole, of others the head.
    """

    def look(path: str | Path) -> int | None:
        with opened(Path(path)) as image:
            deep = bits_of(image)
            if deep == 8:
                return None
            image.load()
            return (1 << deep) - 1 if deep < DEEPEST else brightest(image)  # a file of 12 bits says itself what it has

    found = [value for value in in_threads("find_bits", look, paths, workers, False) if value is not None]
    return bits_for(max(found)) if found else None


def decode(
    path: Path, near: tuple[int, int] | None, bits: int | None = None
) -> tuple[Image.Image, tuple[int, int], list[str]]:
    """Read a file as an upright image of mode L or RGB; give it, its full (height, width) and what was lost.

    With `near`, a (height, width), a far larger JPEG comes reduced, still at least twice as large each way.
    """
    notes = []
    with opened(path) as image:
        if page_of(path)[1] is None and getattr(image, "n_frames", 1) > 1:
            notes.append(_MORE_PAGES)
        in_file, kind = bits_of(image), image.format
        kept = min(in_file, bits or DEEPEST)
        orientation = image.getexif().get(_ORIENTATION, 1) if in_file > 8 else 1
        full_size = None
        if near is not None and image.format == "JPEG":
            turned = image.getexif().get(_ORIENTATION, 1) in _TURNED
            full_size = image.size if turned else (image.height, image.width)
            height, width = near[::-1] if turned else near
            image.draft(None, (2 * width, 2 * height))
        image.load()  # before the orientation: Pillow turns a TIFF while loading it
        if in_file > 8:
            top = brightest(image)
            if bits is None:
                notes.append(_UNUSED if in_file == DEEPEST and bits_for(top) < DEEPEST else _DEEP)
            elif top >= 1 << kept:
                notes.append(_ABOVE)
        ImageOps.exif_transpose(image, in_place=True)
        full_size = full_size or (image.height, image.width)

        if image.mode[0] in "IF":
            if in_file == 8 and image.mode != "F":
                raise ValueError(f"its channels are neither 8 nor 16 bits without sign (mode {image.mode})")
            return Image.fromarray(to_eight(np.asarray(image), kept)), full_size, notes
        if image.mode == "CMYK":
            notes.append(_CMYK)
        if image.has_transparency_data:
            with_alpha = image.convert("RGBA")
            if with_alpha.getchannel("A").getextrema() != (255, 255):
                notes.append(_TRANSPARENT)
        if in_file > kept:  # of several channels Pillow gave the highest 8 bits
            return _deep_color(path, kind, kept, orientation), full_size, notes
        if image.has_transparency_data:
            return with_alpha.convert("RGB"), full_size, notes
        wanted = "L" if image.mode in ("1", "L") else "RGB"
        # Of an image of 182 megapixels a copy takes 728 MB; one that lies in the file itself must not go with the file.
        as_it_is = image.mode == wanted and getattr(image, "map", None) is None
        return (image if as_it_is else image.convert(wanted)), full_size, notes


def peek(path: Path) -> tuple[tuple[int, int], str]:
    """Read the head of a file: the upright image's (height, width), and Pillow's mode of it.

    Raises:
        ValueError: as by `read_image`; broken pixels go unseen.
    """
    with opened(path) as image:
        # Pillow gives a TIFF's size upright, and decodes a whole PNG to look for an orientation behind its pixels.
        looked_for = image.format == "JPEG" or (image.format == "PNG" and "exif" in image.info)
        turned = looked_for and image.getexif().get(_ORIENTATION, 1) in _TURNED
        return image.size if turned else (image.height, image.width), image.mode


def _deep_color(path: Path, kind: str | None, bits: int, orientation: int) -> Image.Image:
    """Read a file of several channels of 16 bits as an upright RGB image of the highest 8 of so many bits."""
    file, page = page_of(path)
    values = read_deep_color(file, kind, (page or 1) - 1)
    channels = 3 if values.shape[2] >= 3 else 1
    image = Image.fromarray(to_eight(values[..., :channels].repeat(3 // channels, 2), bits))
    image.getexif()[_ORIENTATION] = orientation
    ImageOps.exif_transpose(image, in_place=True)
    return image


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """Open an image file, or a page of one; let every failure, here or in the block, name the file."""
    file, page = page_of(path)
    try:
        with Image.open(file, formats=_FORMATS) as image:
            if page is not None:
                if not 1 <= page <= getattr(image, "n_frames", 1):
                    raise ValueError(f"{getattr(image, 'n_frames', 1)} pages")
                image.seek(page - 1)
            yield image
    except Exception as error:  # decoders meet broken files with OSError, SyntaxError, struct.error, IndexError, …
        if isinstance(error, UnidentifiedImageError):
            reason = f"a file of another format or broken from the start ({file.stat().st_size} bytes)"
        elif isinstance(error, Image.DecompressionBombError):
            count = "".join(re.findall(r"\((\d+) pixels\)", str(error)))
            most = 2 * (Image.MAX_IMAGE_PIXELS or 0)
            reason = (
                f"{count} pixels, more than the {most} that are allowed; fastcutpaste --most-pixels, or half of it "
            )
            reason += "in PIL.Image.MAX_IMAGE_PIXELS, allows more"
        else:
            reason = f"{type(error).__name__}: {error}" if isinstance(error, KeyError) else str(error)
        raise ValueError(f"{path}: a whole {', '.join(_FORMATS)} image required, got: {reason}") from error


def say_losses(notes: Sequence[Sequence[str]], paths: Sequence[str | Path]) -> None:
    """Say once for each kind of loss how many images had it, and which was first."""
    for kind in (_DEEP, _UNUSED, _ABOVE, _TRANSPARENT, _MORE_PAGES, _CMYK):
        having = [path for path, lost in zip(paths, notes, strict=True) if kind in lost]
        if having:
            text = f"{len(having)} of {len(paths)} images {kind} (first: {having[0]})"
            warnings.warn(text, stacklevel=3)  # points at the caller of read_image or load_images


def in_threads(
    who: str,
    function: Callable[[_Item], _Result],
    items: Sequence[_Item],
    workers: int | None,
    progress: bool,
) -> list[_Result]:
    """Apply a function to every item in threads, keep the order, stop at the first error."""
    workers = usable_cores() if workers is None else workers
    if workers < 1:
        raise ValueError(f"{who}: at least one worker required, got {workers}")
    executor = ThreadPoolExecutor(workers)
    try:
        results = executor.map(function, items)
        return list(_with_bar(results, len(items)) if progress else results)
    finally:
        executor.shutdown(cancel_futures=True)  # after an error or Ctrl-C: what has not begun never does


def usable_cores() -> int:
    """Give how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _with_bar(results: Iterable[_Result], total: int) -> Iterable[_Result]:
    """Show a progress bar on stderr while the results come."""
    from rich.progress import track  # a library that shows no bar need not have it

    from fastcutpaste.console import people

    return track(results, "reading images", total, console=people)


def _check_bits(who: str, bits: int | None) -> None:
    if bits is not None and not 8 <= bits <= DEEPEST:
        raise ValueError(f"{who}: bits from 8 to {DEEPEST} required, got {bits}")


def _height_width(who: str, size: int | tuple[int, int]) -> tuple[int, int]:
    """Give (height, width) for a size of one number or two; refuse all else."""
    height, width = size if isinstance(size, tuple) and len(size) == 2 else (size, size)
    if not isinstance(height, int) or not isinstance(width, int):
        raise TypeError(f"{who}: a size of one whole number or (height, width) required, got {size!r}")
    if height < 1 or width < 1:
        raise ValueError(f"{who}: a size of at least 1 pixel required, got {size!r}")
    return height, width
