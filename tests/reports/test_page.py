"""The report page: whole, self-contained, and one that no name of a file can break out of."""

import json
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import numpy as np
import pytest
from small_detector import make_fitted

from fastcutpaste.reports.page import Shown, write_page
from fastcutpaste.reports.report import write_report

NAMES = [
    "<script>alert(1)</script>.png", "a</script><img src=x onerror=alert(2)>.png", "javascript:alert(3).png",
    "#1?x=%41&b.png", "\u2028.png", "나사 螺絲 é.png", "\"'`${x}\\.png", os.fsdecode(b"\xff\xfe.png"), "$images.png",
]  # fmt: skip


def shown(path: Path | str, kind: str | None = "good", score: float = 1.0, **others: Any) -> Shown:
    return Shown(Path(path), kind, score, (40, 60), b"a thumbnail", **others)


def blocks(page: Path) -> list[str]:
    """Give the texts of the page's scripts, as a browser divides them."""
    text = page.read_text(encoding="utf-8")
    return re.findall(r"<script\b[^>]*>(.*?)</script", text, re.DOTALL | re.IGNORECASE)


def read_images(page: Path) -> list[dict[str, Any]]:
    images: list[dict[str, Any]] = json.loads(blocks(page)[1])
    return images


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "runs" / "report.html"
    curve = (np.array([0.0, 0.2, 1.0]), np.array([0.0, 0.9, 1.0]))
    images = [shown(tmp_path / "data" / name, kind=name, details={name: name}, heat=b"heat") for name in NAMES]
    facts = {"a<b": "1 & 2", "</table>": "$script"}
    write_page(path, "Evaluation of <tiles>\udcff", "</title>", facts, images, 0.5, {"<ROC>": (curve, 0.85)})
    return path


def test_it_holds_what_it_shows_and_asks_no_network_for_anything(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "Evaluation of &lt;tiles&gt;?" in text  # half a letter
    assert "<tr><th>a&lt;b</th><td>1 &amp; 2</td></tr>" in text
    assert "<td>$script</td>" in text
    assert [entry.name for entry in page.parent.iterdir()] == ["report.html"]
    markup = re.sub(r"(<(script|style)\b[^>]*>).*?</\2>", r"\1", text, flags=re.DOTALL)
    assert re.findall(r"(?:src|href)=", markup) == []
    assert re.search(r"https?:", text.replace("http://www.w3.org/2000/svg", "")) is None
    [policy] = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    allowed = dict(rule.split(" ", 1) for rule in policy.split("; "))
    assert allowed["default-src"] == "'none'"
    assert allowed["img-src"] == "data: file: 'self'"
    assert "unsafe" not in policy


def test_names_come_back_as_they_were_and_end_no_script(page: Path) -> None:
    about, images, script = blocks(page)
    assert json.loads(about)["curves"] == [{"name": "<ROC>", "area": 0.85, "points": [[0, 0], [0.2, 0.9], [1, 1]]}]
    assert [image["name"] for image in json.loads(images)] == [Path(name).name for name in NAMES]
    assert [image["kind"] for image in json.loads(images)] == NAMES
    assert [image["details"] for image in json.loads(images)] == [{name: name} for name in NAMES]
    assert images.isascii()
    assert not set("<>&") & set(images)
    assert "alert" not in script
    assert page.read_bytes().count(b"<script") == 3


def test_links_are_relative_and_lead_to_the_file_whatever_its_name(page: Path, tmp_path: Path) -> None:
    for image, name in zip(read_images(page), NAMES, strict=True):
        parts = urlsplit(image["link"])
        assert (parts.scheme, parts.netloc, parts.query, parts.fragment) == ("", "", "", "")
        assert parts.path.startswith("../data/")
        reached = os.path.normpath(os.fsencode(page.parent) + b"/" + unquote_to_bytes(parts.path))
        assert reached == os.fsencode(tmp_path / "data" / name)


def test_an_image_of_the_working_folder_is_linked_from_a_page_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    write_page(tmp_path / "report.html", "", "", {}, [shown("a:b.png")], 0.5)
    write_page("report.html", "", "", {}, [shown("a:b.png")], 0.5)
    assert read_images(tmp_path / "report.html")[0]["link"] == "here/a%3Ab.png"
    assert read_images(Path("report.html"))[0]["link"] == "a%3Ab.png"


def test_images_are_taken_one_at_a_time_and_an_error_leaves_the_old_page(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text("old")

    def some() -> Iterator[Shown]:
        for number in range(3):
            yield shown(f"{number}.png")
            [part] = [entry for entry in tmp_path.iterdir() if entry != path]  # it is being written
            assert part.suffix == ".html"
        raise OSError("a file that cannot be read")

    with pytest.raises(OSError, match="cannot be read"):
        write_page(path, "", "", {}, some(), 0.5)
    assert [entry.name for entry in tmp_path.iterdir()] == ["report.html"]
    assert path.read_text() == "old"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_score_or_threshold_that_is_no_number_is_refused(value: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"write_page: a finite score .* required, got {value} of b\.png"):
        write_page(tmp_path / "report.html", "", "", {}, [shown("a.png"), shown("b.png", score=value)], 0.5)
    with pytest.raises(ValueError, match=f"write_page: a finite threshold required, got {value}"):
        write_page(tmp_path / "report.html", "", "", {}, [], value)
    curve = (np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_page(tmp_path / "report.html", "", "", {}, [], 0.5, {"ROC": (curve, value)})
    assert list(tmp_path.iterdir()) == []


def test_a_curve_of_millions_of_points_is_drawn_with_few(tmp_path: Path) -> None:
    x = np.linspace(0, 1, 300_000)
    write_page(tmp_path / "report.html", "", "", {}, [], 0.5, {"pixel ROC": ((x, np.sqrt(x)), 2 / 3)})
    [curve] = json.loads(blocks(tmp_path / "report.html")[0])["curves"]
    points = np.array(curve["points"])
    assert len(points) <= 200
    at = np.linspace(0, 1, 1000)
    assert np.abs(np.interp(at, *points.T) - np.sqrt(at)).max() < 0.01


def test_a_report_bears_whatever_a_detector_keeps_of_its_making(tmp_path: Path) -> None:
    detector = make_fitted()
    for provenance in ({"made": ["today"], "data": [3]}, {"made": None, "data": {"images": {}}}, {"data": "mine"}):
        detector.provenance = provenance
        write_report(tmp_path / "report.html", detector, "Prediction", [shown("a.png", None)])
        assert len(read_images(tmp_path / "report.html")) == 1
