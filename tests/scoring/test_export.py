"""Exported graphs: the same maps, scores and decisions from ONNX Runtime and from torch's own format, on any size."""

import json
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from exported import LITE, PATCHNET, RESNET, SIZE, SIZES, assert_agree, fit, photographs, wanted
from pictures import draw_images
from torch import Tensor, nn

from fastcutpaste.networks.backbone import NetworkConfig
from fastcutpaste.scoring.calibration import calibration_from
from fastcutpaste.scoring.config import DetectorConfig
from fastcutpaste.scoring.detector import Detector
from fastcutpaste.scoring.ensemble import Ensemble
from fastcutpaste.scoring.export import ScoringGraph, export_detector, fingerprint

KINDS: dict[str, tuple[NetworkConfig, DetectorConfig]] = {
    "one pass": (PATCHNET, DetectorConfig(SIZE, 24, 8)),
    "patch by patch": (RESNET, DetectorConfig(SIZE, 24, 8)),
    "per location": (PATCHNET, DetectorConfig(SIZE, 24, 4, density="location")),
    "areas": (PATCHNET, DetectorConfig(SIZE, 24, 4, areas=(32, 40), border=True, level=True)),
    "kernel": (RESNET, DetectorConfig(SIZE, 24, 8, density="kernel")),
    "nearest": (PATCHNET, DetectorConfig(SIZE, 24, 8, density="nearest", level=True)),
    "EfficientNet-Lite0": (LITE, DetectorConfig(SIZE, 24, 16)),
    "whole images": (RESNET, DetectorConfig(SIZE, None)),
}


def fit_kind(kind: str, seed: int = 0) -> Detector:
    if KINDS[kind][0] is LITE:
        pytest.importorskip("timm")
    return fit(*KINDS[kind], seed)


@pytest.fixture(autouse=True)
def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastcutpaste.networks.backbone.computes_bf16", lambda _: False)


@pytest.fixture(scope="module", params=[*KINDS, "ensemble"])
def fitted(request: pytest.FixtureRequest) -> Detector | Ensemble:
    if request.param != "ensemble":
        return fit_kind(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fastcutpaste.networks.backbone.computes_bf16", lambda _: False)
        return Ensemble([fit_kind("one pass"), fit_kind("one pass", seed=1)])


@pytest.fixture(scope="module")
def graph(fitted: Detector | Ensemble, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Export the detector and open the graph in ONNX Runtime."""
    onnxruntime = pytest.importorskip("onnxruntime", reason="pip install 'fastcutpaste[export]'")
    pytest.importorskip("onnxscript", reason="pip install 'fastcutpaste[export]'")
    path = tmp_path_factory.mktemp("exported") / "new" / "detector.onnx"
    export_detector(fitted, path)
    assert [each.name for each in path.parent.iterdir()] == ["detector.onnx"]  # one file, weights inside
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("size", SIZES)
def test_onnx_runtime_says_of_images_of_any_size_what_the_library_says(
    fitted: Detector | Ensemble, graph: Any, size: tuple[int, int]
) -> None:
    images = photographs(3, *size)
    assert_agree(graph.run(None, {"images": images.numpy()}), wanted(fitted, images))


@pytest.mark.parametrize("count", [1, 3, 16])
def test_one_graph_takes_any_number_of_images(fitted: Detector | Ensemble, graph: Any, count: int) -> None:
    images = draw_images(count, *SIZE, seed=7)
    assert_agree(graph.run(None, {"images": images.numpy()}), wanted(fitted, images))


def test_a_graph_says_what_it_takes_and_gives(fitted: Detector | Ensemble, graph: Any) -> None:
    about = json.loads(graph.get_modelmeta().custom_metadata_map["fastcutpaste"])
    for told, put in ((about["inputs"], graph.get_inputs()), (about["outputs"], graph.get_outputs())):
        assert list(told) == [each.name for each in put]
        for each in put:
            assert told[each.name]["shape"] == each.shape
            assert each.type == f"tensor({told[each.name]['type'].replace('float32', 'float')})"
            assert told[each.name]["unit"]
    assert list(about["outputs"]) == ["maps", "scores", "defective"][fitted.config.patch is None :]
    assert about["labels"] == ["normal", "defective"]
    assert about["threshold"] == fitted.threshold
    assert about["promised"] == fitted.calibration.promised
    assert calibration_from(about["threshold"], about["calibration"]) == fitted.calibration
    assert about["size"] == list(SIZE)
    assert about["provenance"] == fitted.provenance
    assert about["detector"] == fingerprint(fitted)


def test_a_threshold_that_moves_changes_what_is_defective_alone(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="pip install 'fastcutpaste[export]'")
    detector, images = fit_kind("one pass"), photographs(4, 61, 90)
    scores = wanted(detector, images)[-2].sort().values
    before = fingerprint(detector)
    detector.calibrate(threshold=float(scores[1] + scores[2]) / 2)
    assert fingerprint(detector) != before
    export_detector(detector, tmp_path / "detector.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "detector.onnx", providers=["CPUExecutionProvider"])
    results = session.run(None, {"images": images.numpy()})
    assert_agree(results, wanted(detector, images))
    assert results[-1].sum() == 2


def test_images_may_come_with_their_channels_last(tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="pip install 'fastcutpaste[export]'")
    detector, images = fit_kind("one pass"), photographs(2, 61, 90)
    export_detector(detector, tmp_path / "detector.onnx", channels_last=True)
    session = onnxruntime.InferenceSession(tmp_path / "detector.onnx", providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", "height", "width", 3]
    assert_agree(session.run(None, {"images": images.permute(0, 2, 3, 1).numpy()}), wanted(detector, images))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_torch_program_says_what_the_library_says(fitted: Detector | Ensemble, tmp_path: Path) -> None:
    export_detector(fitted, tmp_path / "detector.pt2", "torch")
    extra = {"fastcutpaste.json": ""}
    program: Any = torch.export.load(tmp_path / "detector.pt2", extra_files=extra)
    with torch.no_grad():
        for images in (photographs(1, *SIZE), photographs(3, 97, 161)):
            assert_agree(program.module()(images), wanted(fitted, images))
    assert json.loads(extra["fastcutpaste.json"])["typical"] == fitted.typical


def test_what_is_no_image_of_three_channels_is_refused_by_the_graph(graph: Any) -> None:
    for wrong in (
        np.zeros((1, 1, 40, 72), np.uint8),
        np.zeros((1, 40, 72, 3), np.uint8),
        np.zeros((3, 40, 72), np.uint8),
    ):
        with pytest.raises(Exception, match=r"invalid dimensions|Invalid rank"):
            graph.run(None, {"images": wrong})
    with pytest.raises(Exception, match="Unexpected input data type"):  # so NaN cannot come either
        graph.run(None, {"images": np.zeros((1, 3, 40, 72), np.float32)})


class Unfollowed(nn.Module):
    """A layer whose flow hangs on what it sees."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps if float(maps.sum()) > 0 else -maps


def test_what_cannot_be_exported_is_refused_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = fit_kind("one pass")
    with pytest.raises(ValueError, match="export_detector: one of onnx, torch, compiled required, got 'tflite'"):
        export_detector(detector, tmp_path / "x", "tflite")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="a fitted detector required, got one without a density"):
        ScoringGraph(Detector(detector.network, detector.config))
    with pytest.raises(ValueError, match="a detector with a threshold required, got one without: calibrate it"):
        export_detector(Detector(detector.network, detector.config, detector.density), tmp_path / "x")
    with monkeypatch.context() as patch:
        patch.setattr("torch._inductor.aoti_compile_and_package", Mock(side_effect=RuntimeError("no c++\n at line 1")))
        with pytest.raises(ValueError, match=r"a C\+\+ compiler that builds the graph required, got: no c\+\+$"):
            export_detector(detector, tmp_path / "x.pt2", "compiled")
    with monkeypatch.context() as patch:
        patch.setattr(
            "torch.onnx.export", Mock(side_effect=ModuleNotFoundError("No module named 'onnxscript.torch_3'"))
        )
        with pytest.raises(
            ImportError, match=r"an onnxscript that knows torch .* required, .*pip install -U onnxscript"
        ):
            export_detector(detector, tmp_path / "x")
    detector.network.backbone = nn.Sequential(detector.network.backbone, Unfollowed())
    with (
        pytest.warns(UserWarning, match="cannot be followed"),
        pytest.raises(ValueError, match=r"a backbone that can be followed, .* required, got patchnet and torch "),
    ):
        export_detector(detector, tmp_path / "x")
    assert list(tmp_path.iterdir()) == []
