"""The benchmark of the family: the public way covers what the recipes cover, and what is measured becomes rows."""

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("cv2", reason="opencv-python-headless is not installed")

from benchmarks.augment import family
from benchmarks.kept import read
from benchmarks.photographs import make_photographs
from benchmarks.rows import Row
from fastcutpaste.transforms.recipes import RECIPES, recipe
from tests.family_public import PUBLIC
from tests.family_reference import REFERENCES

LEAST = dict.fromkeys(RECIPES, 1.5) | {"draem": 2, "memseg": 2, "defectmaker": 4}  # few masks, some of them empty


@pytest.fixture(scope="module")
def images():
    """Give photographs whose middle is plainly an object, on black."""
    torch.manual_seed(0)
    photographs = make_photographs(48, 128)
    return F.pad(photographs[..., 24:-24, 24:-24] // 2 + 128, [24] * 4)


@pytest.mark.parametrize("name", RECIPES)
def test_the_public_way_marks_what_it_changes_and_as_much_as_the_recipe(name, images):
    arrays, rng = [np.ascontiguousarray(image.permute(1, 2, 0).numpy()) for image in images], np.random.default_rng(1)
    shares = []
    for b, image in enumerate(arrays):
        before = image.copy()
        result, mask = REFERENCES[name](image, arrays[b - 1], rng)
        assert (result.shape, result.dtype, mask.shape, mask.dtype) == (image.shape, np.uint8, image.shape[:2], bool)
        assert np.array_equal(image, before)
        if name != "nsa":  # whose rims change too
            assert np.array_equal(result[~mask], image[~mask])
        shares.append(mask.mean())
    maker = recipe(name, reference=None if name == "cutpaste_scar" else 128)
    made = maker.augment(images).mask.float().mean().item()
    assert 1 / LEAST[name] < np.mean(shares) / made < LEAST[name]


@pytest.mark.parametrize("name", sorted(set(PUBLIC) - {"cutpaste", "cutpaste_scar"}))
def test_the_public_steps_change_about_as_much_as_these_written_well(name, images):
    arrays, rng = [np.ascontiguousarray(image.permute(1, 2, 0).numpy()) for image in images], np.random.default_rng(2)
    prepare, public = PUBLIC[name]
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(3)
    prepared, changed = [prepare(each) for each in arrays], {"steps": [], "well": [], "beside": []}
    for b, image in enumerate(arrays):
        result, label = (np.asarray(each, np.float32) for each in public(prepared[b], prepared[b - 1], rng))
        before = prepared[b][-1 if name == "draem" else 0] if isinstance(prepared[b], tuple) else prepared[b]
        before = np.asarray(before, np.float32)
        channels = 0 if name in ("cutout", "confetti") else 2
        different = (abs(result - before) > 1e-3).any(channels)
        assert different.shape == image.shape[:2]
        label = 1 - label if name == "cutout" else label
        marked = (label if label.ndim == 2 else label.max(channels)) > 0
        changed["steps"].append(different.mean())
        changed["beside"].append((different & ~marked).mean())
        made, _ = REFERENCES[name](image, arrays[b - 1], rng)
        changed["well"].append((made != image).any(2).mean())
    assert np.mean(changed["beside"]) <= 0.15 * np.mean(changed["steps"])  # medians and blurs leave specks out
    # Smaller patches (nsa), the dark side for the object (memseg), each shape on the object (defectmaker).
    few = {"nsa": 4, "draem": 2, "memseg": 4, "defectmaker": 5}.get(name, 1.6)
    assert 1 / few < np.mean(changed["steps"]) / np.mean(changed["well"]) < few


def test_each_recipe_becomes_a_row_a_provider(tmp_path, monkeypatch, capsys):
    threads = torch.get_num_threads()
    monkeypatch.setattr(family, "RECIPES", {name: RECIPES[name] for name in ("fpi", "nsa")})
    family.run_family(tmp_path / "rows.csv", seconds=0.0, batch=2, size=64, rounds=2)
    torch.set_num_threads(threads)
    rows = {(row.op, row.provider): row for row in read(Row, tmp_path / "rows.csv")}
    assert {(name, who) for name in ("fpi", "nsa") for who in (family.OURS, family.STEPS, family.WELL)} <= set(rows)
    assert all((row.threads, row.batch, row.size) == (1, 2, 64) for row in rows.values())
    assert capsys.readouterr().out.count("times") == sum(row.provider != family.OURS for row in rows.values())
