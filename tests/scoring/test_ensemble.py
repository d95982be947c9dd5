"""Several seeds: scored together on one scale, with a threshold of their own, and their mean and standard error."""

import json
import math

import pytest
import torch
from command_line import failing, run

from fastcutpaste.images.decode import load_images
from fastcutpaste.images.folders import find_training_images
from fastcutpaste.images.hold_out import hold_out
from fastcutpaste.networks.backbone import Network, NetworkConfig
from fastcutpaste.scoring.config import DetectorConfig
from fastcutpaste.scoring.cross import Unseen, cross_scores
from fastcutpaste.scoring.detector import Detector
from fastcutpaste.scoring.ensemble import Ensemble, spread
from fastcutpaste.scoring.metrics import threshold_at_fpr


@pytest.fixture(scope="module")
def members():
    """Two fitted detectors of different seeds, and images."""
    images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    made = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        network = Network(NetworkConfig("shufflenet_v2_x0_5"))
        made.append(Detector(network, DetectorConfig((32, 32), patch=16, stride=8)).fit(images[:5], images[5:]))
    return made, images


def test_an_optimized_ensemble_has_the_same_members_optimized(members):
    (one, two), images = members
    ensemble = Ensemble([one, two], threshold=0.7)
    fast = ensemble.optimized()
    assert fast.threshold == ensemble.threshold
    for member, other in zip(fast.members, ensemble.members, strict=True):
        assert member is not other
        scores = other.score(images)
        torch.testing.assert_close(member.score(images), scores, rtol=0, atol=0.1 * float(scores.std()))


def test_each_member_counts_alike_whatever_its_units(members):
    (one, two), images = members
    maps = [list(member.localize(images)) for member in (one, two)]
    scored = [(torch.stack(of_one).amax((1, 2)), of_one) for of_one in maps]
    scores, together = Ensemble([one, two]).together(scored)
    for i in range(len(images)):
        wanted = 0.0
        for member, of_one in zip((one, two), maps, strict=True):
            wanted += (float(of_one[i].max()) - member.typical) / (member.threshold - member.typical) / 2
        assert float(scores[i]) == pytest.approx(wanted, rel=1e-4)
    pixel = sum((m[3][7, 9] - d.typical) / (d.threshold - d.typical) / 2 for d, m in zip((one, two), maps, strict=True))
    torch.testing.assert_close(together[3][7, 9], pixel, rtol=1e-4, atol=1e-5)
    assert Ensemble([one]).together([(torch.tensor([one.typical, one.threshold]), None)])[0].tolist() == [0, 1]


def test_an_ensemble_comes_back_from_its_folder(members, tmp_path):
    (one, two), _ = members
    for i, member in enumerate((one, two)):
        (tmp_path / f"seed-{i}").mkdir()
        member.save(tmp_path / f"seed-{i}/d.safetensors")
    Ensemble([one, two], 0.75).save(tmp_path, ["seed-0/d.safetensors", "seed-1/d.safetensors"])
    again = Ensemble.load(tmp_path)
    assert (again.threshold, again.typical, len(again.members)) == (0.75, 0.0, 2)
    assert [member.threshold for member in again.members] == [one.threshold, two.threshold]
    text = (tmp_path / "ensemble.json").read_text()
    (tmp_path / "ensemble.json").write_text(text.replace('"threshold": 0.75', '"threshold": 0.76'))
    with pytest.raises(ValueError, match=r"ensemble\.json: a whole ensemble file required, got .* checksum"):
        Ensemble.load(tmp_path)
    (tmp_path / "ensemble.json").write_text("{")
    with pytest.raises(ValueError, match=r"ensemble\.json: a whole ensemble file required"):
        Ensemble.load(tmp_path)


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e300])
def test_thresholds_by_which_nothing_is_decided_are_refused(value, members):
    (one, _), _ = members
    for wrong in ({"threshold": value}, {"scales": [(0.5, value)]}, {"scales": [(-value, 1.0)]}):
        with pytest.raises(ValueError, match=r"Ensemble: (finite thresholds|detectors with a threshold above) "):
            Ensemble([one], **wrong)


def test_detectors_that_do_not_belong_together_are_refused(members):
    (one, _), _ = members
    other = Detector(one.network, DetectorConfig((48, 48), patch=16, stride=8))
    with pytest.raises(ValueError, match="detectors of one size, resize, patch, bits required"):
        Ensemble([one, other])
    with pytest.raises(ValueError, match="at least 1 detector required, got none"):
        Ensemble([])


def test_spread_is_the_mean_and_its_standard_error():
    told = spread([1.0, 2.0, 6.0])
    assert told["mean"] == pytest.approx(3)
    assert told["standard_error"] == pytest.approx(math.sqrt((4 + 1 + 9) / 2) / math.sqrt(3))
    assert math.isnan(spread([1.0])["standard_error"])


def test_seeds_make_an_ensemble_that_evaluate_and_predict_score_together(tmp_path):
    from fastcutpaste.images.textures import make_demo, write_demo

    write_demo(
        make_demo("brick", size=48, train_count=8, calibration_count=2, good_count=3, defect_count=4), tmp_path / "b"
    )
    out = tmp_path / "run"
    arguments = (
        "--size",
        48,
        "--crop",
        24,
        "--stride",
        12,
        "--steps",
        2,
        "--batch",
        2,
        "--backbone",
        "shufflenet_v2_x0_5",
        "--precision",
        "fp32",
        "--hold-out",  # the demo has images of its own for the threshold
        "blocks",
    )
    result, _ = run("train", tmp_path / "b", "--out", out, "--seeds", "3-4", *arguments)
    assert [row["detector"] for row in result["detectors"]] == [
        str(out / f"seed-{seed}/detector.safetensors") for seed in (3, 4)
    ]
    assert json.loads((out / "ensemble.json").read_text())["threshold"] == result["threshold"]
    one, two = (Detector.load(row["detector"]) for row in result["detectors"])
    paths = find_training_images(tmp_path / "b").paths
    sides = [hold_out(paths, fold=fold)[1] for fold in (0, 1)]
    assert not set(sides[0].tolist()) & set(sides[1].tolist())
    scores = [member.score(load_images([paths[i] for i in side.tolist()], (48, 48)).pixels)
              for member, side in zip((one, two), sides, strict=True)]  # fmt: skip
    for member, own in zip((one, two), scores, strict=True):
        assert member.threshold == pytest.approx(threshold_at_fpr(own, 0.05), rel=1e-4)
    unseen = [Unseen(*each) for each in zip((one, two), sides, scores, strict=True)]
    assert result["threshold"] == pytest.approx(threshold_at_fpr(cross_scores(unseen), 0.05), rel=1e-4)
    assert [one.provenance["training"]["seed"], two.provenance["training"]["seed"]] == [3, 4]

    measured, text = run("evaluate", out, tmp_path / "b")
    alone = [run("evaluate", out / f"seed-{seed}", tmp_path / "b")[0] for seed in (3, 4)]
    for name in ("image_auroc", "pixel_auroc"):
        assert measured["members"][name] == pytest.approx(spread([each[name] for each in alone]))
    for name in ("false_positive_rate", "detection_rate", "threshold", "counts", "intervals"):
        assert [each[name] for each in measured["detectors"]] == [each[name] for each in alone]
    assert "± " in text
    predicted, _ = run("predict", out, tmp_path / "b/test/good", "--heatmaps", tmp_path / "maps")
    assert len(predicted["results"]) == 3
    assert predicted["threshold"] == result["threshold"]
    scores = [
        [row["score"] for row in run("predict", out / f"seed-{seed}", tmp_path / "b/test/good")[0]["results"]]
        for seed in (3, 4)
    ]
    for i, row in enumerate(predicted["results"]):
        parts = [(s[i] - d.typical) / (d.threshold - d.typical) for s, d in zip(scores, (one, two), strict=True)]
        assert row["score"] == pytest.approx(sum(parts) / 2, rel=1e-3, abs=1e-3)
        assert row["defective"] == (row["score"] > result["threshold"])

    assert "--overwrite replaces it" in failing("train", tmp_path / "b", "--out", out, *arguments)
    alone, _ = run("train", tmp_path / "b", "--out", out, "--overwrite", *arguments)
    assert run("predict", out, tmp_path / "b/test/good")[0]["threshold"] == alone["threshold"]  # no longer the old two


def test_a_member_without_a_scale_is_refused(members):
    (one, _), _ = members
    flat = Detector(one.network, one.config, one.density, threshold=3.0, typical=3.0)
    with pytest.raises(ValueError, match="a threshold above what is typical required, got one without"):
        Ensemble([one, flat])


def test_a_threshold_with_which_it_could_not_be_loaded_is_not_set(members):
    ensemble = Ensemble(members[0])
    with pytest.raises(ValueError, match="thresholds"):
        ensemble.calibrate(threshold=1e31)
    assert ensemble.threshold == 1
