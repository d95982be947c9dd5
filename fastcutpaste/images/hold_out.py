"""What is held out: which normal images set the threshold, and which are learned from."""

import re
from collections import Counter
from collections.abc import Hashable, Sequence
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

from fastcutpaste.images.seeds import seed_of

if TYPE_CHECKING:  # a folder is listed without torch
    from torch import Tensor

How: TypeAlias = Literal["blocks", "last", "random"]
HOWS: tuple[How, ...] = get_args(How)

_BLOCKS = 8  # that what is held out of a kind of images lies in, at most
_FEW = 3  # images that make a kind of their own
_MOST_KINDS = 64
_DRAW = 4  # what the seeds of this module are for


def hold_out(
    files: int | Sequence[str | Path],
    share: float = 0.2,
    *,
    how: How = "blocks",
    groups: Sequence[Hashable] | None = None,
    looks: Sequence[Hashable] | None = None,
    fold: int = 0,
    seed: int = 0,
) -> "tuple[Tensor, Tensor]":
    """Choose the normal images that are kept out of training, to set the threshold on.

    Blocks: up to 8 runs of neighbours, spread evenly over all images in their order. Neighbours are often photographs
    of one object, and an object on both sides would make the threshold too low; blocks at many places have every
    camera, shift and lot on both sides. Images whose names begin alike (`prefix_of`) and that look alike are a kind of
    their own, if there are 3 of it at least; of each kind, as far as the share has room for it, some are held out.

    The folds, 0 to about 1 / share - 1, hold out other images each, and together all; only where a fold would have
    none of a kind, it shares one with another fold.

    Args:
        files: N files in the order in which they were made, or as far as known their names' order; or N alone.
        share: of the images to hold out, above 0 and below 1; at least 1 image, at most N - 2. Of whole groups, where
            there are some: as many images as these have.
        how: "blocks"; "last", the end of the folder, as fits images sorted by time that shall stand for later ones;
            "random", where images do not depend on their neighbours.
        groups: N names, such as the part that an image shows: what has one name is never on both sides.
        looks: N values, equal for images that look alike, such as their size.
        fold: which part; counted on from the first one after the last.
        seed: of the random order.

    Returns:
        Indices of the images to learn from, and of those held out: int64, rising, in 0…N-1.

    Raises:
        ValueError: fewer than 3 images, a share out of bounds, another number of groups or looks, a single group,
            groups that leave fewer than 2 images to learn from, a fold or a seed below 0, another `how`.
    """
    import torch

    names = [Path(file) for file in files] if not isinstance(files, int) else None
    count = files if isinstance(files, int) else len(files)
    _check(count, share, how, groups, looks, fold, seed)
    units = _united(groups if groups is not None else range(count))  # of images that stay together
    most = len(units) - (2 if groups is None else 1)
    wanted = min(max(1, round(len(units) * share)), most)
    folds = max(2, round(1 / share), 1 + ceil((len(units) - wanted) / most))
    if how == "random":
        drawn = torch.randperm(len(units), generator=torch.Generator().manual_seed(seed_of(seed, _DRAW)))
        units = [units[i] for i in drawn.tolist()]
    if how == "blocks":
        kinds = [
            (prefix_of(names[unit[0]]) if names else "", looks[unit[0]] if looks is not None else None)
            for unit in units
        ]
        strata, named = _strata(kinds, wanted)
    else:
        strata, named = [list(range(len(units)))], 1
    held_out = {
        image
        for chosen in _folded(strata, named, wanted, folds, fold % folds, how)
        for image in units[chosen]
    }  # fmt: skip
    learned = [i for i in range(count) if i not in held_out]
    if len(learned) < 2:
        raise ValueError(f"hold_out: groups that leave at least 2 images to learn from required, got {len(learned)}")
    return torch.tensor(learned), torch.tensor(sorted(held_out))


def groups_of(paths: Sequence[Path], pattern: str) -> list[str]:
    """Name each image's group: what a regular expression finds in its path, its first bracket's if it has any.

    Raises:
        ValueError: not a regular expression; images in which nothing is found, or all of one group.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"groups_of: a regular expression required, got {pattern!r}: {error}") from error
    found = [expression.search(path.as_posix()) for path in paths]
    names = [match and match.group(1 if expression.groups else 0) for match in found]
    without = [path for path, name in zip(paths, names, strict=True) if not name]
    if without:
        raise ValueError(f"groups_of: a pattern that finds a group in every path required, got {pattern!r}, which "
                         f"finds none in {len(without)} of {len(paths)}, the first of them {without[0]}")  # fmt: skip
    groups = [name for name in names if name]
    if len(set(groups)) == 1:
        raise ValueError(f"groups_of: at least 2 groups required, got one, {groups[0]!r}, in all {len(paths)} paths "
                         f"with the pattern {pattern!r}")  # fmt: skip
    return groups


def prefix_of(path: Path) -> str:
    """Give a file's name without what counts: "camera2_" of camera2_0013.png, "_dark" of 0013_dark.png."""
    shorter = re.sub(r"[0-9]+[^0-9a-zA-Z]*$", "", path.stem)
    return shorter if shorter != path.stem else re.sub(r"^[0-9]+", "", path.stem)


def spans(indices: "Tensor") -> str:
    """Write rising indices in a few words: "3-5, 9"."""
    parts: list[list[int]] = []
    for i in indices.tolist():
        if parts and parts[-1][-1] == i - 1:
            parts[-1] = [parts[-1][0], i]
        else:
            parts.append([i])
    return ", ".join("-".join(map(str, part)) for part in parts)


def _check(
    count: int, share: float, how: str, groups: Sequence[Hashable] | None, looks: Sequence[Hashable] | None, fold: int,
    seed: int,
) -> None:  # fmt: skip
    if not 0 < share < 1:
        raise ValueError(f"hold_out: a share above 0 and below 1 required, got {share}")
    if count < 3:
        raise ValueError(f"hold_out: at least 3 normal images required, got {count}")
    if how not in HOWS:
        raise ValueError(f"hold_out: one of {', '.join(HOWS)} required, got {how!r}")
    if fold < 0 or seed < 0:
        raise ValueError(f"hold_out: a fold and a seed of at least 0 required, got {fold} and {seed}")
    for name, values in (("group", groups), ("look", looks)):
        if values is not None and len(values) != count:
            raise ValueError(f"hold_out: a {name} for each of {count} images required, got {len(values)}")
    if groups is not None and len(set(groups)) < 2:
        raise ValueError(f"hold_out: at least 2 groups required, got one, {groups[0]!r}")


def _united(groups: Sequence[Hashable]) -> list[list[int]]:
    """Give the indices of each group, groups in the order of their first ones."""
    united: dict[Hashable, list[int]] = {}
    for i, group in enumerate(groups):
        united.setdefault(group, []).append(i)
    return list(united.values())


def _strata(kinds: Sequence[Hashable], wanted: int) -> tuple[list[list[int]], int]:
    """Give the indices of each kind that can be represented among so many, the largest kinds first, then of all others.

    Returns:
        The strata, and how many of them have to be represented.
    """
    counts = Counter(kinds)
    large = [kind for kind, count in counts.most_common(min(wanted, _MOST_KINDS)) if count >= _FEW]
    strata: dict[Hashable, list[int]] = {kind: [] for kind in large}
    rest: list[int] = []
    for i, kind in enumerate(kinds):
        strata.get(kind, rest).append(i)
    return [*strata.values(), rest], len(large) or 1


def _folded(strata: list[list[int]], named: int, wanted: int, folds: int, fold: int, how: How) -> list[int]:
    """Give what one fold holds out."""
    strata = [stratum for stratum in strata if stratum]
    chosen, passed = [], 0  # how many were dealt to later folds
    first = _apportioned([len(stratum) for stratum in strata], named, wanted)
    for i, (stratum, firsts) in enumerate(zip(strata, first, strict=True)):
        rest = len(stratum) - firsts
        sizes = [firsts] + [_dealt(passed + rest, folds - 1, j) - _dealt(passed, folds - 1, j)
                            for j in range(folds - 1)]  # fmt: skip
        passed += rest
        labels = _labels(sizes, min(_BLOCKS, max(1, firsts)) if how == "blocks" else 1, how == "last")
        mine = [unit for unit, label in zip(stratum, labels, strict=True) if label == fold]
        chosen += mine if mine or i >= named else [stratum[fold % len(stratum)]]
    return chosen


def _apportioned(sizes: Sequence[int], named: int, wanted: int) -> list[int]:
    """Share out what is wanted by size: to each of the first `named` at least 1, and of several the whole to none."""
    quotas = [size * wanted / sum(sizes) for size in sizes]
    least = [int(i < named) for i in range(len(sizes))]
    most = [size - (len(sizes) > 1 and i < named) for i, size in enumerate(sizes)]
    counts = [max(low, min(high, int(quota))) for low, high, quota in zip(least, most, quotas, strict=True)]
    places = range(len(sizes))
    while sum(counts) < wanted and (open_ := [i for i in places if counts[i] < most[i]]):
        counts[max(open_, key=lambda i: quotas[i] - counts[i])] += 1
    while sum(counts) > wanted and (open_ := [i for i in places if counts[i] > least[i]]):
        counts[max(open_, key=lambda i: counts[i] - quotas[i])] -= 1
    return counts


def _dealt(cards: int, players: int, player: int) -> int:
    """Give how many of so many cards a player has got, dealt one by one."""
    return (cards - player + players - 1) // players


def _labels(sizes: Sequence[int], blocks: int, from_end: bool) -> list[int]:
    """Tell of each image in order which fold has it, `sizes[f]` of fold f in about so many runs of neighbours."""
    folds = len(sizes)
    # The first fold, which is all that a single run uses, lies in the middle of each block, and so of the whole.
    order = range(folds - 1, -1, -1) if from_end else [(i - folds // 2) % folds for i in range(folds)]
    labels = []
    for block in range(blocks):
        for fold in order:
            part = (block + fold) % blocks
            run = (part + 1) * sizes[fold] // blocks - part * sizes[fold] // blocks
            labels += [fold] * run
    return labels
