"""The report: one HTML file that needs no other, no script and no network."""

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from fastcutpaste.files import written_whole

_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: 0.2rem; }
h2 { font-size: 1.1rem; margin: 2rem 0 0.4rem; }
p { margin: 0.2rem 0 0.8rem; max-width: 48rem; }
table { border-collapse: collapse; margin: 1rem 0; }
td { padding: 0.15rem 1.6rem 0.15rem 0; border-bottom: 1px solid #8884; }
td + td { font-variant-numeric: tabular-nums; }
img { max-width: 100%; background: white; border-radius: 4px; }
"""


class Section(NamedTuple):
    """Hold a heading, a sentence on what is to be seen, and the figure."""

    title: str
    text: str
    figure: Figure


def write_page(path: str | Path, title: str, text: str, facts: Mapping[str, str], sections: Sequence[Section]) -> None:
    """Write a page with a table of facts and the figures, drawn inside it.

    Args:
        path: file to write, whole or not at all.
        title: heading of the page; any characters, as all texts here.
        text: a line below it.
        facts: rows of the table.
        sections: one below the other.
    """
    rows = "\n".join(f"<tr><td>{html.escape(k)}</td><td>{html.escape(v)}</td></tr>" for k, v in facts.items())
    parts = [
        f"<h2>{html.escape(part.title)}</h2>\n<p>{html.escape(part.text)}</p>\n"
        f'<img alt="{html.escape(part.title)}" src="data:image/png;base64,{_png(part.figure)}">'
        for part in sections
    ]
    page = (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{html.escape(title)}</h1>\n<p>{html.escape(text)}</p>\n<table>\n{rows}\n</table>\n"
        + "\n".join(parts)
        + "\n</body>\n</html>\n"
    )
    with written_whole(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _png(figure: Figure) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110)
    return base64.b64encode(file.getvalue()).decode("ascii")
