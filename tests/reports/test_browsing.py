"""The report in a real browser: its figures are those of the files beside it, and its controls do what they say."""

import csv
import json
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from browser import CHROMIUM, Browser
from pictures import draw_waves, write_picture
from PIL import Image
from small_detector import make_fitted

from fastcutpaste.images.folders import find_test_images
from fastcutpaste.reports.evaluated import Evaluation as Gathered
from fastcutpaste.reports.runs import evaluate_scores, write_evaluation
from fastcutpaste.reports.scored import Scored
from fastcutpaste.scoring.heat import ResizedMap
from fastcutpaste.scoring.intervals import rate_interval

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
KINDS = {"good": 30, "crack": 25, "<b>얼룩": 20}
FIGURES = """Object.fromEntries([...document.querySelectorAll("#figures dt")].map(
    (name) => [name.textContent, name.nextSibling.firstChild.textContent]))"""
NOTES = """Object.fromEntries([...document.querySelectorAll("#figures dt")].map(
    (name) => [name.textContent, [...name.nextSibling.children].map((note) => note.textContent)]))"""
CARDS = """[...document.querySelectorAll(".card")].map((card) => [
    card.querySelector(".note").textContent.trim().split(" ").at(-1), card.querySelector(".name").textContent,
    card.querySelector("b").textContent])"""


class Row(NamedTuple):
    """Hold a line of scores.csv."""

    name: str
    kind: str
    score: float


class Evaluation(NamedTuple):
    """Hold what an evaluation has left."""

    page: Path
    rows: list[Row]
    metrics: dict[str, Any]


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    """Write the files of an evaluation, of scores and heat maps that are drawn by chance."""
    root = tmp_path_factory.mktemp("a set") / "tiles"
    for kind, count in KINDS.items():
        for number in range(count):
            write_picture(root / "test" / kind / f"{number:03d}.png", draw_waves(40, 72))
            if kind != "good":
                mask = np.zeros((40, 72), np.uint8)
                mask[10:20, 30:50] = 255
                write_picture(root / "ground_truth" / kind / f"{number:03d}_mask.png", mask)
    found = find_test_images(root)
    generator = torch.Generator().manual_seed(0)
    maps = [torch.rand(40, 72, generator=generator) for _ in found.paths]
    chance = torch.randn(len(found), generator=generator) + 1.2 * found.labels
    scores = chance.argsort().argsort() / 16 - 1  # which six digits give whole
    detector = make_fitted()
    detector.threshold, detector.typical = float(scores.median()), float(scores.min())
    gathering = Gathered(detector, found)
    for number, (path, score, heat) in enumerate(zip(found.paths, scores.tolist(), maps, strict=True)):
        gathering.add(number, Scored(path, (40, 72), score, (score,), (ResizedMap((40, 72), heat),)))
    results = evaluate_scores(scores, found.kinds, detector.threshold, gathering.pixels[0])
    results |= {"promised": 0.05, "notes": ["more came than <promised>", "because"]}
    written = write_evaluation(root / "run", gathering, results)
    with open(written["scores"], newline="") as file:
        rows = [Row(Path(row["image"]).name, row["kind"], float(row["score"])) for row in csv.DictReader(file)]
    return Evaluation(Path(written["report"]), rows, json.loads((root / "run/metrics.json").read_text()))


@pytest.fixture
def page(browser: Browser, evaluation: Evaluation) -> Browser:
    browser.resize(1200, 900)
    browser.open(evaluation.page.as_uri())
    return browser


def threshold_of(page: Browser) -> float:
    return float(page.run("settings.threshold"))


def expected_figures(rows: list[Row], threshold: float) -> dict[str, str]:
    """Count anew, from the lines of scores.csv."""
    called = [row for row in rows if row.score > threshold]
    alarms, found = sum(row.kind == "good" for row in called), sum(row.kind != "good" for row in called)
    good, defective = sum(row.kind == "good" for row in rows), sum(row.kind != "good" for row in rows)
    precision = found / (found + alarms) if called else math.nan
    recall = found / defective
    return {
        "called defective": f"{len(called)} of {len(rows)} ({100 * len(called) / len(rows):.1f} %)",
        "false alarms": f"{alarms} of {good} ({100 * alarms / good:.1f} %)",
        "defects found": f"{found} of {defective} ({100 * recall:.1f} %)",
        "precision": f"{100 * precision:.1f} %" if called else "–",
        "F1": f"{2 * precision * recall / (precision + recall):.3f}" if found else "0.000",
    }


def assert_counted(page: Browser, rows: list[Row]) -> None:
    """Assert that all the page says of its threshold is what scores.csv says."""
    threshold = threshold_of(page)
    expected = expected_figures(rows, threshold)
    good, defective = ([row for row in rows if (row.kind == "good") == is_good] for is_good in (True, False))
    assert page.run(FIGURES) == expected
    notes = page.run(NOTES)
    for name, group in (("false alarms", good), ("defects found", defective)):
        low, high = rate_interval(sum(row.score > threshold for row in group), len(group))
        assert notes.pop(name)[:1] == [f"{100 * low:.1f} to {100 * high:.1f} % of all like them"]
    assert not any(notes.values())
    cells = [[sum((row.score > threshold) == called and (row.kind == "good") == good for row in rows)
              for called in (False, True)] for good in (True, False)]  # fmt: skip
    shown = page.run('[...document.querySelectorAll("#confusion td span")].map((cell) => Number(cell.textContent))')
    assert [shown[:2], shown[2:]] == cells
    by_kind = {kind: f"{sum(row.score > threshold for row in rows if row.kind == kind)} of {count}"
               for kind, count in KINDS.items()}  # fmt: skip
    buttons = '[...byId("kinds").children].map((button) => [button.kind, button.lastChild.textContent])'
    assert dict(page.run(buttons)) == by_kind
    line, bars = page.run('["#at", "#histogram"].map((one) => document.querySelector(one).getBoundingClientRect())'
                          ".map(({left, width}) => [left, width])")  # fmt: skip
    place = (line[0] + line[1] / 2 - bars[0]) / bars[1]
    assert page.run(f"scoreAt({place})") == pytest.approx(threshold, abs=0.02)


def test_it_begins_with_the_figures_of_metrics_json(page: Browser, evaluation: Evaluation) -> None:
    metrics = evaluation.metrics
    assert threshold_of(page) == metrics["threshold"]
    figures = page.run(FIGURES)
    assert f"({100 * metrics['false_positive_rate']:.1f} %)" in figures["false alarms"]
    assert f"({100 * metrics['detection_rate']:.1f} %)" in figures["defects found"]
    assert_counted(page, evaluation.rows)
    for name, figure in (("false alarms", "false_positive_rate"), ("defects found", "detection_rate")):
        low, high = metrics["intervals"][figure]
        assert page.run(NOTES)[name][0].startswith(f"{100 * low:.1f} to {100 * high:.1f} %")
    low, high = metrics["intervals"]["image_auroc"]
    text = page.run("document.body.innerText")
    for name in ("image_auroc", "pixel_auroc", "pro_auc"):
        assert f"{metrics[name]:.3f}" in text
    assert f"image AUROC\t{metrics['image_auroc']:.3f} ({low:.3f} to {high:.3f})" in text
    for kind, area in metrics["image_auroc_by_kind"].items():
        assert f"image AUROC, {kind}\t{area:.3f}" in text
    assert "NaN" not in text
    assert page.complaints() == []
    assert page.requests() == [evaluation.page.as_uri()]


def test_the_slider_moves_all_figures_by_mouse_and_by_key(page: Browser, evaluation: Evaluation) -> None:
    left, top, width, height = page.run(
        '(({left, top, width, height}) => [left, top, width, height])(byId("slider").getBoundingClientRect())'
    )
    seen = []
    for share in (0.02, 0.3, 0.5, 0.9, 0.99):
        page.mouse(left + share * width, top + height / 2, "mouseMoved", "mousePressed", "mouseReleased")
        assert_counted(page, evaluation.rows)
        seen.append(threshold_of(page))
    assert seen == sorted(set(seen))
    assert page.run(FIGURES)["called defective"].startswith("0 of")
    scores = sorted(row.score for row in evaluation.rows)
    for times in range(1, 4):
        page.press("ArrowLeft", 37)
        assert_counted(page, evaluation.rows)
        assert page.run(FIGURES)["called defective"].startswith(f"{times - 1} of")
        assert threshold_of(page) == pytest.approx(scores[-times], rel=1e-5)
    page.press("ArrowRight", 39)
    assert page.run(FIGURES)["called defective"].startswith("1 of")
    page.press("PageDown", 34, times=20)
    assert page.run(FIGURES)["called defective"].startswith(f"{len(scores)} of")
    page.run('byId("reset").click()')
    page.settle()
    assert threshold_of(page) == evaluation.metrics["threshold"]
    assert_counted(page, evaluation.rows)


def test_the_promise_and_what_is_to_be_noted_are_those_of_the_detectors_own_threshold(page: Browser) -> None:
    seen = '[byId("notes").checkVisibility(), byId("figures").innerText.includes("at most 5.0 % promised")]'
    assert page.run(seen) == [True, True]
    assert page.run('byId("notes").innerText') == "more came than <promised>\n\nbecause"
    page.run('byId("number").value = 0.75; byId("number").oninput()')
    page.settle()
    assert page.run(seen) == [False, False]
    page.run('byId("reset").click()')
    page.settle()
    assert page.run(seen) == [True, True]


def test_a_threshold_can_be_typed_and_be_outside_all_scores(page: Browser, evaluation: Evaluation) -> None:
    for typed in (0.75, -50.0, 1e6):
        page.run(f'byId("number").value = {typed}; byId("number").oninput()')
        page.settle()
        assert threshold_of(page) == typed
        assert page.run(FIGURES) == expected_figures(evaluation.rows, typed)
    page.run('byId("number").value = ""; byId("number").oninput()')
    page.settle()
    assert threshold_of(page) == 1e6


SHOWN = {
    "all": lambda row, called: True,
    "called": lambda row, called: called,
    "passed": lambda row, called: not called,
    "false": lambda row, called: called and row.kind == "good",
    "missed": lambda row, called: not called and row.kind != "good",
}
ORDERS = {
    "high": lambda row, threshold: -row.score,
    "low": lambda row, threshold: row.score,
    "wrong": lambda row, threshold: (threshold - row.score) * (1 if row.kind == "good" else -1),
}


def scroll_through(page: Browser) -> None:
    """Scroll down until all cards are made; give up in time for the assertion to tell."""
    for _ in range(30):
        page.run('byId("end").scrollIntoView()')
        page.settle()
        if page.run('document.querySelectorAll(".card").length === chosen.length'):
            return


def verdict(row: Row, threshold: float) -> str:
    return {(True, True): "false alarm", (True, False): "passed", (False, True): "found", (False, False): "missed"}[
        row.kind == "good", row.score > threshold
    ]


@pytest.mark.parametrize("sort", ORDERS)
@pytest.mark.parametrize("which", SHOWN)
def test_the_gallery_shows_what_is_chosen_in_the_order_asked_for(
    which: str, sort: str, page: Browser, evaluation: Evaluation
) -> None:
    for threshold, kinds in ((1.0, ["crack"]), (2.1, ["good", "<b>얼룩"]), (0.2, [])):
        page.run('byId("reset").click(); for (const one of byId("kinds").children) '
                 'if (one.ariaPressed === "true") one.click();')  # fmt: skip
        page.run(f'byId("number").value = {threshold}; byId("number").oninput(); byId("number").onchange()')
        page.run(f'byId("show").value = "{which}"; byId("show").onchange()')
        page.run(f'byId("sort").value = "{sort}"; byId("sort").onchange()')
        for kind in kinds:
            page.run(f'[...byId("kinds").children].find((one) => one.kind === {json.dumps(kind)}).click()')
        page.settle()
        page.settle()
        scroll_through(page)
        rows = [row for row in evaluation.rows if SHOWN[which](row, row.score > threshold)
                and row.kind in (kinds or KINDS)]  # fmt: skip
        rows.sort(key=lambda row: ORDERS[sort](row, threshold))
        expected = [[row.kind, row.name, verdict(row, threshold)] for row in rows]
        assert page.run(CARDS) == expected
        assert page.run('byId("count").textContent') == f"{len(rows)} of 75 images"
        address = page.run("location.href")
        page.open(address)  # says all that is set
        scroll_through(page)
        assert page.run(CARDS) == expected


def test_an_address_of_nonsense_is_the_page_as_it_begins(browser: Browser, evaluation: Evaluation) -> None:
    browser.open(evaluation.page.as_uri() + "#threshold=much&show=constructor&sort=&kind=none&%E0%A4%A")
    assert threshold_of(browser) == evaluation.metrics["threshold"]
    assert_counted(browser, evaluation.rows)
    assert len(browser.run(CARDS)) >= 60
    assert browser.run("[settings.show, settings.sort, settings.kinds.size]") == ["all", "high", 0]
    assert browser.complaints() == []


def test_arrow_keys_go_from_card_to_card_and_enter_shows_the_file_itself(page: Browser, evaluation: Evaluation) -> None:
    page.run('document.querySelector(".card").focus()')
    page.press("ArrowRight")
    page.press("ArrowRight")
    page.press("ArrowLeft")
    order = sorted(evaluation.rows, key=lambda row: -row.score)
    assert page.run('document.activeElement.querySelector(".name").textContent') == order[1].name
    page.press("Enter", 13)
    large = '[byId("large").open, byId("large-name").textContent]'
    threshold = evaluation.metrics["threshold"]
    assert page.run(large) == [True, f"{order[1].name}: {verdict(order[1], threshold)}"]
    page.press("ArrowRight")
    assert page.run(large) == [True, f"{order[2].name}: {verdict(order[2], threshold)}"]
    wait = "Promise.all([...document.querySelectorAll('#pictures img')].map((one) => one.decode()))"
    page.run(f"{wait}.then(() => null)")
    files = page.run('[...document.querySelectorAll("#pictures a")].map((one) => one.href)')
    wanted = evaluation.page.parents[1] / "test" / order[2].kind / order[2].name
    assert files == [wanted.as_uri()] * 2
    assert wanted.as_uri() in page.requests()
    assert page.run('document.querySelector("#pictures img:nth-child(2)").naturalWidth') == 72
    page.press("Escape", 27)
    assert page.run('byId("large").open') is False
    assert page.complaints() == []


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1200])
def test_it_fits_its_window_and_is_painted_light_or_dark(width: int, dark: bool, page: Browser, tmp_path: Path) -> None:
    page.resize(width, 900, dark)
    assert page.run("document.documentElement.scrollWidth") == width
    with Image.open(page.picture(tmp_path / "shot.png")) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    assert pixels.shape == (900, width, 3)
    assert (np.median(pixels) < 60) == dark
    assert (pixels.reshape(9, 100, width, 3).std((1, 2, 3)) > 3).all()  # in bands of 100 rows
    page.run('document.querySelectorAll(".card")[20].scrollIntoView()')
    page.settle()
    top = page.run('byId("slider").getBoundingClientRect().top')
    assert 0 <= top < (20 if width == 390 else 300)  # in sight above the gallery, or beside it
    page.run('document.querySelector(".card").click()')
    page.settle()
    assert page.run("document.documentElement.scrollWidth") == width
    assert page.run('byId("large").scrollWidth <= byId("large").clientWidth')


def test_heat_maps_are_seen_on_hover_and_on_all_when_asked(page: Browser) -> None:
    page.run('byId("heats").checked = false; byId("heats").onchange()')
    count = """[...document.querySelectorAll(".card .heat, .card .truth")].filter(
        (one) => getComputedStyle(one).visibility === "visible").length"""
    page.mouse(1, 1, "mouseMoved")
    assert page.run(count) == 0
    x, y = page.run('(({left, top}) => [left + 40, top + 40])(document.querySelector(".card").getBoundingClientRect())')
    page.mouse(x, y, "mouseMoved")
    assert page.run(count) == page.run('document.querySelectorAll(".card")[0].querySelectorAll(".heat, .truth").length')
    page.run('byId("heats").click()')
    assert page.run(count) == page.run('document.querySelectorAll(".card .heat, .card .truth").length') > 60
