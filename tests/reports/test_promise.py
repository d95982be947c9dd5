"""The promise: broken ones are told, with the reason that was planted, and kept ones are not spoken of."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pictures import write_picture
from small_detector import make_fitted

from fastcutpaste.images.looks import Looks
from fastcutpaste.reports.promise import SOURCE, compare_with_promise, looks_of_source
from fastcutpaste.reports.runs import evaluate_scores
from fastcutpaste.scoring.calibration import Calibration, calibrated


def usual(images: int = 400) -> Looks:
    return Looks(images, 0.5, 0.02, {"6×8": 64}, {"grey": 64}, {"": images})


def promising(rate: float, images: int = 400) -> Calibration:
    return calibrated(torch.rand(images, generator=torch.Generator().manual_seed(0)), rate)


def write_good(folder: Path, count: int = 40, grey: float = 0.5, prefix: str = "") -> list[Path]:
    levels = 255 * np.random.default_rng(0).normal(grey, 0.02, count)
    return [write_picture(folder / f"{prefix}{i:02d}.png", np.full((6, 8), level, np.uint8))
            for i, level in enumerate(levels)]  # fmt: skip


def results_of(alarms: int, good: int = 40) -> dict[str, Any]:
    """Measure scores of which so many good ones lie above the threshold of 0.5, and all of three defects."""
    scores = (torch.arange(good + 3) < alarms).float()
    scores[good:] = 1
    return evaluate_scores(scores, ["good"] * good + ["crack"] * 3, 0.5)


@pytest.mark.parametrize("alarms", [0, 1, 2, 5])
def test_nothing_is_said_where_chance_explains_what_came_and_no_file_is_read(alarms: int) -> None:
    assert compare_with_promise(results_of(alarms), promising(0.05), [Path("missing.png")], usual()) == []


def test_nothing_is_said_without_good_images_or_without_a_promise(tmp_path: Path) -> None:
    only_bad = evaluate_scores(torch.ones(3), ["crack"] * 3, 0.5)
    assert compare_with_promise(only_bad, promising(0.05), [], usual()) == []
    assert compare_with_promise(results_of(20), Calibration(threshold=0.5), write_good(tmp_path), usual()) == []


def test_more_alarms_on_darker_images_of_other_names_have_these_for_a_reason(tmp_path: Path) -> None:
    said = compare_with_promise(results_of(20), promising(0.05), write_good(tmp_path, grey=0.4, prefix="b_"), usual())
    assert said[0] == (
        "more false alarms than the 5.0 % promised: 20 of 40 good images, 33.8 % to 66.2 % of all like them "
        "(at 95 % confidence)"
    )
    [reason] = said[1:]
    assert reason.startswith(
        "a likely reason: the good images are unlike those the threshold comes from: they are dark"
    )
    assert reason.endswith("; 40 of 40 have names that begin with 'b_', as none of those")


def test_few_held_out_images_are_a_reason_of_their_own(tmp_path: Path) -> None:
    said = compare_with_promise(results_of(20), promising(0.2, 4), write_good(tmp_path), usual(4))
    assert said[1:] == ["a likely reason: the threshold comes from 4 images, by the luck of which it may be anything "
                        "from 0.6 % to 60.2 %"]  # fmt: skip
    *_, last = compare_with_promise(results_of(20), promising(0.2, 4), write_good(tmp_path, grey=0.9), usual(4))
    assert last.startswith("besides, it comes from 4 images")


def test_what_no_reason_is_seen_for_is_said_to_be_so(tmp_path: Path) -> None:
    said = compare_with_promise(results_of(20), promising(0.05), write_good(tmp_path), usual())
    assert len(said) == 2
    assert "look like those the threshold comes from" in said[1]


def test_fewer_alarms_than_promised_are_told_as_such(tmp_path: Path) -> None:
    said = compare_with_promise(results_of(0), promising(0.3), write_good(tmp_path), usual())
    assert said[0].startswith("fewer false alarms than the 30.0 % promised: 0 of 40 good images, 0.0 % to 8.8 % of")


def test_a_file_that_does_not_tell_its_images_looks_is_said_to_be_so(tmp_path: Path) -> None:
    detector = make_fitted()
    assert looks_of_source(detector) is None
    said = compare_with_promise(results_of(20), promising(0.05), write_good(tmp_path), looks_of_source(detector))
    assert said[1:] == ["the detector's file does not tell how the images look that its threshold comes from"]
    detector.provenance |= {SOURCE: vars(usual())}
    assert looks_of_source(detector) == usual()


@pytest.mark.parametrize(("kinds", "missing"), [
    (["good"] * 4, {"detection_rate", "image_auroc"}),
    (["crack"] * 4, {"false_positive_rate", "image_auroc"}),
    (["good", "good", "crack", "crack"], set()),
])  # fmt: skip
def test_what_cannot_be_measured_has_neither_figure_nor_interval(kinds: list[str], missing: set[str]) -> None:
    results = evaluate_scores(torch.tensor([0.0, 1, 0, 1]), kinds, 0.5)
    every = {"detection_rate", "false_positive_rate", "image_auroc"}
    assert every & set(results) == every - missing
    assert set(results["intervals"]) == {"confidence"} | every - missing
    assert results["counts"]["good"] + results["counts"]["defective"] == 4
