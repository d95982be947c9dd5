"""Any tree of images, masks, odd names and broken files: no crash, no training on a mask, nothing left out unnamed."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from pictures import write_picture

from fastcutpaste.images.folders import find_calibration_images, find_test_images, find_training_images, load_masks
from fastcutpaste.images.survey import inspect_closely, survey

FOLDERS = ("", "train", "test", "train/good", "train/OK", "test/good", "test/Normal", "test/crack", "test/ko", "good",
           "bad", "validation/good", "ground_truth", "ground_truth/crack", "ground_truth/ko", "masks", "2026-01",
           "train/good/2026-01", "a/b", "MT_Free/Imgs", "MT_Crack/Imgs", "Data/Images/Normal", "Data/Images/Anomaly",
           "Data/Masks/Anomaly", "kos01", ".git", "음성 ü", "test_public/bad")  # fmt: skip
STEMS = ("0", "1", "10000", "x", "Part1", "x y", "é", "e\u0301", "부품", "a.b", "_", "-1", "mask", "label", "x" * 60)
MASKS = ("{}_mask.png", "{}_GT.png", "{}_label.bmp", "{}-mask.tif", "mask_{}.png", "{}.mask.png", "{}_Mask.jpg")
OTHERS = ("notes.txt", ".DS_Store", "Thumbs.db", "._x.png", "x.psd", "no_extension", "image_anno.csv", "x.svg")


def _pick(random, values):
    return values[int(random.integers(len(values)))]


def _photograph(random):
    size = (int(random.integers(20, 40)), int(random.integers(20, 40)))
    return random.integers(0, 256, (*size, 3) if random.random() < 0.5 else size, dtype=np.uint8)


def _drawing(random):
    drawn = np.zeros((24, 32), np.uint8)
    if random.random() < 0.7:
        drawn[4:12, 6:20] = _pick(random, (255, 255, 1))
    form = int(random.integers(4))
    if form == 1:
        return np.stack([drawn] * 3, -1)
    if form == 2:
        return np.stack([255 + 0 * drawn] * 3 + [255 * (drawn > 0).astype(np.uint8)], -1)
    return drawn


def _grow(root: Path, random) -> set[Path]:
    """Write a random tree; give the masks among its files, those that a name tells."""
    masks = set()
    folders = [_pick(random, FOLDERS) for _ in range(int(random.integers(1, 6)))]
    for _ in range(int(random.integers(1, 16))):
        folder, stem, chance = root / _pick(random, folders), _pick(random, STEMS), random.random()
        folder.mkdir(parents=True, exist_ok=True)
        if chance < 0.45:
            path = folder / (stem + _pick(random, (".png", ".jpg", ".JPG", ".bmp", ".tif")))
            if path not in masks:
                write_picture(path, _photograph(random))
        elif chance < 0.75:
            path = folder / _pick(random, MASKS).format(stem)
            drawing = _drawing(random)
            write_picture(path, drawing[..., :3] if path.suffix in (".jpg", ".bmp") and drawing.ndim == 3 else drawing)
            masks.add(path)
        elif chance < 0.8:
            write_picture(folder / "pair.jpg", _photograph(random))
            masks.add(write_picture(folder / "pair.png", _drawing(random)))
        elif chance < 0.9:
            path = folder / f"{stem}.png"
            path.write_bytes(_pick(random, (b"", b"no image", b"\x89PNG\r\n\x1a\n" + b"\0" * 40)))
            masks.discard(path)
        else:
            (folder / _pick(random, OTHERS)).write_text(_pick(random, ("", "x,y\n1,2", "image,label\nno.png,normal")))
    return masks


def _result(function, argument):
    """Give what a function gives, or the text of its error; other errors than ValueError are crashes."""
    try:
        return function(argument)
    except ValueError as error:
        return str(error)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.filterwarnings("ignore")
def test_any_tree_is_read_or_refused_with_a_reason(tmp_path, seed):
    read = refused = 0
    for number in range(30):
        root = tmp_path / str(number)
        root.mkdir()
        masks = _grow(root, np.random.default_rng((seed, number)))
        for find in (find_training_images, find_calibration_images, find_test_images):
            images = _result(find, root)
            if isinstance(images, str):
                assert str(root) in images
                assert not any(word in images for word in ("find_", "load_masks", "read_mask", "Traceback"))
                refused += 1
                continue
            read += 1
            if images is None:
                continue
            assert len(images)
            assert masks.isdisjoint(images.paths), (find.__name__, masks & set(images.paths))
            if find is not find_test_images:
                assert set(images.kinds) == {"good"}
            if None in images.kinds:
                continue
            drawn = _result(load_masks, images) if images.has_masks else []
            assert (str(root) in drawn) if isinstance(drawn, str) else (len(drawn) in (0, len(images)))
    assert read > 10
    assert refused > 10


@pytest.mark.parametrize("seed", range(4))
def test_whatever_is_left_out_of_a_tree_is_named(tmp_path, seed):
    surveyed = 0
    for number in range(20):
        root = tmp_path / str(number)
        root.mkdir()
        _grow(root, np.random.default_rng((100 + seed, number)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = _result(survey, root)
            if isinstance(found, str):
                assert str(root) in found
                continue
            found, _ = inspect_closely(found)
        surveyed += 1
        read = {path for images in found.parts.values() for path in (*images.paths, *images.mask_files)}
        hidden = {path for path in root.rglob("*") if any(part[0] == "." for part in path.relative_to(root).parts)}
        every = {path for path in root.rglob("*") if path.is_file()} - hidden
        assert read | set(found.passed_over) == every
        assert read.isdisjoint(found.passed_over)
        assert bool(found.passed_over) == any("other files are not read" in note for note in found.notes)
    assert surveyed > 5
