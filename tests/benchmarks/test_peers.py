"""Peers: others' detectors beside ours, each measured alike."""

from dataclasses import replace
from math import isnan, nan

import numpy as np
import pytest
from PIL import Image

from benchmarks.kept import keep, read
from benchmarks.peers import __main__ as peers
from benchmarks.peers import measure, others


@pytest.fixture
def category(tmp_path, monkeypatch):
    monkeypatch.setattr(measure, "USUAL_SIZE", 72)
    random = np.random.default_rng(0)
    for i, folder in enumerate(["train/good"] * 9 + ["test/good"] * 3 + ["test/hole"] * 3):
        path = tmp_path / "bottle" / folder / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = random.integers(90, 166, (72, 72, 3), dtype=np.uint8)
        if folder.endswith("hole"):
            pixels[20:50, 20:50] = 0
            mask = tmp_path / "bottle/ground_truth/hole" / f"{i}_mask.png"
            mask.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray((pixels == 0).all(-1)).save(mask)
        Image.fromarray(pixels).save(path)
    return tmp_path / "bottle"


def test_the_classic_pipeline_tells_holes_from_noise(category):
    row = measure.measure("NumPy and PIL, ResNet-18, scikit-learn", category, 0, 0.1, None)
    assert row.image_auroc == 1.0
    assert isnan(row.pixel_auroc)
    assert (row.category, row.seed, row.package.split()[0]) == ("bottle", 0, "scikit-learn")
    assert min(row.train_s, row.score_ms, row.peak_mb) > 0


def test_ours_is_the_speedruns(category, monkeypatch):
    track = replace(measure.TRACKS["bottle"], row="PatchNet 64/4", steps=(2, 3))
    monkeypatch.setitem(measure.TRACKS, "bottle", track)
    monkeypatch.setitem(measure.make_detector.__globals__, "USUAL_SIZE", 72)
    row = measure.measure(peers.OURS, category, 0, 0.0, None)
    assert row.image_auroc > 0.5
    assert row.package.startswith("fastcutpaste ")


@pytest.mark.parametrize("peer", ["GANomaly", "PaDiM, EfficientNet-Lite0", "PatchCore, EfficientNet-Lite0"])
def test_models_of_anomalib_are_fitted_and_score(peer, category, tmp_path):
    pytest.importorskip("anomalib", reason="pip install 'fastcutpaste[anomalib]'")
    timm, weights = pytest.importorskip("timm"), tmp_path / "lite0.safetensors"
    from safetensors.torch import save_file

    save_file(timm.create_model("tf_efficientnet_lite0", num_classes=0).state_dict(), weights)
    row = measure.measure(peer, category, 0, 1.0, weights)
    assert 0 <= row.image_auroc <= 1
    assert isnan(row.pixel_auroc) == (peer == "GANomaly")
    assert row.package.startswith("anomalib ")


def test_a_later_row_stands_for_an_earlier_one_and_the_table_has_ours_first(tmp_path):
    one = peers.Row("A", "screw", 0, 2, "cpu", 0.9, nan, 10.0, 5.0, 900.0, "a 1", "2", "abc", "2026-01-01")
    kept = tmp_path / "kept.csv"
    for row in (one, replace(one, image_auroc=0.8), replace(one, seed=1), replace(one, peer="B", image_auroc=0.95),
                replace(one, peer=peers.OURS, image_auroc=0.7, pixel_auroc=0.9)):  # fmt: skip
        keep([row], kept)
    rows = read(peers.Row, kept)
    assert len(rows) == 4
    cells = [line.strip("| ").split(" | ") for line in peers.table(rows).splitlines()[2:]]
    assert [line[:5] for line in cells] == [
        ["screw", peers.OURS, "70.0", "90.0", "1"], ["screw", "B", "95.0", "", "1"], ["screw", "A", "85.0", "", "2"]
    ]  # fmt: skip


def test_every_peer_can_be_asked_for_and_what_is_missing_is_told(tmp_path, capsys):
    assert set(others.PRETRAINED) < set(others.PEERS.values())
    for words, message in (
        ([], "--data required"),
        (["--data", str(tmp_path)], "a folder with bottle and screw required"),
    ):
        with pytest.raises(SystemExit):
            peers.main(words)
        assert message in capsys.readouterr().err
