"""The detector's file: it comes back bit for bit, is written whole or not at all, and whatever else is refused."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_detector import (
    PATCHES,
    SIZE,
    assert_refused,
    draw_images,
    read_header,
    write_changed,
)
from torch import Tensor

from fastcutpaste.scoring.calibration import Calibration
from fastcutpaste.scoring.detector import Detector
from fastcutpaste.scoring.detector_file import FORMAT

OLD = [
    (1, ("border", "areas", "level", "bits")),
    (2, ("areas", "level", "bits")),
    (3, ("level", "bits")),
    (4, ("bits",)),
    (5, ("bits",)),
]


@pytest.fixture(scope="module")
def saved(patches: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "detector.safetensors"
    patches.save(path)
    return path


def test_a_loaded_detector_scores_bit_for_bit_as_the_saved_one(fitted: Detector, tmp_path: Path) -> None:
    images = draw_images(5, seed=4)
    path = tmp_path / "new" / "detector.safetensors"
    fitted.save(path)
    loaded = Detector.load(path)
    assert torch.equal(loaded.score(images), fitted.score(images))
    if fitted.config.patch is not None:
        assert torch.equal(loaded.localize(images), fitted.localize(images))
    assert loaded.config == fitted.config
    assert loaded.network.config == fitted.network.config
    assert loaded.calibration == fitted.calibration
    assert (loaded.threshold, loaded.typical) == (fitted.threshold, fitted.typical)
    assert loaded.provenance == fitted.provenance
    assert not loaded.network.training
    for name, value in fitted.network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], value)


def test_a_loaded_detector_is_saved_to_an_equal_file(saved: Path, tmp_path: Path) -> None:
    Detector.load(saved).save(tmp_path / "again.safetensors")
    first, second = load_file(saved), load_file(tmp_path / "again.safetensors")
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert read_header(saved) == read_header(tmp_path / "again.safetensors")


def test_the_file_is_safetensors_with_settings_and_provenance_as_json(saved: Path, patches: Detector) -> None:
    header = read_header(saved)
    assert header["format"] == FORMAT
    assert header["provenance"] == {"seed": 3, "data": {"images": 12}}
    assert header["threshold"] == patches.threshold
    told = header["calibration"]
    assert (told["rate"], told["count"], told["promised"]) == (0.05, 2, pytest.approx(1 / 3))
    assert told["scores"] == list(patches.calibration.scores)
    assert header["network"]["backbone"] == "resnet18"
    assert header["detector"]["size"] == list(SIZE)


@pytest.mark.parametrize("old", [True, False])
def test_a_failed_save_leaves_the_old_file_and_no_other(
    old: bool, patches: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "detector.safetensors"
    if old:
        path.write_bytes(b"old")

    def fail(tensors: object, target: Path, metadata: object) -> None:
        Path(target).write_bytes(b"half a detector")
        raise OSError("disk full")

    monkeypatch.setattr("fastcutpaste.scoring.tensors.save_file", fail)
    with pytest.raises(OSError, match="disk full"):
        patches.save(path)
    assert [entry.name for entry in tmp_path.iterdir()] == (["detector.safetensors"] if old else [])
    assert not old or path.read_bytes() == b"old"


def test_provenance_that_json_cannot_hold_leaves_the_old_file(patches: Detector, tmp_path: Path) -> None:
    path = tmp_path / "detector.safetensors"
    path.write_bytes(b"old")
    odd = Detector(patches.network, PATCHES, patches.density, 1.0, 1.0, {"image": torch.zeros(1)})
    with pytest.raises(TypeError, match="JSON"):
        odd.save(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["detector.safetensors"]
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_file_is_refused(share: float, saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    content = saved.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    assert_refused(path, "a whole detector file .safetensors. required, got: ")


def test_random_bytes_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "noise.safetensors"
    path.write_bytes(draw_images(1).numpy().tobytes())
    assert_refused(path, "a whole detector file .safetensors. required, got: ")


class Bomb:
    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (self.mark,)


@pytest.mark.parametrize("torch_file", [True, False])
def test_a_pickle_is_refused_and_does_not_run(torch_file: bool, tmp_path: Path) -> None:
    path, mark = tmp_path / "detector.safetensors", tmp_path / "exploded"
    if torch_file:
        torch.save(Bomb(mark), path)
    else:
        path.write_bytes(pickle.dumps(Bomb(mark)))
    assert_refused(path, "a whole detector file .safetensors. required, got: ")
    assert not mark.exists()


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"fastcutpaste": "null"}])
def test_a_safetensors_file_of_something_else_is_refused(metadata: dict[str, str] | None, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(2)}, path, metadata)
    assert_refused(path, "a detector file required, got a safetensors file of something else")


def test_a_bit_that_flipped_in_a_weight_is_noticed(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "flipped.safetensors"
    content = bytearray(saved.read_bytes())
    content[-100] ^= 2
    path.write_bytes(content)
    assert_refused(path, "a whole detector file required, got a damaged one: its checksum is another")


def test_a_file_whose_checksum_is_gone_is_refused_but_an_early_one(saved: Path, tmp_path: Path) -> None:
    path, tensors, header = tmp_path / "changed.safetensors", load_file(saved), read_header(saved)
    del header["checksum"]
    save_file(tensors, path, {"fastcutpaste": json.dumps(header)})
    assert_refused(path, "a whole detector file required, got a damaged one: its checksum is another")
    save_file(tensors, path, {"fastcutpaste": json.dumps(header | {"format": 6})})
    assert Detector.load(path).threshold == header["threshold"]


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(number: float, saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "odd.safetensors"
    write_changed(saved, path, lambda _, tensors: tensors["density.mean"].view(-1)[3:4].fill_(number))
    assert_refused(path, "a detector of finite numbers required, got others in density.mean")


@pytest.mark.parametrize("text", ["{", "[]", "3", '"text"', "[" * 100_000])
def test_a_header_that_is_no_object_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "odd.safetensors"
    save_file({"weight": torch.zeros(2)}, path, {"fastcutpaste": text})
    assert_refused(path, "a whole detector file .*required, got")


def test_a_missing_file_and_a_folder_are_named(tmp_path: Path) -> None:
    assert_refused(tmp_path / "nowhere", "a detector file required, got nothing")
    assert_refused(tmp_path, "a detector file required, got a folder")


def test_a_newer_format_is_refused_with_what_reads_it(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "newer.safetensors"
    write_changed(saved, path, lambda header, _: header.update(format=FORMAT + 1, network="told otherwise"))
    assert_refused(path, f"format {FORMAT} or older required, got format {FORMAT + 1}; a newer fastcutpaste reads it")


def set_detector(**settings: object) -> Callable[[dict[str, Any], dict[str, Tensor]], object]:
    return lambda header, _: header["detector"].update(settings)


CHANGES: dict[str, Callable[[dict[str, Any], dict[str, Tensor]], object]] = {
    "no format": lambda header, _: header.pop("format"),
    "a format in words": lambda header, _: header.update(format="one"),
    "no network": lambda header, _: header.pop("network"),
    "no detector": lambda header, _: header.pop("detector"),
    "no threshold": lambda header, _: header.pop("threshold"),
    "no typical": lambda header, _: header.pop("typical"),
    "a threshold that its rate does not make": lambda header, _: header.update(threshold=1.5),
    "a threshold by hand that is none": lambda header, _: header["calibration"].update(rate=None, scores=["high"]),
    "held-out scores that do not rise": lambda header, _: header["calibration"].update(scores=[2.0, 1.0]),
    "no rate": lambda header, _: header["calibration"].pop("rate"),
    "a null threshold": lambda header, _: header.update(threshold=None),
    "an unknown backbone": lambda header, _: header["network"].update(backbone="resnet19"),
    "an unknown stage": lambda header, _: header["network"].update(stage="layer9"),
    "an unknown setting": set_detector(magic=1),
    "a setting of another type": set_detector(size=5),
    "a setting out of bounds": set_detector(patch=999),
    "a missing weight": lambda _, tensors: tensors.pop("network.backbone.extractor.conv1.weight"),
    "a weight too many": lambda _, tensors: tensors.update({"network.more": torch.zeros(1)}),
    "a weight of another shape": lambda _, tensors: tensors.update({"network.mean": torch.zeros(4)}),
    "no density": lambda _, tensors: [tensors.pop(f"density.{name}") for name in ("mean", "whitening", "offset")],
    "a missing density tensor": lambda _, tensors: tensors.pop("density.mean"),
    "a mean of another width": lambda _, tensors: tensors.update({"density.mean": torch.zeros(5)}),
    "a whitening of another width": lambda _, tensors: tensors.update({"density.whitening": torch.eye(5)}),
    "an offset of another width": lambda _, tensors: tensors.update({"density.offset": torch.zeros(5)}),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_with_wrong_contents_is_refused(change: str, saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "changed.safetensors"
    write_changed(saved, path, CHANGES[change])
    assert_refused(path, "a whole detector file required, got one ")


def test_a_changed_copy_loads_where_nothing_is_wrong(saved: Path, tmp_path: Path) -> None:
    path = tmp_path / "changed.safetensors"
    write_changed(saved, path, lambda header, _: header.update(typical=1.5))
    assert Detector.load(path).typical == 1.5


@pytest.mark.parametrize(("version", "missing"), OLD)
def test_a_file_from_before_a_setting_existed_is_read_as_one_without(
    version: int, missing: tuple[str, ...], saved: Path, tmp_path: Path
) -> None:
    old = tmp_path / "old.safetensors"

    def age(header: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        header["format"] = version
        del header["calibration"]
        for name in missing:
            del header["detector"][name]

    write_changed(saved, old, age)
    assert Detector.load(old).calibration == Calibration(threshold=Detector.load(saved).threshold)
    assert Detector.load(old).config == Detector.load(saved).config == PATCHES
