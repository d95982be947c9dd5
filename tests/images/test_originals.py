"""Images at their own scale: read as they are, and crops of them that a seed and the step alone decide."""

from itertools import islice

import numpy as np
import pytest
import torch
from pictures import draw_noise, write_picture
from PIL import Image

from fastcutpaste.images import readable
from fastcutpaste.images.originals import Crops, Originals, bytes_of, crop_batches, load_originals

CPU = torch.device("cpu")


@pytest.fixture
def files(tmp_path):
    sizes = [(30, 40), (25, 70), (60, 26), (24, 24)]
    return [write_picture(tmp_path / f"{i}.png", draw_noise(*size, seed=i)) for i, size in enumerate(sizes)]


def test_a_file_is_read_as_it_is_whatever_the_bands(files, monkeypatch):
    monkeypatch.setattr(readable, "_BAND", 7 * 40)
    for path, image in zip(files, load_originals(files, None), strict=True):
        assert np.array_equal(image.permute(1, 2, 0).numpy(), np.asarray(Image.open(path)))
    assert bytes_of(files) == 3 * (30 * 40 + 25 * 70 + 60 * 26 + 24 * 24)


def test_a_grey_file_is_kept_in_one_channel(tmp_path):
    path = write_picture(tmp_path / "grey.png", draw_noise(30, 40, 1))
    [pixels] = load_originals([path], None)
    assert pixels.shape == (3, 30, 40)
    assert pixels.untyped_storage().nbytes() == bytes_of([path]) == 30 * 40


def test_crops_reach_every_corner_and_no_further():
    image = torch.arange(5 * 7).view(1, 5, 7).expand(3, -1, -1)
    crops = Crops([image], (2, 3))
    assert torch.equal(crops[0, 0.0, 0.0], image[:, :2, :3])
    assert torch.equal(crops[0, 1 - 2**-24, 1 - 2**-24], image[:, 3:, 4:])


def take(images, count, **options):
    crops = Crops(images, (20, 24))
    return list(islice(crop_batches(crops, 4, CPU, seed=3, **options), count))


def test_batches_go_on_where_they_were_and_processes_share_them(files):
    images = load_originals(files, None)
    batches = take(images, 6)
    assert batches[0].shape == (4, 3, 20, 24)
    for after, before in zip(take(images, 3, start=3), batches[3:], strict=True):
        assert torch.equal(after, before)
    halves = [take(images, 6, share=(i, 2)) for i in range(2)]
    for whole, parts in zip(batches, zip(*halves, strict=True), strict=True):
        assert torch.equal(whole, torch.cat(parts))
    assert not torch.equal(batches[0], batches[1])


def test_an_epoch_crops_each_image_once(files):
    marked = [torch.full((3, 30, 40), value, dtype=torch.uint8) for value in (5, 6, 7, 8, 9)]
    for batch in take(marked, 3, among=torch.tensor([0, 1, 2, 4])):
        assert sorted(batch.amax((1, 2, 3)).tolist()) == [5, 6, 7, 9]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_crops_of_files_read_anew_are_those_of_resident_images(files):
    for streamed, resident in zip(take(Originals(files), 3), take(load_originals(files, None), 3), strict=True):
        assert torch.equal(streamed, resident)
