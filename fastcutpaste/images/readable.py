"""Files of which some cannot be read: decoded in turn, each as an image or as what is wrong with it."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fastcutpaste.images.decode import decode, in_threads, say_losses, usable_cores

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

    def attempt(path: Path) -> tuple[Read | Unread, list[str]]:
        try:
            return read(path)
        except (ValueError, OSError) as error:
            if strict:
                raise
            return Unread(path, str(error)), []

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


def find_unread(paths: Sequence[Path]) -> list[Unread]:
    """Decode all files, keep nothing, and name those that cannot be read."""

    def attempt(path: Path) -> Unread | None:
        try:
            decode(path, (1, 1))
        except (ValueError, OSError) as error:
            return Unread(path, str(error))
        return None

    return [found for found in in_threads("find_unread", attempt, paths, None, False) if found is not None]
