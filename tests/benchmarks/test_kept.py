"""Rows come back as they were kept, one of a key."""

from dataclasses import dataclass
from math import isnan, nan

import pytest

from benchmarks.kept import keep, read


@dataclass(frozen=True)
class Score:
    name: str
    seed: int
    value: float
    key = property(lambda self: (self.name, self.seed))


def test_a_later_row_of_a_key_stands_where_the_earlier_one_stood(tmp_path):
    path = tmp_path / "new" / "rows.csv"
    keep([Score("b, é", 0, 1.5), Score("a", 0, nan)], path)
    keep([Score("c", 1, 2.0), Score("b, é", 0, 1e-9)], path)
    one, two, three = read(Score, path)
    assert (one, three) == (Score("b, é", 0, 1e-9), Score("c", 1, 2.0))
    assert (two.name, two.seed, isnan(two.value)) == ("a", 0, True)


def test_nothing_kept_is_nothing_read_and_writes_no_file(tmp_path):
    keep([], tmp_path / "rows.csv")
    assert not (tmp_path / "rows.csv").exists()
    assert read(Score, tmp_path / "rows.csv") == []


def test_a_full_disk_leaves_what_was_kept(tmp_path, monkeypatch):
    path = tmp_path / "rows.csv"
    keep([Score("a", 0, 1.0)], path)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("csv.DictWriter.writerows", full)
    with pytest.raises(OSError, match="No space left"):
        keep([Score("b", 0, 2.0)], path)
    assert read(Score, path) == [Score("a", 0, 1.0)]
