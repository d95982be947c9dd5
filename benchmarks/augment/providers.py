"""What does the 3-way work, by name: this library's ways, PIL's, and other libraries where they are installed."""

import importlib.util
import random
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from benchmarks.augment import others
from fastcutpaste import CutPaste, CutPaste3Way, CutPasteScar, draw, normalize
from fastcutpaste.networks.backbone import IMAGENET_MEAN, IMAGENET_STD
from tests.reference import one_patch, paste_reference, three_way_pil

MEAN, STD = torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)


def three_way(images: Tensor, task: CutPaste3Way, mean: Tensor, std: Tensor, dtype: torch.dtype) -> Tensor:
    """Do the whole work: uint8 (B, 3, H, W) to normalized (3·B, 3, H, W), on a GPU channels_last."""
    return task.normalized(images, mean, std, dtype)[0]


class ThreeWayPIL(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """Augment PIL images one at a time, as loader workers of the public projects do."""

    def __init__(self, pictures: list[Image.Image], length: int) -> None:
        self.pictures, self.length = pictures, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        return three_way_pil(self.pictures[index % len(self.pictures)], random.Random(index))


class ThreeWayTensor(Dataset[Tensor]):
    """Augment one uint8 tensor at a time with this library, in loader workers too: uint8 (3, C, H, W), a quarter of the
    bytes that cross from worker to trainer; the batch is normalized where it arrives."""

    def __init__(self, images: Tensor, length: int) -> None:
        self.images, self.length, self.task = images, length, CutPaste3Way()

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Tensor:
        return self.task(self.images[index % len(self.images)][None])[0]


def check(images: Tensor) -> None:
    """Refuse to time what is wrong: both transforms must equal the slow reference within one level."""
    for transform in (CutPaste(), CutPasteScar()):
        draws = draw(len(images), images.device)
        patches = transform.patches(draws, *images.shape[-2:])
        pasted = transform(images, draws=draws).cpu()
        for i in range(min(4, len(images))):
            wanted, _ = paste_reference(images[i].cpu().permute(1, 2, 0).numpy(), one_patch(patches, i))
            difference = np.abs(wanted.astype(int) - pasted[i].permute(1, 2, 0).numpy().astype(int))
            if np.mean(difference > 1) > 0.001:
                raise AssertionError(f"{transform}: differs from the reference in {np.mean(difference > 1):.2%}")


def providers(images: Tensor, pictures: list[Image.Image], dtype: torch.dtype) -> dict[str, Callable[[], object]]:
    """Give, by name, what does the 3-way work on the whole batch once; other libraries where they are installed."""
    task, rng = CutPaste3Way(), random.Random(0)
    mean, std = MEAN.to(images.device), STD.to(images.device)
    calls: dict[str, Callable[[], object]] = {
        "fastcutpaste": lambda: three_way(images, task, mean, std, dtype),
        "fastcutpaste, image by image": lambda: [three_way(image[None], task, mean, std, dtype) for image in images],
    }
    if images.device.type == "cuda" or (len(images) == 32 and dtype == torch.float32):  # minutes to compile on a CPU
        compiled = torch.compile(three_way, fullgraph=True)
        calls["fastcutpaste, compiled"] = lambda: compiled(images, task, mean, std, dtype)
    if dtype != torch.float32:
        return calls  # the others know no other type
    calls["PIL"] = lambda: [three_way_pil(picture, rng) for picture in pictures]
    calls["torchvision v2, image by image"] = lambda: [others.v2_three_way(image, rng) for image in images]
    if importlib.util.find_spec("kornia"):
        calls["kornia, nearest composition"] = others.kornia_nearest(images)
    if importlib.util.find_spec("nvidia.dali"):
        calls["fastcutpaste in DALI"] = others.dali_three_way(images)
    return calls


def loader_call(dataset: Dataset[object], workers: int, batch: int = 32) -> Callable[[], object]:
    """Give a call that takes a data set once through a DataLoader whose workers are started, to normalized batches."""
    loader = DataLoader(dataset, batch_size=batch, num_workers=workers, persistent_workers=True)

    def once() -> None:
        for loaded in loader:
            if isinstance(loaded, Tensor):  # uint8 (B, 3, C, H, W)
                normalize(loaded.flatten(0, 1), MEAN, STD)

    return once
