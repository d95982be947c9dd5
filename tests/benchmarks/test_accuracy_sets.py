"""The data sets of the accuracy study: where defects are planted and shapes pasted, and what is left as it was."""

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.accuracy import sets
from fastcutpaste.images.defects import DEFECTS


def test_planted_test_sets_are_of_held_out_images_and_leave_the_test_images_alone():
    data, planted = sets.make_brick(), sets.make_brick(planted=True)
    assert list(planted.tests) == ["brick, planted", "brick, planted, other exposures"]
    plain, exposed = planted.tests.values()
    count = len(data.calibration)
    assert torch.equal(plain.images[:count], data.calibration)
    assert plain.labels.tolist() == [False] * count + [True] * count
    for clean, image, mask, kind in zip(data.calibration, plain.images[count:], plain.masks[count:],
                                        plain.kinds[count:], strict=True):  # fmt: skip
        assert kind in DEFECTS
        changed = (image.int() - clean).abs().amax(0)
        assert 0.003 <= mask.float().mean() <= 0.06
        assert (changed[~mask] <= 8).all()
        assert changed[mask].float().mean() > 8
    assert all(not mask.any() for mask in plain.masks[:count])
    ratios = exposed.images[:count].float().mean((1, 2, 3)) / plain.images[:count].float().mean((1, 2, 3))
    assert ratios.min() > 0.78
    assert ratios.max() < 1.27
    assert ratios.std() > 0.05
    assert exposed.labels is plain.labels


def test_defects_are_planted_in_a_plain_folder_of_normal_images(tmp_path):
    for i in range(6):
        pixels = np.random.default_rng(i).integers(90, 166, (80, 96, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    data = sets.read_folder(tmp_path, 64, planted=True)
    assert (len(data.normal), len(data.calibration), data.size) == (5, 1, 64)
    assert [tuple(test.images.shape) for test in data.tests.values()] == [(2, 3, 64, 64)] * 2


def test_a_published_split_is_trained_and_tested_as_its_file_says_without_masks_too(tmp_path):
    for i, folder in enumerate(["train/good"] * 3 + ["test/good"] * 3 + ["test/crack"] * 2):
        path = tmp_path / "tiles" / folder / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((16, 16, 3), 10 * i + np.arange(16)[:, None, None], np.uint8)).save(path)
    names = tmp_path / "split.txt"
    names.write_text("0.png\n2.png\n4.png\n5.png\n")
    data = sets.read_folder(tmp_path / "tiles", 16, split=names)
    assert data.name == "tiles at 16², published split"
    first = [int(image[0, 0, 0]) for image in (*data.normal, *data.calibration)]
    assert sorted(first) == [0, 20, 40, 50]  # those of the file, wherever they lie
    test = data.tests["tiles"]
    assert dict(zip([int(image[0, 0, 0]) for image in test.images], test.kinds, strict=True)) == {
        10: "good", 30: "good", 60: "crack", 70: "crack"
    }  # fmt: skip
    assert test.labels.tolist() == [kind == "crack" for kind in test.kinds]
    assert test.masks == []
    names.write_text("0.png\n6.png\n")
    with pytest.raises(ValueError, match=r"names of normal images required, got 1 others, 6\.png first"):
        sets.read_folder(tmp_path / "tiles", 16, split=names)


@pytest.mark.parametrize("shape", sets.SHAPES)
def test_shapes_are_pasted_where_they_can_be_seen_and_nothing_else_changes(shape):
    random = np.random.default_rng(3)
    digit = np.zeros((32, 32), np.uint8)
    digit[8:24, 12:20] = 255
    for _ in range(20):
        image = random.integers(0, 2, (32, 32)).astype(np.uint8)
        pasted = sets.paste_shape(image, shape, digit, random)
        changed = pasted != image
        assert sets.LEAST_PIXELS <= changed.sum() <= 20 * 20
        assert np.abs(pasted.astype(int) - image)[changed].mean() >= sets.VISIBLE_LEVELS - 1
        rows, columns = np.nonzero(changed)
        assert np.ptp(rows) < 20
        assert np.ptp(columns) < 20
        assert (len(np.unique(pasted[changed])) == 1) == ("natural" not in shape)
