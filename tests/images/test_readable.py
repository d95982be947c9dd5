"""Images read in turn are those read at once; what cannot be read is named in its place."""

import warnings

import numpy as np
import pytest
from pictures import draw_noise, write_picture

from fastcutpaste.images import readable
from fastcutpaste.images.decode import load_images
from fastcutpaste.images.readable import Read, Unread, find_unread, originals_in_turn, read_in_turn


@pytest.fixture
def files(tmp_path):
    for i in range(7):
        write_picture(tmp_path / f"{i}.png", draw_noise(20 + i, 30, seed=i))
    write_picture(tmp_path / "grey.png", draw_noise(9, 9, seed=9)[..., 0])
    return [*(tmp_path / f"{i}.png" for i in range(7)), tmp_path / "grey.png"]


@pytest.mark.parametrize("at_once", [1, 3, 8, 20])
def test_images_in_turn_are_those_loaded_at_once(files, at_once):
    batches = list(read_in_turn(files, (16, 24), at_once))
    assert [len(batch) for batch in batches] == [len(files[i : i + at_once]) for i in range(0, 8, at_once)]
    images = [one for batch in batches for one in batch]
    wanted = load_images(files, (16, 24))
    assert np.array_equal(np.stack([image.pixels for image in images]), wanted.pixels)
    assert [image.size for image in images] == wanted.sizes
    assert [image.path for image in images] == files


def test_a_file_that_cannot_be_read_has_its_place(files):
    files[4].write_bytes(b"none")
    images = [one for batch in read_in_turn(files, (16, 24), 3) for one in batch]
    assert [type(one) for one in images] == [Read] * 4 + [Unread] + [Read] * 3
    assert images[4].path == files[4]
    assert "4.png" in images[4].error
    assert find_unread(files) == [images[4]]
    with pytest.raises(ValueError, match=r"4\.png"):
        list(read_in_turn(files, (16, 24), 3, strict=True))


def test_no_more_is_read_than_a_batch_ahead(files, monkeypatch):
    from fastcutpaste.images import readable

    begun = []
    decode = readable.decode
    monkeypatch.setattr(readable, "decode", lambda path, *how: (begun.append(path), decode(path, *how))[1])
    batches = read_in_turn(files, (16, 24), 2)
    next(batches)
    assert len(begun) <= 6
    batches.close()


def test_what_files_lost_is_said_once(files):
    for file in files[2:5]:
        write_picture(file, np.full((9, 9), 40_000, np.uint16))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        list(read_in_turn(files, (16, 24), 2))
    assert [str(one.message) for one in said] == [
        f"3 of 8 images had 12 or 16 bits a channel, reduced to 8 (first: {files[2]})"
    ]


def test_images_at_their_own_scale_come_as_they_are_and_not_many_ahead(files, monkeypatch):
    began = []
    read = readable.read_original
    monkeypatch.setattr(readable, "read_original", lambda path, bits: began.append(path) or read(path, bits))
    monkeypatch.setattr(readable, "_ROOM", 20 * 30 + 21 * 30)  # the first two
    files[4].write_bytes(b"none")
    for number, one in enumerate(originals_in_turn(files)):
        assert one.path == files[number]
        assert len(began) <= number + (2 if number < 1 else 3 if number in (3, 4, 6) else 2)
        if number == 4:
            assert isinstance(one, Unread)
        else:
            assert np.array_equal(one.pixels, load_images([files[number]], one.size).pixels[0].numpy())
    assert began == files
    with pytest.raises(ValueError, match=r"4\.png"):
        list(originals_in_turn(files, strict=True))
