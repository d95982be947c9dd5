"""Files written whole or not at all, and what is read from them."""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

_STEM = 50  # characters of a name that another made of it keeps: no name is longer than 255 bytes, up to 4 a character
_FORBIDDEN = '<>:"/\\|?*'  # in names of Windows, besides what is not printable


@contextmanager
def written_whole(path: str | Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; move it into place once the block has ended without an error.

    A reader sees the old file or the new one, never half of one: the bytes are flushed to disk before the rename,
    and on any error the temporary file is removed and `path` stays as it was. What a process that was killed while it
    wrote `path` has left is removed.

    Args:
        path: the file to write; its folder is made if missing.

    Yields:
        A path in the same folder, with the same suffix, that does not exist yet.

    Raises:
        OSError: no room, no leave to write; names `path`.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem[:_STEM]}.{os.getpid()}.part{path.suffix}")
    with naming(path, temporary):
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_leftovers(path)
        try:
            yield temporary
            with open(temporary, "rb+") as file:  # Windows flushes only what may be written
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def naming(path: Path, temporary: Path | None = None) -> Iterator[None]:
    """Let an error of the system name a file, as a full disk's does not, and not the temporary one in its place."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename not in (None, temporary, str(temporary)):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def check_writable(*paths: Path) -> None:
    """See that files can be written, before the work is done whose results they are to hold.

    Raises:
        OSError: no room, no leave to write; names the file.
    """
    for path in paths:
        temporary = path.with_name(f".{path.stem[:_STEM]}.{os.getpid()}.part")
        with naming(path, temporary):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                temporary.write_bytes(b"?")
            finally:
                temporary.unlink(missing_ok=True)


def read_json(text: str | bytes) -> Any:
    """Give what JSON says.

    Raises:
        ValueError: it is no JSON, or nested so deeply that it cannot be meant.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("JSON nested too deeply") from error


def safe_name(text: str) -> str:
    """Make 50 characters at most of a file's name, for every system, of any text, such as another file's name."""
    return "".join("_" if one in _FORBIDDEN or not one.isprintable() else one for one in text[:_STEM])


def _remove_leftovers(path: Path) -> None:
    """Remove what processes that live no more have left of `path`, as far as the system lets us."""
    start = f".{path.stem[:_STEM]}."
    with suppress(OSError):
        for name in os.listdir(path.parent):
            owner, _, end = name.removeprefix(start).partition(".")
            if name.startswith(start) and owner.isdecimal() and end.startswith("part") and not _alive(int(owner)):
                left = path.parent / name
                shutil.rmtree(left) if left.is_dir() else left.unlink()


def _alive(process: int) -> bool:
    if sys.platform == "win32":  # where the 0 would be sent
        return True
    try:
        os.kill(process, 0)
    except PermissionError:
        return True  # somebody else's
    except (OSError, OverflowError):
        return False
    return True
