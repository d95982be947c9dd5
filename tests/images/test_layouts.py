"""Layouts of published data sets and of people's own: what each is read as."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import draw_noise, write_picture

from fastcutpaste.images.folders import (
    find_calibration_images,
    find_test_images,
    find_training_images,
    label_images,
    load_masks,
)

pytestmark = pytest.mark.filterwarnings("error")  # whatever a test does not expect

BLACK = np.zeros((6, 8), np.uint8)
DRAWN = 255 * np.eye(6, 8, dtype=np.uint8)


def _write(root: Path, *names: str, mask: np.ndarray | None = None) -> Path:
    for number, name in enumerate(names):
        write_picture(root / name, draw_noise(seed=number) if mask is None else mask)
    return root


def _read(root: Path):
    """Give names of the training images; names, kinds and names of masks of the test images."""

    def named(mask):
        many = mask if isinstance(mask, tuple) else (mask,)
        return "+".join(one.relative_to(root).as_posix() for one in many) if mask is not None else None

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*divides no images")
        training, test = find_training_images(root), find_test_images(root)
    assert set(training.kinds) == {"good"}
    rows = zip(test.paths, test.kinds, test.masks, strict=True)
    return (
        [path.relative_to(root).as_posix() for path in training.paths],
        [(path.relative_to(root).as_posix(), kind, named(mask)) for path, kind, mask in rows],
    )


def _masks(root: Path):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*divides no images")
        return load_masks(find_test_images(root))


def test_mvtec_ad_and_mpdd(tmp_path):
    _write(tmp_path, "train/good/0.png", "test/good/1.png", "test/scratch/2.png")
    _write(tmp_path, "ground_truth/scratch/2_mask.png", mask=DRAWN)
    assert _read(tmp_path) == (
        ["train/good/0.png"],
        [("test/good/1.png", "good", None), ("test/scratch/2.png", "scratch", "ground_truth/scratch/2_mask.png")],
    )


def test_mvtec_ad_2(tmp_path):
    _write(tmp_path, "train/good/0_regular.png", "validation/good/1_regular.png", "test_public/good/2_regular.png",
           "test_public/bad/3_regular.png", "test_private/4_regular.png")  # fmt: skip
    _write(tmp_path, "test_public/ground_truth/bad/3_regular_mask.png", mask=DRAWN)
    assert _read(tmp_path) == (
        ["train/good/0_regular.png"],
        [("test_public/bad/3_regular.png", "bad", "test_public/ground_truth/bad/3_regular_mask.png"),
         ("test_public/good/2_regular.png", "good", None)],
    )  # fmt: skip
    assert find_calibration_images(tmp_path).paths == (tmp_path / "validation/good/1_regular.png",)


def test_mvtec_loco_unites_several_masks(tmp_path):
    _write(tmp_path, "train/good/0.png", "validation/good/0.png", "test/good/0.png", "test/logical_anomalies/000.png",
           "test/logical_anomalies/001.png")  # fmt: skip
    second = np.zeros_like(BLACK)
    second[5, 0] = 251  # the values say how much of a defect has to be found
    _write(tmp_path, "ground_truth/logical_anomalies/000/000.png", "ground_truth/logical_anomalies/001/000.png",
           mask=DRAWN)  # fmt: skip
    write_picture(tmp_path / "ground_truth/logical_anomalies/000/001.png", second)
    images = find_test_images(tmp_path)
    assert images.kinds == ("good", "logical_anomalies", "logical_anomalies")
    masks = load_masks(images)
    expected = torch.eye(6, 8, dtype=torch.bool)
    assert torch.equal(masks[2], expected)
    expected[5, 0] = True
    assert torch.equal(masks[1], expected)
    assert not masks[0].any()


def test_btad(tmp_path):
    _write(tmp_path, "train/ok/0000.bmp", "test/ok/0001.bmp", "test/ko/0002.bmp")
    _write(tmp_path, "ground_truth/ko/0002.png", mask=DRAWN)
    assert _read(tmp_path) == (
        ["train/ok/0000.bmp"],
        [("test/ko/0002.bmp", "ko", "ground_truth/ko/0002.png"), ("test/ok/0001.bmp", "good", None)],
    )


def _visa(root: Path) -> Path:
    _write(root, *(f"Data/Images/Normal/{i:04d}.JPG" for i in range(10)), "Data/Images/Anomaly/000.JPG",
           "Data/Images/Anomaly/001.JPG")  # fmt: skip
    return _write(root, "Data/Masks/Anomaly/000.png", "Data/Masks/Anomaly/001.png", mask=DRAWN // 255)


@pytest.mark.parametrize("listed", [False, True])
def test_visa(tmp_path, listed):
    root = _visa(tmp_path / "candle")
    if listed:
        lines = [f"candle/Data/Images/Normal/{i:04d}.JPG,normal," for i in range(10)]
        lines += [f'candle/Data/Images/Anomaly/{i:03d}.JPG,"stain,hole",candle/Data/Masks/Anomaly/{i:03d}.png'
                  for i in range(2)]  # fmt: skip
        (root / "image_anno.csv").write_text("\n".join(["image,label,mask", *lines]))
    training, test = _read(root)
    good = [name for name, kind, _ in test if kind == "good"]
    assert len(training) == 8
    assert sorted(training + good) == [f"Data/Images/Normal/{i:04d}.JPG" for i in range(10)]
    kind = "stain,hole" if listed else "Anomaly"
    assert [row for row in test if row[1] != "good"] == [
        (f"Data/Images/Anomaly/{i:03d}.JPG", kind, f"Data/Masks/Anomaly/{i:03d}.png") for i in range(2)
    ]
    assert [int(mask.sum()) for mask in _masks(root)] == [6 * (row[1] != "good") for row in test]


def test_visa_as_published_is_divided_by_its_list(tmp_path):
    root = _visa(tmp_path / "candle")
    lines = [f"candle,{'test' if i == 3 else 'train'},normal,candle/Data/Images/Normal/{i:04d}.JPG," for i in range(10)]
    lines += [f"candle,test,anomaly,candle/Data/Images/Anomaly/{i:03d}.JPG,x" for i in range(2)]
    (tmp_path / "split_csv").mkdir()
    (tmp_path / "split_csv/1cls.csv").write_text("\n".join(["object,split,label,image,mask", *lines]))
    training, test = _read(root)
    assert len(training) == 9
    assert [name for name, kind, _ in test if kind == "good"] == ["Data/Images/Normal/0003.JPG"]
    with pytest.raises(ValueError, match=r"one category required, .* holds candle: pass one of them"):
        find_training_images(tmp_path)


def test_kolektor_sdd_is_labelled_by_masks_and_parts_stay_together(tmp_path):
    for part in range(5):
        _write(tmp_path, *(f"kos{part:02d}/Part{i}.jpg" for i in range(4)))
        _write(tmp_path, *(f"kos{part:02d}/Part{i}_label.bmp" for i in range(4)), mask=BLACK)
    _write(tmp_path, "kos01/Part2_label.bmp", mask=DRAWN)
    training, test = _read(tmp_path)
    assert [row for row in test if row[1] != "good"] == [("kos01/Part2.jpg", "defect", "kos01/Part2_label.bmp")]
    good = [name for name, kind, _ in test if kind == "good"]
    assert sorted(training + good) == sorted(
        f"kos{part:02d}/Part{i}.jpg" for part in range(5) for i in range(4) if (part, i) != (1, 2)
    )
    assert good
    assert {name[:5] for name in good}.isdisjoint(name[:5] for name in training)


def test_kolektor_sdd2(tmp_path):
    _write(tmp_path, "train/10000.png", "train/10001.png", "test/20000.png", "test/20001.png")
    _write(tmp_path, "train/10000_GT.png", "test/20000_GT.png", mask=BLACK)
    _write(tmp_path, "train/10001_GT.png", "test/20001_GT.png", mask=DRAWN)
    assert _read(tmp_path) == (
        ["train/10000.png"],
        [("test/20000.png", "good", None), ("test/20001.png", "defect", "test/20001_GT.png")],
    )


def test_magnetic_tile_as_published(tmp_path):
    fringe = DRAWN.copy()
    fringe[0, 3] = 90  # as JPEG left it
    _write(tmp_path, *(f"MT_Free/Imgs/exp1_num_{i}.jpg" for i in range(10)), "MT_Crack/Imgs/exp1_num_20.jpg")
    _write(tmp_path, *(f"MT_Free/Imgs/exp1_num_{i}.png" for i in range(10)), mask=BLACK)
    _write(tmp_path, "MT_Crack/Imgs/exp1_num_20.png", mask=fringe)
    training, test = _read(tmp_path)
    good = [name for name, kind, _ in test if kind == "good"]
    assert (len(training), len(good)) == (8, 2)
    assert sorted(training + good) == [f"MT_Free/Imgs/exp1_num_{i}.jpg" for i in range(10)]
    assert [row for row in test if row[1] != "good"] == [
        ("MT_Crack/Imgs/exp1_num_20.jpg", "MT_Crack", "MT_Crack/Imgs/exp1_num_20.png")
    ]
    with pytest.raises(ValueError, match=r"normal images alone required, got 10 masks, .*: .*num_0\.png"):
        find_training_images(tmp_path / "MT_Free")


@pytest.mark.parametrize(("good", "bad"), [("good", "bad"), ("OK", "NG"), ("Normal", "scratches")])
def test_two_plain_folders(tmp_path, good, bad):
    _write(tmp_path, *(f"{good}/{i}.png" for i in range(10)), f"{bad}/0.png", f"{bad}/1.png")
    with pytest.warns(UserWarning, match="divides no images: 2 of 10 good ones are for the test alone, in blocks"):
        find_training_images(tmp_path)
    training, test = _read(tmp_path)
    assert [kind for _, kind, _ in test].count(bad) == 2
    assert [kind for _, kind, _ in test].count("good") == 2
    assert len({*training, *(name for name, _, _ in test)}) == 12


def test_all_images_of_an_undivided_layout_can_be_had_unwarned(tmp_path):
    _write(tmp_path, *(f"good/{i}.png" for i in range(10)), "bad/0.png")
    assert len(find_test_images(tmp_path, divided=False)) == 11


def test_folders_by_hand(tmp_path):
    _write(tmp_path, "a/0.png", "b/deep/1.png", "c/2.png", "c/deep/3.png", "d/2.png")
    _write(tmp_path, "masks/2.png", "masks/deep/3_mask.png", mask=DRAWN)
    a, b, c, d, masks = (tmp_path / name for name in ("a", "b", "c", "d", "masks"))
    images = label_images([a, b], [c], masks)
    assert images.paths == (a / "0.png", b / "deep/1.png", c / "2.png", c / "deep/3.png")
    assert images.kinds == ("good", "good", "c", "c")
    assert images.masks == (None, None, masks / "2.png", masks / "deep/3_mask.png")
    assert label_images([a], [c, d]).kinds == ("good", "c", "c", "d")
    with pytest.raises(ValueError, match=r"--masks: a folder c for the images of .*c required in .*masks, got 2\.png"):
        label_images([a], [c, d], masks)
    with pytest.raises(ValueError, match=r"--masks: a folder required, .*none is missing"):
        label_images([a], [c], tmp_path / "none")
    with pytest.raises(ValueError, match=r"none: a folder of images required, .*none is missing"):
        label_images([tmp_path / "none"], [c])


def test_a_list_of_paths_labels_masks_and_splits(tmp_path):
    _write(tmp_path, "x/0.png", "x/1.png", "x/2.png", "ü 3.png")
    _write(tmp_path, "m.png", mask=DRAWN)
    lines = [
        "Path,Label,Mask,Split",
        "x/0.png,OK,,train",
        "x/1.png,0,,val",
        "x/2.png,1,m.png,test",
        "ü 3.png,good,,test",
    ]
    file = tmp_path / "list.csv"
    file.write_text("\n".join(lines), encoding="utf-8-sig")
    assert find_training_images(file).paths == (tmp_path / "x/0.png",)
    assert find_calibration_images(file).paths == (tmp_path / "x/1.png",)
    images = find_test_images(file)
    assert (images.kinds, images.masks) == (("defect", "good"), (tmp_path / "m.png", None))
    assert images.paths == (tmp_path / "x/2.png", tmp_path / "ü 3.png")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["path,label", "no.png,good"], r"a file .*no\.png required by line 2, got none"),
        (["name,label", "0.png,good"], "a column path required, got label, name"),
        (
            ["path,label,split", "0.png,good,tset"],
            "a split of train, .* required, got 'tset' in line 2",
        ),
        (["path,label,split", "0.png,good,test", "1.png,good,"], "a split for every image, .* got none in line 3"),
        (["path,label", "0.png,"], "a label for every image required, got none in line 2"),
        (["path,label", "0.png,good", "0.png,bad"], r"each image once required, got .*0\.png more than once"),
        (["path,label,mask", "0.png,bad,m.png", "1.png,bad,"], r"a mask for every .*, got none for .*1\.png"),
        (["path,label"], ".*one for each image required, got 1 lines"),
        ([], ".*one for each image required, got 0 lines"),
    ],
)
def test_a_list_that_is_wrong_is_refused_with_its_line(tmp_path, lines, message):
    _write(tmp_path, "0.png", "1.png", "m.png")
    (tmp_path / "list.csv").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=r"list\.csv: " + message):
        find_test_images(tmp_path / "list.csv")


# Words, subfolders, masks among images


@pytest.mark.parametrize("word", ["good", "ok", "Good", "OK", "normal", "NORMAL", "defect-free", "no_defect", "Pass"])
def test_the_usual_words_for_good_in_any_case(tmp_path, word):
    _write(tmp_path, f"train/{word}/0.png", f"validation/{word}/1.png", f"test/{word}/2.png", "test/hole/3.png")
    assert find_training_images(tmp_path).paths == (tmp_path / f"train/{word}/0.png",)
    assert find_calibration_images(tmp_path).paths == (tmp_path / f"validation/{word}/1.png",)
    assert sorted(find_test_images(tmp_path).kinds) == ["good", "hole"]


def test_a_test_folder_without_any_good_kind_says_so(tmp_path):
    _write(tmp_path, "test/fine/0.png", "test/hole/0.png")
    with pytest.warns(UserWarning, match="test: no good images among fine, hole"):
        assert find_test_images(tmp_path).kinds == ("fine", "hole")


def test_folders_in_folders_count(tmp_path):
    names = [
        *(f"train/good/{i}.png" for i in range(4)),
        *(f"train/good/2026-{i}/{j}.png" for i in (1, 10) for j in (0, 1)),
    ]
    _write(tmp_path, *names, "test/good/a/0.png", "test/hole/b/0.png", "test/hole/0.png")
    _write(tmp_path, "ground_truth/hole/b/0_mask.png", "ground_truth/hole/0.png", mask=DRAWN)
    training, test = _read(tmp_path)
    assert training == names
    assert [row[2] for row in test if row[1] == "hole"] == ["ground_truth/hole/0.png", "ground_truth/hole/b/0_mask.png"]
    assert len(find_training_images(tmp_path / "train/good/2026-1").paths) == 2
    _write(tmp_path / "plain", "0.png", "a/1.png", "a/b/2.png", ".hidden/3.png", "__MACOSX/4.png")
    assert [path.name for path in find_training_images(tmp_path / "plain").paths] == ["0.png", "1.png", "2.png"]
    (tmp_path / "plain/a/loop").symlink_to(tmp_path / "plain", target_is_directory=True)
    assert len(find_training_images(tmp_path / "plain").paths) == 3


@pytest.mark.parametrize(
    ("image", "mask"),
    [("a.jpg", "a.png"), ("10000.png", "10000_GT.png"), ("x.png", "x_mask.png"), ("Part1.jpg", "Part1_label.bmp"),
     ("x.png", "mask_x.png"), ("y.png", "x_mask.png"), ("x.jpg", "x-Mask.jpg"), ("a.png", "masks/a.png"),
     ("a.png", "Ground Truth/a.png")],
)  # fmt: skip
@pytest.mark.parametrize("where", ["", "train/good/"])
def test_masks_among_normal_images_are_refused_by_name(tmp_path, image, mask, where):
    _write(tmp_path, where + image, where + "other.png")
    drawn = np.zeros((32, 48), np.uint8)
    drawn[8:24, 8:32] = 255
    write_picture(tmp_path / where / mask, drawn)
    with pytest.raises(ValueError, match=rf"normal images alone required, got 1 masks, .*{mask}; move"):
        find_training_images(tmp_path)


def test_a_name_alone_makes_no_mask(tmp_path):
    names = ["a.jpg", "a.png", "front_label.png", "labels/b.png", "x_mask.png"]  # photographs of labels and masks
    for number, name in enumerate(names):
        write_picture(tmp_path / name, draw_noise(32, 48, seed=number))
    assert len(find_training_images(tmp_path)) == 5


def test_two_values_alone_make_no_mask(tmp_path):
    _write(tmp_path, "0.png", "1.png", mask=DRAWN)  # black parts before a lamp
    assert len(find_training_images(tmp_path)) == 2


def test_masks_among_unlabelled_images_are_passed_over_with_their_names(tmp_path):
    _write(tmp_path, "x.png")
    _write(tmp_path, "x_mask.png", mask=DRAWN)
    with pytest.warns(UserWarning, match=r"1 masks among the images are passed over: .*x_mask\.png"):
        assert find_test_images(tmp_path).paths == (tmp_path / "x.png",)


def test_masks_beside_test_images_are_their_masks(tmp_path):
    _write(tmp_path, "train/good/0.png", "test/good/0.png", "test/hole/0.jpg", "test/hole/1.png")
    _write(tmp_path, "test/hole/0.png", "test/hole/1_mask.png", mask=DRAWN)
    assert [row[1:] for row in _read(tmp_path)[1]] == [
        ("good", None), ("hole", "test/hole/0.png"), ("hole", "test/hole/1_mask.png")
    ]  # fmt: skip
    _write(tmp_path, "test/hole/2.png")
    with pytest.raises(ValueError, match=r"a mask for every defective image required, .*, got none for .*2\.png"):
        find_test_images(tmp_path)


def test_defective_images_in_a_plain_folder_are_refused(tmp_path):
    _write(tmp_path, "a.png", "good/0.png", "NG/0.png")
    with pytest.raises(ValueError, match=r"folders of good and of defective images .* got a\.png, good/, NG/"):
        find_training_images(tmp_path)
    _write(tmp_path / "train", "0.png", "bad/0.png")
    with pytest.raises(ValueError, match=r"a folder train/good required in .*, got train with 0\.png, bad/"):
        find_training_images(tmp_path)
