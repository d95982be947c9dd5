"""The report: one HTML file to decide with, which needs no other and no network.

`page.html`, its style and its scripts beside this file are put into it as they are. Images and curves go in as JSON,
one image after the other, so that never more than one is held; the scripts draw what there is to see.
"""

import base64
import hashlib
import html
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np

from fastcutpaste.files import written_whole
from fastcutpaste.images.tree import page_of
from fastcutpaste.scoring.intervals import CONFIDENCE
from fastcutpaste.scoring.metrics import Curve

_SCRIPTS = ("decisions.js", "figures.js", "gallery.js", "page.js")
_POINTS = 200  # of a curve; pixels give millions


class Shown(NamedTuple):
    """Hold what the page shows of one image.

    path: its file, to which the page links.
    kind: "good", a defect's name, or None where unknown.
    score: finite; a higher one than the threshold calls it defective.
    size: (height, width) of the file, px.
    thumbnail: a JPEG of the image.
    heat: a grey JPEG of the heat map, black where nothing is drawn; None without one.
    outline: of the true defects, the `d` of an SVG path with the image's height and width as 1; empty without.
    details: more to be told of it when it is looked at, by name.
    """

    path: Path
    kind: str | None
    score: float
    size: tuple[int, int]
    thumbnail: bytes
    heat: bytes | None = None
    outline: str = ""
    details: Mapping[str, str] = {}


def write_page(
    path: str | Path,
    title: str,
    text: str,
    facts: Mapping[str, str],
    images: Iterable[Shown],
    threshold: float,
    curves: Mapping[str, tuple[Curve, float]] | None = None,
    promised: float | None = None,
    notes: Sequence[str] = (),
) -> None:
    """Write the page.

    Args:
        path: file to write, whole or not at all.
        title: heading of the page; any characters, as all texts here.
        text: a line below it.
        facts: rows of a table of what does not depend on the threshold.
        images: taken one at a time; none is allowed.
        threshold: where the page's own begins.
        curves: by name, what `roc_curve` or `pro_curve` give and the area to be named. On one called "image ROC" the
            page marks where its threshold is.
        promised: share of good images that was to be called defective at most, at the detector's own threshold.
        notes: what is to be known of the detector's own threshold, a paragraph each.

    Raises:
        ValueError: a threshold or a score that is not finite.
    """
    path = Path(path)
    if not math.isfinite(threshold):
        raise ValueError(f"write_page: a finite threshold required, got {threshold}")
    style, script = _part("page.css"), "".join(map(_part, _SCRIPTS))
    # Images may come from the file system, or from the server that gives the page where one does; all else is refused.
    policy = (
        f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'; "
        "img-src data: file: 'self'; base-uri 'none'; form-action 'none'"
    )
    rows = "\n".join(f"<tr><th>{html.escape(k)}</th><td>{html.escape(v)}</td></tr>" for k, v in facts.items())
    about = {"threshold": threshold, "curves": [_drawn(name, *curve) for name, curve in (curves or {}).items()]}
    about |= {"promised": promised, "notes": list(notes), "confidence": CONFIDENCE}
    texts = {"title": html.escape(title), "text": html.escape(text), "facts": rows, "policy": policy}
    texts |= {"style": style, "script": script, "about": _json(about)}
    before, after = (Template(half).substitute(texts) for half in _part("page.html").split("$images"))
    # A name that is no UTF-8 has halves of letters, which a file cannot hold.
    with written_whole(path) as temporary, open(temporary, "w", encoding="utf-8", errors="replace") as file:
        file.write(before)
        for number, image in enumerate(images):
            file.write((",\n" if number else "\n") + _json(_record(image, path)))
        file.write(after)


def _record(image: Shown, page: Path) -> dict[str, Any]:
    """Give what the script reads of an image."""
    if not math.isfinite(image.score):
        raise ValueError(f"write_page: a finite score of each image required, got {image.score} of {image.path}")
    return {
        "name": image.path.name,
        "path": str(image.path),
        "link": _link(page_of(image.path)[0], page.parent),
        "kind": image.kind,
        "score": image.score,
        "size": image.size,
        "thumbnail": _jpeg(image.thumbnail),
        "heat": None if image.heat is None else _jpeg(image.heat),
        "outline": image.outline,
        "details": image.details,
    }


def _drawn(name: str, curve: Curve, area: float) -> dict[str, Any]:
    """Give what the script reads of a curve: its corners, or as many points, closest where it is steepest."""
    x, y = curve
    if len(x) > _POINTS:
        at = np.linspace(0, 1, _POINTS) ** 2
        x, y = at, np.interp(at, x, y)
    points = [[round(float(a), 4), round(float(b), 4)] for a, b in zip(x, y, strict=True)]
    return {"name": name, "area": float(area), "points": points}


def _link(path: Path, folder: Path) -> str:
    """Give the address of a file from a page in a folder: relative, so that both can be moved together."""
    try:
        relative = os.path.relpath(path.absolute(), folder.absolute())
    except ValueError:  # Windows: on another drive
        return path.absolute().as_uri()
    return quote(os.fsencode(relative.replace(os.sep, "/")))  # ":" too, so that no name is taken for a scheme


def _json(value: Any) -> str:
    """Give JSON that no HTML can end or begin in, in ASCII, without NaN."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _jpeg(data: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")


def _part(name: str) -> str:
    return (resources.files("fastcutpaste.reports") / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """Name a style or script by what is in it: nothing else is then run by the browser."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
