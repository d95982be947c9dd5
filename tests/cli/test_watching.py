"""A folder that fills, in a process of its own: each image has one line, whatever is written and killed meanwhile."""

import io
import json
import os
import signal
import time
from pathlib import Path

import pytest
from command_line import QUICK, failing, run
from pictures import draw_noise, write_picture
from PIL import Image
from processes import Started, start_command

from fastcutpaste.images.arrivals import stamp_of

SETTLE = 0.3


@pytest.fixture(scope="module")
def trained(category: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    run("train", category, "--out", out, *QUICK)
    return out


def start(tmp_path: Path, trained: Path, *more: object, folder: str = "process") -> Started:
    (tmp_path / "in").mkdir(exist_ok=True)
    return start_command(
        tmp_path / folder, "predict", trained, tmp_path / "in", "--watch", "--out", tmp_path / "r.jsonl",
        "--settle", SETTLE, *more,
    )  # fmt: skip


def lines(tmp_path: Path) -> list[dict]:
    """Give the whole lines that are there."""
    path = tmp_path / "r.jsonl"
    return [json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] if path.exists() else []


def wait_for(tmp_path: Path, count: int, process: Started) -> list[dict]:
    until = time.monotonic() + 60
    while len(lines(tmp_path)) < count and time.monotonic() < until and process.process.is_alive():
        time.sleep(0.02)
    return lines(tmp_path)


def stop(process: Started, number: int = signal.SIGTERM) -> dict:
    """Ask a process to end; give its JSON."""
    process.send(number)
    process.succeed(60)
    assert "Traceback" not in process.said()
    return json.loads(process.said("out"))


def encoded(seed: int, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(draw_noise(48, 64, seed=seed)).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_is_there_and_what_comes_is_scored_once_and_a_signal_ends_it(
    trained: Path, tmp_path: Path, number: int
) -> None:
    inside = tmp_path / "in"
    write_picture(inside / "0.png", draw_noise(48, 64))
    process = start(tmp_path, trained)
    wait_for(tmp_path, 1, process)
    write_picture(inside / "deep/1.png", draw_noise(48, 64, seed=1))
    (inside / "2.txt").write_text("no image")
    wait_for(tmp_path, 2, process)
    time.sleep(4 * SETTLE)
    result = stop(process, number)
    rows = lines(tmp_path)
    assert [row["image"] for row in rows] == [str(inside / "0.png"), str(inside / "deep/1.png")]
    assert (result["images"], result["unread"]) == (2, [])
    for row in rows:
        assert (row["bytes"], row["modified_ns"]) == stamp_of(Path(row["image"]))
        assert process.said().count(row["image"]) == 1
    expected, _ = run("predict", trained, inside)
    for row, other in zip(rows, expected["results"], strict=True):
        assert row["score"] == pytest.approx(other["score"], rel=1e-5)
        assert row["regions"] is not None


def test_a_slow_writer_is_waited_for(trained: Path, tmp_path: Path) -> None:
    """One that adds to its file now and then, one that pauses, and one that has taken its space before."""
    process = start(tmp_path, trained)
    growing, paused, taken = encoded(1), encoded(2), encoded(3, "JPEG")
    inside = tmp_path / "in"
    size = -(-len(growing) // 8)
    with open(inside / "growing.png", "wb", buffering=0) as file:
        for start_at in range(0, len(growing), size):
            file.write(growing[start_at : start_at + size])
            assert lines(tmp_path) == []
            time.sleep(SETTLE / 2)
    [row] = wait_for(tmp_path, 1, process)
    assert row["image"] == str(inside / "growing.png")
    with open(inside / "taken.jpg", "wb") as file:
        file.write(bytes(len(taken)))
        file.seek(0)
        file.write(taken[: len(taken) // 2])
    (inside / "paused.png").write_bytes(paused[: len(paused) // 2])
    time.sleep(4 * SETTLE)
    assert len(lines(tmp_path)) == 1
    (inside / "paused.png").write_bytes(paused)
    (inside / "taken.jpg").write_bytes(taken)
    rows = wait_for(tmp_path, 3, process)
    stop(process)
    assert sorted(Path(row["image"]).name for row in rows) == ["growing.png", "paused.png", "taken.jpg"]
    assert all("score" in row for row in rows)
    assert len(lines(tmp_path)) == 3


def test_a_broken_file_is_an_error_once_and_scored_when_it_is_replaced(trained: Path, tmp_path: Path) -> None:
    process = start(tmp_path, trained)
    file = tmp_path / "in/a.png"
    file.write_bytes(encoded(0)[:500])
    [row] = wait_for(tmp_path, 1, process)
    assert set(row) == {"image", "error", "bytes", "modified_ns"}
    time.sleep(4 * SETTLE)
    assert len(lines(tmp_path)) == 1
    file.write_bytes(encoded(0))
    assert "score" in wait_for(tmp_path, 2, process)[-1]
    os.replace(write_picture(tmp_path / "b.png", draw_noise(48, 64, seed=5)), file)
    os.utime(file)
    rows = wait_for(tmp_path, 3, process)
    result = stop(process)
    assert [row["image"] for row in rows] == [str(file)] * 3
    assert rows[1]["score"] != rows[2]["score"]
    assert (result["images"], len(result["unread"])) == (3, 1)


def test_kills_at_any_time_lose_no_image_and_score_none_twice(trained: Path, tmp_path: Path) -> None:
    for i in range(60):
        write_picture(tmp_path / f"in/{i}.png", draw_noise(48, 64, seed=i))
    for turn, wait in enumerate((1, 17, 20)):
        process = start(tmp_path, trained, folder=str(turn))
        wait_for(tmp_path, wait, process)
        write_picture(tmp_path / f"in/{60 + turn}.png", draw_noise(48, 64, seed=60 + turn))
        process.send(signal.SIGKILL)
        process.status()
    with open(tmp_path / "r.jsonl", "ab") as file:  # cut in the midst of a line
        file.write(b'{"image": "' + str(tmp_path / "in/59.png").encode())
    process = start(tmp_path, trained, folder="last")
    wait_for(tmp_path, 63, process)
    time.sleep(4 * SETTLE)
    result = stop(process)
    rows = lines(tmp_path)
    assert sorted(Path(row["image"]).name for row in rows) == sorted(f"{i}.png" for i in range(63))
    assert result["images"] == 63
    assert all("score" in row for row in rows)


def test_what_cannot_be_watched_is_refused(trained: Path, tmp_path: Path) -> None:
    inside, out = tmp_path / "in", tmp_path / "r.jsonl"
    image = write_picture(inside / "0.png", draw_noise(48, 64))
    watched = ("predict", trained, inside, "--watch")
    assert "with --out required" in failing(*watched)
    for more in (("--report", tmp_path / "r.html"), ("--strict",), ("--pages",), ("--devices", 2)):
        assert "--watch: one process, without --report, --strict and --pages" in failing(*watched, "--out", out, *more)
    line = failing(*watched, "--out", out, "--heatmaps", inside / "maps")
    assert "--heatmaps: a folder that is not watched required" in line
    assert "--watch: a folder required" in failing("predict", trained, image, "--watch", "--out", out)
    run("predict", trained, image, "--out", out)
    assert "results that --watch has written required" in failing(*watched, "--out", out)
