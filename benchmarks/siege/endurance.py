"""Images scored by the ten thousand in one process, the detector loaded over and over: what a process keeps of it."""

import gc
import itertools
import os
import threading
import time
import warnings
from pathlib import Path
from typing import NamedTuple

from benchmarks.siege.field import Field
from fastcutpaste.images.readable import Unread
from fastcutpaste.reports.scored import score_in_turn
from fastcutpaste.scoring.detector import Detector


class Held(NamedTuple):
    """Hold what a process has: MB of memory, threads, open files."""

    megabytes: float
    threads: int
    files: int


def endure(field: Field, least: int) -> tuple[dict[str, int], Held, Held]:
    """Load the detector and score the night's images with it, again and again.

    Args:
        field: made by `make_field`.
        least: images to be scored.

    Returns:
        How many were scored, how many could not be read and how often the detector was loaded; what the process held
        after a fifth of them, and at the end.
    """
    paths = sorted(field.night.iterdir()) * 4
    counts, early = {"scored": 0, "unread": 0, "loaded": 0}, None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        while counts["scored"] < least:
            detector = Detector.load(field.run / "detector.safetensors")
            counts["loaded"] += 1
            for one in itertools.chain.from_iterable(score_in_turn(detector, paths)):
                counts["unread" if isinstance(one, Unread) else "scored"] += 1
            if early is None and counts["scored"] >= least / 5:
                early = held()
    end = held()
    return counts, early or end, end


def held() -> Held:
    """Give what this process holds just now, its garbage collected and what ends of itself ended."""
    gc.collect()
    time.sleep(0.2)
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    files = len(os.listdir("/proc/self/fd"))
    return Held(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, threading.active_count(), files)
