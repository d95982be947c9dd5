"""Rows in a CSV, of any dataclass whose `key` says what a row is of."""

import csv
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Protocol, TypeVar

from fastcutpaste.files import written_whole


class Keyed(Protocol):
    """Be a frozen dataclass of texts and numbers with a key."""

    @property
    def key(self) -> tuple[object, ...]:
        """What a row is of: a later one of the same key stands for it."""


Kind = TypeVar("Kind", bound=Keyed)


def read(kind: type[Kind], path: Path) -> list[Kind]:
    """Read the rows kept; none if there is no such file."""
    if not path.exists():
        return []
    columns: Any = fields(kind)  # type: ignore[arg-type]
    with open(path, newline="", encoding="utf-8") as file:
        return [kind(**{each.name: each.type(row[each.name]) for each in columns}) for row in csv.DictReader(file)]


def keep(rows: Sequence[Kind], path: Path) -> None:
    """Write rows of one kind into the file, where ones of the same key stood, or at its end."""
    if not rows:
        return
    kept = {row.key: row for row in [*read(type(rows[0]), path), *rows]}
    lines = [asdict(row) for row in kept.values()]  # type: ignore[call-overload]
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
