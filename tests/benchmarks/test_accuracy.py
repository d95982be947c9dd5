"""The accuracy study: what a row keeps, what an interruption leaves, what is chosen and what the time suffices for."""

import csv
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from benchmarks.accuracy import __main__ as accuracy
from benchmarks.accuracy import localize, measure, record, sets
from benchmarks.accuracy.studies import PAPER, STUDIES, Study
from benchmarks.kept import keep, read
from fastcutpaste.networks.backbone import NetworkConfig
from fastcutpaste.scoring.config import DetectorConfig
from fastcutpaste.transforms.tasks import CutPaste3Way


@pytest.fixture
def tiny(monkeypatch):
    """Give the synthetic study two small rows on twelve images, and count the trainings."""
    trained = []
    network = NetworkConfig("patchnet", patch=32, head=())
    whole = (("", DetectorConfig(patch=None)), (", kernel", DetectorConfig(patch=None, density="kernel")))
    rows = [Study("3-way", lambda _: CutPaste3Way(), network, whole, batch=2), Study("untrained", None, network)]
    images = torch.randint(0, 256, (12, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    test = sets.Test(images[:6], torch.arange(6) > 2)
    monkeypatch.setitem(STUDIES, "synthetic", rows)
    monkeypatch.setattr(
        accuracy, "read_mnist", lambda _: sets.Data("mnist", images, images[:3], {"a": test, "b": test})
    )
    learn = measure.learn

    def counted(network, study, normal, steps, seed):
        trained.append((study.name, steps, seed))
        return learn(network, study, normal, steps, seed)

    monkeypatch.setattr(measure, "learn", counted)
    return trained


def study(out, *more):
    accuracy.main(["--study", "synthetic", "--mnist", ".", "--out", str(out), *more])


def test_each_row_is_kept_with_its_command_and_not_measured_again(tiny, monkeypatch, tmp_path):
    out = tmp_path / "accuracy.csv"
    study(out, "--steps", "2", "--seeds", "0-1", "--scores", str(tmp_path / "scores"))
    rows = read(record.Outcome, out)
    together = [row for row in rows if row.row.endswith("ensemble")]
    rows = [row for row in rows if row not in together]
    assert len(together) == 2 * 2
    assert len(rows) == 2 * (2 + 1) * 2  # seeds, ways of scoring, test sets
    assert {row.row for row in rows} == {"3-way", "3-way, kernel", "untrained"}
    assert tiny == [("3-way", 2, 0), ("untrained", 0, 0), ("3-way", 2, 1), ("untrained", 0, 1)]  # seeds outermost
    assert all(0 <= row.image_auroc <= 1 and np.isnan(row.pixel_auroc) for row in rows)
    assert "--rows 3-way --seeds 1 --steps 2 --mnist DIR" in next(r for r in rows if r.seed and r.steps).command
    assert len(list((tmp_path / "scores").rglob("*.safetensors"))) == len(rows)
    study(out, "--steps", "2", "--seeds", "0-1")
    assert len(tiny) == 4
    study(out, "--steps", "3")  # another budget: another row, beside the old one; untrained is untrained
    assert tiny[4:] == [("3-way", 3, 0)]
    assert len(read(record.Outcome, out)) == len(rows) + len(together) + 4


def test_an_interrupted_study_loses_the_row_in_progress_alone(tiny, monkeypatch, tmp_path):
    out = tmp_path / "accuracy.csv"
    learn, calls = measure.learn, []

    def cut(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return learn(*arguments)

    monkeypatch.setattr(measure, "learn", cut)
    with pytest.raises(KeyboardInterrupt):
        study(out, "--steps", "1", "--seeds", "0-1")
    before = read(record.Outcome, out)
    assert {(row.row, row.seed) for row in before} == {("3-way", 0), ("3-way, kernel", 0), ("untrained", 0)}
    study(out, "--steps", "1", "--seeds", "0-1")
    assert len(calls) == 5
    assert [str(row) for row in read(record.Outcome, out) if row.seed == 0] == [
        str(row) for row in before
    ]  # nan is not nan


def test_an_ensemble_is_the_mean_of_scores_on_one_scale(tiny, monkeypatch, tmp_path):
    out, folder = tmp_path / "accuracy.csv", tmp_path / "scores"
    study(out, "--steps", "1", "--seeds", "0-2", "--scores", str(folder))
    rows = [row for row in read(record.Outcome, out) if (row.row, row.category) == ("3-way", "a")]
    kept = [load_file(record.scores_of(folder, row)) for row in rows]
    scores, labels = torch.stack([each["scores"] for each in kept]).mean(0), kept[0]["labels"]
    wins = [float(bad > good) for bad in scores[labels] for good in scores[~labels]]
    one = next(row for row in read(record.Outcome, out) if (row.row, row.category) == ("3-way, ensemble", "a"))
    assert one.image_auroc == pytest.approx(sum(wins) / len(wins), abs=1e-4)
    assert one.seed == record.ENSEMBLE


def test_images_of_another_size_are_rows_of_their_own_and_areas_have_to_fit_into_them(monkeypatch, tmp_path):
    """Images of 96², read at 72 and 96; the row is also scored by areas of 128, which do not fit."""
    for i, name in enumerate(["train/good/0", "train/good/1", "train/good/2", "test/good/3", "test/hole/4"]):
        pixels = np.random.default_rng(i).integers(100, 156, (96, 96), dtype=np.uint8)
        mask = np.zeros((96, 96), np.uint8)
        mask[70:, 70:] = 255
        for path, image in ((f"{name}.png", pixels), ("ground_truth/hole/4_mask.png", mask)):
            (tmp_path / "tile" / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(tmp_path / "tile" / path)
    out = tmp_path / "accuracy.csv"
    words = ["--study", "localization", "--rows", "PatchNet 64/4 from others", "--steps", "1", "--out", str(out)]
    monkeypatch.setattr(measure, "learn", lambda *_: 1.0)
    for size in ("72", "96"):
        accuracy.main([*words, "--folders", str(tmp_path / "tile"), "--size", size])
    rows = read(record.Outcome, out)
    assert [(row.row, row.data, row.category) for row in rows] == [
        (f"PatchNet 64/4 from others{level}", f"tile at {size}²", "tile")
        for size in (72, 96)
        for level in ("", ", level")
    ]
    assert "--steps 1 --size 72 --folders DIR" in rows[0].command
    monkeypatch.setattr(measure, "learn", lambda *_: pytest.fail("measured again"))
    accuracy.main([*words, "--folders", str(tmp_path / "tile"), "--size", "72"])


def test_planted_test_sets_are_rows_of_their_own_and_so_says_the_command(monkeypatch, tmp_path):
    out = tmp_path / "accuracy.csv"
    monkeypatch.setattr(measure, "learn", lambda *_: 1.0)
    monkeypatch.setattr(
        accuracy, "make_brick", lambda planted: replace(brick := sets.make_brick(planted), normal=brick.normal[:6])
    )
    accuracy.main(["--study", "open points, patches", "--rows", "jitter 0.1", "--steps", "1", "--planted",
                   "--out", str(out)])  # fmt: skip
    rows = read(record.Outcome, out)
    assert [row.category for row in rows] == ["brick, planted", "brick, planted, other exposures"]
    assert "--planted" in rows[0].command


def test_rows_are_chosen_by_network_or_one_by_one():
    study = next(one for one in STUDIES["localization"] if one.name == "PatchNet 64/4")
    assert accuracy.choose(study, None) is study
    assert accuracy.choose(study, ["other", "PatchNet 64/4"]) is study
    assert accuracy.choose(study, ["PatchNet 32/4"]) is None
    some = accuracy.choose(study, ["PatchNet 64/4, level", "PatchNet 64/4, nearest, border"])
    assert some is not None
    assert some.rows == ["PatchNet 64/4, nearest, border", "PatchNet 64/4, level"]
    assert [scoring.density for _, scoring in some.scorings] == ["nearest", "gaussian"]


def test_a_budget_ends_the_study_before_the_next_row(tiny, monkeypatch, tmp_path):
    with pytest.raises(SystemExit, match="0 minutes are over; the same command goes on"):
        study(tmp_path / "accuracy.csv", "--steps", "1", "--budget", "0")
    assert not tiny


def test_minutes_become_the_steps_that_fit(tiny, monkeypatch, tmp_path):
    out = tmp_path / "accuracy.csv"
    monkeypatch.setattr(measure, "learn", lambda network, study, normal, steps, seed: tiny.append(steps) or 0.5 * steps)
    study(out, "--minutes", "1", "--rows", "3-way")
    assert tiny == [4, 8, 16, 120]  # 2, 4 and 8 seconds, a twelfth of the minute is 5
    assert {row.budget for row in read(record.Outcome, out)} == {"1 min"}


@pytest.mark.parametrize("arguments", [[], ["--steps", "1", "--minutes", "1"]])
def test_steps_or_minutes_are_asked_for(arguments, monkeypatch, tmp_path, capsys):
    with pytest.raises(SystemExit):
        study(tmp_path / "accuracy.csv", *arguments)
    assert "one of --steps and --minutes required" in capsys.readouterr().err


def test_every_study_has_rows_of_its_own_names():
    for name, rows in STUDIES.items():
        names = [row for one in rows for row in one.rows]
        assert len(names) == len(set(names)), name
    for (name, row, _), figure in PAPER.items():
        assert row.endswith("ensemble") or row in [each for one in STUDIES[name] for each in one.rows]
        assert 0 < float(figure.split(" ")[0]) < 100


def test_a_row_of_another_device_does_not_stand_for_this_ones(tmp_path):
    one = record.Outcome(
        "detection", "3-way", "mvtec", "screw", 0, "9 steps", 9, "random", 0.8, float("nan"), float("nan"), 60.0, 1.0,
        100, "cpu", 1, "2", "c", "d", "command",
    )  # fmt: skip
    keep([one, replace(one, device="a GPU"), replace(one, image_auroc=0.7)], tmp_path / "rows.csv")
    assert [(row.device, row.image_auroc) for row in read(record.Outcome, tmp_path / "rows.csv")] == [
        ("cpu", 0.7),
        ("a GPU", 0.8),
    ]


def test_the_kept_rows_are_read_as_they_were_written():
    kept = record.KEPT
    if not kept.exists():
        pytest.skip("no rows are kept")
    with open(kept, newline="") as file:
        assert len(read(record.Outcome, kept)) == sum(1 for _ in csv.reader(file)) - 1


def test_equal_times_are_measured_on_brick_and_on_the_folders_that_are_there(monkeypatch, tmp_path):
    (tmp_path / "mvtec_ad_256" / "screw").mkdir(parents=True)
    asked = []
    monkeypatch.setattr(accuracy, "main", asked.append)
    words = ["--data", str(tmp_path), "--seeds", "4", "--minutes", "3"]
    localize.main(words)
    settings = ["--study", "equal time", "--seeds", "4", "--minutes", "3.0", "--out", str(record.KEPT)]
    screw = ["--folders", str(tmp_path / "mvtec_ad_256" / "screw")]
    assert asked == [settings, settings + screw, ["--page"]]
    localize.main([*words, "--out", str(tmp_path / "mine.csv")])
    assert len(asked) == 5  # no page of the project's from rows that are not
