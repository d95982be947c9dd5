"""Damage: bytes flipped, cut, swapped, JSON of another shape, numbers that are none, sizes that no disk has."""

import json
import random
import struct
import zlib
from collections.abc import Callable
from typing import Any

_STRANGE: tuple[Any, ...] = (None, True, -1, 0, 10**400, 1e308, float("nan"), float("-inf"), "", "x" * 100_000,
                             "../../x", [], {}, [[]], {"x": {}}, [1, 2, 3], "\x00", [None] * 1000)  # fmt: skip


def damaged(data: bytes, kind: str, chance: random.Random) -> tuple[str, bytes]:
    """Damage a file's bytes in one way of those that its kind has; give the way's name and the bytes.

    Args:
        data: of a whole file, at least 64 bytes.
        kind: the suffix of its name.
        chance: what is drawn from.
    """
    name = chance.choice([*_ANY, *_OF.get(kind, ())])
    return name, (_ANY.get(name) or _OF[kind][name])(data, chance)


def _flip(data: bytes, chance: random.Random) -> bytes:
    changed = bytearray(data)
    near = chance.choice((len(data), min(len(data), 400)))  # anywhere, or in the head, where it hurts most
    for _ in range(chance.choice((1, 3, 50))):
        changed[chance.randrange(near)] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _cut(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data))]


def _swap(data: bytes, chance: random.Random) -> bytes:
    length = chance.randint(1, len(data) // 4)
    first = chance.randrange(len(data) // 2 - length + 1)
    second = chance.randrange(len(data) // 2, len(data) - length + 1)
    one, other = data[first : first + length], data[second : second + length]
    return data[:first] + other + data[first + length : second] + one + data[second + length :]


def _repeat(data: bytes, chance: random.Random) -> bytes:
    place = chance.randrange(len(data))
    return data[:place] + data[chance.randrange(len(data)) :] + data[place:]


def _blank(data: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(data))
    length = chance.randint(1, len(data) - start)
    return data[:start] + chance.choice((b"\x00", b"\xff")) * length + data[start + length :]


def _noise(data: bytes, chance: random.Random) -> bytes:
    return chance.randbytes(chance.choice((0, 1, 8, len(data))))


def strange_json(value: Any, chance: random.Random) -> Any:
    """Put something strange in place of one of the values in what JSON holds, or take it away."""
    inside = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    if not inside or chance.random() < 0.15:
        return chance.choice(_STRANGE)
    key = chance.choice(inside)
    copy = value.copy()
    if isinstance(copy, dict) and chance.random() < 0.2:
        del copy[key]
    else:
        copy[key] = strange_json(copy[key], chance)
    return copy


def _json(data: bytes, chance: random.Random) -> bytes:
    text = json.dumps(strange_json(json.loads(data), chance))
    return chance.choice((text, "[" * 100_000, text[:-1], text + text)).encode()


def _json_line(data: bytes, chance: random.Random) -> bytes:
    lines = data.splitlines(keepends=True)
    place = chance.randrange(len(lines))
    lines[place] = _json(lines[place], chance) + b"\n"
    return b"".join(lines)


def _header(data: bytes, chance: random.Random) -> bytes:
    """Change the JSON at the head of a safetensors file: that of the format, or our own within."""
    length = struct.unpack("<Q", data[:8])[0]
    about = json.loads(data[8 : 8 + length])
    own = next(name for name in about["__metadata__"] if name.startswith("fastcutpaste"))
    if chance.random() < 0.7:
        inner = json.loads(about["__metadata__"][own])
        if own == "fastcutpaste":  # a detector's, of which early ones have no checksum
            inner.pop("checksum", None)
        about["__metadata__"][own] = json.dumps(strange_json(inner, chance))
    else:
        about = strange_json(about, chance)
    text = json.dumps(about).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def _length(data: bytes, chance: random.Random) -> bytes:
    return struct.pack("<Q", chance.choice((0, 1, 2**31, 2**40, 2**63, 2**64 - 1))) + data[8:]


def _numbers(data: bytes, chance: random.Random) -> bytes:
    """Write numbers that are none, or beyond all bounds, among the weights."""
    start = 8 + struct.unpack("<Q", data[:8])[0]
    changed = bytearray(data)
    for _ in range(chance.choice((1, 200))):
        place = start + 4 * chance.randrange((len(data) - start) // 4)
        changed[place : place + 4] = struct.pack("<f", chance.choice((float("nan"), float("inf"), -3e38)))
    return bytes(changed)


def _pickle(_data: bytes, _chance: random.Random) -> bytes:
    return b"cos\nsystem\n(S'touch code-was-run'\ntR."


def _huge_png(_data: bytes, chance: random.Random) -> bytes:
    """Claim many pixels, with none, few or well compressed ones behind the head."""
    width, height = chance.choice(((2**31 - 1, 2**31 - 1), (60_000, 60_000), (100_000, 10), (12_000, 12_000), (1, 1)))
    pixels = zlib.compress(bytes(chance.choice((0, 1000, 30_000_000))), 9)
    text = zlib.compress(bytes(80_000_000), 9) if chance.random() < 0.3 else b""
    head = struct.pack(">IIBBBBB", width, height, 8, chance.choice((0, 2)), 0, 0, 0)
    chunks = [
        (b"IHDR", head),
        *([(b"zTXt", b"bomb\x00\x00" + text)] if text else []),
        (b"IDAT", pixels),
        (b"IEND", b""),
    ]
    made = b"".join(struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
                    for name, body in chunks)  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + made


def _png_chunk(data: bytes, chance: random.Random) -> bytes:
    """Damage one chunk's body and make its checksum right again, so that the decoder takes it."""
    place, chunks = 8, []
    while place < len(data):
        length = struct.unpack(">I", data[place : place + 4])[0]
        chunks.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    which = chance.randrange(len(chunks))
    name, body = chunks[which]
    chunks[which] = (name, _flip(body, chance) if body else chance.randbytes(8))
    return data[:8] + b"".join(struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
                               for name, body in chunks)  # fmt: skip


Way = Callable[[bytes, random.Random], bytes]
_ANY: dict[str, Way] = {"bits flipped": _flip, "cut": _cut, "swapped": _swap, "repeated": _repeat, "blanked": _blank,
                        "noise": _noise}  # fmt: skip
_OF: dict[str, dict[str, Way]] = {
    ".safetensors": {"JSON": _header, "length": _length, "NaN": _numbers, "pickle": _pickle},
    ".json": {"JSON": _json}, ".jsonl": {"JSON": _json_line}, ".onnx": {"pickle": _pickle},
    ".png": {"huge": _huge_png, "chunk": _png_chunk},
}  # fmt: skip
