"""CutPaste between kornia's own augmentations: images and the mask of what was pasted go through the same pipeline.

python examples/kornia_pipeline.py
"""

import torch
from kornia.augmentation import AugmentationSequential, Normalize, RandomHorizontalFlip, RandomRotation

from fastcutpaste import CutPaste, CutPasteScar, OneOf
from fastcutpaste.adapters.kornia import KorniaAugmentation
from fastcutpaste.images.textures import make_demo


def main(size: int = 96, batch: int = 16) -> float:
    """Augment one batch of the demo's bricks; give the share of its pixels that were pasted."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    bricks = make_demo("brick", size=size, train_count=batch).train  # uint8 (B, 3, H, W); put your own here
    images = bricks.to(device) / 255  # kornia works on 0–1
    nothing = torch.zeros_like(images[:, :1])  # (B, 1, H, W)

    augment = AugmentationSequential(
        RandomHorizontalFlip(),
        KorniaAugmentation(OneOf(CutPaste(), CutPasteScar()), p=0.5),
        RandomRotation(10.0),  # turns image and mask alike
        Normalize(mean=0.5, std=0.25),  # after the patches: those are cut from 0–1
        data_keys=["input", "mask"],
    ).to(device)
    normalized, mask = augment(images, nothing)
    again, _ = augment(images, nothing, params=augment._params)  # the same draws give the same pixels

    labels = mask.flatten(1).any(1)  # (B,): which images got a patch
    print(f"{int(labels.sum())} of {batch} images got a patch, {mask.mean():.1%} of all pixels were pasted")
    print(f"replayed: {'the same' if torch.equal(normalized, again) else 'other'} pixels")
    return mask.mean().item()


if __name__ == "__main__":
    main()
