"""Files of which some cannot be read: decoded in turn, each as an image or as what is wrong with it."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fastcutpaste.images.decode import decode, in_threads, peek, say_losses, usable_cores

_BAND = 2**22  # pixels copied at a time: Pillow gives an array of an image by way of two more copies of it
_ROOM = 2**25  # pixels of images at their own scale that are held while one of them is worked on

AT_ONCE = 16  # images decoded and scored together


class Read(NamedTuple):
    """Hold an image: its file, pixels uint8 (3, H, W) of the size asked for, and the (height, width) of the file."""

    path: Path
    pixels: NDArray[np.uint8]
    size: tuple[int, int]


class Unread(NamedTuple):
    """Hold a file that cannot be read, and why."""

    path: Path
    error: str


def read_in_turn(
    paths: Sequence[Path], size: tuple[int, int], at_once: int, strict: bool = False, bits: int | None = None
) -> Iterator[list[Read | Unread]]:
    """Decode images as `load_images` does, but no earlier than they are needed, and go on past broken ones.

    Threads are a batch ahead of what is taken, so that decoding goes on while a batch is worked on. What files lost by
    being converted is said once, after the last.

    Args:
        paths: N files.
        size: (height, width) the images get.
        at_once: files of a batch.
        strict: stop at the first file that cannot be read.
        bits: as `load_images` takes them.

    Yields:
        Batches in the order of `paths`, the last one perhaps smaller.

    Raises:
        ValueError: a file that cannot be read, where `strict`.

    Cost:
        Memory: of 2 · at_once images of the size asked for, and one decoded image a thread.
    """
    height, width = size

    def read(path: Path) -> tuple[Read, list[str]]:
        image, full_size, notes = decode(path, size, bits)
        resized = np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))  # (H, W) or (H, W, 3)
        grey = resized.ndim == 2
        pixels = np.broadcast_to(resized, (3, height, width)) if grey else resized.transpose(2, 0, 1)  # (3, H, W)
        return Read(path, pixels, full_size), notes

    attempt = partial(_attempt, read, strict)
    losses: list[list[str]] = []
    executor = ThreadPoolExecutor(usable_cores())
    try:
        left = iter(paths)
        ahead = deque(executor.submit(attempt, path) for path in islice(left, 2 * at_once))
        while ahead:
            batch = [ahead.popleft().result() for _ in range(min(at_once, len(ahead)))]
            ahead.extend(executor.submit(attempt, path) for path in islice(left, at_once))
            losses += [notes for _, notes in batch]
            yield [one for one, _ in batch]
    finally:
        executor.shutdown(cancel_futures=True)  # after an error: what has not begun never does
    say_losses(losses, paths)


def read_original(path: Path, bits: int | None = None) -> tuple[NDArray[np.uint8], list[str]]:
    """Read a file at its own scale, as `load_images` reads it otherwise; give also what was lost in it.

    Returns:
        (3, H, W) uint8, of a grey file one channel in memory, seen as three.

    Cost: for a while 7 bytes a pixel, then 3; of a grey file 2, then 1.
    """
    image, (height, width), notes = decode(path, None, bits)
    pixels = np.empty((height, width) if image.mode == "L" else (height, width, 3), np.uint8)
    rows = max(1, _BAND // width)
    for top in range(0, height, rows):
        pixels[top : top + rows] = np.asarray(image.crop((0, top, width, min(height, top + rows))))
    grey = pixels.ndim == 2
    return (np.broadcast_to(pixels, (3, height, width)) if grey else pixels.transpose(2, 0, 1)), notes


def originals_in_turn(paths: Sequence[Path], strict: bool = False, bits: int | None = None) -> Iterator[Read | Unread]:
    """Decode images at their own scale, one after the other; else as `read_in_turn`.

    Cost:
        Memory: of the image that is worked on; others are decoded meanwhile as far as all have 32 megapixels at most.
    """

    def read(path: Path) -> tuple[Read, list[str]]:
        pixels, notes = read_original(path, bits)
        return Read(path, pixels, (pixels.shape[1], pixels.shape[2])), notes

    attempt = partial(_attempt, read, strict)
    losses: list[list[str]] = []
    left, ahead = deque(paths), deque[tuple[int, Future[tuple[Read | Unread, list[str]]]]]()
    executor = ThreadPoolExecutor(usable_cores())
    try:
        while left or ahead:
            if not ahead:
                ahead.append((_pixels_of(left[0]), executor.submit(attempt, left.popleft())))
            here, future = ahead.popleft()
            done = [future.result()]
            losses.append(done[0][1])
            del future
            room = _ROOM - here - sum(count for count, _ in ahead)
            while left and len(ahead) < 2 * usable_cores() and (count := _pixels_of(left[0])) <= room:
                ahead.append((count, executor.submit(attempt, left.popleft())))
                room -= count
            yield done.pop()[0]  # so that nobody but the caller holds it, who may want its memory back
    finally:
        executor.shutdown(cancel_futures=True)
    say_losses(losses, paths)


def _attempt(
    read: Callable[[Path], tuple[Read, list[str]]], strict: bool, path: Path
) -> tuple[Read | Unread, list[str]]:
    try:
        return read(path)
    except (ValueError, OSError) as error:
        if strict:
            raise
        return Unread(path, str(error)), []


def _pixels_of(path: Path) -> int:
    """Give how many pixels a file says it has; 0 of one that cannot be read."""
    try:
        (height, width), _ = peek(path)
    except (ValueError, OSError):
        return 0
    return height * width


def find_unread(paths: Sequence[Path]) -> list[Unread]:
    """Decode all files, keep nothing, and name those that cannot be read."""

    def attempt(path: Path) -> Unread | None:
        try:
            decode(path, (1, 1))
        except (ValueError, OSError) as error:
            return Unread(path, str(error))
        return None

    return [found for found in in_threads("find_unread", attempt, paths, None, False) if found is not None]
