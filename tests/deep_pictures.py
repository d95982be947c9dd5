"""Files of more than 8 bits a channel, written by hand: Pillow writes neither deep color nor 12 bits."""

import struct
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np


def write_tiff(
    path: Path,
    pixels: np.ndarray,
    bits: int,
    channels: int,
    signed: bool = False,
    more: Mapping[int, int] | None = None,
) -> Path:
    """Write an uncompressed little-endian TIFF of uint16 (H, W) or (H, W, 3), with more tags if given."""
    height, width = pixels.shape[:2]
    if bits == 12:  # two values in three bytes, the high bits first
        pairs = pixels.reshape(-1, 2).astype(int)
        data = b"".join(((a << 12) | b).to_bytes(3, "big") for a, b in pairs.tolist())
    else:
        data = pixels.astype("<u2").tobytes()
    photometric = 2 if channels == 3 else 1
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 0, 277: channels, 278: height}
    tags |= {279: len(data), 339: 2 if signed else 1} | dict(more or {})
    start = 8 + 2 + 12 * len(tags) + 4
    tags[273] = start + 6
    entries = b""
    for tag, value in sorted(tags.items()):
        many = tag == 258 and channels == 3
        kind = 3 if many or tag == 274 else 4
        entries += struct.pack("<HHII", tag, kind, 3 if many else 1, start if many else value)
    head = struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<H", len(tags)) + entries + bytes(4)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(head + struct.pack("<HHH", bits, bits, bits) + data)
    return path


def write_deep_png(path: Path, pixels: np.ndarray, exif: bytes | None = None) -> Path:
    """Write a PNG of uint16 (H, W, 3 or 4), each row by another of the five filters."""
    height, width, channels = pixels.shape
    lines = pixels.astype(">u2").reshape(height, -1).view(np.uint8).astype(int)
    step, rows = 2 * channels, b""
    for y in range(height):
        left, above, corner = np.zeros((3, lines.shape[1]), int)
        left[step:] = lines[y, :-step]
        if y:
            above, corner[step:] = lines[y - 1], lines[y - 1, :-step]
        near = np.stack([left, above, corner])
        order = np.abs(left + above - corner - near).argmin(0)  # of Paeth: the first of the nearest
        paeth = np.take_along_axis(near, order[None], 0)[0]
        guess = (np.zeros_like(left), left, above, (left + above) // 2, paeth)[y % 5]
        rows += bytes([y % 5]) + ((lines[y] - guess) % 256).astype(np.uint8).tobytes()
    head = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    if exif is not None:
        chunks.insert(1, (b"eXIf", exif.removeprefix(b"Exif\0\0")))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    ))  # fmt: skip
    return path
