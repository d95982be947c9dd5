"""What people see: lines as they are meant, whatever is in them and wherever they go."""

import io
import os
import subprocess
import sys

import pytest

from fastcutpaste.console import people, show_progress

SHOWN = """
from fastcutpaste.console import people, show_progress
list(show_progress([[1], [2]], 2, "scoring"))
people.print("run[cam1]/" + "n" * 60)
"""


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("run[cam1] [bold]x[/red] :warning:", "run[cam1] [bold]x[/red] :warning:"),
        ("two\nlines\ttab", r"two\nlines\ttab"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        (os.fsdecode(b"\xff"), r"\udcff"),
        ("나사 Ø 12 µm" + " long" * 60, "나사 Ø 12 µm" + " long" * 60),
    ],
)
def test_a_line_is_shown_as_it_is_and_steers_nothing(text, shown, monkeypatch):
    monkeypatch.setattr(people, "_file", io.StringIO())
    people.print(text)
    assert people.file.getvalue() == f"{shown}\n"


class Full(io.StringIO):
    def write(self, text):
        raise OSError(28, "No space left on device")


def test_what_cannot_be_shown_is_dropped(monkeypatch):
    monkeypatch.setattr(people, "_file", Full())
    people.print("lost")
    assert list(show_progress([[1], [2]], 2, "scoring")) == [[1], [2]]


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("color", [{"NO_COLOR": "1"}, {}])
def test_a_narrow_terminal_gets_names_in_one_piece_and_colors_where_they_are_wanted(color):
    master, slave = os.openpty()
    environment = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    environment |= {"COLUMNS": "40", "TERM": "xterm-256color", **color}
    subprocess.run([sys.executable, "-c", SHOWN], env=environment, stdout=slave, stderr=slave, timeout=60, check=True)
    os.set_blocking(master, False)
    text = os.read(master, 1 << 16).decode()
    os.close(master)
    os.close(slave)
    assert ("\x1b[3" in text) == (not color)
    assert "2/2" in text
    assert "run[cam1]/" + "n" * 60 in text
