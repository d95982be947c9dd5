"""Batches without end, in an order that a seed and the step alone decide: of resident images, or read as they come."""

import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from fastcutpaste.images.decode import load_images, usable_cores
from fastcutpaste.images.folders import find_paths
from fastcutpaste.images.seeds import seed_of

_ORDER = 1  # what the seeds of this module are for
RESIDENT_SHARE = 0.5  # of the free memory that resident images may take


def index_batches(
    count: int, batch_size: int, *, seed: int, start: int = 0, share: tuple[int, int] = (0, 1)
) -> Iterator[Tensor]:
    """Give index batches without end: each epoch a fresh permutation, its last batch filled from the next epoch.

    So every batch is full, every index comes once an epoch, and a batch larger than the data set repeats images.

    Args:
        count: number of images N.
        batch_size: number of indices B in a batch.
        seed: at least 0; decides every permutation.
        start: batches to pass over: the step at which training goes on.
        share: (i, n): of each batch, the i-th of n equal parts.

    Returns:
        An endless iterator of int64 (B / n,) on the CPU, in 0…N-1.

    Raises:
        ValueError: count or batch_size below one, a batch that n does not divide.
    """
    if count < 1 or batch_size < 1:
        raise ValueError(f"index_batches: at least 1 image and 1 a batch required, got {count} and {batch_size}")
    part, parts = share
    if batch_size % parts:
        raise ValueError(f"index_batches: a batch that divides by {parts} required, got {batch_size}")
    size = batch_size // parts

    def batches() -> Iterator[Tensor]:
        epoch, rest = divmod(start * batch_size, count)
        ahead = _permutation(count, seed, epoch)[rest:]
        while True:
            while len(ahead) < batch_size:
                epoch += 1
                ahead = torch.cat([ahead, _permutation(count, seed, epoch)])
            yield ahead[part * size : (part + 1) * size]
            ahead = ahead[batch_size:]

    return batches()


def image_batches(
    images: Tensor,
    batch_size: int,
    *,
    seed: int,
    start: int = 0,
    share: tuple[int, int] = (0, 1),
    among: Tensor | None = None,
) -> Iterator[Tensor]:
    """Give batches of resident images without end, in the order of `index_batches`.

    Args:
        images: (N, C, H, W), any type and device, contiguous or channels_last.
        batch_size: number of images B in a batch.
        seed: as for `index_batches`, and so are start and share.
        among: int64 (M,), which of the images to take; None: all.

    Returns:
        An endless iterator of (B, C, H, W): new tensors of the images' type, device and memory format.

    Raises:
        ValueError: images of another shape, no images, batch_size below one.

    Cost:
        One read and one write of the batch. On a CPU core, 32 uint8 images of 3×256×256 take 1.3 ms contiguous,
        0.6 ms channels_last; `images[indices]` takes 9 and 5 ms.
    """
    if images.ndim != 4:
        raise ValueError(f"image_batches: images (N, C, H, W) required, got {tuple(images.shape)}")
    count = len(images) if among is None else len(among)
    indices = index_batches(count, batch_size, seed=seed, start=start, share=share)
    if among is not None:
        indices = map(among.cpu().__getitem__, indices)
    pixels_last = None if images.is_contiguous() else images.permute(0, 2, 3, 1)  # (N, H, W, C)

    def batches() -> Iterator[Tensor]:
        for index in indices:
            # Pinned, the few bytes of the index do not make the host wait for the device.
            here = index.pin_memory().to(images.device, non_blocking=True) if images.is_cuda else index
            if pixels_last is None:
                yield images.index_select(0, here)
            else:
                yield pixels_last.index_select(0, here).permute(0, 3, 1, 2)  # (B, C, H, W)

    return batches()


class ImageFiles(Dataset[Tensor]):
    """Decode image files when they are asked for.

    Args:
        paths: N files.
        size: (height, width) every image is resized to, pixels.
        bits: as for `load_images`.
    """

    def __init__(self, paths: Sequence[Path], size: tuple[int, int], bits: int | None = None) -> None:
        self.paths, self.size, self.bits = tuple(paths), size, bits

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        """Give one image, uint8 (3, H, W), as `load_images` does; what is lost in it is not said anew each epoch."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return load_images([self.paths[index]], self.size, bits=self.bits, workers=1).pixels[0]


def stream_batches(
    files: ImageFiles,
    batch_size: int,
    device: torch.device,
    *,
    seed: int,
    workers: int | None = None,
    start: int = 0,
    share: tuple[int, int] = (0, 1),
) -> Iterator[Tensor]:
    """Read batches from files without end, in the order of `index_batches`, while the device works on earlier ones.

    Args:
        files: the images.
        batch_size: number of images B in a batch.
        device: where the batches are put; to a GPU they are copied from pinned memory without waiting.
        seed: as for `index_batches`, and so are start and share.
        workers: processes that decode; None: one for each core of this process but one.

    Returns:
        An endless iterator of uint8 (B, 3, H, W).

    Raises:
        ValueError: no images, batch_size below one, a file that cannot be read.
    """
    indices = index_batches(len(files), batch_size, seed=seed, start=start, share=share)
    return loaded(files, (index.tolist() for index in indices), device, workers)


def loaded(
    files: Dataset[Tensor], keys: Iterator[list[Any]], device: torch.device, workers: int | None = None
) -> Iterator[Tensor]:
    """Give batches of what a data set has under lists of keys, read by processes ahead of need, as `stream_batches`."""
    count = max(1, usable_cores() - 1) if workers is None else workers
    loader = DataLoader(
        files,
        batch_sampler=keys,
        num_workers=count,
        pin_memory=device.type == "cuda",
        prefetch_factor=4 if count else None,
    )

    def batches() -> Iterator[Tensor]:
        try:
            for batch in loader:
                yield batch.to(device, non_blocking=True)
        except ValueError as error:  # from a process that decodes: its whole traceback, the message last
            message = str(error).strip().splitlines()[-1]
            raise ValueError(message.removeprefix("ValueError: ")) from None

    return batches()


def fits(count: int, size: tuple[int, int], device: torch.device) -> bool:
    """Tell whether `count` uint8 images of three channels and this (height, width) leave room on a device."""
    return count * 3 * size[0] * size[1] <= RESIDENT_SHARE * free_bytes(device)


def free_bytes(device: torch.device) -> int:
    """Give how many bytes can still be allocated on a device, as far as the system tells."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    info = Path("/proc/meminfo")
    if info.is_file():
        available = next(
            line for line in info.read_text(encoding="utf-8").splitlines() if line.startswith("MemAvailable")
        )
        free = int(available.split()[1]) * 1024
    else:
        free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    if (
        limit.is_file() and limit.read_text(encoding="utf-8").strip() != "max"
    ):  # a container may have less than its machine
        free = min(free, int(limit.read_text(encoding="utf-8")) - int(used.read_text(encoding="utf-8")))
    return free


def _permutation(count: int, seed: int, epoch: int) -> Tensor:
    """Draw the order of an epoch on the CPU: one order for all devices."""
    return torch.randperm(count, generator=torch.Generator().manual_seed(seed_of(seed, _ORDER, epoch)))


def load_textures(folder: str | Path, side: int = 256) -> Tensor:
    """Read all images in a folder, and those in it, as textures that defects are made of.

    Args:
        folder: such as that of the Describable Textures Dataset.
        side: to which each is resized, pixels; keeping 5,640 of 256 takes 1.1 GB.

    Returns:
        (N, 3, side, side) uint8, what `Textures` and the recipes `draem` and `memseg` take.

    Raises:
        ValueError: a folder that is missing or empty, the first image that cannot be read.
    """
    return load_images(find_paths(Path(folder)), side).pixels
