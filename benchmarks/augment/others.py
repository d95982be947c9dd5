"""How others do the op's work: 3-way CutPaste with jitter, from images to normalized tensors, each in its own form.

None of them has CutPaste. `v2_three_way` writes it with torchvision's functions for one tensor, as `three_way_pil` of
the tests does for one PIL image. kornia is asked for the nearest thing it has.
"""

import math
import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms import v2

from fastcutpaste.networks.backbone import IMAGENET_MEAN, IMAGENET_STD

JITTER = v2.ColorJitter(0.1, 0.1, 0.1, 0.1)
TO_NORMALIZED = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(IMAGENET_MEAN, IMAGENET_STD)])


def v2_three_way(image: Tensor, rng: random.Random) -> tuple[Tensor, Tensor, Tensor]:
    """Give one uint8 image (3, H, W), its CutPaste and its scar, normalized, with torchvision v2's functions."""
    return TO_NORMALIZED(image), TO_NORMALIZED(_v2_cutpaste(image, rng)), TO_NORMALIZED(_v2_scar(image, rng))


def _v2_crop(image: Tensor, height: int, width: int, rng: random.Random) -> Tensor:
    top, left = rng.randint(0, image.shape[1] - height), rng.randint(0, image.shape[2] - width)
    return v2.functional.crop(image, top, left, height, width)


def _v2_cutpaste(image: Tensor, rng: random.Random) -> Tensor:
    area = rng.uniform(0.02, 0.15) * image.shape[1] * image.shape[2]
    aspect = math.exp(rng.uniform(math.log(0.3), math.log(3.3)))
    height = min(image.shape[1], max(1, round(math.sqrt(area * aspect))))
    width = min(image.shape[2], max(1, round(math.sqrt(area / aspect))))
    patch, pasted = JITTER(_v2_crop(image, height, width, rng)), image.clone()
    _v2_crop(pasted, height, width, rng).copy_(patch)  # a crop is a view
    return pasted


def _v2_scar(image: Tensor, rng: random.Random) -> Tensor:
    width, length = rng.randint(2, 16), rng.randint(10, 25)
    patch = JITTER(_v2_crop(image, length, width, rng))
    covered = torch.ones(1, length, width, dtype=torch.uint8, device=image.device)
    angle = rng.uniform(-45, 45)
    patch, covered = (v2.functional.rotate(part, angle, expand=True) for part in (patch, covered))
    pasted = image.clone()
    target = _v2_crop(pasted, *patch.shape[1:], rng)
    target.copy_(torch.where(covered > 0, patch, target))
    return pasted


def kornia_nearest(images: Tensor) -> Callable[[], Tensor]:
    """Give kornia's nearest composition on uint8 (B, 3, H, W), normalized.

    It makes the images, the images jittered and cut-mixed with one another, and the images with a rectangle erased: no
    turned strip, no patch from the image itself, and the jitter is of whole images.
    """
    from kornia import augmentation as K

    device = images.device
    normal = K.Normalize(torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)).to(device)
    jitter = K.ColorJiggle(0.1, 0.1, 0.1, 0.1, p=1.0).to(device)
    mix = K.RandomCutMixV2(data_keys=["input", "class"], p=1.0).to(device)
    labels = torch.zeros(len(images), device=device)
    strip = K.RandomErasing(scale=(0.002, 0.006), ratio=(0.1, 1.0), p=1.0).to(device)

    def call() -> Tensor:
        unit = images.float() / 255
        mixed: Any = mix(jitter(unit), labels)[0]
        result: Tensor = normal(torch.cat([unit, mixed, strip(unit)]))
        return result

    return call


def dali_three_way(images: Tensor) -> Callable[[], object]:
    """Give a DALI pipeline of this library's adapter on uint8 (B, 3, H, W), handed over once a run from memory."""
    from nvidia.dali import fn, pipeline_def, types

    from fastcutpaste.adapters.dali import cutpaste, cutpaste_scar

    on_gpu = images.device.type == "cuda"
    samples = [image.permute(1, 2, 0).contiguous().cpu().numpy() for image in images]  # (H, W, 3)

    @pipeline_def(batch_size=len(images), num_threads=torch.get_num_threads(), device_id=0 if on_gpu else None, seed=0)  # type: ignore[untyped-decorator]
    def pipeline() -> Any:
        normal = fn.external_source(lambda: samples, layout="HWC")
        normal = normal.gpu() if on_gpu else normal
        mean, std = ([255 * value for value in values] for values in (IMAGENET_MEAN, IMAGENET_STD))
        three = (normal, cutpaste(normal)[0], cutpaste_scar(normal)[0])
        return tuple(
            fn.crop_mirror_normalize(each, dtype=types.FLOAT, output_layout="CHW", mean=mean, std=std) for each in three
        )

    built = pipeline()
    built.build()
    return built.run
