"""Images at their own scale, of any sizes: resident as they are, or read when asked for, and crops of them."""

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from fastcutpaste.images.batches import index_batches, loaded
from fastcutpaste.images.decode import in_threads, peek, say_losses
from fastcutpaste.images.readable import read_original
from fastcutpaste.images.seeds import seed_of

_CROPS = 11  # what the seeds of this module are for
Place = tuple[int, float, float]  # an image, and where in it a crop is, 0–1 from the top and from the left


def load_originals(paths: Sequence[Path], bits: int | None, progress: bool = False) -> list[Tensor]:
    """Read files at their own scale, in threads, and say once what was lost in them."""
    read = in_threads("load_originals", lambda path: read_original(path, bits), paths, None, progress)
    say_losses([notes for _, notes in read], paths)
    return [as_tensor(pixels) for pixels, _ in read]


def as_tensor(pixels: NDArray[np.uint8]) -> Tensor:
    """Give pixels (3, H, W) as a tensor that shares their memory."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*not writable.*")  # a grey image seen as three: nothing writes to it
        return torch.from_numpy(pixels)


def bytes_of(paths: Sequence[Path]) -> int:
    """Give how many bytes the pixels of files take at their own scale."""
    looks = in_threads("bytes_of", peek, paths, None, False)
    return sum(height * width * (1 if mode in ("1", "L") else 3) for (height, width), mode in looks)


class Originals(Sequence[Tensor]):
    """Read image files (3, H, W) at their own scale, each anew when it is asked for.

    Attributes:
        losses: what each file lost when it was last read here, as `say_losses` takes it; a process has its own.
    """

    def __init__(self, paths: Sequence[Path], bits: int | None = None) -> None:
        self.paths, self.bits = tuple(paths), bits
        self.losses: list[list[str]] = [[] for _ in self.paths]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index):  # type: ignore[no-untyped-def]
        pixels, self.losses[index] = read_original(self.paths[index], self.bits)
        return as_tensor(pixels)


class Crops(Dataset[Tensor]):
    """Cut crops of a size (height, width) out of images (3, H, W)."""

    def __init__(self, images: Sequence[Tensor], size: tuple[int, int]) -> None:
        self.images, self.size = images, size

    def __getitem__(self, place: Place) -> Tensor:
        """Give a crop (3, height, width), all of which in an image are equally likely where the place is."""
        (index, down, right), (height, width) = place, self.size
        image = self.images[index]
        top, left = (int(part * (image.shape[1 + i] - self.size[i] + 1)) for i, part in enumerate((down, right)))
        return image[:, top : top + height, left : left + width].contiguous()


def crop_batches(
    crops: Crops,
    batch_size: int,
    device: torch.device,
    *,
    seed: int,
    start: int = 0,
    share: tuple[int, int] = (0, 1),
    among: Tensor | None = None,
) -> Iterator[Tensor]:
    """Give batches of random crops without end, one of each image an epoch, in the order of `index_batches`.

    Args:
        crops: of resident images, or of such as are read when asked for, which processes do then.
        batch_size: number of crops B in a batch.
        device: where the batches are wanted.
        seed: as for `index_batches`, and so are start and share; it decides where the crops are, too.
        among: int64 (M,), which of the images to take; None: all.

    Returns:
        An endless iterator of uint8 (B, 3, height, width).
    """
    among = torch.arange(len(crops.images)) if among is None else among
    part, parts = share
    size = batch_size // parts

    def places() -> Iterator[list[Place]]:
        for step, index in enumerate(index_batches(len(among), batch_size, seed=seed, start=start, share=share), start):
            generator = torch.Generator().manual_seed(seed_of(seed, _CROPS, step))
            draws = torch.rand(batch_size, 2, generator=generator)[part * size : (part + 1) * size]
            yield [
                (int(among[i]), down, right) for i, (down, right) in zip(index.tolist(), draws.tolist(), strict=True)
            ]

    if isinstance(crops.images, Originals):
        return loaded(crops, places(), device)
    return (torch.stack([crops[place] for place in some]).to(device) for some in places())
