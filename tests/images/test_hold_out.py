"""What is held out: laws over many sizes, and the folders that made them."""

import itertools
import random
from pathlib import Path

import pytest
import torch

from fastcutpaste.images.hold_out import HOWS, groups_of, hold_out, prefix_of, spans

SIZES = [*range(3, 60), 97, 100, 320, 391, 1000]


def files(**counts):
    """Name images as cameras do: dark_00.png, …, each camera's together."""
    return [Path(f"{name}_{i:02d}.png") for name, count in counts.items() for i in range(count)]


def runs_of(indices):
    return spans(indices).split(", ")


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("share", [0.01, 0.1, 0.2, 0.25, 0.3, 0.45, 0.5, 0.6, 0.9, 0.99])
def test_each_image_is_on_one_side_and_the_share_is_what_was_asked_for(how, share):
    for count in SIZES:
        learned, held_out = hold_out(count, share, how=how)
        assert sorted([*learned.tolist(), *held_out.tolist()]) == list(range(count))
        assert len(held_out) == min(max(1, round(count * share)), count - 2)
        assert (learned.diff() > 0).all() and (held_out.diff() > 0).all()  # noqa: PT018
        assert learned.dtype == held_out.dtype == torch.int64


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("share", [0.1, 0.2, 0.25, 0.3, 0.5, 0.9])
def test_folds_hold_out_others_each_and_together_all(how, share):
    for count in SIZES:
        folds = max(2, round(1 / share))
        sides = [hold_out(count, share, how=how, fold=fold) for fold in range(max(3, folds) if count == 3 else folds)]
        seen = [i for _, held_out in sides for i in held_out.tolist()]
        assert set(seen) == set(range(count))
        # Where there are fewer images than folds, a fold without any shares one with another.
        assert len(seen) <= max(count, len(sides) + len(sides[0][1]))
        assert all(len(learned) >= 2 and len(held_out) >= 1 for learned, held_out in sides)
        others = [len(held_out) for _, held_out in sides[1:]]
        assert max(others) - min(others) <= 1
        again = hold_out(count, share, how=how, fold=len(sides))
        assert torch.equal(again[1], sides[0][1])


def test_blocks_are_runs_of_neighbours_spread_over_all():
    for count in range(40, 500):
        _, held_out = hold_out(count)
        runs = runs_of(held_out)
        assert len(runs) == min(8, len(held_out))
        places = [int(run.partition("-")[0]) / count for run in runs]
        for block, place in enumerate(places):  # one in each eighth, but for the rounding
            assert block / 8 - 1 / count <= place <= (block + 1) / 8 + 2 / count, (count, places)
        lengths = [len(range(int(run.split("-")[0]), int(run.split("-")[-1]) + 1)) for run in runs]
        assert max(lengths) - min(lengths) <= 1
    assert spans(hold_out(20)[1]) == "2, 7, 12, 17"
    assert len(runs_of(hold_out(1000)[1])) == 8


def test_the_last_are_the_end_and_each_fold_lies_before_the_one_before_it():
    for count, share in itertools.product(SIZES, (0.1, 0.2, 0.5)):
        learned, held_out = hold_out(count, share, how="last")
        assert torch.equal(torch.cat([learned, held_out]), torch.arange(count))
    assert [spans(hold_out(20, how="last", fold=fold)[1]) for fold in range(5)] == [
        "16-19", "12-15", "8-11", "4-7", "0-3",
    ]  # fmt: skip


def test_random_ones_are_decided_by_the_seed_alone():
    first, same, other = (hold_out(100, how="random", seed=seed)[1] for seed in (0, 0, 1))
    assert torch.equal(first, same)
    assert not torch.equal(first, other)
    assert len(runs_of(first)) > 8
    times = torch.zeros(10)
    for seed in range(600):
        times[hold_out(10, how="random", seed=seed)[1]] += 1
    assert ((times / 600 - 0.2).abs() < 0.07).all()  # 4 standard deviations


def test_two_cameras_are_both_on_both_sides_in_every_fold():
    for dark, bright in itertools.product(range(3, 40, 4), repeat=2):
        named = files(dark=dark, bright=bright)
        for fold in range(5):
            learned, held_out = hold_out(named, fold=fold)
            sides = [{prefix_of(named[i]) for i in side.tolist()} for side in (learned, held_out)]
            wanted = {"dark_", "bright_"} if round((dark + bright) * 0.2) > 1 else sides[1]
            assert sides == [{"dark_", "bright_"}, wanted]
    learned, held_out = hold_out(files(dark=16, bright=4))
    assert [int(i >= 16) for i in held_out] == [0, 0, 0, 1]
    assert spans(hold_out(20)[1]) != spans(held_out)  # without names a camera is one image's luck


def test_a_large_share_leaves_some_of_each_camera_to_learn_from():
    for share in (0.6, 0.8, 0.9):
        named = files(dark=16, bright=4)
        learned, held_out = hold_out(named, share)
        assert {prefix_of(named[i]) for i in learned.tolist()} == {"dark_", "bright_"}
        assert len(held_out) == min(round(20 * share), 18)


def test_of_more_kinds_than_are_held_out_images_some_are_not_represented():
    named = files(**{f"k{chr(97 + i)}": 3 for i in range(26)})
    _, held_out = hold_out(named, 0.1)
    assert len(held_out) == len({prefix_of(named[i]) for i in held_out.tolist()}) == 8


def test_folds_are_alike_in_number_though_kinds_are_small():
    named = files(**{f"k{chr(97 + i)}": 6 for i in range(20)})
    numbers = [len(hold_out(named, fold=fold)[1]) for fold in range(5)]
    assert numbers == [24] * 5


def test_kinds_are_held_out_by_their_share_whatever_their_numbers():
    chance = random.Random(0)
    for _ in range(300):
        counts = {f"k{chr(97 + i)}": chance.randint(1, 60) for i in range(chance.randint(1, 9))}
        named, share = files(**counts), chance.choice([0.1, 0.2, 0.4])
        if len(named) < 3:
            continue
        folds = [hold_out(named, share, fold=fold) for fold in range(max(2, round(1 / share)))]
        wanted = min(max(1, round(len(named) * share)), len(named) - 2)
        assert len(folds[0][1]) == wanted
        large = [name for name, count in counts.items() if count >= 3]
        for learned, held_out in folds:
            for name in large if len(large) <= wanted else []:
                for side in (learned, held_out):
                    assert any(named[i].name.startswith(name) for i in side.tolist()), (counts, share)
        for name in large if len(large) <= wanted else []:
            got = sum(named[i].name.startswith(name) for i in folds[0][1].tolist())
            assert got == 1 or abs(got - counts[name] * share) < 2 + len(counts) - len(large), (counts, share)
        if all(count >= 3 / share for count in counts.values()):  # room for all in each fold: none twice
            assert sum(len(held_out) for _, held_out in folds) == len(named)
        assert {i for _, held_out in folds for i in held_out.tolist()} == set(range(len(named)))


def test_images_of_another_size_are_a_kind_of_their_own():
    looks = [(64, 64)] * 16 + [(32, 32)] * 4
    learned, held_out = hold_out(20, looks=looks)
    assert {looks[i] for i in held_out.tolist()} == {looks[i] for i in learned.tolist()} == set(looks)


def test_names_that_all_differ_are_one_kind():
    named = [Path(f"{word}.png") for word in "abcdefghijklmnopqrstuvwxyz"]
    assert torch.equal(hold_out(named)[1], hold_out(26)[1])


def test_a_group_is_never_on_both_sides():
    chance = random.Random(0)
    for _ in range(300):
        count, parts = chance.randint(6, 80), chance.randint(2, 30)
        groups = [chance.randrange(parts) for _ in range(count)]
        if len(set(groups)) < 2:
            continue
        for how, fold in itertools.product(HOWS, range(5)):
            try:
                learned, held_out = hold_out(count, how=how, groups=groups, fold=fold, seed=fold)
            except ValueError as error:
                assert "at least 2 images to learn from" in str(error)  # noqa: PT017
                continue
            sides = [{groups[i] for i in side.tolist()} for side in (learned, held_out)]
            assert not sides[0] & sides[1]
            assert sides[0] | sides[1] == set(groups)
            if fold == 0:
                assert len(sides[1]) == max(1, round(len(set(groups)) * 0.2))
    groups = [i // 5 for i in range(50)]
    assert spans(hold_out(50, groups=groups)[1]) == "10-14, 35-39"


def test_bad_input_is_refused():
    for share in (0.0, 1.0, float("nan")):
        with pytest.raises(ValueError, match="above 0 and below 1 required, got"):
            hold_out(4, share)
    with pytest.raises(ValueError, match="at least 3 normal images required, got 2"):
        hold_out(2)
    with pytest.raises(ValueError, match="one of blocks, last, random required, got 'first'"):
        hold_out(4, how="first")
    with pytest.raises(ValueError, match="a group for each of 4 images required, got 3"):
        hold_out(4, groups="abc")
    with pytest.raises(ValueError, match="a look for each of 4 images required, got 1"):
        hold_out(4, looks=[1])
    with pytest.raises(ValueError, match="at least 2 groups required, got one, 'a'"):
        hold_out(4, groups="aaaa")
    with pytest.raises(ValueError, match="leave at least 2 images to learn from required, got 1"):
        hold_out(4, how="last", groups="abbb")
    with pytest.raises(ValueError, match="a fold and a seed of at least 0 required, got -1 and 0"):
        hold_out(4, fold=-1)


def test_a_pattern_names_the_groups_by_its_bracket_or_by_all_it_finds():
    paths = [Path(f"data/train/good/part{i // 3}_{i % 3}.png") for i in range(9)]
    assert groups_of(paths, r"part(\d+)_") == [*"000111222"]
    assert groups_of(paths, r"part\d+")[:4] == ["part0"] * 3 + ["part1"]
    assert groups_of(paths, r"good/(part(\d))")[3] == "part1"


def test_a_pattern_that_does_not_make_groups_of_all_is_refused():
    paths = [Path(f"data/part{i}.png") for i in range(4)] + [Path("data/other.png")]
    with pytest.raises(ValueError, match=r"'lot', which finds none in 5 of 5, the first of them data/part0\.png"):
        groups_of(paths, "lot")
    with pytest.raises(ValueError, match=r"which finds none in 1 of 5, the first of them data/other\.png"):
        groups_of(paths, r"part(\d)")
    with pytest.raises(ValueError, match=r"finds none in 5 of 5"):
        groups_of(paths, r"data(x)?")  # a bracket that took no part
    with pytest.raises(ValueError, match="at least 2 groups required, got one, 'data', in all 5 paths"):
        groups_of(paths, "data")
    with pytest.raises(ValueError, match=r"a regular expression required, got 'part\('"):
        groups_of(paths, "part(")


def test_a_prefix_is_a_name_without_what_counts():
    names = {"0013": "", "camera2_0013": "camera2_", "0013_dark": "_dark", "photo (12)": "photo (", "tile": "tile",
             "20240131_120501": "20240131_", "12a": "a", "3b7": "3b"}  # fmt: skip
    for name, prefix in names.items():
        assert prefix_of(Path(f"folder9/{name}.png")) == prefix


def test_spans_tell_neighbours_by_their_ends():
    assert spans(torch.tensor([0, 1, 2, 5, 7, 8])) == "0-2, 5, 7-8"
    assert spans(torch.tensor([], dtype=torch.int64)) == ""
