"""Exported graphs: the same maps and scores from ONNX Runtime and from torch's own format."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from pictures import draw_images
from small_detector import put_aside
from torch import Tensor

from fastcutpaste.networks.backbone import Network, NetworkConfig
from fastcutpaste.scoring.calibration import calibration_from
from fastcutpaste.scoring.config import DetectorConfig
from fastcutpaste.scoring.detector import Detector
from fastcutpaste.scoring.export import ScoringGraph, export_detector

SIZE = (40, 72)
KINDS: dict[str, tuple[NetworkConfig, DetectorConfig]] = {
    "one pass": (NetworkConfig("patchnet", patch=24, head=()), DetectorConfig(SIZE, 24, 8)),
    "patch by patch": (NetworkConfig(stage="layer1", head=()), DetectorConfig(SIZE, 24, 8)),
    "per location": (NetworkConfig("patchnet", patch=24, head=()), DetectorConfig(SIZE, 24, 4, density="location")),
    "areas": (
        NetworkConfig("patchnet", patch=24, head=()),
        DetectorConfig(SIZE, 24, 4, areas=(32, 40), border=True, level=True),
    ),
    "kernel": (NetworkConfig(stage="layer1", head=()), DetectorConfig(SIZE, 24, 8, density="kernel")),
    "whole images": (NetworkConfig(stage="layer1", head=()), DetectorConfig(SIZE, None)),
}


@pytest.fixture(scope="module", params=list(KINDS))
def fitted(request: pytest.FixtureRequest) -> Detector:
    network_config, config = KINDS[request.param]
    torch.manual_seed(0)
    network = Network(network_config)
    with torch.no_grad():
        for seed in range(5):
            network(draw_images(8, *SIZE, seed))
    return Detector(network, config, provenance={"seed": 3}).fit(*put_aside(draw_images(10, *SIZE)))


def wanted(detector: Detector, images: Tensor) -> list[Tensor]:
    maps = [] if detector.config.patch is None else [detector.localize(images)]
    return [*maps, detector.score(images)]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_onnx_runtime_gives_the_detectors_maps_and_scores(
    fitted: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="pip install 'fastcutpaste[export]'")
    pytest.importorskip("onnxscript", reason="pip install 'fastcutpaste[export]'")
    monkeypatch.setattr("fastcutpaste.networks.backbone.computes_bf16", lambda _: False)
    images = draw_images(2, *SIZE, seed=7)
    export_detector(fitted, tmp_path / "new" / "detector.onnx", batch=2)
    session = onnxruntime.InferenceSession(tmp_path / "new" / "detector.onnx", providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    assert names == (["scores"] if fitted.config.patch is None else ["maps", "scores"])
    results = session.run(None, {"images": images.numpy()})
    for result, expected in zip(results, wanted(fitted, images), strict=True):
        assert expected.std() > 0
        torch.testing.assert_close(torch.from_numpy(result), expected, rtol=1e-3, atol=1e-3)
    about = json.loads(session.get_modelmeta().custom_metadata_map["fastcutpaste"])
    assert about["threshold"] == fitted.threshold
    assert calibration_from(about["threshold"], about["calibration"]) == fitted.calibration
    assert about["size"] == list(SIZE)
    assert about["provenance"] == {"seed": 3}
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["detector.onnx"]  # one file, weights inside


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_torch_program_gives_the_detectors_maps_and_scores(
    fitted: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastcutpaste.networks.backbone.computes_bf16", lambda _: False)
    images = draw_images(1, *SIZE, seed=7)
    export_detector(fitted, tmp_path / "detector.pt2", "torch")
    extra = {"fastcutpaste.json": ""}
    program: Any = torch.export.load(tmp_path / "detector.pt2", extra_files=extra)
    for result, expected in zip(program.module()(images), wanted(fitted, images), strict=True):
        torch.testing.assert_close(result.detach(), expected, rtol=1e-4, atol=1e-4)
    assert json.loads(extra["fastcutpaste.json"])["typical"] == fitted.typical


def test_what_cannot_be_exported_is_refused_and_leaves_nothing(fitted: Detector, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="export_detector: 'onnx' or 'torch' required, got 'tflite'"):
        export_detector(fitted, tmp_path / "x", "tflite")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="export_detector: a batch of at least 1 image required, got 0"):
        export_detector(fitted, tmp_path / "x", batch=0)
    with pytest.raises(RuntimeError, match="a fitted detector required, got one without a density"):
        ScoringGraph(Detector(fitted.network, fitted.config))
    assert list(tmp_path.iterdir()) == []
