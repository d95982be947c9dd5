"""The speedrun: the clock, the record and its table."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.kept import keep, read
from benchmarks.speedrun import __main__ as speedrun


@pytest.fixture
def category(tmp_path):
    random = np.random.default_rng(0)
    for i, folder in enumerate(["train/good"] * 6 + ["test/good"] * 3 + ["test/hole"] * 3):
        path = tmp_path / "bottle" / folder / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(90, 166, (72, 72, 3), dtype=np.uint8)
        if folder.endswith("hole"):
            pixels[20:50, 20:50] = 0
        Image.fromarray(pixels).save(path)
    return tmp_path / "bottle"


def test_a_run_trains_for_its_budget_and_is_kept_with_what_it_reached(category, monkeypatch, tmp_path):
    monkeypatch.setattr(speedrun, "USUAL_SIZE", 72)
    read_folder, tested = speedrun.read_folder, []
    monkeypatch.setattr(speedrun, "read_folder", lambda folder: tested.append(folder) or read_folder(folder, 72))
    track = replace(speedrun.TRACKS["bottle"], row="PatchNet 64/4", steps=(2, 3))
    record = speedrun.run("bottle", track, category, (0, 1), torch.device("cpu"))
    assert tested == [category]
    assert (record.steps, record.goal, len(record.seconds.split()), len(record.figures.split())) == (2, 0.983, 2, 2)
    assert record.mean_figure == pytest.approx(sum(map(float, record.figures.split())) / 2, abs=1e-4)
    assert record.mean_seconds > 0

    keep([record], tmp_path / "kept.csv")
    slower = replace(record, mean_seconds=record.mean_seconds + 9)
    keep([slower], tmp_path / "kept.csv")
    assert read(speedrun.Record, tmp_path / "kept.csv") == [record, slower]  # a slower one stays too


def test_the_table_has_the_fastest_that_reached_its_goal_first_and_says_what_missed():
    one = speedrun.Record(
        "bottle", "PatchNet", 9, 20.0, 0.99, 0.983, "20.0", "0.99", "cpu", 2, "2", "abc", "2026-01-01"
    )
    missed, other = replace(one, mean_seconds=5.0, mean_figure=0.9), replace(one, track="screw", mean_seconds=1.0)
    lines = speedrun.table([missed, other, one, replace(one, mean_seconds=10.0)]).splitlines()[2:]
    assert [line.split(" | ")[2:4] for line in lines] == [
        ["99.0", "10.0"], ["99.0", "20.0"], ["90.0 (missed)", "5.0"], ["99.0", "1.0"]
    ]  # fmt: skip


@pytest.mark.parametrize("name", speedrun.TRACKS)
def test_each_track_names_one_way_of_scoring_of_a_study(name):
    chosen = speedrun.TRACKS[name].chosen()
    assert chosen.rows == [speedrun.TRACKS[name].row]
    with pytest.raises(ValueError, match="a row of the study 'localization' required, got 'none'"):
        replace(speedrun.TRACKS[name], row="none").chosen()


def test_a_folder_without_the_categories_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        speedrun.main(["--data", str(tmp_path)])
    assert "a folder with bottle or screw required" in capsys.readouterr().err
