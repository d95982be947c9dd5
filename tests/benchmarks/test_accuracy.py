"""The accuracy study: what a row keeps, what an interruption leaves, what the sets are made of, what the page says."""

import csv
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[2]))  # benchmarks is no part of the package
pytest.importorskip("benchmarks", reason="not in the source distribution")

from benchmarks import accuracy, accuracy_page, accuracy_pictures, localize, sets
from benchmarks.studies import STUDIES, Study
from fastcutpaste.images.defects import DEFECTS
from fastcutpaste.networks.backbone import Network, NetworkConfig
from fastcutpaste.scoring.config import DetectorConfig
from fastcutpaste.scoring.detector import Detector
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
    learn = accuracy.learn

    def counted(network, study, normal, steps, seed):
        trained.append((study.name, steps, seed))
        return learn(network, study, normal, steps, seed)

    monkeypatch.setattr(accuracy, "learn", counted)
    return trained


def study(monkeypatch, out, *more):
    monkeypatch.setattr(sys, "argv", ["accuracy", "--study", "synthetic", "--mnist", ".", "--out", str(out), *more])
    accuracy.main()


def test_each_row_is_kept_with_its_command_and_not_measured_again(tiny, monkeypatch, tmp_path):
    out = tmp_path / "accuracy.csv"
    study(monkeypatch, out, "--steps", "2", "--seeds", "0-1", "--scores", str(tmp_path / "scores"))
    rows = accuracy.read(out)
    together = [row for row in rows if row.row.endswith("ensemble")]
    rows = [row for row in rows if row not in together]
    assert len(together) == 2 * 2
    assert len(rows) == 2 * (2 + 1) * 2  # seeds, ways of scoring, test sets
    assert {row.row for row in rows} == {"3-way", "3-way, kernel", "untrained"}
    assert tiny == [("3-way", 2, 0), ("untrained", 0, 0), ("3-way", 2, 1), ("untrained", 0, 1)]  # seeds outermost
    assert all(0 <= row.image_auroc <= 1 and np.isnan(row.pixel_auroc) for row in rows)
    assert "--rows 3-way --seeds 1 --steps 2 --mnist DIR" in next(r for r in rows if r.seed and r.steps).command
    assert len(list((tmp_path / "scores").rglob("*.safetensors"))) == len(rows)
    study(monkeypatch, out, "--steps", "2", "--seeds", "0-1")
    assert len(tiny) == 4
    study(monkeypatch, out, "--steps", "3")  # another budget: another row, beside the old one; untrained is untrained
    assert tiny[4:] == [("3-way", 3, 0)]
    assert len(accuracy.read(out)) == len(rows) + len(together) + 4


def test_an_interrupted_study_loses_the_row_in_progress_alone(tiny, monkeypatch, tmp_path):
    out = tmp_path / "accuracy.csv"
    learn, calls = accuracy.learn, []

    def cut(*arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return learn(*arguments)

    monkeypatch.setattr(accuracy, "learn", cut)
    with pytest.raises(KeyboardInterrupt):
        study(monkeypatch, out, "--steps", "1", "--seeds", "0-1")
    before = accuracy.read(out)
    assert {(row.row, row.seed) for row in before} == {("3-way", 0), ("3-way, kernel", 0), ("untrained", 0)}
    study(monkeypatch, out, "--steps", "1", "--seeds", "0-1")
    assert len(calls) == 5
    assert [str(row) for row in accuracy.read(out) if row.seed == 0] == [str(row) for row in before]  # nan is not nan


def test_an_ensemble_is_the_mean_of_scores_on_one_scale(tiny, monkeypatch, tmp_path):
    out, folder = tmp_path / "accuracy.csv", tmp_path / "scores"
    study(monkeypatch, out, "--steps", "1", "--seeds", "0-2", "--scores", str(folder))
    rows = [row for row in accuracy.read(out) if (row.row, row.category) == ("3-way", "a")]
    kept = [load_file(accuracy.scores_of(folder, row)) for row in rows]
    scores, labels = torch.stack([each["scores"] for each in kept]).mean(0), kept[0]["labels"]
    wins = [float(bad > good) for bad in scores[labels] for good in scores[~labels]]
    one = next(row for row in accuracy.read(out) if (row.row, row.category) == ("3-way, ensemble", "a"))
    assert one.image_auroc == pytest.approx(sum(wins) / len(wins), abs=1e-4)
    assert one.seed == accuracy.ENSEMBLE


def test_pictures_are_drawn_of_patches_and_of_whole_images(tmp_path):
    images = torch.randint(0, 256, (30, 3, 40, 40), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    masks = [torch.zeros(40, 40, dtype=torch.bool) for _ in range(10)]
    for mask in masks[5:]:
        mask[30:, 38:] = True
    test = sets.Test(images[:10], torch.arange(10) > 4, masks, ["good"] * 5 + ["crack", "hole"] * 2 + ["hole"])
    network = Network(NetworkConfig("patchnet", patch=32, head=()))
    for patch in (None, 32):
        detector = Detector(network, DetectorConfig((40, 40), patch=patch)).fit(images[:20], images[20:])
        path = tmp_path / f"{patch}.svg"
        accuracy_pictures.draw_pictures(detector, CutPaste3Way(), images[:20], test, detector.score(images[:10]), path)
        assert path.read_text().count("</svg>") == 1
    accuracy_pictures.show_maps(test, detector.localize(test.images), tmp_path / "maps.jpg")
    assert (tmp_path / "maps.jpg").stat().st_size > 1000


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
    monkeypatch.setattr(accuracy, "learn", lambda *_: 1.0)
    for size in ("72", "96"):
        accuracy.main([*words, "--folders", str(tmp_path / "tile"), "--size", size])
    rows = accuracy.read(out)
    assert [(row.row, row.data, row.category) for row in rows] == [
        (f"PatchNet 64/4 from others{level}", f"tile at {size}²", "tile")
        for level in ("", ", level")
        for size in (72, 96)
    ]
    assert "--steps 1 --size 72 --folders DIR" in rows[0].command
    monkeypatch.setattr(accuracy, "learn", lambda *_: pytest.fail("measured again"))
    accuracy.main([*words, "--folders", str(tmp_path / "tile"), "--size", "72"])


def test_planted_test_sets_are_of_held_out_images_and_leave_the_test_images_alone(tmp_path, monkeypatch):
    data, planted = sets.make_brick(), sets.make_brick(planted=True)
    assert list(planted.tests) == ["brick, planted", "brick, planted, other exposures"]
    plain, exposed = planted.tests.values()
    count = len(data.calibration)
    assert torch.equal(plain.images[:count], data.calibration)
    assert plain.labels.tolist() == [False] * count + [True] * count
    for clean, image, mask, kind in zip(data.calibration, plain.images[count:], plain.masks[count:],
                                        plain.kinds[count:], strict=True):  # fmt: skip
        assert kind in DEFECTS
        changed = (image.int() - clean).abs().amax(0)
        assert 0.003 <= mask.float().mean() <= 0.06
        assert (changed[~mask] <= 8).all()
        assert changed[mask].float().mean() > 8
    assert all(not mask.any() for mask in plain.masks[:count])
    ratios = exposed.images[:count].float().mean((1, 2, 3)) / plain.images[:count].float().mean((1, 2, 3))
    assert ratios.min() > 0.78
    assert ratios.max() < 1.27
    assert ratios.std() > 0.05
    assert exposed.labels is plain.labels
    out = tmp_path / "accuracy.csv"
    monkeypatch.setattr(accuracy, "learn", lambda *_: 1.0)
    monkeypatch.setattr(
        accuracy, "make_brick", lambda planted: replace(sets.make_brick(planted), normal=data.normal[:6])
    )
    accuracy.main(["--study", "open points, patches", "--rows", "jitter 0.1", "--steps", "1", "--planted",
                   "--out", str(out)])  # fmt: skip
    rows = accuracy.read(out)
    assert [row.category for row in rows] == list(planted.tests)
    assert "--planted" in rows[0].command


def test_defects_are_planted_in_a_plain_folder_of_normal_images(tmp_path):
    for i in range(6):
        pixels = np.random.default_rng(i).integers(90, 166, (80, 96, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    data = sets.read_folder(tmp_path, 64, planted=True)
    assert (len(data.normal), len(data.calibration), data.size) == (5, 1, 64)
    assert [tuple(test.images.shape) for test in data.tests.values()] == [(2, 3, 64, 64)] * 2


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
        study(monkeypatch, tmp_path / "accuracy.csv", "--steps", "1", "--budget", "0")
    assert not tiny


def test_minutes_become_the_steps_that_fit(tiny, monkeypatch, tmp_path):
    out = tmp_path / "accuracy.csv"
    monkeypatch.setattr(
        accuracy, "learn", lambda network, study, normal, steps, seed: tiny.append(steps) or 0.5 * steps
    )
    study(monkeypatch, out, "--minutes", "1", "--rows", "3-way")
    assert tiny == [4, 8, 16, 120]  # 2, 4 and 8 seconds, a twelfth of the minute is 5
    assert {row.budget for row in accuracy.read(out)} == {"1 min"}


@pytest.mark.parametrize("arguments", [[], ["--steps", "1", "--minutes", "1"]])
def test_steps_or_minutes_are_asked_for(arguments, monkeypatch, tmp_path, capsys):
    with pytest.raises(SystemExit):
        study(monkeypatch, tmp_path / "accuracy.csv", *arguments)
    assert "one of --steps and --minutes required" in capsys.readouterr().err


def test_every_study_has_rows_of_its_own_names():
    for name, rows in STUDIES.items():
        names = [row for one in rows for row in one.rows]
        assert len(names) == len(set(names)), name
    for (name, row, _), figure in accuracy_page.PAPER.items():
        assert row.endswith("ensemble") or row in [each for one in STUDIES[name] for each in one.rows]
        assert 0 < float(figure.split(" ")[0]) < 100


@pytest.mark.parametrize("shape", sets.SHAPES)
def test_shapes_are_pasted_where_they_can_be_seen_and_nothing_else_changes(shape):
    random = np.random.default_rng(3)
    digit = np.zeros((32, 32), np.uint8)
    digit[8:24, 12:20] = 255
    for _ in range(20):
        image = random.integers(0, 2, (32, 32)).astype(np.uint8)
        pasted = sets.paste_shape(image, shape, digit, random)
        changed = pasted != image
        assert sets.LEAST_PIXELS <= changed.sum() <= 20 * 20
        assert np.abs(pasted.astype(int) - image)[changed].mean() >= sets.VISIBLE_LEVELS - 1
        rows, columns = np.nonzero(changed)
        assert np.ptp(rows) < 20
        assert np.ptp(columns) < 20
        assert (len(np.unique(pasted[changed])) == 1) == ("natural" not in shape)


def test_the_page_has_means_and_standard_errors_beside_the_papers_figures(monkeypatch, tmp_path):
    page = tmp_path / "accuracy.md"
    page.write_text("before\n<!-- rows -->\nold\n<!-- /rows -->\nafter\n")
    monkeypatch.setattr(accuracy_page, "PAGE", page)
    one = accuracy.Outcome(
        "detection", "3-way", "mvtec", "screw", 0, "9 steps", 9, "random", 0.8, float("nan"), float("nan"), 60.0, 1.0,
        100, "cpu", 1, "2", "c", "d", "command",
    )  # fmt: skip
    accuracy_page.write_page([one, replace(one, seed=1, image_auroc=0.9), replace(one, row="cutout", image_auroc=0.5)])
    text = page.read_text()
    assert text.startswith("before")
    assert text.endswith("after\n")
    assert "old" not in text
    assert "| mvtec, screw | 3-way | 9 steps | 2 | 85.0 ± 5.0 |  |  | 86.3 ± 1.0 | 60 | 1.0 | cpu |" in text
    assert text.index("| 3-way |") < text.index("| cutout |")
    assert "Not measured yet." in text

    timed = [replace(one, budget="2 min", seed=seed, steps=30 - seed) for seed in (0, 1)]
    accuracy_page.write_page([*timed, replace(one, budget="2 min", device="a GPU", steps=900)])
    text = page.read_text()
    assert "| 2 min (29 to 30 steps) | 2 |" in text
    assert "| 2 min (900 steps) | 1 |" in text  # another device's rows are not averaged with these


def test_a_row_of_another_device_does_not_stand_for_this_ones(tmp_path):
    one = accuracy.Outcome(
        "detection", "3-way", "mvtec", "screw", 0, "9 steps", 9, "random", 0.8, float("nan"), float("nan"), 60.0, 1.0,
        100, "cpu", 1, "2", "c", "d", "command",
    )  # fmt: skip
    accuracy.keep([one, replace(one, device="a GPU"), replace(one, image_auroc=0.7)], tmp_path / "rows.csv")
    assert [(row.device, row.image_auroc) for row in accuracy.read(tmp_path / "rows.csv")] == [
        ("a GPU", 0.8),
        ("cpu", 0.7),
    ]


def test_the_kept_rows_are_read_as_they_were_written():
    kept = Path(accuracy.RESULTS / "accuracy.csv")
    if not kept.exists():
        pytest.skip("no rows are kept")
    with open(kept, newline="") as file:
        assert len(accuracy.read(kept)) == sum(1 for _ in csv.reader(file)) - 1


def test_equal_times_are_measured_on_brick_and_on_the_folders_that_are_there(monkeypatch, tmp_path):
    (tmp_path / "mvtec_ad_256" / "screw").mkdir(parents=True)
    asked = []
    monkeypatch.setattr(accuracy, "main", asked.append)
    monkeypatch.setattr(sys, "argv", ["localize", "--data", str(tmp_path), "--seeds", "4", "--minutes", "3"])
    localize.main()
    out = str(accuracy.RESULTS / "accuracy.csv")
    settings = ["--study", "equal time", "--seeds", "4", "--minutes", "3.0", "--out", out]
    screw = ["--folders", str(tmp_path / "mvtec_ad_256" / "screw")]
    assert asked == [settings, settings + screw, ["--page"]]
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--out", str(tmp_path / "mine.csv")])
    localize.main()
    assert len(asked) == 5  # no page of the project's from rows that are not
