"""Exported graphs in other forms: as near to the detector as their numbers allow, and telling what they are."""

from pathlib import Path

import numpy as np
import pytest
import torch
from exported import PATCHNET, RESNET, SIZE, SIZES, assert_agree, fit, photographs, wanted
from pictures import draw_images
from processes import Started

from fastcutpaste.scoring.config import DetectorConfig
from fastcutpaste.scoring.detector import Detector
from fastcutpaste.scoring.export import Format, export_detector
from fastcutpaste.scoring.formats import convert_to_openvino, quantize_graph
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


def test_a_network_with_padding_is_given_a_row_of_patches_at_a_time_and_all_to_be_quantized(tmp_path: Path) -> None:
    padded, images = fit(RESNET, DetectorConfig(SIZE, 24, 8)), photographs(2, 97, 161)
    for name, at_once in (("rows", False), ("all", True)):
        export_detector(padded, tmp_path / name, at_once=at_once)
        assert_agree(open_graph(tmp_path / name, "onnx")[0](images.numpy()), wanted(padded, images))
    graph = onnx.load(tmp_path / "rows").graph
    [scan] = [node for node in graph.node if node.op_type == "Scan"]
    [body] = [attribute.g for attribute in scan.attribute if attribute.name == "body"]
    weights = {weight.name for weight in body.initializer}
    convolutions = [node for node in body.node if node.op_type == "Conv"]
    assert len(convolutions) == sum(node.op_type == "Conv" for node in onnx.load(tmp_path / "all").graph.node)
    assert all(node.input[1] in weights for node in convolutions)  # outside they would be prepared at each step
    assert not any(node.op_type == "Conv" for node in graph.node)
    quantize_graph(tmp_path / "all", tmp_path / "int8", drawn(2))
    assert compare(padded, tmp_path / "int8", "onnx", drawn(2, 1), tolerance=0.2).agrees
    with pytest.raises(
        ValueError, match="convolutions required, got none; those of networks with padding need at_once"
    ):
        quantize_graph(tmp_path / "rows", tmp_path / "none", drawn(2))


@pytest.mark.parametrize("kind", ["dense", "patches"])
def test_openvino_says_what_the_library_says(kind: str, detector: Detector, plain: Path, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="pip install 'fastcutpaste[openvino]'")
    scorer, source = detector, plain
    if kind == "patches":
        scorer, source = fit(RESNET, DetectorConfig(SIZE, 24, 8, density="nearest", level=True)), tmp_path / "source"
        export_detector(scorer, source)
    images = [photographs(count, *size) for count, size in zip((1, 3, 16, 2, 1), SIZES, strict=True)]
    torch.save([(some, wanted(scorer, some)) for some in images], tmp_path / "cases")
    # In a process of its own: where OpenVINO 2026.4 has run, a training crashed later, in native code.
    Started(tmp_path / "openvino", assert_openvino_agrees, source, tmp_path).succeed()


def assert_openvino_agrees(source: Path, folder: Path) -> None:
    """Assert that a graph converted for OpenVINO gives what `cases` holds, from the first images of a size on."""
    (folder / "ir").mkdir()
    convert_to_openvino(source, folder / "ir/detector.xml")
    assert sorted(one.name for one in (folder / "ir").iterdir()) == ["detector.bin", "detector.xml"]
    run, about = open_graph(folder / "ir/detector.xml", "openvino")
    assert about == open_graph(source, "onnx")[1]
    for images, expected in torch.load(folder / "cases"):
        for _ in range(2):  # of other forms of the graph OpenVINO's first results were wrong, and right ones came then
            assert_agree(run(images.numpy()), expected)
