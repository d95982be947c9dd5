"""Lettering: names of any script in the pictures that Matplotlib draws, which knows few of them by itself."""

import unicodedata
from functools import cache

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.font_manager import FontProperties, findfont, findSystemFonts, fontManager, get_font
from matplotlib.ft2font import FT2Font
from numpy.typing import NDArray

_PLAINER = ("bold", "black", "heavy", "medium", "light", "thin", "italic", "oblique", "serif", "mono", "condensed")


def write_title(axis: Axes, text: str, size: float) -> None:
    """Write a line above a picture, at the left, as it is: a dollar sign begins no formula.

    Letters that Matplotlib's own font lacks come from a font of the system; those that none has, and what is no letter,
    are written as their number, such as \\ub098.
    """
    families: dict[str, None] = {}  # in the order of their first letters
    drawn = ""
    for letter in unicodedata.normalize("NFC", text):  # macOS takes Hangul apart
        family = _family_with(letter)
        if family is None:
            drawn += f"\\u{ord(letter):04x}" if ord(letter) < 0x10000 else f"\\U{ord(letter):08x}"
        else:
            drawn += letter
            families[family] = None
    own = matplotlib.rcParams["font.family"]
    others = [family for family in families if family]
    axis.set_title(drawn, fontsize=size, loc="left", pad=2, fontfamily=[*own, *others], parse_math=False)


@cache
def _family_with(letter: str) -> str | None:
    """Give the name of a font that has a letter, "" for Matplotlib's own; None: no font has it."""
    if not letter.isprintable():
        return None
    if get_font(findfont(FontProperties())).get_char_index(ord(letter)):
        return ""
    for path in _system_fonts():
        name, letters = _letters_of(path)
        at = int(np.searchsorted(letters, ord(letter)))
        if at < len(letters) and letters[at] == ord(letter):
            fontManager.addfont(path)  # the list that Matplotlib keeps may be older than the font
            return name
    return None


@cache
def _letters_of(path: str) -> tuple[str, NDArray[np.int64]]:
    """Read the name of a font and the numbers of all letters it has, rising."""
    try:
        font = FT2Font(path)
    except (OSError, RuntimeError):  # damaged, or gone
        return "", np.empty(0, np.int64)
    # The one that has a box for every letter is of no help, nor is one of bitmaps, which cannot be drawn at any size.
    helps = font.scalable and "lastresort" not in font.family_name.lower().replace(" ", "")
    return font.family_name, np.array(sorted(font.get_charmap()) if helps else [], np.int64)


@cache
def _system_fonts() -> list[str]:
    """List the fonts of this machine, plain ones first."""
    return sorted(findSystemFonts(), key=lambda path: (sum(word in path.lower() for word in _PLAINER), path))
