"""The report in a real browser where there is little to show: few images, of one kind, all alike, of hostile names."""

from pathlib import Path

import pytest
from browser import CHROMIUM, Browser
from pictures import draw_waves, write_picture
from small_detector import make_fitted

from fastcutpaste.reports.page import write_page
from fastcutpaste.reports.report import write_report
from fastcutpaste.reports.thumbnails import show

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
FIGURES = """Object.fromEntries([...document.querySelectorAll("#figures dt")].map(
    (name) => [name.textContent, name.nextSibling.firstChild.textContent]))"""


@pytest.fixture
def image_file(tmp_path: Path) -> Path:
    return write_picture(tmp_path / "<script>alert(1)</script>" / "</script>.png", draw_waves(40, 72))


@pytest.mark.parametrize(
    ("kinds", "figures"),
    [
        ([], {"called defective": "0 of 0 (–)"}),
        ([None, None], {"called defective": "1 of 2 (50.0 %)"}),
        (["good"], {"called defective": "0 of 1 (0.0 %)", "false alarms": "0 of 1 (0.0 %)"}),
        (["good", "good"], {"called defective": "1 of 2 (50.0 %)", "false alarms": "1 of 2 (50.0 %)"}),
        (["crack", "crack"], {"called defective": "1 of 2 (50.0 %)", "defects found": "1 of 2 (50.0 %)"}),
        (["good", "good", "</script><script>alert(2)</script>"],
         {"called defective": "2 of 3 (66.7 %)", "false alarms": "1 of 2 (50.0 %)", "defects found": "1 of 1 (100.0 %)",
          "precision": "50.0 %", "F1": "0.667"}),
    ],
    ids=["no images", "unlabelled", "one image", "good alone", "one kind", "names of code"],
)  # fmt: skip
def test_a_page_of_little_shows_what_there_is_and_no_NaN(
    kinds: list[str | None], figures: dict[str, str], browser: Browser, image_file: Path, tmp_path: Path
) -> None:
    detector = make_fitted()
    detector.threshold = 0.5
    detector.provenance = {"data": {"source": "</title><script>alert(3)</script>"}}
    images = (show(image_file, kind, float(number)) for number, kind in enumerate(kinds))
    write_report(tmp_path / "report.html", detector, "Evaluation", images)
    browser.resize(1200, 900)
    browser.open((tmp_path / "report.html").as_uri())
    assert browser.run(FIGURES) == figures
    assert "promised" not in browser.run('byId("figures").textContent')
    assert browser.run('byId("notes").textContent') == ""
    assert browser.run('byId("confusion").hidden') == (not [kind for kind in kinds if kind])
    assert browser.run('document.querySelectorAll(".card").length') == len(kinds)
    text = browser.run("document.body.innerText")
    assert "NaN" not in text
    assert "undefined" not in text
    assert browser.run("document.title") == "Evaluation of </title><script>alert(3)</script>"
    if kinds:
        browser.run('document.querySelector(".card").click()')
        browser.run(
            "Promise.all([...document.querySelectorAll('#pictures img')].map((one) => one.decode())).then(() => 0)"
        )
        assert browser.run('document.querySelectorAll("#pictures .heat, #pictures .truth").length') == 0
        assert browser.run('byId("details").lastChild.textContent') == str(image_file)
    assert browser.complaints() == []


def test_equal_scores_and_scores_far_apart_have_an_axis(browser: Browser, image_file: Path, tmp_path: Path) -> None:
    shown = show(image_file, "good", 2.0)
    for scores in ([2.0, 2.0, 2.0], [0.0, 0.0], [-3.0], [1.0, 2.0, 3.0, 1000.0]):
        write_page(tmp_path / "r.html", "", "", {}, [shown._replace(score=score) for score in scores], scores[0])
        browser.open((tmp_path / "r.html").as_uri())
        places = browser.run("sorted.map(placeOf)")
        assert all(0 < place < 1 for place in places)
        assert browser.run("sorted.map((score) => scoreAt(placeOf(score)))") == pytest.approx(sorted(scores), abs=1e-9)
        heights = browser.run(
            '[...document.querySelectorAll(".part")].map((one) => one.getBoundingClientRect().height)'
        )
        assert len(heights) == len(set(scores))
    assert places[2] - places[0] > 0.1  # 1 to 3 beside 1000
    browser.run("step(-1)")
    browser.settle()
    assert browser.run(FIGURES)["called defective"] == "4 of 4 (100.0 %)"
    assert browser.complaints() == []


def test_a_file_that_is_gone_is_shown_by_its_thumbnail(browser: Browser, image_file: Path, tmp_path: Path) -> None:
    write_page(tmp_path / "r.html", "", "", {}, [show(image_file, None, 1.0)], 0.5)
    image_file.unlink()
    browser.open((tmp_path / "r.html").as_uri())
    browser.run('document.querySelector(".card").click()')
    gone = 'new Promise((done) => setTimeout(() => done(document.querySelectorAll("#pictures img").length), 300))'
    assert browser.run(gone) == 1
    assert browser.run('document.querySelector("#pictures img").naturalWidth') == 72


def test_a_window_larger_than_the_gallery_gets_all_cards_unasked(
    browser: Browser, image_file: Path, tmp_path: Path
) -> None:
    shown = show(image_file, None, 1.0)
    write_page(tmp_path / "r.html", "", "", {}, [shown._replace(score=float(number)) for number in range(200)], 0.5)
    browser.resize(3000, 6000)
    browser.open((tmp_path / "r.html").as_uri())
    for _ in range(30):
        if browser.run('document.querySelectorAll(".card").length') == 200:
            break
        browser.settle()
    assert browser.run('document.querySelectorAll(".card").length') == 200
    assert browser.run("scrollY") == 0
    browser.resize(1200, 900)
