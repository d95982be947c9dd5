"""NVIDIA DALI: the defects of any recipe in a pipeline or in dynamic mode, by the library's own op.

`dali` is made of DALI's operators, which have neither noise nor curves nor gradients. Here a batch goes to torch and
back where it lies, by DLPack: nothing passes from a GPU through the host.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.dlpack import from_dlpack, to_dlpack  # type: ignore[attr-defined]

from fastcutpaste.adapters.dali import Node, draw, fn, operators  # type: ignore[attr-defined]
from fastcutpaste.transforms.defect import augmented
from fastcutpaste.transforms.ruled import check_augments


def make_defects(images: Node, maker: nn.Module, *, draws: Node | None = None) -> tuple[Node, Node]:
    """Put the defects of a recipe or any other transform into a batch.

    Args:
        images: (H, W, C) each, all of one size, uint8 0–255 or floating point 0–1, on the CPU or a GPU.
        maker: such as `recipe("nsa")`, a `Defect`, a `Mixture` or a patch transform; what it takes of other images it
            takes of those in the batch.
        draws: (maker.numbers,) uniform numbers in [0, 1) for each image, on the CPU; drawn here if None, from the seed
            of the pipeline or, in dynamic mode, the default generator.

    Returns:
        Images like the given ones and the mask (H, W, 1), bool, of the changed pixels.

    Raises:
        TypeError: no such maker; images that are none of DALI's.
        ValueError: images of several sizes or other axes, what `maker` refuses; of a pipeline as DALI's
            error, when it runs.

    Cost: a copy of the images beside what `maker` takes, so that they lie in one tensor; in a pipeline it needs
        Python's lock.
    """
    check_augments("make_defects", maker)
    ops, _ = operators(images)
    draws = draw(ops, images, int(maker.numbers)) if draws is None else draws  # type: ignore[arg-type]
    if ops is fn:
        made, mask = fn.dl_tensor_python_function(  # type: ignore[misc]
            images, draws.gpu() if images.device == "gpu" else draws, function=partial(_make_of_capsules, maker),
            batch_processing=True, num_outputs=2, output_layouts=["HWC", "HWC"],
        )  # fmt: skip
    elif isinstance(images, ops.Tensor):
        made, mask = (ops.as_tensor(part[0], layout="HWC") for part in _make(maker, [images.torch()], [draws.torch()]))
    else:
        pixels, drawn = ([each.torch() for each in batch.tensors] for batch in (images, draws))
        made, mask = (ops.as_batch(part, layout="HWC") for part in _make(maker, pixels, drawn))
    return made, mask != 0


def _make(maker: nn.Module, images: list[Tensor], draws: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Give images (B, H, W, C) with defects and their masks (B, H, W, 1), uint8, as DALI takes no bool."""
    if images[0].ndim != 3:
        raise ValueError(f"make_defects: images (H, W, C) required, got {tuple(images[0].shape)}")
    if len({image.shape for image in images}) > 1:
        came = ", ".join(f"{height}×{width}" for height, width, _ in {image.shape: 0 for image in images})
        raise ValueError(f"make_defects: images of one size required, got {came}; resize or crop them before")
    pixels = torch.stack(images).permute(0, 3, 1, 2)  # which is channels_last
    made = augmented(maker, pixels, draws=torch.stack(draws).to(pixels.device))
    return made.images.permute(0, 2, 3, 1).contiguous(), made.mask.to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _make_of_capsules(maker: nn.Module, images: list[Any], draws: list[Any]) -> tuple[list[Any], ...]:
    """Do it with what a pipeline gives and takes: a DLPack capsule an image."""
    made = _make(maker, [from_dlpack(each) for each in images], [from_dlpack(each) for each in draws])
    if made[0].is_cuda:
        torch.cuda.current_stream(made[0].device).synchronize()  # DALI goes on in a stream of its own
    return tuple([to_dlpack(each) for each in part] for part in made)
