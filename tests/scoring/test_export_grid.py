"""Every kind of detector that can be exported, on images of sizes not its own: `pytest -m slow`, slowly."""

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from exported import LITE, PATCHNET, RESNET, SIZE, SIZES, assert_agree, fit, photographs, wanted

from fastcutpaste.networks.backbone import NetworkConfig
from fastcutpaste.scoring.config import DetectorConfig
from fastcutpaste.scoring.detector import Detector
from fastcutpaste.scoring.ensemble import Ensemble
from fastcutpaste.scoring.export import about_graph, export_detector
from fastcutpaste.scoring.formats import convert_to_openvino
from fastcutpaste.scoring.parity import open_graph

NETWORKS = {"resnet18": RESNET, "patchnet": PATCHNET, "lite0": LITE}
PLAIN: dict[str, DetectorConfig] = {
    **{name: DetectorConfig(SIZE, 24, 8, density=name) for name in ("gaussian", "location", "kernel", "nearest")},
    **{f"whole {name}": DetectorConfig(SIZE, None, density=name) for name in ("gaussian", "kernel", "nearest")},
}
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "levelled": {"level": True},
    "border": {"border": True},
    "areas": {"areas": (32, 40)},
    "ensemble": {},
}
ALL = [
    (network, kind, way)
    for way in WAYS
    for kind, config in PLAIN.items()
    for network in NETWORKS
    if not (way in ("border", "areas") and config.patch is None)  # they are of patches
    if not (way == "areas" and kind != "gaussian")  # the library has no others
]


def build(network: NetworkConfig, config: DetectorConfig, together: bool) -> Detector | Ensemble:
    return Ensemble([fit(network, config), fit(network, config, seed=1)]) if together else fit(network, config)


@pytest.mark.slow
@pytest.mark.parametrize(("network", "kind", "way"), ALL)
def test_what_can_be_exported_says_what_the_library_says(
    network: str, kind: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime", reason="pip install 'fastcutpaste[export]'")
    monkeypatch.setattr("fastcutpaste.networks.backbone.computes_bf16", lambda _: False)
    scorer = build(NETWORKS[network], replace(PLAIN[kind], **WAYS[way]), way == "ensemble")
    export_detector(scorer, tmp_path / "detector.onnx")
    runs = [open_graph(tmp_path / "detector.onnx", "onnx")[0]]
    if find_spec("openvino") is not None and network != "lite0":  # of which 2026.4 gets the first image wrong
        convert_to_openvino(tmp_path / "detector.onnx", tmp_path / "detector.xml")
        runs.append(open_graph(tmp_path / "detector.xml", "openvino")[0])
    for count, size in zip((1, 3, 16, 2, 1), SIZES, strict=True):
        images = photographs(count, *size)
        expected = wanted(scorer, images)
        for run in runs:
            assert_agree(run(images.numpy()), expected, 1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("network", ["patchnet", "resnet18"])
def test_the_compiled_graph_says_what_the_library_says(
    network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastcutpaste.networks.backbone.computes_bf16", lambda _: False)
    scorer = fit(NETWORKS[network], PLAIN["gaussian"])
    export_detector(scorer, tmp_path / "detector.pt2", "compiled")
    run, about = open_graph(tmp_path / "detector.pt2", "compiled")
    assert about == about_graph(scorer) | {"precision": "float32"}
    for count, size in zip((1, 3, 16, 2, 1), SIZES, strict=True):
        images = photographs(count, *size)
        assert_agree(run(images.numpy()), wanted(scorer, images))
