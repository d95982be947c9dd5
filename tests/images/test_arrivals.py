"""Arrivals: a file is given out when it has settled, once, and again when another takes its place."""

import os
from pathlib import Path

import pytest
from pictures import draw_waves, write_picture

from fastcutpaste.images import arrivals as module
from fastcutpaste.images.arrivals import Arrivals, Stamp, lacks_its_end, stamp_of


class Clock:
    """A clock that goes when it is told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module.time, "monotonic", clock)
    return clock


def names(arrivals: Arrivals) -> list[str]:
    return [one.path.name for one in arrivals.look()]


def test_a_file_is_given_out_when_it_is_unchanged_for_long_enough(tmp_path: Path, clock: Clock) -> None:
    arrivals = Arrivals([tmp_path], 2, {})
    file = tmp_path / "deep/a.png"
    file.parent.mkdir()
    file.write_bytes(b"1")
    for step in range(4):  # it grows, and is given other times
        assert names(arrivals) == []
        clock.now += 1.9
        file.write_bytes(b"1" * (2 + step // 2))
        os.utime(file, ns=(0, step))
    assert names(arrivals) == []
    clock.now += 1.9
    assert names(arrivals) == []
    clock.now += 0.2
    [one] = arrivals.look()
    assert (one.path, one.stamp, one.unchanged) == (file, Stamp(3, 3), pytest.approx(2.1))
    assert names(arrivals) == ["a.png"]  # until it is done


def test_what_is_done_comes_again_only_when_replaced(tmp_path: Path, clock: Clock) -> None:
    for name in ("10.png", "9.png", ".hidden.png", "b.txt", "c.png.part"):
        (tmp_path / name).write_bytes(b"1")
    arrivals = Arrivals([tmp_path], 2, {tmp_path / "9.png": Stamp(7, 7)})
    names(arrivals)
    clock.now += 3
    first = arrivals.look()
    assert [one.path.name for one in first] == ["9.png", "10.png"]
    for one in first:
        arrivals.done(one)
    assert names(arrivals) == []
    os.utime(tmp_path / "9.png", ns=(0, 5))
    assert names(arrivals) == []
    clock.now += 3
    assert names(arrivals) == ["9.png"]
    again = Arrivals([tmp_path], 2, {one.path: one.stamp for one in first})  # after a restart
    names(again)
    clock.now += 3
    assert names(again) == ["9.png"]


def test_a_file_or_folder_that_goes_away_is_waited_for_anew(tmp_path: Path, clock: Clock) -> None:
    folder, away = tmp_path / "in", tmp_path / "away"
    file = write_picture(folder / "a.png")
    arrivals = Arrivals([folder], 2, {})
    names(arrivals)
    clock.now += 3
    folder.rename(away)
    with pytest.raises(OSError, match="in"):
        arrivals.look()
    assert stamp_of(file) is None
    away.rename(folder)
    assert names(arrivals) == []
    clock.now += 3
    assert names(arrivals) == ["a.png"]


@pytest.mark.parametrize("kind", ["jpg", "webp"])
def test_space_that_is_taken_and_not_written_is_no_end(tmp_path: Path, kind: str) -> None:
    file = write_picture(tmp_path / f"a.{kind}", draw_waves(90, 120))
    whole = file.read_bytes()
    assert not lacks_its_end(file)
    file.write_bytes(whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2))
    assert lacks_its_end(file)
    file.unlink()
    assert lacks_its_end(file)


def test_padding_behind_a_jpeg_and_black_pixels_are_no_unwritten_space(tmp_path: Path) -> None:
    file = write_picture(tmp_path / "a.jpg", draw_waves(90, 120))
    file.write_bytes(file.read_bytes() + bytes(512))
    assert not lacks_its_end(file)
    assert not lacks_its_end(write_picture(tmp_path / "a.bmp", draw_waves(90, 120) * 0))
