"""What the kernels agree on: how much a program does at a time, and where in a rule and in a plan each number lies.

Kernels read these as attributes of this module: Triton compares every constant that a kernel names by itself anew at
each launch, a microsecond each. Of those read so it keeps no track, in what it has compiled either, on disk from one
version of this library to the next: so every kernel that is launched names `AGREED`, which stands for all of them.
"""

import math
import zlib

import triton.language as tl

from fastcutpaste.op.color import GREY_WEIGHTS
from fastcutpaste.op.rules import Kind, Rule

TILE_ROWS, TILE_COLUMNS = tl.constexpr(4), tl.constexpr(64)  # of a patch, that a program computes at a time
SUMMED = tl.constexpr(512)  # pixels of a patch whose greys a program sums at a time: 4 a thread
PARTS = tl.constexpr(8)  # programs that share the sum of a patch at most, so that the largest keeps no others waiting

# of a plan, all that is to know of a patch
PLAN = tl.constexpr(32)  # its numbers, a line of the cache: these, and the sums of the parts
FIRST_ROW, LAST_ROW, FIRST_COLUMN, LAST_COLUMN, IMAGE, TOP, LEFT, Y, X = map(tl.constexpr, range(9))
TALL, WIDE, COSINE, SINE = map(tl.constexpr, range(9, 13))
BRIGHTNESS, CONTRAST, SATURATION, HUE, RANK, FEATHER, SUMS = map(tl.constexpr, (13, 14, 15, 16, 17, 18, 24))


def _field(name: str) -> tl.constexpr:
    return tl.constexpr(Rule._fields.index(name))


# of a rule
RULE = tl.constexpr(len(Rule._fields))
KIND, COLUMN, CHOICE, MEMBERS = (_field(name) for name in ("kind", "column", "choice", "members"))
LOW_0, LOW_1, LOW_2, REFERENCE = (_field(name) for name in ("low_0", "low_1", "low_2", "reference"))
JITTER, SHARE, FADE, NEIGHBOUR = (_field(name) for name in ("brightness", "p", "feather", "neighbour"))
CANDIDATES, CANDIDATE, LEAST = (_field(name) for name in ("candidates", "candidate", "least"))
RECTANGLE, STRIP, WHOLE = (tl.constexpr(int(kind)) for kind in (Kind.RECTANGLE, Kind.STRIP, Kind.WHOLE))

RADIANS = tl.constexpr(math.pi / 180)
RED, GREEN, BLUE = (tl.constexpr(weight) for weight in GREY_WEIGHTS)
ROUNDER = tl.constexpr(1.5 * 2**23)  # added to a float32 and taken away it rounds, halves to even

_EVERY = sorted((name, value.value) for name, value in globals().items() if isinstance(value, tl.constexpr))
AGREED = tl.constexpr(zlib.crc32(repr(_EVERY).encode()))
