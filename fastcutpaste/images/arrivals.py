"""Arrivals: image files that come into folders one by one, each given out once it is there completely."""

import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from fastcutpaste.images.tree import images_in

_PADDED_BY_DECODERS, _END_OF_JPEG = (b"\xff\xd8\xff", b"RIFF"), b"\xff\xd9"
_UNWRITTEN, _TAIL = bytes(16), 1 << 16


class Stamp(NamedTuple):
    """Hold what tells a file from the one it replaces: its size and when it was last written to, ns since 1970."""

    bytes: int
    modified_ns: int


class Arrival(NamedTuple):
    """Hold a file that has not changed for a while: its path, what it is told by, and for how many seconds."""

    path: Path
    stamp: Stamp
    unchanged: float


class Arrivals:
    """Look for new and replaced image files, again and again: no system tells of those on a network drive.

    Args:
        folders: these and the folders in them.
        settle: seconds for which a file has to be unchanged, by this machine's clock, to be given out.
        known: files that are done, by path.
    """

    def __init__(self, folders: Sequence[Path], settle: float, known: Mapping[Path, Stamp]) -> None:
        self._folders, self._settle, self._known = folders, settle, dict(known)
        self._since: dict[Path, tuple[Stamp, float]] = {}  # of files that are not done: as they are, and since when

    def look(self) -> list[Arrival]:
        """Give the files that are settled and not done, in natural order.

        Raises:
            OSError: a folder that cannot be listed; the next look begins anew.
        """
        since, self._since = self._since, {}
        for folder in self._folders:
            for path in images_in(folder):
                stamp = stamp_of(path)
                if stamp is not None and self._known.get(path) != stamp:
                    before, at = since.get(path, (None, 0.0))
                    self._since[path] = stamp, at if before == stamp else time.monotonic()
        now = time.monotonic()
        found = [Arrival(path, stamp, now - at) for path, (stamp, at) in self._since.items()]
        return [one for one in found if one.unchanged >= self._settle]

    def done(self, arrival: Arrival) -> None:
        """Give a file out no more, until another takes its place."""
        self._known[arrival.path] = arrival.stamp
        self._since.pop(arrival.path, None)


def stamp_of(path: Path) -> Stamp | None:
    """Give what a file is told by; None if it is gone."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return Stamp(found.st_size, found.st_mtime_ns)


def lacks_its_end(path: Path) -> bool:
    """Tell whether the space of a file was taken before it is written: of JPEG and WebP decoders make its rest grey."""
    try:
        with open(path, "rb") as file:
            if not file.read(4).startswith(_PADDED_BY_DECODERS):
                return False
            file.seek(-min(_TAIL, file.seek(0, os.SEEK_END)), os.SEEK_END)
            tail = file.read()
    except OSError:
        return True
    return tail.endswith(_UNWRITTEN) and not tail.rstrip(b"\0").endswith(_END_OF_JPEG)
