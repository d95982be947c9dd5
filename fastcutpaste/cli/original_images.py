"""What a training run reads at the images' own scale: files of any sizes, of which it learns from crops."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from torch import Tensor

from fastcutpaste.cli.training_images import Chosen, TrainingImages, check_differ, naming_all, read_images, refusal
from fastcutpaste.console import people
from fastcutpaste.images.batches import RESIDENT_SHARE, ImageFiles, free_bytes
from fastcutpaste.images.decode import in_threads, peek
from fastcutpaste.images.originals import Crops, Originals, bytes_of, crop_batches, load_originals
from fastcutpaste.images.readable import find_unread
from fastcutpaste.scoring.config import DetectorConfig
from fastcutpaste.scoring.tiles import check_size
from fastcutpaste.training.recipe import Batches
from fastcutpaste.training.step import TrainConfig


@dataclass(frozen=True)
class OriginalImages(TrainingImages):
    """Hold what a run learns from at its own scale: images (3, H, W) in memory, or read when they are asked for."""

    images: Sequence[Tensor] = ()

    def batches(self, member: int, config: TrainConfig, device: torch.device) -> Batches:
        """Give random crops of what a detector learns from, batch after batch; whole tiles where it learns from these.

        A crop of a crop of its size is itself, so the step cuts no more.
        """
        size = self.files.size if config.crop is None else (config.crop, config.crop)
        crops, among = Crops(self.images, size), self.splits[member].learned

        def batches(start: int, share: tuple[int, int]) -> Iterator[Tensor]:
            return crop_batches(crops, config.batch, device, seed=config.seed, start=start, share=share, among=among)

        return batches

    def for_fitting(self, member: int, device: torch.device) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Give a detector's images for the density and for the threshold."""
        split = self.splits[member]
        return self._of(split.learned), self._of(split.held_out)

    def for_threshold(self, member: int, device: torch.device) -> tuple[Tensor, Sequence[Tensor]]:
        """Give the indices of a detector's images for the threshold, and these."""
        held_out = self.splits[member].held_out
        return held_out, self._of(held_out)

    def _of(self, indices: Tensor) -> Sequence[Tensor]:
        if isinstance(self.images, Originals):
            return Originals([self.files.paths[i] for i in indices.tolist()], self.files.bits)
        return [self.images[i] for i in indices.tolist()]


def check_original(chosen: Chosen, scoring: DetectorConfig, read: str) -> None:
    """Refuse images at their own scale that are too small for what is learned from them, before any is decoded."""
    if scoring.resize:
        return
    if read == "dali":
        raise ValueError("--read dali: images that are resized required, got --size original")
    with naming_all(chosen.paths):
        looks = in_threads("train", peek, chosen.paths, None, False)
    for path, (size, _) in zip(chosen.paths, looks, strict=True):
        check_size(path, size, scoring)


def read_all(chosen: Chosen, scoring: DetectorConfig, read: str, fabric: Fabric) -> TrainingImages:
    """Read all images of a run onto the device, resized or as they are, or leave them to be read in turn."""
    if scoring.resize:
        return read_images(chosen, scoring.size, read, fabric, scoring.bits)
    return _read_originals(chosen, scoring, read, fabric)


def _read_originals(chosen: Chosen, scoring: DetectorConfig, read: str, fabric: Fabric) -> OriginalImages:
    """Read all images as they are, or leave them to be read when they are asked for; say which, and what it takes.

    Raises:
        ValueError: images in which there is nothing to learn, ones that cannot be read.
    """
    files, device = ImageFiles(chosen.paths, scoring.size, scoring.bits), fabric.device
    with naming_all(chosen.paths):
        needed, room = bytes_of(chosen.paths), int(RESIDENT_SHARE * free_bytes(torch.device("cpu")))
    takes = f"{needed / 1e6:,.0f} MB at their own scale, of {room / 1e6:,.0f} that may be taken"
    if read == "stream" or (read == "auto" and needed > room):
        people.print(f"images are read anew for each crop, they take {takes}: slow where they are large")
        if lost := find_unread(chosen.paths):
            raise ValueError(refusal(lost, len(chosen.paths)))
        originals = Originals(chosen.paths, scoring.bits)
        check_differ(originals, chosen.paths)  # of images that differ, it reads a few
        return OriginalImages(files, None, chosen.splits, "Pillow", chosen.unread, originals)
    with naming_all(chosen.paths):
        images = load_originals(chosen.paths, scoring.bits, fabric.is_global_zero)
    check_differ(images, chosen.paths)
    people.print(f"images are kept in memory: they take {takes}")
    return OriginalImages(files, None, chosen.splits, "Pillow", chosen.unread, [image.to(device) for image in images])
