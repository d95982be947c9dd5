"""Results in a file as they come: one JSON object a line, so that what a killed process has done is done."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fastcutpaste.files import naming, read_json


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read the whole lines of a file; what was cut in the middle of a line is cut off the file.

    Returns:
        One object a line; none where there is no file.

    Raises:
        ValueError: a whole line that is no JSON object with an "image".
    """
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data[: data.rfind(b"\n") + 1]
    if not data[len(whole) :].startswith(b"{"[: len(data) - len(whole)]):
        raise ValueError(f"{path}: a JSON object with an image on each line required, got another file")
    kept = [_parsed(path, number, line) for number, line in enumerate(whole.splitlines(), 1)]
    if len(whole) < len(data):
        os.truncate(path, len(whole))
    return kept


def _parsed(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        told: dict[str, Any] = read_json(line)
        if not isinstance(told["image"], str):
            raise TypeError
        return told
    except (ValueError, KeyError, TypeError) as error:
        came = f"line {number}: {line[:60].decode(errors='replace')}"
        raise ValueError(f"{path}: a JSON object with an image on each line required, got {came}") from error


def append_lines(path: Path, results: Iterable[dict[str, Any]]) -> None:
    """Write results behind those that a file has, in one piece; the file and its folder are made if missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(result) + "\n" for result in results)
    with naming(path), open(path, "ab") as file:
        file.write(text.encode("ascii"))
