"""What a training run reads: which images it learns from, which set the threshold, and where their pixels are."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor

from fastcutpaste.console import people
from fastcutpaste.images.batches import RESIDENT_SHARE, ImageFiles, fits, free_bytes, image_batches, stream_batches
from fastcutpaste.images.dali_batches import dali_batches, has_dali
from fastcutpaste.images.decode import find_bits, in_threads, load_images, peek
from fastcutpaste.images.folders import find_calibration_images, find_training_images
from fastcutpaste.images.hold_out import How, groups_of, hold_out, spans
from fastcutpaste.images.looks import Looks, differences
from fastcutpaste.images.pages import all_pages
from fastcutpaste.images.readable import Unread, find_unread
from fastcutpaste.images.tree import folders_in, is_good, page_of
from fastcutpaste.scoring.fitting import Images
from fastcutpaste.training.recipe import Batches
from fastcutpaste.training.step import TrainConfig

_LOOKED_AT = 64  # streamed images, to see whether they differ


class Aside(NamedTuple):
    """Hold how images for the threshold are asked for; None where nothing is.

    Attributes:
        calibration: a folder of them.
        how: they are held out.
        share: that is held out.
        group: pattern of groups that stay together.
    """

    calibration: Path | None = None
    how: How | None = None
    share: float | None = None
    group: str | None = None


class Split(NamedTuple):
    """Hold indices of the images that one detector learns from, and of those that set its threshold, both rising."""

    learned: Tensor
    held_out: Tensor


@dataclass(frozen=True)
class Chosen:
    """Hold the files of a run, how its detectors split them, by which rule, and those passed over as unreadable."""

    paths: tuple[Path, ...]
    splits: tuple[Split, ...]
    rule: dict[str, Any]
    unread: tuple[Unread, ...] = ()

    def held_out(self, member: int) -> dict[str, Any]:
        """Tell what a detector has not seen, as a checkpoint keeps it."""
        return self.rule | {"images": spans(self.splits[member].held_out)}

    @property
    def seen(self) -> tuple[Path, ...]:
        """Files that some detector learns from."""
        return self._any([split.learned for split in self.splits])

    @property
    def unseen(self) -> tuple[Path, ...]:
        """Files that some detector has held out."""
        return self._any([split.held_out for split in self.splits])

    def _any(self, indices: Sequence[Tensor]) -> tuple[Path, ...]:
        return tuple(self.paths[i] for i in sorted(set(torch.cat(list(indices)).tolist())))


def choose_images(
    root: Path, found: tuple[Path, ...], aside: Aside, count: int, seed: int, skip_unreadable: bool = False,
    pages: bool = False,
) -> Chosen:  # fmt: skip
    """Choose what each of `count` detectors learns from, and what sets its threshold.

    Those of a folder, if one is asked for, or if MVTec AD 2's `validation/good` lies in the root and nothing else is
    asked for; then all detectors learn from all images. Otherwise each detector holds out another part.

    Where unreadable files are to be skipped, all are decoded once to know them. With `pages`, those of a file
    of several are images of their own.

    Raises:
        ValueError: both ways asked for, images on both sides, and as `hold_out` and `groups_of` do; files that cannot
            be read, all of them named, or where they are skipped, no others.
    """
    found = all_pages(found) if pages else found
    found, unread = _readable(found) if skip_unreadable else (found, ())
    asked = any(value is not None for value in (aside.how, aside.share, aside.group))
    if aside.calibration is not None:
        if asked:
            raise ValueError("--calibration: without --hold-out, --held-out and --group required, got both: either "
                             "images of a folder set the threshold, or held-out ones")  # fmt: skip
        own: tuple[Path, ...] = _plain(aside.calibration)
    else:
        kept = None if asked else find_calibration_images(root)
        own = kept.paths if kept else ()
    if own:
        own = all_pages(own) if pages else own
        if skip_unreadable:
            own, more = _readable(own)
            unread += more
        known = {path.resolve() for path in found}
        if twice := [path for path in own if path.resolve() in known]:
            raise ValueError(f"--calibration: images other than those to learn from required, got {len(twice)} of "
                             f"these, the first of them {twice[0]}")  # fmt: skip
        split = Split(torch.arange(len(found)), torch.arange(len(found), len(found) + len(own)))
        return Chosen((*found, *own), (split,) * count, {"how": "folder"}, unread)
    groups = None if aside.group is None else groups_of(found, aside.group)
    with naming_all(found):
        looks = in_threads("train", peek, found, None, False)
    how, share = aside.how or "blocks", 0.2 if aside.share is None else aside.share
    splits = [
        Split(*hold_out(found, share, how=how, groups=groups, looks=looks, fold=fold, seed=seed))
        for fold in range(count)
    ]
    return Chosen(found, tuple(splits), {"how": how, "share": share, "group": aside.group}, unread)


def _readable(paths: tuple[Path, ...]) -> tuple[tuple[Path, ...], tuple[Unread, ...]]:
    """Decode files; give those that can be read, and the others."""
    unread = tuple(find_unread(paths))
    lost = {one.path for one in unread}
    if len(lost) == len(paths):
        raise ValueError(f"--skip-unreadable: images that can be read required, got none of {len(paths)} (first: "
                         f"{unread[0].error})")  # fmt: skip
    return tuple(path for path in paths if path not in lost), unread


@contextmanager
def naming_all(paths: Sequence[Path]) -> Iterator[None]:
    """Where one of the files cannot be read, name all that cannot."""
    try:
        yield
    except ValueError as error:
        unread = find_unread(paths)
        if not unread:
            raise
        raise ValueError(refusal(unread, len(paths))) from error


def refusal(unread: Sequence[Unread], count: int) -> str:
    told = "; ".join(one.error for one in unread)
    return (f"train: images that can be read required, got {len(unread)} of {count} that cannot; "
            f"--skip-unreadable trains without them: {told}")  # fmt: skip


def tell_choice(chosen: Chosen, bits: int | None = None) -> None:
    """Say which images set the threshold, and what sets them apart from those to learn from."""
    for one in chosen.unread:
        people.print(f"skipped: {one.error}", markup=False)
    held_out, how = chosen.splits[0].held_out, chosen.rule["how"]
    if how == "folder":
        folder = chosen.paths[int(held_out[0])].parent
        people.print(f"{len(held_out)} images of {folder} set the threshold", markup=False)
    else:
        whose = "each detector holds out other ones" if len(chosen.splits) > 1 else "held out of training"
        ways = {"blocks": "blocks over the whole folder", "last": "the last of the folder", "random": "drawn at random"}
        together = ", whole groups" if chosen.rule["group"] else ""
        people.print(f"{len(chosen.unseen)} of {len(chosen.paths)} images set the threshold, {whose}: "
                     f"{ways[how]}{together}")  # fmt: skip
    with naming_all(chosen.paths):
        aside, learned = Looks.of(chosen.unseen, bits), Looks.of(chosen.seen, bits)
    unlike = differences(aside, learned)
    if unlike:
        people.print(f"note: the images for the threshold differ from those to learn from: {'; '.join(unlike)}",
                     markup=False)  # fmt: skip
    elif unlike := differences(learned, aside):
        people.print(f"note: the images to learn from differ from those for the threshold: {'; '.join(unlike)}",
                     markup=False)  # fmt: skip
    if unlike:
        people.print("note: the threshold holds for images like those that set it; --hold-out blocks, --group or "
                     "--calibration choose others")  # fmt: skip


@dataclass(frozen=True)
class TrainingImages:
    """Hold what a run learns from: files, their pixels where they are resident, and how each detector splits them.

    Those that were passed over, since they cannot be read, are kept by name.
    """

    files: ImageFiles
    pixels: Tensor | None  # uint8 (N, 3, H, W) on the device; None: streamed
    splits: tuple[Split, ...]
    decoder: str = "Pillow"  # or DALI
    unread: tuple[Unread, ...] = ()

    def batches(self, member: int, config: TrainConfig, device: torch.device) -> Batches:
        """Give what a detector learns from, batch after batch."""
        learned = self.splits[member].learned
        if self.pixels is not None:
            give: Any = partial(image_batches, self.pixels, config.batch, seed=config.seed, among=learned)
        else:
            files = ImageFiles([self.files.paths[i] for i in learned.tolist()], self.files.size, self.files.bits)
            stream = dali_batches if self.decoder == "DALI" else stream_batches
            give = partial(stream, files, config.batch, device, seed=config.seed)

        def batches(start: int, share: tuple[int, int]) -> Iterator[Tensor]:
            given: Iterator[Tensor] = give(start=start, share=share)
            return given

        return batches

    def for_fitting(self, member: int, device: torch.device) -> tuple[Images, Images]:
        """Give a detector's images for the density and for the threshold: of streamed ones, as many as fit."""
        (learned, held_out), kept = self.splits[member], self._fitting(member, device)
        if self.pixels is None:
            people.print(f"{len(kept.learned)} of {len(learned)} images fit into memory, for the density, and "
                         f"{len(kept.held_out)} of {len(held_out)}, for the threshold")  # fmt: skip
        return self._read(kept.learned, device), self._read(kept.held_out, device)

    def for_threshold(self, member: int, device: torch.device) -> tuple[Tensor, Images]:
        """Give the indices of a detector's images for the threshold, and these: of streamed ones, as many as fit."""
        held_out = self._fitting(member, device).held_out
        return held_out, self._read(held_out, device)

    def _fitting(self, member: int, device: torch.device) -> Split:
        """Give what is read for the density and the threshold; this one first, since each image counts for it."""
        learned, held_out = self.splits[member]
        if self.pixels is not None:
            return Split(learned, held_out)
        height, width = self.files.size
        room = max(4, int(RESIDENT_SHARE * free_bytes(device)) // (3 * height * width))
        held_out = _spaced(held_out, room // 2)
        return Split(_spaced(learned, room - len(held_out)), held_out)

    def _read(self, indices: Tensor, device: torch.device) -> Tensor:
        """Give images (M, 3, H, W): resident ones that are neighbours as they lie, others as a copy."""
        if self.pixels is not None:
            first, last = int(indices[0]), int(indices[-1])
            together = last - first + 1 == len(indices)
            return self.pixels[first : last + 1] if together else self.pixels[indices.to(self.pixels.device)]
        paths = [self.files.paths[i] for i in indices.tolist()]
        return load_images(paths, self.files.size, bits=self.files.bits, progress=True).pixels.to(device)


def bits_of_all(chosen: Chosen, asked: int | None) -> int | None:
    """Give the bits of all images of a run, those asked for or those that are there, and say so; None: 8 each."""
    with naming_all(chosen.paths):
        found = find_bits(chosen.paths)
    if found is None:
        return None
    bits = asked or found
    there = "" if asked in (None, found) else f", where {found} are there"
    people.print(f"files of more than 8 bits a channel hold values of {bits} bits, 0 to {2**bits - 1}{there}: "
                 "reduced to 8 by this scale, for training and scoring alike; --bits sets another")  # fmt: skip
    return bits


def read_images(
    chosen: Chosen, size: tuple[int, int], read: str, fabric: Fabric, bits: int | None = None
) -> TrainingImages:
    """Read all images onto the device, or leave them to be streamed; say which, and why.

    Raises:
        ValueError: images in which there is nothing to learn: all equal, or each of one color.
    """
    paths, splits, device = chosen.paths, chosen.splits, fabric.device
    if len(splits) == 1:  # put in order, so that no side needs a copy
        learned, held_out = splits[0]
        paths = tuple(paths[i] for i in torch.cat([learned, held_out]).tolist())
        splits = (Split(torch.arange(len(learned)), torch.arange(len(learned), len(paths))),)
    files = ImageFiles(paths, size, bits)
    needed = len(paths) * (1 if len({int(split.held_out[0]) for split in splits}) == 1 else 2)  # for fitting, a copy
    if read in ("stream", "dali") or (read == "auto" and not fits(needed, size, device)):
        why = f"they take more than {RESIDENT_SHARE:.0%} of the free memory" if read == "auto" else "as asked for"
        paged = any(page_of(path)[1] for path in paths)
        if paged and read == "dali":
            raise ValueError("--pages: another --read than dali required, which does not know them")
        gifs = paged or any(path.suffix.lower() == ".gif" for path in paths)  # which DALI does not know
        by_dali = read == "dali" or (
            read == "auto" and device.type == "cuda" and has_dali() and bits in (None, 16) and not gifs
        )
        decoder = "DALI" if by_dali else "Pillow"
        people.print(f"images are streamed from disk and decoded by {decoder}, {why}")
        if lost := find_unread(paths):  # said now, not in the middle of the night
            raise ValueError(refusal(lost, len(paths)))
        some = _spaced(torch.arange(len(paths)), _LOOKED_AT).tolist()
        check_differ(load_images([paths[i] for i in some], size, bits=bits).pixels, [paths[i] for i in some])
        return TrainingImages(files, None, splits, decoder, chosen.unread)
    with naming_all(paths):
        pixels = load_images(
            paths, size, bits=bits, progress=fabric.is_global_zero, memory_format=torch.channels_last
        ).pixels  # (N, 3, H, W)
    check_differ(pixels, paths)
    people.print(f"images are resident on {device}: {pixels.nbytes / 1e6:,.0f} MB")
    return TrainingImages(files, pixels.to(device), splits, unread=chosen.unread)


def _plain(folder: Path) -> tuple[Path, ...]:
    """List the images of a folder, or of `good` in it."""
    inside = folders_in(folder) if folder.is_dir() else []
    return find_training_images(next((one for one in inside if is_good(one.name)), folder)).paths


def check_differ(pixels: Tensor | Sequence[Tensor], paths: Sequence[Path]) -> None:
    """Refuse images (3, H, W) that are all equal, or of one color each; the first that is not ends the look."""
    first = pixels[0]
    alike = all(torch.equal(image, first) for image in pixels)
    if alike or all(torch.equal(image, image[:, :1, :1].expand_as(image)) for image in pixels):
        black = ", all black" if not first.any() and alike else ""
        what = f"{len(paths)} {'equal ones' if alike else 'of one color each'}{black}"
        raise ValueError(f"train: images that differ required, got {what}, the first of them {paths[0]}")


def _spaced(indices: Tensor, most: int) -> Tensor:
    """Give so many of the indices at most, evenly spaced."""
    return indices[:: -(-len(indices) // max(1, most))]
