"""Pages: each of a file of several is an image, read as the same pixels in a file of their own would be."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from deep_pictures import write_tiff
from pictures import draw_noise, write_picture
from PIL import Image

from fastcutpaste.images.decode import decode, find_bits, load_images, peek, read_image
from fastcutpaste.images.folders import find_test_images
from fastcutpaste.images.image_set import ImageSet, load_masks
from fastcutpaste.images.pages import all_pages, find_pages, with_pages
from fastcutpaste.images.tree import page_of


def write_pages(path: Path, pages: list[np.ndarray], **options: object) -> Path:
    """Write arrays as the pages of one file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    first, *more = (Image.fromarray(page) for page in pages)
    first.save(path, save_all=True, append_images=more, **options)
    return path


def draw(*seeds: int, side: int = 20) -> list[np.ndarray]:
    return [draw_noise(side + seed, 30, seed=seed) for seed in seeds]


def test_a_page_is_named_by_its_file_and_its_number() -> None:
    assert page_of(Path("a/scan.tif#12")) == (Path("a/scan.tif"), 12)
    for name in ("scan.tif", "scan#2", "a#2.tif", "scan.tif#", "scan.tif#x", "scan.tif#²", "#2", "a.txt#2"):
        assert page_of(Path(name)) == (Path(name), None)


@pytest.mark.parametrize(
    ("name", "options"),
    [("a.tif", {}), ("a.webp", {"lossless": True}), ("a.png", {}), ("a.tiff", {"compression": "jpeg"})],
)
def test_each_page_is_the_image_it_would_be_alone(tmp_path: Path, name: str, options: dict[str, object]) -> None:
    pages = [draw_noise(24, 30, seed=seed) for seed in range(3)]
    path = write_pages(tmp_path / name, pages, **options)
    assert find_pages(path) == [tmp_path / f"{name}#{number}" for number in (1, 2, 3)]
    for page, pixels in zip(find_pages(path), pages, strict=True):
        wanted = read_image(write_picture(tmp_path / f"alone{path.suffix}", pixels, **options))
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # no word of other pages
            assert np.array_equal(read_image(page), wanted)


def test_frames_of_a_gif_are_whole_pictures(tmp_path: Path) -> None:
    frames = [np.zeros((16, 20), np.uint8) for _ in range(3)]
    for number, frame in enumerate(frames):  # each differs from the last in a corner alone
        frame[: 4 * number, :5] = 255
    path = write_pages(tmp_path / "a.gif", frames)
    loaded = load_images(find_pages(path), (16, 20)).pixels
    assert [(page[0].numpy() == frame).all() for page, frame in zip(loaded, frames, strict=True)] == [True] * 3


def test_sizes_depths_and_orientations_are_each_pages_own(tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    first, second = (Image.fromarray(page) for page in draw(0, 5))
    second.encoderinfo = {"exif": turned}
    first.save(tmp_path / "a.tif", save_all=True, append_images=[second])
    assert [peek(page)[0] for page in find_pages(tmp_path / "a.tif")] == [(20, 30), (30, 25)]
    image, size, _ = decode(tmp_path / "a.tif#2", None)
    assert size == (30, 25)
    assert np.array_equal(image, np.rot90(draw(5)[0], -1))
    deep = [np.full((8, 8), value, np.uint16) for value in (40, 4000)]
    path = write_pages(tmp_path / "deep.tif", deep)
    assert [find_bits([page]) for page in find_pages(path)] == [8, 12]
    assert [int(np.asarray(read_image(page, 12)).max()) for page in find_pages(path)] == [40 >> 4, 4000 >> 4]


def test_deep_color_is_read_of_the_page_that_is_asked_for(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    pages = np.stack([np.full((6, 8, 3), value, np.uint16) for value in (100, 3000)])
    tifffile.imwrite(tmp_path / "a.tif", pages, photometric="rgb")
    assert [int(np.asarray(read_image(page, 12)).max()) for page in find_pages(tmp_path / "a.tif")] == [6, 187]


def test_smaller_copies_previews_and_single_images_are_no_pages(tmp_path: Path) -> None:
    first, copy, second = (Image.fromarray(page) for page in draw(0, 1, 2))
    copy.encoderinfo = {"tiffinfo": {254: 1}}
    first.save(tmp_path / "a.tif", save_all=True, append_images=[copy, second])
    assert find_pages(tmp_path / "a.tif") == [tmp_path / "a.tif#1", tmp_path / "a.tif#3"]
    Image.fromarray(draw_noise()).save(tmp_path / "b.jpg", "MPO", save_all=True, append_images=[second])
    for path in (tmp_path / "b.jpg", write_picture(tmp_path / "c.tif"), tmp_path / "a.tif#2", tmp_path / "missing.tif"):
        assert find_pages(path) == [path]


def test_a_page_that_is_not_there_and_a_broken_file_are_said(tmp_path: Path) -> None:
    path = write_pages(tmp_path / "a.tif", draw(0, 1))
    for page in ("a.tif#3", "a.tif#0"):
        with pytest.raises(ValueError, match=f"{page}: a whole .* image required, got: 2 pages"):
            read_image(tmp_path / page)
    path.write_text("no image")
    assert all_pages([path]) == (path,)
    with pytest.raises(ValueError, match=r"a\.tif#2: a whole .* image required, got: a file of another format"):
        read_image(tmp_path / "a.tif#2")


def test_masks_have_the_pages_of_their_images(tmp_path: Path) -> None:
    image = write_pages(tmp_path / "a.tif", [draw_noise(20, 30, seed=seed) for seed in range(2)])
    drawings = [np.zeros((20, 30), np.uint8) for _ in range(2)]
    drawings[0][:2], drawings[1][5:9] = 255, 255
    mask = write_pages(tmp_path / "m.tif", drawings)
    good = write_picture(tmp_path / "g.png", draw_noise(20, 30))
    found = with_pages(ImageSet((image, good), ("crack", "good"), (mask, None)))
    assert found.paths == (tmp_path / "a.tif#1", tmp_path / "a.tif#2", good)
    assert found.kinds == ("crack", "crack", "good")
    assert found.masks == (tmp_path / "m.tif#1", tmp_path / "m.tif#2", None)
    for one, drawn in zip(load_masks(found), drawings, strict=False):
        assert np.array_equal(one, drawn > 0)
    united = with_pages(ImageSet((image,), ("crack",), ((mask, mask),)))
    assert united.masks[1] == (tmp_path / "m.tif#2", tmp_path / "m.tif#2")
    lone = write_picture(tmp_path / "lone.png", drawings[0])
    with pytest.raises(
        ValueError, match=r"lone\.png: a mask of as many pages as its image required, it has 1, .* has 2"
    ):
        with_pages(ImageSet((image,), ("crack",), (lone,)))


def test_lists_and_arguments_may_name_a_page(tmp_path: Path) -> None:
    write_pages(tmp_path / "a.tif", draw(0, 1))
    assert find_test_images(tmp_path / "a.tif#2").paths == (tmp_path / "a.tif#2",)
    (tmp_path / "list.csv").write_text("path,label\na.tif#1,good\na.tif#2,crack\n")
    found = find_test_images(tmp_path / "list.csv", divided=False)
    assert (found.paths, found.kinds) == ((tmp_path / "a.tif#1", tmp_path / "a.tif#2"), ("good", "crack"))


def test_a_page_of_twelve_bits_is_one(tmp_path: Path) -> None:
    path = write_tiff(tmp_path / "a.tif", np.full((4, 4), 3000, np.uint16), 12, 1)
    assert find_pages(path) == [path]
    assert find_bits([tmp_path / "a.tif#1"]) == 12
