"""An exported graph run without torch: the detector's scores and maps, and only of a graph that is one of ours."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_detector import PATCHES, WHOLE, draw_images, make_fitted
from torch import Tensor

from fastcutpaste.scoring.dense import resize_map
from fastcutpaste.scoring.detector import Detector
from fastcutpaste.scoring.ensemble import Ensemble
from fastcutpaste.scoring.export import export_detector
from fastcutpaste.scoring.graph import Graph, resize_array

onnx = pytest.importorskip("onnx", reason="pip install 'fastcutpaste[export]'")


@pytest.fixture(autouse=True)
def in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fastcutpaste.networks.backbone.computes_bf16", lambda _: False)


@pytest.fixture(scope="module")
def detector() -> Detector:
    return make_fitted(PATCHES)


@pytest.fixture(scope="module")
def exported(detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "detector.onnx"
    export_detector(detector, path)
    return path


def test_a_graph_scores_as_its_detector_and_knows_its_threshold(detector: Detector, exported: Path) -> None:
    graph, images = Graph(exported), draw_images(4, 7)
    assert (graph.config.size, graph.config.bits, graph.has_maps) == (detector.config.size, None, True)
    assert graph.calibration == detector.calibration
    assert (graph.typical, graph.provenance) == (detector.typical, detector.provenance)
    maps = detector.localize(images)
    for image, wanted in zip(images, maps, strict=True):
        score, heat = graph.score(image.numpy())
        np.testing.assert_allclose(heat, wanted, rtol=1e-4)
        assert score == pytest.approx(float(wanted.max()), rel=1e-4)


def test_whole_images_have_no_maps_and_ensembles_one(tmp_path: Path) -> None:
    for scorer in (make_fitted(WHOLE), Ensemble([make_fitted(PATCHES), make_fitted(PATCHES, count=10)])):
        export_detector(scorer, tmp_path / "d.onnx", channels_last=True)
        graph, images = Graph(tmp_path / "d.onnx"), draw_images(3, 7)
        whole = isinstance(scorer, Detector)
        wanted = scorer.score(images) if isinstance(scorer, Detector) else together(scorer, images)
        for image, score in zip(images, wanted, strict=True):
            got, heat = graph.score(image.numpy())
            assert got == pytest.approx(float(score), rel=1e-4)
            assert (heat is None) == whole == (not graph.has_maps)


def together(scorer: Ensemble, images: Tensor) -> Tensor:
    return scorer.together([(member.score(images), None) for member in scorer.members])[0]


@pytest.mark.parametrize("size", [(5, 7), (20, 3), (4, 6), (1, 1), (23, 61)])
def test_maps_are_resized_as_tensors_are(size: tuple[int, int]) -> None:
    values = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(torch.from_numpy(resize_array(values.numpy(), size)), resize_map(values[None], size)[0])


def changed(exported: Path, path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """Copy a graph with its metadata changed in place."""
    model = onnx.load(exported)
    [entry] = [one for one in model.metadata_props if one.key == "fastcutpaste"]
    about = json.loads(entry.value)
    change(about)
    entry.value = json.dumps(about)
    onnx.save(model, path)
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda about: about.pop("calibration"), "no 'calibration'"),
        (lambda about: about.update(size=[40]), "not enough values"),
        (lambda about: about.update(size=[40, -1]), r"size: two lengths in pixels required, got \[40, -1\]"),
        (lambda about: about.update(bits=3), "bits: from 8 to 16 required, got 3"),
        (lambda about: about.update(threshold=about["threshold"] * 2), "the threshold that its rate makes"),
        (lambda about: about.update(threshold=None), "float"),
        (lambda about: about.update(typical=None), "float"),
        (lambda about: about.update(typical=float("nan")), "typical: finite ones required"),
        (lambda about: about.update(provenance=3), "not iterable"),
        (lambda about: about["inputs"].clear(), "no 'images'"),
        (lambda about: about.clear(), "no 'size'"),
    ],
)  # fmt: skip
def test_metadata_that_is_not_what_export_writes_is_refused(
    exported: Path, tmp_path: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    path = changed(exported, tmp_path / "d.onnx", change)
    with pytest.raises(ValueError, match=message) as caught:
        Graph(path)
    assert str(caught.value).startswith(f"{path}: a graph as `fastcutpaste export` writes it required, got one with")
    assert "\n" not in str(caught.value)


def test_a_stripped_graph_a_strange_one_and_no_graph_are_refused(exported: Path, tmp_path: Path) -> None:
    model = onnx.load(exported)
    told = str(model.metadata_props[0].value)
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "stripped.onnx")
    with pytest.raises(ValueError, match=r"stripped\.onnx: a graph as .* got one without its metadata"):
        Graph(tmp_path / "stripped.onnx")
    for name, gives in (("x", "maps"), ("images", "y")):
        relu = f"f (float[2] {name}) => (float[2] {gives}) {{{gives} = Relu({name})}}"
        strange = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 18]> {relu}')
        strange.metadata_props.add(key="fastcutpaste", value=told)
        onnx.save(strange, tmp_path / "strange.onnx")
        with pytest.raises(ValueError, match=rf"strange\.onnx: .* maps, scores of images required, got {gives}"):
            Graph(tmp_path / "strange.onnx")
    (tmp_path / "cut.onnx").write_bytes(exported.read_bytes()[:1000])
    model.ir_version = 99
    onnx.save(model, tmp_path / "later.onnx")
    for name, reason in (("cut", "Protobuf parsing failed"), ("later", "Unsupported model IR version: 99")):
        opens = rf"{name}\.onnx: an ONNX file that ONNX Runtime [\d.]+ can open required, got: {reason}"
        with pytest.raises(ValueError, match=opens):
            Graph(tmp_path / f"{name}.onnx")
    for path, what in ((tmp_path / "none.onnx", "nothing"), (tmp_path, "a folder")):
        with pytest.raises(ValueError, match=f"an ONNX file required, got {what}"):
            Graph(path)


def test_a_graph_that_gives_something_else_than_it_says_is_refused(exported: Path, tmp_path: Path) -> None:
    graph = Graph(changed(exported, tmp_path / "d.onnx", lambda about: about["inputs"]["images"]["shape"].append(3)))
    with pytest.raises(ValueError, match="Graph: a"):
        graph.score(draw_images(1)[0].numpy())
    swapped = Graph(changed(exported, tmp_path / "e.onnx", lambda about: about["outputs"].pop("maps")))
    assert swapped.score(draw_images(1)[0].numpy())[1] is None
