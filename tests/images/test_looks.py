"""Looks: what sets a lot of images apart is told, and chance is not."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from pictures import write_picture

from fastcutpaste.images.looks import Looks, differences


def write_lot(
    folder: Path, count: int, grey: float = 0.5, spread: float = 0.02, name: str = "{:03d}.png", seed: int = 0,
    shape: tuple[int, ...] = (6, 8),
) -> list[Path]:  # fmt: skip
    """Write even images whose brightness scatters around a grey, 0-1."""
    levels = 255 * np.random.default_rng(seed).normal(grey, spread, count)
    paths = [folder / name.format(i) for i in range(count)]
    for path, level in zip(paths, levels, strict=True):
        write_picture(path, np.full(shape, level, np.uint8))
    return paths


def test_it_counts_and_measures_what_it_looks_at(tmp_path: Path) -> None:
    paths = write_lot(tmp_path, 2, grey=0.2, spread=0, name="camera2_{:04d}.png")
    paths += write_lot(tmp_path, 2, grey=0.6, spread=0, name="{}_left.png", shape=(8, 6, 3))
    looks = Looks.of(paths)
    assert looks == Looks(
        4, pytest.approx(0.4, abs=2e-3), pytest.approx(0.4 / 3**0.5, abs=2e-3), {"6×8": 2, "8×6": 2},
        {"grey": 2, "color": 2}, {"camera2_": 2, "_left": 2},
    )  # fmt: skip
    assert Looks(**json.loads(json.dumps(asdict(looks)))) == looks


def test_of_many_images_evenly_spaced_ones_are_read_and_all_names_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write_lot(tmp_path, 100, name="a{}.png") + write_lot(tmp_path, 100, grey=0.7, name="b{}.png")
    looks = Looks.of(paths)
    assert looks.images == 200
    assert looks.prefixes == {"a": 100, "b": 100}
    assert 32 <= sum(looks.sizes.values()) <= 64
    assert looks.brightness == pytest.approx(0.6, abs=0.01)
    for path in paths[1::4]:
        path.write_bytes(b"broken")  # none of which is looked at
    assert Looks.of(paths) == looks


def test_none_and_what_cannot_be_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Looks\.of: at least 1 image required, got none"):
        Looks.of([])
    with pytest.raises(ValueError, match=r"none\.png"):
        Looks.of([tmp_path / "none.png"])


@pytest.mark.parametrize(("counts", "seeds"), [((4, 16), 40), ((41, 64), 10)])
def test_lots_drawn_from_one_differ_hardly_ever(counts: tuple[int, int], seeds: int, tmp_path: Path) -> None:
    told = []
    for seed in range(seeds):
        one, other = (Looks.of(write_lot(tmp_path, count, seed=2 * seed + i)) for i, count in enumerate(counts))
        told += differences(one, other)
    assert len(told) <= 1


@pytest.mark.parametrize(
    ("strange", "told"),
    [
        ({"grey": 0.4}, "they are darker (mean brightness 0."),
        ({"grey": 0.6}, "they are brighter (mean brightness 0."),
        ({"shape": (12, 16)}, "20 of 20 are 12×16 px, as none of those"),
        ({"shape": (6, 8, 3)}, "20 of 20 are in color, as none of those"),
        ({"name": "line2_{}.png"}, "20 of 20 have names that begin with 'line2_', as none of those"),
    ],
)
def test_what_is_unlike_is_told_and_nothing_else(strange: dict[str, object], told: str, tmp_path: Path) -> None:
    usual = Looks.of(write_lot(tmp_path / "usual", 16))
    unlike = Looks.of(write_lot(tmp_path / "unlike", 20, seed=1, **strange))  # type: ignore[arg-type]
    [difference] = differences(unlike, usual)
    assert difference.startswith(told)
    assert differences(usual, usual) == []


def test_two_cameras_sorted_by_name_are_told_apart(tmp_path: Path) -> None:
    dark = write_lot(tmp_path, 16, grey=0.3, name="a_{:02d}.png")
    bright = write_lot(tmp_path, 4, grey=0.7, name="b_{:02d}.png")
    told = differences(Looks.of(bright), Looks.of(dark))
    assert [one.split()[2] for one in told] == ["brighter", "4"]
    mixed = [*dark[::5], *bright[:1]]
    assert differences(Looks.of(mixed), Looks.of([path for path in dark + bright if path not in mixed])) == []


def test_a_few_strangers_and_sizes_or_names_that_vary_anyway_are_let_pass(tmp_path: Path) -> None:
    usual = Looks.of(write_lot(tmp_path, 20))
    few = replace(usual, sizes={"6×8": 18, "9×9": 2}, prefixes={"": 18, "b": 2})
    assert differences(few, usual) == []
    many = replace(usual, sizes={"6×8": 17, "9×9": 3}, prefixes={"": 17, "b": 2, "c": 1})
    assert differences(many, usual) == [
        "3 of 20 are 9×9 px, as none of those",
        "3 of 20 have names that begin with 'b' and the like, as none of those",
    ]
    free = replace(usual, sizes={f"{i}×9": 1 for i in range(8)}, prefixes={f"word{i}": 2 for i in range(8)})
    assert differences(many, free) == []


def test_one_image_beside_one_is_not_judged_by_its_brightness(tmp_path: Path) -> None:
    one, other = (Looks.of(write_lot(tmp_path, 1, grey=grey)) for grey in (0.2, 0.8))
    assert differences(one, other) == []
