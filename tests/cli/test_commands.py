"""The command line: what it prints, what it leaves, and how it fails."""

import csv
import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from command_line import QUICK, SMALL, failing, run
from pictures import draw_noise, write_picture
from PIL import Image
from processes import start_command

from fastcutpaste.cli import app
from fastcutpaste.cli.predict import regions_told
from fastcutpaste.reports.runs import claim
from fastcutpaste.scoring.calibration import calibrated
from fastcutpaste.scoring.detector import Detector
from fastcutpaste.scoring.intervals import rate_interval


@pytest.fixture(scope="module")
def trained(category, tmp_path_factory):
    """A run folder trained on it for two steps."""
    out = tmp_path_factory.mktemp("runs") / "run"
    result, text = run("train", category, "--out", out, *QUICK)
    assert "6 normal images" in text
    assert "threshold: 1 image: 50 % at best, 5 % asked; 19 needed" in text
    return out, result


def test_train_leaves_a_detector_and_a_log(trained):
    out, result = trained
    assert result["images"] == 6
    assert result["steps"] == 2
    detector = Detector.load(result["detector"])
    assert detector.threshold == result["threshold"]
    assert detector.calibration.promised == result["promised"] == 0.5
    assert detector.provenance["data"] == {"source": "tile", "images": 5, "mean": detector.provenance["data"]["mean"]}
    assert detector.provenance["training"]["seed"] == 0
    assert detector.provenance["threshold_from"]["images"] == 1
    assert (out / "training.csv").read_text().startswith("step,loss,accuracy,learning_rate,images_per_s\n2,")


def test_evaluate_measures_everything_and_draws_heat_maps(trained, category):
    out, _ = trained
    result, text = run("evaluate", out, category)
    for name in ("image_auroc", "pixel_auroc", "pro_auc", "false_positive_rate", "detection_rate"):
        assert 0 <= result[name] <= 1
    assert set(result["image_auroc_by_kind"]) == {"crack", "stain"}
    assert "pixel auroc" in text
    counts = result["counts"]
    assert (counts["good"], counts["defective"]) == (2, 2)
    assert f"({counts['false_alarms']} of 2; 0." in text
    for name, (count, whole) in {"false_positive_rate": ("false_alarms", 2), "detection_rate": ("found", 2)}.items():
        assert result[name] == counts[count] / whole
        assert result["intervals"][name] == list(rate_interval(counts[count], whole))
    low, high = result["intervals"]["image_auroc"]
    assert 0 <= low <= result["image_auroc"] <= high <= 1
    assert f"({low:.3f} to {high:.3f})" in text
    assert result["promised"] == 0.5  # one image was held out
    assert "; 50.0 % promised)" in text
    assert Image.open(result["heat_maps"]).width > 300
    page = Path(result["report"]).read_text(encoding="utf-8")
    for shown in ("Evaluation of tile", "image ROC", "pixel ROC", "crack", "stain", f"{result['image_auroc']:.3f}"):
        assert shown in page
    assert page.count('"outline":"M') == 2
    written = json.loads((out / "evaluation/metrics.json").read_text())
    for name in ("image_auroc", "counts", "intervals", "promised", "notes"):
        assert written[name] == result[name]
    rows = list(csv.DictReader((out / "evaluation/scores.csv").read_text().splitlines()))
    assert list(rows[0]) == ["image", "kind", "score", "p_value", "relative", "defective", "error"]
    predicted, _ = run("predict", out, *(row["image"] for row in rows))
    for row, told in zip(rows, predicted["results"], strict=True):
        assert [float(row[name]) for name in ("score", "p_value", "relative")] == pytest.approx(
            [told[name] for name in ("score", "p_value", "relative")], rel=1e-4
        )
        assert row["defective"] == str(told["defective"])
    assert "1 image: 50 % at best, 5 % asked; 19 needed" in page
    images = json.loads(page.partition('id="images">')[2].partition("</script>")[0])
    assert_details_tell(predicted["results"], images)


def test_evaluate_says_why_a_promise_may_be_broken_and_none_where_none_was_made(trained, category, tmp_path):
    path = tmp_path / "d.safetensors"
    lowest = Detector.load(trained[1]["detector"])
    lowest.calibration = calibrated([0.0] * 200, 0.005)  # all images score higher
    lowest.provenance["threshold_from"] |= {"images": 200, "sizes": {"9×9": 64}, "colors": {"color": 64}}
    lowest.save(path)
    result, text = run("evaluate", path, category)
    assert result["notes"][0].startswith("more false alarms than the 0.5 % promised: 2 of 2 good images")
    assert "2 of 2 are 64×80 px, as none of those" in result["notes"][1]
    assert [line.removeprefix("note: ") for line in text.splitlines() if "note: " in line] == result["notes"]
    page = Path(result["report"]).read_text(encoding="utf-8")
    assert json.loads(page.partition('id="about">')[2].partition("</script>")[0])["notes"] == result["notes"]
    run("calibrate", path, "--threshold", 0)
    result, text = run("evaluate", path, category)
    assert (result["promised"], result["notes"]) == (None, [])
    assert "promised" not in text


def assert_details_tell(results, images):
    """Assert that a page says of each image how its score lies, as `predict` does."""
    for row, image in zip(results, images, strict=True):
        assert image["details"]["p-value"] == f"{row['p_value']:.2g}"
        assert image["details"]["over the detector's threshold"] == f"{row['relative']:.2f} ×"


def test_predict_scores_files_and_folders_as_the_detector_does(trained, category, tmp_path):
    out, _ = trained
    one = category / "test/crack/2.png"
    result, text = run("predict", out, one, category / "test/good", "--heatmaps", tmp_path / "maps")
    assert [Path(row["image"]).name for row in result["results"]] == ["2.png", "0.png", "1.png"]
    calibration = Detector.load(out / "detector.safetensors").calibration
    assert {name: result[name] for name in calibration.summary} == calibration.summary
    for row in result["results"]:
        [decision] = calibration.decide([row["score"]])
        assert {name: row[name] for name in decision._fields} == decision._asdict()
        assert row["defective"] == (row["score"] > result["threshold"])
        assert Image.open(row["heat_map"]).size > (100, 50)
        assert row["defective"] or not row["regions"]
        for region in row["regions"]:
            assert 0 < region["area"] <= region["height"] * region["width"] <= 64 * 80
    lines = [line for line in text.splitlines() if line.endswith(".png")]
    assert [re.split(r"\s{2,}", line.strip()) for line in lines] == [
        [
            "DEFECTIVE" if row["defective"] else "normal",
            f"{row['score']:.2f}",
            f"{row['relative']:.2f} × threshold, p {row['p_value']:.2g}",
            row["image"],
        ]
        for row in result["results"]
    ]
    alone, _ = run("predict", out / "detector.safetensors", one)
    torch.testing.assert_close(alone["results"][0]["score"], result["results"][0]["score"], rtol=1e-3, atol=1e-3)


def test_predict_makes_a_page_of_images_of_which_nothing_is_known(trained, category, tmp_path):
    out, _ = trained
    result, text = run("predict", out, category / "test/crack", category / "test/good", "--report", tmp_path / "p.html")
    assert result["report"] == str(tmp_path / "p.html")
    assert f"look at {tmp_path / 'p.html'}" in text
    page = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert "<h1>Prediction by a detector of tile</h1>" in page
    images = json.loads(page.partition('id="images">')[2].partition("</script>")[0])
    assert [image["path"] for image in images] == [row["image"] for row in result["results"]]
    assert [image["score"] for image in images] == [row["score"] for row in result["results"]]
    assert all(image["kind"] is None and image["heat"] and image["details"]["regions"] for image in images)
    assert_details_tell(result["results"], images)
    assert "HTML file's name required" in failing("predict", out, category, "--report", tmp_path / "p.png")


@pytest.mark.parametrize("count", [0, 1, 2])
def test_regions_are_told_by_their_number_and_the_worst(count):
    regions = [{"y": 3, "x": 4, "height": 5, "width": 6, "score": 9.0}, {"y": 0, "x": 0, "height": 1, "width": 1}]
    box = "6 × 5 px from x 4, y 3"
    assert regions_told(regions[:count]) == ["none above the detector's threshold", box, f"2, the worst {box}"][count]


def test_export_writes_one_graph_beside_the_detector_and_how_far_the_two_are_apart(trained, category):
    out, _ = trained
    result, text = run("export", out, "--format", "torch", "--images", category)
    assert Path(result["exported"]) == out / "detector.pt2"
    assert result["bytes"] == (out / "detector.pt2").stat().st_size > 1_000_000
    assert "images uint8 (batch, 3, height, width) in, maps, scores, defective out" in text
    table = (out / "detector.pt2.parity.md").read_text(encoding="utf-8").partition("\n\n")[2]
    assert table in text
    assert f"decisions that differ: {result['parity']['decisions']} of 4" in table
    assert f"| scores | {result['parity']['scores'][0]:.1e} |" in table


def test_export_for_openvino_writes_two_files(trained, tmp_path):
    pytest.importorskip("openvino", reason="pip install 'fastcutpaste[openvino]'")
    to = ("--format", "openvino", "--out", tmp_path / "new/d.xml", "--tolerance", 0.1)
    # Where OpenVINO 2026.4 has run, a training in the same process crashed later, in native code.
    result = json.loads(start_command(tmp_path / "said", "export", trained[0], *to).succeed().said("out"))
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "new").iterdir()}
    assert sizes.keys() == {"d.bin", "d.xml.parity.md", "d.xml"}
    assert result["bytes"] == sizes["d.bin"] + sizes["d.xml"]


def test_export_without_its_extra_names_it_before_any_work(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    text = failing("export", tmp_path / "nowhere")
    assert "got no onnxscript; pip install 'fastcutpaste[export]'" in text
    monkeypatch.setitem(sys.modules, "openvino", None)
    text = failing("export", tmp_path / "nowhere", "--format", "openvino")
    assert "got no onnxscript, no openvino; pip install 'fastcutpaste[openvino]'" in text


def test_export_of_a_graph_that_disagrees_leaves_the_former_one_and_says_how_far_it_is_off(
    trained, tmp_path, monkeypatch
):
    out, _ = trained
    (tmp_path / "detector.pt2").write_text("the former")
    monkeypatch.setattr("fastcutpaste.scoring.parity.resize_map", lambda maps, size: maps.new_zeros(1, *size))
    page = Image.new("RGB", (70, 50))
    page.save(tmp_path / "scan.tif", save_all=True, append_images=[page])
    words = "--format", "torch", "--out", tmp_path / "detector.pt2", "--images", tmp_path / "scan.tif"
    text = failing("export", out, *words)
    assert text.endswith(f"required, got those in {tmp_path / 'detector.pt2.refused.md'}; --tolerance allows more")
    assert (tmp_path / "detector.pt2").read_text() == "the former"
    told = (tmp_path / "detector.pt2.refused.md").read_text(encoding="utf-8")
    assert re.search(r"decisions that differ: \d of 2;", told)  # of each page
    assert len(list(tmp_path.iterdir())) == 3


def test_preview_writes_a_picture(category, tmp_path):
    result, _ = run("preview", category, "--out", tmp_path / "p.png", "--count", 1, "--size", 64)
    assert {"CutPaste", "nsa", "draem"} < set(result["transforms"])
    assert Image.open(tmp_path / "p.png").height > 400
    assert "a picture's name required, such as preview.png" in failing("preview", category, "--out", tmp_path / "p")
    named = ["--recipe", "nsa", "--recipe", "fpi+draem"]
    result, _ = run("preview", category, "--out", tmp_path / "r.png", "--count", 1, "--size", 64, *named)
    assert result["transforms"] == ["nsa", "fpi+draem"]
    assert "joined by +, required, got 'nas'" in failing("preview", category, "--recipe", "nas")


def test_preview_shows_textures_of_a_folder(category, tmp_path):
    write_picture(tmp_path / "textures/a.png", draw_noise(32, 40))
    plain = ["preview", category, "--out", tmp_path / "p.png", "--count", 1, "--size", 64]
    textured = [*plain, "--textures", tmp_path / "textures"]
    run(*plain, "--recipe", "draem")
    with Image.open(tmp_path / "p.png") as picture:
        before = np.asarray(picture)
    run(*textured, "--recipe", "draem")
    assert not np.array_equal(np.asarray(Image.open(tmp_path / "p.png")), before)
    result, _ = run(*textured, "--recipe", "draem", "--recipe", "nsa")
    assert result["transforms"] == ["draem", "nsa"]
    line = failing(*textured, "--recipe", "nsa")
    assert line == "error: textures: a recipe that takes them, draem or memseg, required, got 'nsa'"


def test_whole_image_detectors_score_without_maps(category, tmp_path):
    run("train", category, "--out", tmp_path / "run", *SMALL, "--crop", 0)
    result, _ = run("evaluate", tmp_path / "run", category)
    assert "image_auroc" in result
    assert "pixel_auroc" not in result
    assert Path(result["report"]).read_text(encoding="utf-8").count('"heat":null') == 4
    assert "trained on patches" in failing("predict", tmp_path / "run", category, "--heatmaps", tmp_path / "maps")
    assert not (tmp_path / "maps").exists()


@pytest.mark.parametrize("command", ["demo", "train", "evaluate", "predict", "calibrate", "export", "preview"])
def test_help_tells_the_defaults(command, capsys):
    app.main([command, "--help"], standalone_mode=False)
    assert "default" in capsys.readouterr().out


def test_a_process_of_its_own_ends_with_json_or_with_a_status(category, tmp_path):
    started = start_command(tmp_path, "preview", category / "nowhere")
    assert started.status() == 1
    assert started.said("out") == ""
    assert started.said().splitlines() == [
        f"error: {category / 'nowhere'}: a folder of images required, {category / 'nowhere'} is missing"
    ]


@pytest.mark.parametrize(
    ("arguments", "fragments"),
    [
        (("train", "{empty}", "--out", "{new}"), ("empty folder", "required")),
        (("train", "{nowhere}", "--out", "{new}"), ("is missing",)),
        (("train", "{no_good}", "--out", "{new}"), ("train/good required",)),
        (("train", "{category}", "--out", "{foreign}"), ("not a run", "foreign")),
        (("train", "{category}", "--out", "{file}"), ("is a file",)),
        (("train", "{category}", "--out", "{new}", "--size", "32"), ("at least 64×64", "32×32")),
        (("train", "{category}", "--out", "{new}", "--size", "big"), ("HEIGHTxWIDTH", "big")),
        (("train", "{category}", "--out", "{new}", "--stride", "0"), ("stride", "at least 1")),
        (("train", "{category}", "--out", "{new}", "--steps", "0"), ("steps", "at least 1")),
        (("train", "{category}", "--out", "{new}", "--fpr", "2"), ("false_positive_rate", "got 2")),
        (("train", "{category}", "--out", "{new}", "--backbone", "resnet8"), ("resnet18", "'resnet8'")),
        (("train", "{category}", "--out", "{new}", "--stage", "layer9"), ("layer4", "'layer9'")),
        (("train", "{category}", "--out", "{new}", "--weights", "{file}"), ("plain tensors", "file.txt")),
        (("train", "{category}", "--out", "{new}", "--device", "tpu"), ("cuda:N", "'tpu'")),
        (("train", "{broken}", "--out", "{new}"), ("half.png", "required")),
        (("evaluate", "{foreign}", "{category}"), ("detector.safetensors required",)),
        (("predict", "{file}", "{category}/test/good"), ("file.txt", "whole detector file")),
    ],
)  # fmt: skip
def test_mistakes_end_in_one_line_and_leave_nothing(arguments, fragments, category, tmp_path):
    places = {name: tmp_path / name for name in ("empty", "no_good", "foreign", "broken", "new", "nowhere")}
    (places["no_good"] / "train/bad").mkdir(parents=True)
    places["empty"].mkdir()
    places["foreign"].mkdir()
    (places["foreign"] / "thesis.txt").write_text("mine")
    for name in ("half", "one", "other"):
        write_picture(places["broken"] / f"{name}.png", draw_noise(40, 40))
    half = (places["broken"] / "half.png").read_bytes()
    (places["broken"] / "half.png").write_bytes(half[: len(half) // 2])
    (tmp_path / "file.txt").write_text("text")
    places |= {"file": tmp_path / "file.txt", "category": category}
    line = failing(*(argument.format(**places) for argument in arguments))
    for fragment in fragments:
        assert fragment in line
    assert not (places["new"] / "detector.safetensors").exists()
    assert (places["foreign"] / "thesis.txt").read_text() == "mine"


def test_usage_mistakes_end_in_one_line_too():
    assert "--preset" in failing("train", "x", "--out", "y", "--preset", "slow", status=2)
    assert failing("train", status=2) == "error: Missing argument 'DATA'; see fastcutpaste train --help"
    assert "DATA" in failing("train", status=2)
    assert "No such command" in failing("trian", status=2)


def test_a_demo_never_takes_a_runs_folder(tmp_path):
    claim(tmp_path / "run")
    (tmp_path / "run/data").mkdir()
    assert "holds files that are not a demo's" in failing("demo", "--out", tmp_path / "run")
    assert (tmp_path / "run/data").is_dir()
    claim(tmp_path / "demo", kind="demo")
    with pytest.raises(ValueError, match="holds files that are not a run's"):
        claim(tmp_path / "demo", overwrite=True)


def test_conversions_are_said_on_stderr(trained, tmp_path):
    write_picture(tmp_path / "deep.png", np.full((64, 80), 40_000, np.uint16))
    _, text = run("predict", trained[0], tmp_path / "deep.png")
    assert "note:" in text
    assert "16 bits" in text


def test_images_of_any_size_are_read_up_to_a_limit_that_can_be_set(category, tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)  # and as it was, after the test
    result, text = run("preview", category, "--out", tmp_path / "a.png", "--size", "64", "--count", "1")
    assert (result["images"], "Decompression" in text, "limit" in text) == (1, False, False)
    assert Image.MAX_IMAGE_PIXELS == 500_000_000
    line = failing("--most-pixels", "5000", "preview", category, "--out", tmp_path / "b.png")
    assert "got: 6000 pixels, more than the 5000 that are allowed; fastcutpaste --most-pixels" in line
