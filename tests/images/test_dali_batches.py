"""DALI's batches against those of `stream_batches`: the same images in the same order, decoded by another library."""

from itertools import islice

import numpy as np
import pytest
import torch
from pictures import write_picture
from PIL import Image
from skimage import data

from fastcutpaste.images import dali_batches as module
from fastcutpaste.images.batches import ImageFiles, stream_batches
from fastcutpaste.images.dali_batches import dali_batches

pytest.importorskip("nvidia.dali")

CPU = torch.device("cpu")
DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=[pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
    ),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Photographs, of several sizes and formats, in color and grey."""
    folder = tmp_path_factory.mktemp("files")
    photograph = Image.fromarray(data.astronaut())
    kinds = {
        "jpeg.jpg": photograph.crop((0, 0, 300, 200)),
        "turned.jpg": photograph.crop((100, 50, 360, 290)),
        "color.png": photograph.crop((50, 200, 220, 420)),
        "grey.png": Image.fromarray(data.brick()[:200, :150]),
        "tiff.tiff": photograph.crop((10, 30, 270, 160)),
    }
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    for name, image in kinds.items():
        image.save(folder / name, **({"exif": exif} if name == "turned.jpg" else {}))
    return ImageFiles([folder / name for name in kinds], (96, 80))


@pytest.mark.parametrize("device", DEVICES)
def test_dali_gives_the_images_of_a_stream_in_its_order(files, device):
    shares = {"seed": 5, "start": 3, "share": (1, 2)}
    stream = stream_batches(files, 4, CPU, workers=0, **shares)
    read = dali_batches(files, 4, torch.device(device), **shares)
    for one, two in islice(zip(stream, read, strict=False), 9):  # beyond an epoch
        assert two.dtype == torch.uint8
        assert two.device.type == device
        assert two.is_contiguous(memory_format=torch.channels_last)
        difference = (one.float() - two.cpu().float()).abs().mean((1, 2, 3))
        assert (difference < 1).all(), difference


def test_a_batch_is_not_written_again(files):
    read = dali_batches(files, 2, CPU, seed=0)
    first = next(read)
    kept = first.clone()
    for _ in range(6):
        next(read)
    assert torch.equal(first, kept)


def test_a_broken_file_is_named(files, tmp_path):
    (tmp_path / "half.png").write_bytes(files.paths[2].read_bytes()[:900])
    read = dali_batches(ImageFiles([*files.paths, tmp_path / "half.png"], (8, 8)), 6, CPU, seed=0)
    with pytest.raises(ValueError, match=r"half\.png"):
        next(read)


def test_a_missing_file_is_named_as_a_broken_one_is(files, tmp_path):
    with pytest.raises(ValueError, match=r"gone\.png"):
        next(dali_batches(ImageFiles([*files.paths, tmp_path / "gone.png"], (8, 8)), 64, CPU, seed=0))


def test_what_only_dali_cannot_read_is_told_in_its_words(tmp_path, files, monkeypatch):
    (tmp_path / "half.png").write_bytes(files.paths[2].read_bytes()[:900])
    monkeypatch.setattr(module, "read_image", lambda path: None)
    with pytest.raises(ValueError, match="dali_batches: files that DALI decodes required: "):
        next(dali_batches(ImageFiles([tmp_path / "half.png"], (8, 8)), 1, CPU, seed=0))


def test_without_dali_the_extra_to_install_is_named(files, monkeypatch):
    monkeypatch.setattr(module, "has_dali", lambda: False)
    with pytest.raises(ValueError, match=r"fastcutpaste\[dali\]"):
        dali_batches(files, 2, CPU, seed=0)


@pytest.mark.parametrize(("count", "batch_size"), [(0, 2), (3, 0)])
def test_wrong_counts_are_refused_at_once(files, count, batch_size):
    with pytest.raises(ValueError, match=f"required, got {count} and {batch_size}"):
        dali_batches(ImageFiles(files.paths[:count], (8, 8)), batch_size, CPU, seed=0)


def test_images_of_sixteen_bits_are_read(tmp_path):
    write_picture(tmp_path / "deep.png", np.full((8, 8), 40_000, np.uint16))
    files = ImageFiles([tmp_path / "deep.png"], (4, 4))
    (one,), (two,) = next(dali_batches(files, 1, CPU, seed=0)), next(stream_batches(files, 1, CPU, seed=0, workers=0))
    assert (one.float() - two.float()).abs().max() <= 1
