"""The example scripts run as they stand, on small images."""

import importlib.util
import runpy
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastcutpaste.images.decode import load_images
from fastcutpaste.images.textures import make_demo, write_demo
from fastcutpaste.scoring.export import export_detector

EXAMPLES = Path(__file__).parents[1] / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def bricks(tmp_path_factory):
    root = tmp_path_factory.mktemp("bricks")
    write_demo(make_demo("brick", size=64, train_count=8, good_count=1, defect_count=4), root)
    return root


def test_drop_in_transform_learns():
    module = load("drop_in_transform")
    assert module.main(steps=2, size=48, batch=2) > 0


def test_anomalib_learns_from_a_recipe(bricks):
    pytest.importorskip("anomalib", reason="pip install 'fastcutpaste[anomalib]'")
    assert load("anomalib_draem").main(bricks, steps=1, batch=2) > 0


def test_train_score_localize(bricks, tmp_path, capsys):
    path = tmp_path / "detector.safetensors"
    detector = load("train_on_a_folder").main(bricks, path, steps=2, size=64, crop=32, stride=16)
    image = next((bricks / "test/chip").glob("*.png"))
    score, defective = load("score_one_image").main(path, image)
    assert defective == (score > detector.threshold)
    y, x = load("localize").main(path, image, tmp_path / "map.png")
    assert Image.open(tmp_path / "map.png").size == (64, 64)
    assert 0 <= y < 64
    assert 0 <= x < 64
    pytest.importorskip("onnxruntime", reason="pip install 'fastcutpaste[export]'")
    detector.config = replace(detector.config, bits=12)
    export_detector(detector, tmp_path / "detector.onnx")
    found = load("score_with_onnxruntime").main(tmp_path / "detector.onnx", bricks / "test/chip")
    assert found[image.name] == pytest.approx(score, rel=0.05)  # resized by another hand where sizes differ
    printed = {line.split()[-1]: line for line in capsys.readouterr().out.splitlines() if line.endswith(".png")}
    for decision, name in zip(detector.calibration.decide(list(found.values())), found, strict=True):
        assert decision.text in printed[name]  # the same, of the same score

    (tmp_path / "odd").mkdir()  # a photograph that lies on its side, and 12 bits in 16
    pixels, exif = Image.open(image), Image.Exif()
    exif[0x0112] = 6
    pixels.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "odd/turned.png", exif=exif)
    Image.fromarray(np.asarray(pixels.convert("L")).astype(np.uint16) * 16).save(tmp_path / "odd/deep.png")
    Image.fromarray(np.asarray(pixels.convert("L")).astype(np.float32) / 255).save(tmp_path / "odd/share.tif")
    found = load("score_with_onnxruntime").main(tmp_path / "detector.onnx", tmp_path / "odd")
    assert set(found) == {"turned.png", "deep.png", "share.tif"}
    for name, told in found.items():
        pixels = load_images([tmp_path / "odd" / name], (64, 64), bits=12).pixels
        assert told == pytest.approx(float(detector.score(pixels)[0]), rel=0.05)


def test_a_step_of_kornia_pastes_a_share_of_its_pixels():
    assert 0 < load("kornia_pipeline").main(size=48, batch=4) < 0.2


def test_a_step_of_torchvision_trains(monkeypatch):
    module = load("torchvision_pipeline")
    few = partial(make_demo, train_count=20, calibration_count=1, good_count=1, defect_count=4)
    monkeypatch.setattr(module, "make_demo", few)
    assert module.main(epochs=1, size=48, batch=10, workers=0) > 0


@pytest.mark.parametrize("name", ["localize", "score_one_image", "score_with_onnxruntime", "train_on_a_folder"])
def test_an_example_without_its_words_says_which_it_takes(name, monkeypatch):
    monkeypatch.setattr("sys.argv", [name, "--help"])
    with pytest.raises(SystemExit, match=f"python examples/{name}.py "):
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_examples_stay_short(path):
    assert len(path.read_text().splitlines()) <= 50
