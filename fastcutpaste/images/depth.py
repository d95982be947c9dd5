"""Depth: how many bits a channel of an image file has, and values of more than 8 that Pillow does not give."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

DEEPEST = 16
_DEPTHS = (8, 10, 12, 14, DEEPEST)  # of cameras, and of files

# Pillow gives 16-bit color as 8 bits: only the tiles of the unread file tell. "I;16S" has a sign; BMP's 16 are 5-6-5.
_DEEP, _SIGNED = ";16", (";16S", ";16BS")


def bits_of(image: Image.Image) -> int:
    """Tell how many bits a channel has in the file: 12, 16, or 8 for all else. Ask before the image is loaded."""
    layouts = str([tile[3] for tile in getattr(image, "tile", ())]) if image.format in ("PNG", "TIFF") else ""
    if "I;12" in layouts:
        return 12
    return DEEPEST if _DEEP in layouts and not any(signed in layouts for signed in _SIGNED) else 8


def bits_for(value: int) -> int:
    """Give the bits of the cameras whose values go so far: 12 for 3000."""
    return next(bits for bits in _DEPTHS if value < 1 << bits)


def brightest(image: Image.Image) -> int:
    """Bound from above the values of a loaded image of more than 8 bits: exactly, or to the end of their low byte."""
    if image.mode[0] == "I":
        return int(np.asarray(image).max())
    bands = image.getextrema()[: 1 if image.mode == "LA" else 3]  # without alpha
    return 256 * max(int(high) for _, high in bands) + 255  # type: ignore[misc]


def read_deep_color(path: Path, kind: str | None, page: int = 0) -> NDArray[np.uint16]:
    """Read all 16 bits of a PNG or TIFF of several channels, (H, W, C), as they lie in the file.

    Raises:
        ValueError: an interlaced PNG, a later frame of one.
    """
    if kind == "PNG":
        if page:
            raise ValueError("a frame of 16 bits a channel, of which fewer are used; save it as a file of its own")
        high, low = _bytes_of_png(path.read_bytes())
        return (high.astype(np.uint16) << 8 | low).astype(np.uint16)
    from tifffile import TiffFile  # scikit-image comes with it

    with TiffFile(path) as file:
        found = file.pages[page]
        values: NDArray[np.uint16] = found.asarray()
        planes = values.ndim == 3 and found.axes[0] == "S"  # channels in planes of their own
    return np.moveaxis(values, 0, -1) if planes else values


def _bytes_of_png(data: bytes) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Give the high and the low bytes (H, W, C) of a PNG of 16 bits and several channels.

    Its filters work on each byte of a pixel by itself, so the low bytes alone are the pixels of a PNG of 8 bits, which
    Pillow decodes; and so are the high ones.
    """
    chunks: dict[bytes, bytes] = {}
    at = 8
    while at < len(data):
        size, name = struct.unpack_from(">I4s", data, at)
        chunks[name] = chunks.get(name, b"") + data[at + 8 : at + 8 + size]
        at += 12 + size
    width, height, _, color, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[b"IHDR"])
    if interlaced:
        raise ValueError("an interlaced PNG of 16 bits a channel, of which fewer are used; save it without interlace")
    channels = {2: 3, 4: 2, 6: 4}[color]
    rows = np.frombuffer(zlib.decompress(chunks[b"IDAT"]), np.uint8).reshape(height, 1 + width * channels * 2)
    head = struct.pack(">IIBBBBB", width, height, 8, color, 0, 0, 0)

    def half(first: int) -> NDArray[np.uint8]:
        lines = np.concatenate([rows[:, :1], rows[:, first::2]], 1)  # the filter of the row, then every other byte
        parts = ((b"IHDR", head), (b"IDAT", zlib.compress(lines.tobytes(), 0)), (b"IEND", b""))
        png = b"".join(
            struct.pack(">I", len(part)) + name + part + struct.pack(">I", zlib.crc32(name + part))
            for name, part in parts
        )
        with Image.open(io.BytesIO(data[:8] + png), formats=("PNG",)) as image:
            return np.asarray(image)

    return half(1), half(2)


def to_eight(values: NDArray[Any], bits: int) -> NDArray[np.uint8]:
    """Keep the highest 8 of so many bits, what is brighter becoming 255; of floating point give 0–255 for 0–1.

    Raises:
        ValueError: floating point beyond 0–1, since there is no telling what its range is.
    """
    if values.dtype.kind == "f":
        low, high = float(values.min()), float(values.max())
        if not 0 <= low <= high <= 1:
            raise ValueError(f"its floating-point channel goes from {low:.4g} to {high:.4g}, not from 0 to 1")
        bits, values = 8, np.rint(values * 255).astype(np.uint8)
    kept: NDArray[np.uint8] = np.minimum(values >> (bits - 8), 255).astype(np.uint8)
    return kept
