"""A night of predictions: broken files are named and passed over, results come line by line, a kill loses none."""

import json
import math
import signal
import time

import pytest
from command_line import QUICK, failing, run
from pictures import draw_noise, write_picture
from processes import start_command

BROKEN = (3, 17, 21)


@pytest.fixture(scope="module")
def trained(category, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    run("train", category, "--out", out, *QUICK)
    return out


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    """Forty images, three of them broken: cut, of another format, and a link to nowhere."""
    folder = tmp_path_factory.mktemp("night")
    for i in range(40):
        write_picture(folder / f"{i}.png", draw_noise(48, 64, seed=i))
    cut, other, link = (folder / f"{i}.png" for i in BROKEN)
    cut.write_bytes(cut.read_bytes()[:900])
    other.write_text("no picture")
    link.unlink()
    link.symlink_to(folder / "nowhere.png")
    return folder


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def assert_alike(rows, wanted):
    """Assert that results are the same but for the rounding of images that were scored beside others."""
    for row, other in zip(rows, wanted, strict=True):
        assert (row["image"], row.get("error")) == (other["image"], other.get("error"))
        if "score" in other:
            assert row["score"] == pytest.approx(other["score"], rel=1e-5)


def test_broken_files_are_named_and_all_others_scored(trained, night, tmp_path):
    result, text = run("predict", trained, night, "--report", tmp_path / "r.html", status=3)
    rows = result["results"]
    assert [row["image"] for row in rows] == [str(night / f"{i}.png") for i in range(40)]
    assert [i for i, row in enumerate(rows) if "error" in row] == list(BROKEN)
    assert result["unread"] == [rows[i] for i in BROKEN]
    for i in BROKEN:
        assert set(rows[i]) == {"image", "error"}
        assert f"{i}.png" in rows[i]["error"]
        assert sum("not read" in line and f"/{i}.png" in line for line in text.splitlines()) == 1
    assert "3 of 40 images could not be read" in text
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert "3 of the images: " in page
    assert len(json.loads(page.partition('id="images">')[2].partition("</script>")[0])) == 37


def test_strict_stops_at_the_first_and_keeps_what_was_scored(trained, night, tmp_path):
    line = failing("predict", trained, night, "--strict")
    assert "/3.png" in line
    files = [night / f"{i}.png" for i in range(22, 40)]
    line = failing("predict", trained, *files, night / "3.png", "--strict", "--out", tmp_path / "r.jsonl")
    assert "/3.png" in line
    assert [row["image"] for row in read(tmp_path / "r.jsonl")] == [str(file) for file in files[:16]]


def test_lines_are_the_results_and_are_gone_on_with(trained, night, tmp_path):
    out = tmp_path / "deep/r.jsonl"
    wanted, _ = run("predict", trained, night, status=3)
    result, _ = run("predict", trained, night, "--out", out, status=3)
    assert (result["out"], result["images"], len(result["unread"])) == (str(out), 40, 3)
    assert "results" not in result
    assert read(out) == wanted["results"]
    whole = out.read_bytes()
    for size in (0, 5, len(whole) // 3, len(whole) - 1, len(whole)):
        out.write_bytes(whole[:size])
        again, _ = run("predict", trained, night, "--out", out, "--resume", status=3)
        assert (again["images"], len(again["unread"])) == (40, 3)
        assert_alike(read(out), wanted["results"])
    assert out.read_bytes() == whole
    page = tmp_path / "r.html"
    run("predict", trained, night, "--out", out, "--resume", "--report", page, status=3)
    images = json.loads(page.read_text(encoding="utf-8").partition('id="images">')[2].partition("</script>")[0])
    assert [image["score"] for image in images] == [row["score"] for row in read(out) if "score" in row]
    assert all(image["heat"] is None and image["details"]["regions"] for image in images)


def test_what_is_there_is_not_scored_again(trained, night, tmp_path):
    out = tmp_path / "r.jsonl"
    run("predict", trained, night / "0.png", "--out", out)
    _, text = run("predict", trained, night / "0.png", night / "1.png", "--out", out, "--resume")
    assert "/0.png" not in text
    assert [row["image"] for row in read(out)] == [str(night / "0.png"), str(night / "1.png")]


def test_a_killed_night_gives_the_same_lines_none_twice(trained, night, tmp_path):
    wanted, _ = run("predict", trained, night, status=3)
    out = tmp_path / "r.jsonl"
    for turn in range(2):
        size = out.stat().st_size if out.exists() else 0
        started = start_command(tmp_path / str(turn), "predict", trained, night, "--out", out, "--resume")
        until = time.monotonic() + 60
        while (not out.exists() or out.stat().st_size == size) and time.monotonic() < until:
            time.sleep(0.001)
        started.send(signal.SIGKILL)
        started.status()
        assert 0 < len(read(out)) <= 40
    run("predict", trained, night, "--out", out, "--resume", status=3)
    assert_alike(read(out), wanted["results"])


def test_results_of_others_are_left_alone(trained, night, tmp_path):
    out, image = tmp_path / "r.jsonl", night / "0.png"
    assert "--resume, --watch: with --out required" in failing("predict", trained, image, "--resume")
    assert "a new file required" in failing("predict", trained, image, "--out", tmp_path)
    out.write_text("thesis\n")
    assert "a new file required" in failing("predict", trained, image, "--out", out)
    assert "line 1: thesis" in failing("predict", trained, image, "--out", out, "--resume")
    assert out.read_text() == "thesis\n"
    out.write_text("[" * 100_000 + "\n")
    assert "line 1: [[" in failing("predict", trained, image, "--out", out, "--resume")
    out.write_text("thesis without an end")
    assert "got another file" in failing("predict", trained, image, "--out", out, "--resume")
    assert out.read_text() == "thesis without an end"
    out.unlink()
    run("predict", trained, image, "--out", out)
    [row] = read(out)
    for changed in (
        {"relative": row["relative"] * 2}, {"score": None}, {"score": str(row["score"])}, {"score": [row["score"]]},
        {"score": 10**400}, {"score": math.inf}, {"score": math.nan}, {"defective": 3}, {"regions": None},
        {"regions": [3]}, {"regions": [{"x": 1}]}, {"error": 3},
    ):  # fmt: skip
        out.write_text(json.dumps(row | changed) + "\n")
        assert "results of this detector" in failing("predict", trained, image, "--out", out, "--resume")
    out.write_text(json.dumps({name: value for name, value in row.items() if name != "score"}) + "\n")
    assert "results of this detector" in failing("predict", trained, image, "--out", out, "--resume")
    out.write_text(json.dumps(row | {"image": [1]}) + "\n")
    assert "with an image on each line" in failing("predict", trained, image, "--out", out, "--resume")
