"""Batches: every order follows from seed and step, and a stream gives what resident images do."""

import warnings
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import draw_noise, write_picture

from fastcutpaste.images import batches as batches_module
from fastcutpaste.images.batches import (
    ImageFiles,
    fits,
    free_bytes,
    image_batches,
    index_batches,
    load_textures,
    stream_batches,
)
from fastcutpaste.images.decode import load_images
from fastcutpaste.images.seeds import seed_of

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> ImageFiles:
    """Seven files of noise, of mixed sizes."""
    root = tmp_path_factory.mktemp("images")
    paths = [write_picture(root / f"{i}.png", draw_noise(20 + i, 30 - i, seed=i)) for i in range(7)]
    return ImageFiles(paths, (12, 16))


@pytest.mark.parametrize(("count", "batch_size"), [(10, 5), (10, 3), (7, 1), (3, 8), (1, 4), (5, 5)])
def test_every_index_comes_once_an_epoch_and_every_batch_is_full(count, batch_size):
    batches = list(islice(index_batches(count, batch_size, seed=0), 4 * count))
    assert all((batch.shape, batch.dtype) == ((batch_size,), torch.int64) for batch in batches)
    drawn = torch.cat(batches).view(-1, count)  # 4·batch_size epochs
    assert torch.equal(drawn.sort(dim=1).values, torch.arange(count).expand_as(drawn))


def test_epochs_differ_and_the_seed_alone_fixes_them():
    def first(seed):
        return torch.stack(list(islice(index_batches(50, 50, seed=seed), 3)))

    torch.manual_seed(1)
    zero = first(0)
    torch.manual_seed(2)
    assert torch.equal(zero, first(0))
    assert not torch.equal(zero, first(1))
    assert not torch.equal(zero[0], zero[1])


@pytest.mark.parametrize(("count", "batch_size"), [(10, 5), (10, 3), (7, 1), (3, 8), (1, 4)])
@pytest.mark.parametrize("start", [0, 1, 2, 5, 17])
def test_a_later_start_gives_the_later_batches(count, batch_size, start):
    wanted = list(islice(index_batches(count, batch_size, seed=3), start, start + 4))
    later = islice(index_batches(count, batch_size, seed=3, start=start), 4)
    assert all(torch.equal(one, two) for one, two in zip(wanted, later, strict=True))


@pytest.mark.parametrize("parts", [1, 2, 3, 6])
def test_shares_are_the_batch_cut_in_order(parts):
    shares = [index_batches(10, 6, seed=0, start=2, share=(i, parts)) for i in range(parts)]
    for whole in islice(index_batches(10, 6, seed=0, start=2), 5):
        assert torch.equal(torch.cat([next(share) for share in shares]), whole)


@pytest.mark.parametrize(("count", "batch_size"), [(0, 4), (4, 0), (4, -1)])
def test_wrong_counts_are_refused_at_once(count, batch_size):
    with pytest.raises(ValueError, match=f"index_batches: .* required, got {count} and {batch_size}"):
        index_batches(count, batch_size, seed=0)


def test_a_batch_that_cannot_be_shared_is_refused():
    with pytest.raises(ValueError, match="a batch that divides by 2 required, got 5"):
        index_batches(10, 5, seed=0, share=(0, 2))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_image_batches_are_the_images_at_the_indices(memory_format, dtype):
    images = torch.randint(0, 256, (7, 3, 4, 5)).to(dtype).contiguous(memory_format=memory_format)
    batches = image_batches(images, 4, seed=0, start=1, share=(1, 2))
    indices = index_batches(7, 4, seed=0, start=1, share=(1, 2))
    for batch, index in islice(zip(batches, indices, strict=False), 5):
        assert torch.equal(batch, torch.stack([images[i] for i in index.tolist()]))
        assert batch.is_contiguous(memory_format=memory_format)
        assert batch.dtype == dtype


def test_batches_among_some_images_are_those_of_these_alone():
    images, among = torch.arange(40).reshape(10, 1, 2, 2), torch.tensor([1, 4, 5, 9])
    wanted = image_batches(images[among], 3, seed=7, start=2, share=(1, 3))
    got = image_batches(images, 3, seed=7, start=2, share=(1, 3), among=among)
    for _ in range(9):
        assert torch.equal(next(got), next(wanted))


def test_writing_into_a_batch_leaves_the_images_alone():
    images = torch.ones(1, 3, 2, 2)
    next(image_batches(images, 1, seed=0)).zero_()
    assert images.all()


def test_image_batches_need_images_of_four_dimensions():
    with pytest.raises(ValueError, match=r"image_batches: images \(N, C, H, W\) required, got \(3, 4, 5\)"):
        image_batches(torch.zeros(3, 4, 5), 2, seed=0)
    with pytest.raises(ValueError, match=r"index_batches: .* got 0 and 2"):
        image_batches(torch.zeros(0, 3, 4, 5), 2, seed=0)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_stream_gives_the_batches_of_resident_images(files, workers):
    resident = image_batches(load_images(files.paths, files.size).pixels, 4, seed=5, start=3, share=(1, 2))
    stream = stream_batches(files, 4, CPU, seed=5, workers=workers, start=3, share=(1, 2))
    for one, two in islice(zip(resident, stream, strict=False), 9):  # beyond an epoch
        assert two.dtype == torch.uint8
        assert torch.equal(one, two)


def test_a_file_that_breaks_while_it_is_streamed_is_named(files, tmp_path):
    (tmp_path / "half.png").write_bytes(Path(files.paths[0]).read_bytes()[:60])
    broken = ImageFiles([tmp_path / "half.png"], (8, 8))
    with pytest.raises(ValueError, match=r"half\.png: a whole") as caught:
        next(stream_batches(broken, 2, CPU, seed=0, workers=1))
    assert "\n" not in str(caught.value)  # the traceback of a worker is no message


def test_what_streaming_loses_is_not_said_at_each_reading(tmp_path):
    write_picture(tmp_path / "deep.png", np.full((8, 8), 40_000, np.uint16))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ImageFiles([tmp_path / "deep.png"], (4, 4))[0].shape == (3, 4, 4)


def test_images_fit_if_they_take_at_most_half_of_what_is_free(monkeypatch):
    monkeypatch.setattr(batches_module, "free_bytes", lambda _: 2 * 100 * 3 * 8 * 9)
    assert fits(100, (8, 9), CPU)
    assert not fits(101, (8, 9), CPU)


def test_free_memory_is_between_nothing_and_a_petabyte():
    assert 2**20 < free_bytes(CPU) < 2**50


def test_seeds_differ_in_every_number_and_are_the_same_tomorrow():
    seeds = [seed_of(*numbers) for numbers in ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0), (2**40, 1, 0))]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**64 for seed in seeds)
    assert seed_of(1, 2, 3) == int(np.random.SeedSequence([1, 2, 3]).generate_state(1, np.uint64)[0])


def test_textures_are_all_images_in_a_folder_and_in_those_in_it(tmp_path):
    for name in ("a/1.png", "b/2.jpg", "3.png"):
        write_picture(tmp_path / name, np.full((20, 30, 3), 200, np.uint8))
    textures = load_textures(tmp_path, 16)
    assert (textures.shape, textures.dtype) == ((3, 3, 16, 16), torch.uint8)
    assert textures.float().mean() == pytest.approx(200, abs=2)
    (tmp_path / "b" / "4.png").write_text("not an image")
    with pytest.raises(ValueError, match=r"4\.png"):
        load_textures(tmp_path, 16)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"images .* required in .*empty"):
        load_textures(tmp_path / "empty")
    with pytest.raises(ValueError, match="a folder of images required"):
        load_textures(tmp_path / "nowhere")
