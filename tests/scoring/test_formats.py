"""Exported graphs in other forms: as near to the detector as their numbers allow, and telling what they are."""

from pathlib import Path

import numpy as np
import pytest
from exported import PATCHNET, SIZE, fit
from pictures import draw_images

from fastcutpaste.scoring.config import DetectorConfig
from fastcutpaste.scoring.detector import Detector
from fastcutpaste.scoring.export import Format, export_detector
from fastcutpaste.scoring.formats import quantize_graph
from fastcutpaste.scoring.parity import compare, open_graph

onnx = pytest.importorskip("onnx", reason="pip install 'fastcutpaste[export]'")
pytest.importorskip("onnxruntime", reason="pip install 'fastcutpaste[export]'")


@pytest.fixture(autouse=True)
def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastcutpaste.networks.backbone.computes_bf16", lambda _: False)


@pytest.fixture(scope="module")
def detector() -> Detector:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fastcutpaste.networks.backbone.computes_bf16", lambda _: False)
        return fit(PATCHNET, DetectorConfig(SIZE, 24, 8))


@pytest.fixture(scope="module")
def plain(detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plain") / "detector.onnx"
    export_detector(detector, path)
    return path


def drawn(count: int, seed: int = 0) -> list[np.ndarray]:
    return list(draw_images(count, *SIZE, seed).permute(0, 2, 3, 1).contiguous().numpy())


@pytest.mark.parametrize("kind", ["onnx", "torch"])
def test_half_a_graph_is_smaller_and_nearly_the_same(
    detector: Detector, plain: Path, tmp_path: Path, kind: Format
) -> None:
    path = tmp_path / "detector"
    export_detector(detector, path, kind, half=True)
    assert path.stat().st_size < 0.9 * plain.stat().st_size  # the density and the map stay as they are
    parity = compare(detector, path, kind, drawn(8, 1))
    assert 1e-5 < parity.scores[0] < 2e-2
    assert parity.milliseconds is not None
    assert min(parity.milliseconds) > 0
    assert "ms and the detector" in parity.table
    assert open_graph(path, kind)[1]["precision"] == "float16"
    assert open_graph(plain, "onnx")[1]["precision"] == "float32"


def test_convolutions_in_whole_numbers_are_smaller_and_further_off(
    detector: Detector, plain: Path, tmp_path: Path
) -> None:
    quantize_graph(plain, tmp_path / "int8.onnx", drawn(8))
    assert (tmp_path / "int8.onnx").stat().st_size < 0.7 * plain.stat().st_size
    parity = compare(detector, tmp_path / "int8.onnx", "onnx", drawn(8, 1))
    assert not parity.agrees
    assert 1e-3 < parity.scores[0] < 0.2
    assert compare(detector, tmp_path / "int8.onnx", "onnx", drawn(8, 1), tolerance=0.2).agrees
    assert open_graph(tmp_path / "int8.onnx", "onnx")[1]["precision"] == "int8"
    model = onnx.load(tmp_path / "int8.onnx")
    assert {node.op_type for node in model.graph.node} >= {"Conv", "QuantizeLinear", "DequantizeLinear"}
    with pytest.raises(ValueError, match="quantize_graph: at least 1 normal image required, got none"):
        quantize_graph(plain, tmp_path / "none.onnx", [])
    assert not (tmp_path / "none.onnx").exists()


def test_the_values_of_whole_numbers_are_scaled_by_the_images_given(
    detector: Detector, plain: Path, tmp_path: Path
) -> None:
    quantize_graph(plain, tmp_path / "like.onnx", drawn(8))
    quantize_graph(plain, tmp_path / "unlike.onnx", [np.full_like(one, 128) for one in drawn(2)])  # cut off above that
    like, unlike = (compare(detector, tmp_path / f"{name}.onnx", "onnx", drawn(8, 1)) for name in ("like", "unlike"))
    assert like.scores[0] < unlike.scores[0] / 2
