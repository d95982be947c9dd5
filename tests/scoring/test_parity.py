"""The comparison of an exported graph with its detector: what it measures, and what it refuses to compare."""

from pathlib import Path

import numpy as np
import pytest
import torch
from small_detector import PATCHES, WHOLE, make_fitted

from fastcutpaste.scoring.detector import Detector
from fastcutpaste.scoring.ensemble import Ensemble
from fastcutpaste.scoring.export import export_detector
from fastcutpaste.scoring.parity import Parity, compare, make_images, open_graph


@pytest.fixture(scope="module")
def detector() -> Detector:
    return make_fitted(PATCHES)


@pytest.fixture(scope="module")
def exported(detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("onnxruntime", reason="pip install 'fastcutpaste[export]'")
    path = tmp_path_factory.mktemp("exported") / "detector.onnx"
    export_detector(detector, path)
    return path


def test_a_graph_agrees_with_its_detector_on_images_of_many_sizes(detector: Detector, exported: Path) -> None:
    images = make_images(detector.config.size)
    assert len({image.shape for image in images}) == 5
    parity = compare(detector, exported, "onnx", images)
    assert parity.agrees
    assert parity.maps is not None
    assert 0 < parity.scores[1] <= parity.scores[0] < parity.tolerance
    assert 0 < parity.maps[1] <= parity.maps[0] < parity.tolerance
    assert (parity.decisions, parity.images) == (0, 5)


@pytest.mark.parametrize("rounds", [False, True])
def test_a_machine_that_rounds_is_told_apart_from_the_graph(
    detector: Detector, exported: Path, monkeypatch: pytest.MonkeyPatch, rounds: bool
) -> None:
    for module in ("networks.backbone", "scoring.parity"):
        monkeypatch.setattr(f"fastcutpaste.{module}.computes_bf16", lambda _: rounds)
    parity = compare(detector, exported, "onnx", make_images(detector.config.size))
    assert parity.agrees
    assert (parity.rounded is not None) == rounds == ("in bfloat16" in parity.table)
    if parity.rounded is not None:
        assert parity.rounded[0] > 3 * parity.scores[0] > 0


@pytest.mark.parametrize("channels_last", [False, True])
def test_whole_images_and_ensembles_are_compared_too(tmp_path: Path, channels_last: bool) -> None:
    for scorer in (make_fitted(WHOLE), Ensemble([make_fitted(PATCHES), make_fitted(PATCHES, count=10)])):
        export_detector(scorer, tmp_path / "d.pt2", "torch", channels_last)
        parity = compare(scorer, tmp_path / "d.pt2", "torch", make_images(scorer.config.size))
        assert parity.agrees
        assert (parity.maps is None) == (scorer.config.patch is None)


def test_a_graph_that_is_off_does_not_agree(
    detector: Detector, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, (run, about) = make_images(detector.config.size), open_graph(exported, "onnx")
    low = min(float(run(image.transpose(2, 0, 1)[None].copy())[0].min()) for image in images)
    high = max(float(run(image.transpose(2, 0, 1)[None].copy())[0].max()) for image in images)

    def off(pixels: np.ndarray) -> list[np.ndarray]:
        maps, scores, defective = run(pixels)
        return [maps + 0.02 * (high - low), scores - 0.1 * (high - low), ~defective]

    monkeypatch.setattr("fastcutpaste.scoring.parity.open_graph", lambda *_: (off, about))
    parity = compare(detector, exported, "onnx", images)
    assert not parity.agrees
    assert parity.maps is not None
    assert parity.maps == pytest.approx((0.02, 0.02), rel=0.1)
    assert parity.scores == pytest.approx((0.1, 0.1), rel=0.1)
    assert parity.decisions == 5


def test_the_table_has_the_largest_and_the_mean_difference_and_nan_agrees_with_nothing() -> None:
    parity = Parity((2e-4, 1e-4), (3e-4, 1.5e-5), 1, 7, 1e-3)
    assert "| scores | 2.0e-04 | 1.0e-04 |\n| maps | 3.0e-04 | 1.5e-05 |\n" in parity.table
    assert "decisions that differ: 1 of 7; allowed: 0.001 of the range" in parity.table
    assert parity.agrees
    assert "maps" not in parity._replace(maps=None).table
    assert not parity._replace(maps=(2e-3, 1e-3)).agrees
    assert not parity._replace(scores=(float("nan"), 0.0)).agrees
    assert not parity._replace(maps=(float("nan"), 0.0)).agrees


def test_what_does_not_belong_together_is_refused(detector: Detector, exported: Path, tmp_path: Path) -> None:
    images = make_images(detector.config.size)
    for other in (make_fitted(PATCHES, count=10), make_fitted(WHOLE)):
        with pytest.raises(ValueError, match="a graph of this detector, as it is now, required, got one of another"):
            compare(other, exported, "onnx", images)
    with pytest.raises(ValueError, match="compare: at least 1 image required, got none"):
        compare(detector, exported, "onnx", [])
    for wrong in (np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3), np.float32)):
        with pytest.raises(ValueError, match=r"compare: images uint8 \(H, W, 3\) required, got"):
            compare(detector, exported, "onnx", [wrong])  # type: ignore[list-item]


def test_a_file_that_is_no_graph_of_ours_is_refused(exported: Path, tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx", reason="pip install 'fastcutpaste[export]'")
    model = onnx.load(exported)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "stripped.onnx")
    with pytest.raises(ValueError, match=r"stripped\.onnx: a graph with the metadata that export gives it required"):
        open_graph(tmp_path / "stripped.onnx", "onnx")
    model.opset_import[0].version = 999  # of a runtime to come
    onnx.save(model, tmp_path / "new.onnx")
    (tmp_path / "broken.onnx").write_bytes(exported.read_bytes()[:1000])
    for name in ("new.onnx", "broken.onnx", "missing.onnx"):
        with pytest.raises(ValueError, match=rf"{name}: a graph that this runtime can open required, got: "):
            open_graph(tmp_path / name, "onnx")
    with pytest.raises(ValueError, match=r"broken\.onnx: a graph that this runtime can open required, got: "):
        open_graph(tmp_path / "broken.onnx", "torch")
    torch.export.save(torch.export.export(torch.nn.ReLU(), (torch.zeros(2),)), tmp_path / "other.pt2")
    with pytest.raises(ValueError, match=r"other\.pt2: a graph with the metadata that export gives it required"):
        open_graph(tmp_path / "other.pt2", "torch")
