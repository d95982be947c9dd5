"""fastcutpaste calibrate: the new threshold decides, the former is kept, and the file is whole whenever it is cut."""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

import pytest
from command_line import SMALL, failing, run, write_normal
from pictures import draw_noise, write_picture
from processes import Started, run_command

from fastcutpaste.images.decode import load_images
from fastcutpaste.images.folders import find_test_images
from fastcutpaste.images.looks import Looks
from fastcutpaste.reports.promise import SOURCE
from fastcutpaste.scoring.calibration import HISTORY, calibrated
from fastcutpaste.scoring.detector import Detector
from fastcutpaste.scoring.ensemble import ENSEMBLE_FILE, Ensemble


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """An ensemble of two detectors in a folder, whose members are runs themselves, and the images it has learned."""
    root = tmp_path_factory.mktemp("runs")
    data = write_normal(root / "data", 10)
    run("train", data, "--out", root / "run", "--seeds", "0-1", *SMALL)
    return root / "run", data


@pytest.fixture
def ensemble(trained, tmp_path):
    return shutil.copytree(trained[0], tmp_path / "run")


@pytest.fixture
def member(ensemble):
    """The run folder of one detector."""
    return ensemble / "seed-0"


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """A folder of 20 new normal images of other sizes."""
    root = tmp_path_factory.mktemp("fresh")
    for i in range(20):
        write_picture(root / f"{i}.png", draw_noise(40 + i, 90 - i, seed=100 + i))
    return root


def decided(folder, image):
    """Give what `predict` says of one image, and the threshold."""
    result, _ = run("predict", folder, image)
    return result["results"][0]["score"], result["results"][0]["defective"], result["threshold"]


def test_a_threshold_of_new_images_decides_from_then_on(member, fresh):
    path = member / "detector.safetensors"
    before = Detector.load(path)
    result, text = run("calibrate", member, fresh, fresh / "3.png")  # which is counted once
    after = Detector.load(path)
    scores = before.score(load_images(find_test_images(fresh).paths, before.config.size).pixels)
    assert after.calibration.scores == pytest.approx(calibrated(scores, 0.05).scores, rel=1e-3)
    assert result == {"run": str(member), **after.calibration.summary, "former": before.calibration.summary}
    assert (result["rate"], result["count"], result["promised"]) == (0.05, 20, 0.05)
    assert f"threshold {after.threshold:.6g}, was {before.threshold:.6g}" in text
    assert "20 images: 5 % asked and promised" in text
    [former] = after.provenance[HISTORY]
    assert former["threshold"] == before.threshold
    kept = {name: value for name, value in before.provenance.items() if name != SOURCE}
    assert {name: after.provenance[name] for name in kept} == kept
    assert Looks(**after.provenance[SOURCE]) == Looks.of(find_test_images(fresh).paths)
    assert decided(member, fresh / "0.png")[2] == after.threshold


def test_a_threshold_by_hand_needs_no_images_and_can_be_taken_back(member, fresh):
    path = member / "detector.safetensors"
    before = Detector.load(path).calibration
    score, _, _ = decided(path, fresh / "0.png")
    for threshold, defective in ((score * 0.99, True), (score * 1.01, False)):
        result, text = run("calibrate", path, "--threshold", threshold)
        assert (result["rate"], result["promised"], result["count"]) == (None, 1.0, before.count)
        assert "set by hand, nothing promised" in text
        assert decided(path, fresh / "0.png") == (score, defective, threshold)
    _, text = run("calibrate", path, "--threshold", 1e9)
    assert "higher than all scores seen, of 2 images" in text
    _, text = run("calibrate", path, "--threshold", -1)
    assert "lower than all scores seen, of 2 images" in text
    run("calibrate", path, "--fpr", 0.4)
    assert Detector.load(path).calibration == calibrated(before.scores, 0.4)
    run("calibrate", path)
    assert Detector.load(path).calibration == before
    assert len(Detector.load(path).provenance[HISTORY]) == 6


def test_an_ensemble_takes_a_threshold_and_its_members_keep_theirs(ensemble, fresh):
    before = Ensemble.load(ensemble)
    files = {path: path.read_bytes() for path in ensemble.rglob("*.safetensors")}
    result, _ = run("calibrate", ensemble, fresh, "--fpr", 0.1)
    after = Ensemble.load(ensemble)
    assert (result["rate"], result["count"], result["promised"]) == (0.1, 20, 0.1)
    assert after.threshold == result["threshold"] != before.threshold
    assert [former["threshold"] for former in after.provenance[HISTORY]] == [before.threshold]
    assert {path: path.read_bytes() for path in files} == files
    score, _, threshold = decided(ensemble, fresh / "0.png")
    assert threshold == after.threshold
    run("calibrate", ensemble / "seed-0", "--threshold", 1e6)  # a member's own threshold
    assert decided(ensemble, fresh / "0.png")[0] == score


def test_what_is_no_set_of_new_normal_images_is_refused_and_leaves_the_file(member, ensemble, trained, category, fresh):
    files = {path: path.read_bytes() for path in ensemble.rglob("*.*") if path.is_file()}
    empty = member.parent / "empty"
    empty.mkdir()
    for folder in (ensemble, member):
        assert "normal images alone required, got crack, stain, too" in failing("calibrate", folder, category)
        assert "got those it was trained with" in failing("calibrate", folder, trained[1] / "train/good")
        assert "empty" in failing("calibrate", folder, empty)
        assert "is missing" in failing("calibrate", folder, empty / "nowhere")
        assert "required, got both" in failing("calibrate", folder, "--fpr", 0.1, "--threshold", 1)
        assert "a rate above 0 and below 1 required, got 1.5" in failing("calibrate", folder, fresh, "--fpr", 1.5)
        assert "a finite threshold required, got nan" in failing("calibrate", folder, "--threshold", "nan")
    assert {path: path.read_bytes() for path in ensemble.rglob("*.*") if path.is_file()} == files


def test_a_damaged_file_is_said_to_be_one_and_left_as_it_is(ensemble, member, fresh):
    path = member / "detector.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    cut = path.read_bytes()
    assert "a whole detector file (safetensors) required" in failing("calibrate", member, fresh)
    assert "a whole detector file (safetensors) required" in failing("calibrate", ensemble, fresh)
    assert path.read_bytes() == cut
    (ensemble / ENSEMBLE_FILE).write_text(json.dumps({"detectors": ["seed-1/detector.safetensors"]}))
    assert "a whole ensemble file required" in failing("calibrate", ensemble, fresh)
    assert "a detector file required, got nothing" in failing("calibrate", ensemble / "nowhere", fresh)


def test_images_that_all_score_alike_are_said_to(member, tmp_path):
    for i in range(3):  # one picture, thrice
        write_picture(tmp_path / f"same/{i}.png", draw_noise(32, 32, seed=7))
    _, text = run("calibrate", member, tmp_path / "same")
    assert "3 images: 25 % at best, 5 % asked; 19 needed; all have the same score" in text


def die_at(moment, arguments):
    """Be the command line, and end without a word at a moment of its writing."""
    replace, fsync = os.replace, os.fsync

    def end(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    def half(file):
        os.ftruncate(file, os.fstat(file).st_size // 2)
        end()

    def moved(*paths):
        replace(*paths)
        end()

    os.fsync = half if moment == "half written" else fsync
    os.replace = {"written": end, "moved": moved}.get(moment, replace)
    run_command(arguments)


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
@pytest.mark.parametrize("moment", ["half written", "written", "moved"])
def test_a_command_that_is_killed_leaves_the_old_file_or_the_new_one_whole(moment, member, ensemble, tmp_path):
    for folder, load in (
        (member, lambda path: Detector.load(path / "detector.safetensors")),
        (ensemble, Ensemble.load),
    ):
        before = load(folder).calibration
        started = Started(tmp_path / folder.name, die_at, moment, ["calibrate", str(folder), "--threshold", "3"])
        assert started.status() == -signal.SIGKILL, started.said()
        assert load(folder).threshold == (3.0 if moment == "moved" else before.threshold)
        assert load(folder).calibration.scores == before.scores
        run("calibrate", folder, "--threshold", 4)
        assert load(folder).threshold == 4
        assert not [path for path in Path(folder).iterdir() if ".part" in path.name]
