"""`predict detector.onnx` where there is no torch: the same results as by the detector, and the same page."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import QUICK, failing, run
from pictures import draw_noise, write_picture

# All that `pip install numpy pillow onnxruntime click rich` does not bring.
ABSENT = ("torch", "torchvision", "scipy", "skimage", "kornia", "matplotlib", "safetensors", "lightning_fabric", "onnx")
WITHOUT_TORCH = f"""
import sys
for name in {ABSENT}:
    sys.modules[name] = None
from fastcutpaste.cli import main
main()
"""


def run_without_torch(*arguments: object, status: int = 0) -> tuple[dict, str]:
    """Run the command line in a process that cannot import torch; give its JSON, and stderr."""
    command = [sys.executable, "-c", WITHOUT_TORCH, *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == status, ended.stderr
    return json.loads(ended.stdout) if ended.stdout else {}, ended.stderr


@pytest.fixture(scope="module")
def trained(category: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnx", reason="pip install 'fastcutpaste[export]'")
    out = tmp_path_factory.mktemp("runs") / "run"
    run("train", category, "--out", out, *QUICK, "--precision", "fp32")
    run("export", out)
    return out


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of other sizes than the detector's, smaller and larger, one grey and one broken."""
    folder = tmp_path_factory.mktemp("images")
    for i, size in enumerate([(48, 64), (100, 150), (30, 200), (20, 20)]):
        write_picture(folder / f"{i}.png", draw_noise(*size, seed=i))
    write_picture(folder / "4.jpg", draw_noise(48, 64, 1))
    (folder / "5.png").write_text("no picture")
    return folder


def page_of(path: Path) -> tuple[list[dict], str]:
    """Give what a report holds of its images, and all else."""
    before, _, rest = path.read_text(encoding="utf-8").partition('id="images">')
    data, _, after = rest.partition("</script>")
    return json.loads(data), before + after


def test_results_and_report_are_those_of_the_detector(trained, images, tmp_path, monkeypatch):
    monkeypatch.setattr("fastcutpaste.networks.backbone.computes_bf16", lambda _: False)
    wanted, text = run("predict", trained, images, "--report", tmp_path / "detector.html", status=3)
    graph = trained / "detector.onnx"
    got, told = run_without_torch("predict", graph, images, "--report", tmp_path / "graph.html", status=3)
    assert [line for line in told.splitlines() if "graph.html" not in line] == [
        line for line in text.splitlines() if "detector.html" not in line
    ]
    assert got.keys() == wanted.keys()
    assert {one["defective"] for one in got["results"][:5]} == {one["defective"] for one in wanted["results"][:5]}
    for ours, theirs in zip(got["results"], wanted["results"], strict=True):
        assert ours.get("error") == theirs.get("error")
        for name in ("score", "relative"):
            assert ours.pop(name, 0) == pytest.approx(theirs.pop(name, 0), rel=1e-4)
        for a, b in zip(ours.get("regions", ()), theirs.get("regions", ()), strict=True):
            assert a.pop("score") == pytest.approx(b.pop("score"), rel=1e-4)
        assert ours == theirs
    (shown, page), (wanted_shown, wanted_page) = page_of(tmp_path / "graph.html"), page_of(tmp_path / "detector.html")
    assert page == wanted_page
    assert [(one["name"], one["thumbnail"], one["details"]) for one in shown] == [
        (one["name"], one["thumbnail"], one["details"]) for one in wanted_shown
    ]
    assert all(one["heat"] for one in shown)


def test_lines_are_written_and_gone_on_with(trained, images, tmp_path):
    out, graph = tmp_path / "r.jsonl", trained / "detector.onnx"
    run_without_torch("predict", graph, images / "0.png", "--out", out)
    got, text = run_without_torch("predict", graph, images, "--out", out, "--resume", status=3)
    assert got["images"] == 6
    assert "/0.png" not in text
    assert [Path(json.loads(line)["image"]).name for line in out.read_text().splitlines()] == [
        "0.png", "1.png", "2.png", "3.png", "4.jpg", "5.png",
    ]  # fmt: skip


def test_what_cannot_be_without_torch_is_said_in_a_line(trained, images, tmp_path):
    graph = trained / "detector.onnx"
    pictures = ("predict", graph, images / "0.png", "--heatmaps", tmp_path)
    _, text = run_without_torch(*pictures, status=1)
    assert text == "error: predict --heatmaps: matplotlib required, got none; --report draws heat maps without it\n"
    _, text = run_without_torch("predict", trained, images, status=1)
    assert text == "error: torch required, but by `predict` of an exported graph, got none\n"
    result, _ = run(*pictures)
    assert Path(result["results"][0]["heat_map"]).is_file()


def test_a_graph_is_scored_on_the_cpu_alone(trained, images):
    graph = trained / "detector.onnx"
    for option in (("--device", "cuda"), ("--devices", "2")):
        assert "--device cpu and --devices 1 required for a graph" in failing("predict", graph, images, *option)
    assert "an ONNX file required, got nothing" in failing("predict", trained / "other.onnx", images)


def test_a_graph_of_the_detector_as_it_was_is_named(trained, category, images, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "run")
    _, text = run("train", category, "--out", folder, *QUICK, "--precision", "fp32", "--resume")
    assert "exported before" not in text  # complete already: the graph is of this detector
    (folder / "detector.xml").touch()  # in OpenVINO's format
    _, text = run("calibrate", folder, "--threshold", "1000000")
    for name in ("detector.onnx", "detector.xml"):
        assert f"note: {folder / name} was exported before" in text
    assert "file required, got a graph" in failing("evaluate", folder / "detector.xml", category)
    run("export", folder)
    _, text = run("train", category, "--out", folder, *QUICK, "--overwrite")
    assert f"note: {folder / 'detector.onnx'} was exported before" in text


@pytest.mark.parametrize("command", ["evaluate", "calibrate", "export"])
def test_other_commands_say_that_they_take_no_graph(command, trained, category):
    given = () if command == "export" else (category / "test/good",)
    assert "predict alone takes one" in failing(command, trained / "detector.onnx", *given)
