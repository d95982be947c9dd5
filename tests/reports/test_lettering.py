"""Lettering: titles in any script are drawn or spelled out, on machines with fonts for them and without."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager

from fastcutpaste.reports import lettering
from fastcutpaste.reports.lettering import write_title
from fastcutpaste.reports.pictures import write_heat_maps

FONTS = Path(matplotlib.get_data_path()) / "fonts/ttf"  # which Matplotlib brings, and writes titles in the first of
STIX, MONO = str(FONTS / "STIXGeneral.ttf"), str(FONTS / "DejaVuSansMono.ttf")  # these alone have ᶁ, and ⌔
OWN = ["sans-serif"]


@pytest.fixture(autouse=True)
def _no_memory() -> Iterator[None]:
    """Let no test know of another's fonts, and Matplotlib of none of ours."""
    known = list(fontManager.ttflist)
    _forget()
    yield
    fontManager.ttflist[:] = known
    _forget()


def _forget() -> None:
    for remembered in (lettering._family_with, lettering._letters_of, lettering._system_fonts):
        remembered.cache_clear()


def give_fonts(monkeypatch: pytest.MonkeyPatch, *paths: str) -> None:
    """Let the machine have these fonts and no others."""
    monkeypatch.setattr(lettering, "findSystemFonts", lambda: list(paths))


def draw(text: str) -> tuple[str, list[str], np.ndarray]:
    """Give what is written, in which fonts, and its pixels; let no glyph be missing."""
    figure = Figure(figsize=(8, 1))
    canvas = FigureCanvasAgg(figure)
    axis = figure.add_subplot()
    axis.set_axis_off()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write_title(axis, text, 8)
        canvas.draw()
    title = axis._left_title  # type: ignore[attr-defined]
    return title.get_text(), list(title.get_fontfamily()), np.asarray(canvas.buffer_rgba()).copy()


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("나사.png", r"\ub098\uc0ac.png"),
        ("螺絲 12.3 ▲", r"\u87ba\u7d72 12.3 ▲"),
        ("\U00020000", r"\U00020000"),
        ("a\nb\tc", r"a\u000ab\u0009c"),
        ("\udcff\u2028", r"\udcff\u2028"),
        ("\u1102\u1161.png", r"\ub098.png"),  # as macOS spells the first letter of the first name
    ],
)
def test_without_a_font_letters_are_spelled_out(text: str, spelled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    give_fonts(monkeypatch)
    assert draw(text)[0] == spelled
    pixels = [draw(one)[2] for one in (text, text[::-1], "")]
    assert not np.array_equal(pixels[0], pixels[2])
    if text != text[::-1]:
        assert not np.array_equal(pixels[0], pixels[1])


def test_a_font_of_the_machine_is_taken_for_the_letters_it_has_though_matplotlib_had_not_listed_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fontManager.ttflist[:] = [font for font in fontManager.ttflist if font.name == "DejaVu Sans"]
    give_fonts(monkeypatch)
    without = draw("xᶁ⌔")
    assert without[:2] == (r"x\u1d81\u2314", OWN)
    _forget()
    give_fonts(monkeypatch, STIX, MONO)
    title, families, pixels = draw("xᶁ⌔")
    assert title == "xᶁ⌔"
    assert families == [*OWN, "STIXGeneral", "DejaVu Sans Mono"]
    assert not np.array_equal(pixels, without[2])
    assert draw("x")[1] == OWN


def test_damaged_fonts_bitmaps_and_those_of_boxes_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "half.ttf").write_bytes(Path(STIX).read_bytes()[:2000])
    (tmp_path / "none.ttf").write_bytes(b"")
    boxes = [str(path) for path in FONTS.glob("LastResort*")]
    give_fonts(monkeypatch, *map(str, tmp_path.iterdir()), str(tmp_path / "gone.ttf"), *boxes, STIX)
    assert draw("나ᶁ")[:2] == (r"\ub098ᶁ", [*OWN, "STIXGeneral"])


def test_plain_fonts_come_before_bold_and_slanted_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    bold, slanted = (str(FONTS / f"STIXGeneral{style}.ttf") for style in ("Bol", "Italic"))
    given = ["/fonts/a-Bold.ttf", "/fonts/a-BoldItalic.ttf", slanted, STIX, bold]
    give_fonts(monkeypatch, *given)
    assert lettering._system_fonts()[:2] == sorted([STIX, bold])
    assert lettering._system_fonts()[-1] == "/fonts/a-BoldItalic.ttf"


@pytest.mark.parametrize("text", ["$", "a_$x^$.png", r"$\frac{1}$", r"\alpha {", "%s & #1"])
def test_no_name_is_taken_for_a_formula(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    give_fonts(monkeypatch)
    assert draw(text)[0] == text


def test_hangul_and_chinese_are_drawn_where_a_font_of_the_machine_has_them() -> None:
    title, _, pixels = draw("나사 螺絲")
    if "\\u" in title:
        pytest.skip("no font of both on this machine")
    assert title == "나사 螺絲"
    assert not np.array_equal(pixels, draw("사나 絲螺")[2])  # as two boxes would be


def test_heat_maps_of_such_names_are_drawn_without_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    give_fonts(monkeypatch)
    image = torch.full((3, 20, 30), 128, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("나사 1.0 ▲", "나사\udcff$_$"):
            write_heat_maps([image], [torch.zeros(20, 30)], tmp_path / "m.png", low=0.0, high=1.0, titles=[name])
