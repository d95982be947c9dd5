"""Folders that fill: each image scored once, as it comes, by a process that may be killed and started again."""

import signal
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any

from fastcutpaste.console import people
from fastcutpaste.images.arrivals import Arrival, Arrivals, Stamp, lacks_its_end, stamp_of
from fastcutpaste.reports.lines import append_lines

Told = dict[str, Any]  # what JSON says of an image
_AT_ONCE = 4  # images scored together: a signal, and a line, waits for no more
_PATIENCE = 10  # times as long as a file has to be unchanged, before one that cannot be read is called broken
_LOOKING = 0.1  # share of the time that may go into listing folders
_LONGEST = 1.0  # seconds between two looks, where they are quick


def check_folders(folders: Sequence[Path], heatmaps: Path | None) -> None:
    """Refuse what cannot be watched.

    Raises:
        ValueError: a file or nothing for a folder, heat maps that would be scored themselves.
    """
    for folder in folders:
        if not folder.is_dir():
            raise ValueError(f"--watch: a folder required, {folder} is {'a file' if folder.exists() else 'missing'}")
        if heatmaps is not None and heatmaps.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"--heatmaps: a folder that is not watched required, {heatmaps} lies in {folder}")


def watch(
    folders: Sequence[Path],
    settle: float,
    out: Path,
    lines: Sequence[Told],
    score: Callable[[Sequence[tuple[int, Path]]], Iterator[list[tuple[int, Told]]]],
) -> Iterator[Told]:
    """Score images as they come, until a signal says to stop, and append a line of each to a file.

    A file is scored when its size and time of change have been as they are for `settle` seconds, it decodes as a
    whole, and is the same after it was scored. A line holds both; so a file is known when the process starts again,
    and one that takes its place is told from it. One that cannot be read is an error when it has not changed for ten
    times as long.

    Args:
        folders: these and the folders in them.
        settle: seconds.
        out: where the lines go.
        lines: those that are there.
        score: takes numbered files, gives what is told of them a few at a time.

    Yields:
        Each line once it is in the file.

    Raises:
        ValueError: lines that do not say which file they are of.
    """
    if any("bytes" not in line or "modified_ns" not in line for line in lines):
        raise ValueError(f"--out: results that --watch has written required, got others in {out}")
    known = {Path(line["image"]): Stamp(line["bytes"], line["modified_ns"]) for line in lines}
    arrivals, count = Arrivals(folders, settle, known), len(lines)
    places = ", ".join(map(str, folders))
    people.print(f"watching {places} until SIGTERM or Ctrl-C; {count} lines in {out}", markup=False)
    with _told_to_stop() as stop, warnings.catch_warnings():
        warnings.simplefilter("always")  # Python remembers for ever what it says once
        while not stop.is_set():
            began = time.monotonic()
            some = [one for one in _look(arrivals) if _is_old(one, settle) or not lacks_its_end(one.path)]
            took = time.monotonic() - began
            for at in range(0, len(some), _AT_ONCE):
                if stop.is_set():
                    break
                came = dict(enumerate(some[at : at + _AT_ONCE], count))
                for scored in score([(number, one.path) for number, one in came.items()]):
                    kept = [(came[number], told | came[number].stamp._asdict()) for number, told in scored
                            if _holds(came[number], told, settle)]  # fmt: skip
                    append_lines(out, [told for _, told in kept])
                    count += len(kept)
                    for one, told in kept:
                        arrivals.done(one)
                        yield told
            stop.wait(max(min(settle / 2, _LONGEST), took / _LOOKING))


def _look(arrivals: Arrivals) -> list[Arrival]:
    try:
        return arrivals.look()
    except OSError as error:  # a drive that is away comes back
        people.print(f"note: {error}; it is tried again", markup=False)
        return []


def _holds(one: Arrival, told: Told, settle: float) -> bool:
    """Tell whether what was found is of the whole file, which is as it was; what is still written does not decode."""
    return stamp_of(one.path) == one.stamp and ("error" not in told or _is_old(one, settle))


def _is_old(one: Arrival, settle: float) -> bool:
    return one.unchanged >= _PATIENCE * settle


@contextmanager
def _told_to_stop() -> Iterator[Event]:
    """Give what is set by a signal to stop, for as long as the block runs."""
    stop = Event()
    names = [name for name in ("SIGTERM", "SIGINT", "SIGHUP") if hasattr(signal, name)]
    before = {name: signal.signal(getattr(signal, name), lambda *_: stop.set()) for name in names}
    try:
        yield stop
    finally:
        for name, handler in before.items():
            signal.signal(getattr(signal, name), handler)
