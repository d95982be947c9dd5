"""Images and patches that are drawn for tests, and what the slow reference makes of them."""

import torch
from reference import one_patch, paste_reference, source_pixels

from fastcutpaste.op.color import Jitter
from fastcutpaste.op.paste import paste
from fastcutpaste.op.placement import Patches


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def random_images(shape, dtype=torch.uint8, seed=0):
    """Draw images; floating ones lie in 0–1."""
    generator = torch.Generator().manual_seed(seed)
    if dtype == torch.uint8:
        return torch.randint(0, 256, shape, generator=generator, dtype=dtype)
    return torch.rand(shape, generator=generator, dtype=torch.float64).to(dtype)


def random_jitter(batch, generator, strength=0.4):
    brightness, contrast, saturation = 1 + strength * (2 * torch.rand(3, batch, generator=generator) - 1)
    hue = torch.rand(batch, generator=generator) - 0.5
    return Jitter(brightness, contrast, saturation, hue, torch.rand(batch, generator=generator))


def random_patches(shape, angle=0.0, jitter=False, seed=1):
    """Draw one patch an image, its source inside the image; `angle` is one number or "any".

    An upright destination lies inside too; that of a turned patch may reach over the border.
    """
    batch, _, height, width = shape
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(batch):
        h, w = (int(torch.randint(1, side + 1, (), generator=generator)) for side in (height, width))
        corners = [int(torch.randint(0, room + 1, (), generator=generator)) for room in (height - h, width - w) * 2]
        if angle != 0:
            corners[2:] = [int(torch.randint(-3, side, (), generator=generator)) for side in (height, width)]
        rows.append([*corners, h, w])
    fields = torch.tensor(rows, dtype=torch.int64).reshape(batch, 6).unbind(1)
    angles = (
        torch.rand(batch, generator=generator) * 360 - 180 if angle == "any" else torch.full((batch,), float(angle))
    )
    return Patches(*fields, angles, random_jitter(batch, generator) if jitter else None)


def patch_at(source, destination, size, angle=0.0, jitter=None):
    """Give the same hand-written patch for a batch of one."""
    fields = [torch.tensor([number]) for number in (*source, *destination, *size)]
    return Patches(*fields, torch.tensor([float(angle)]), jitter)


def take(patches, b):
    """Cut image b's patch out, as a batch of one."""
    return patches.map(lambda field: field[b : b + 1])


def to_numpy(image):
    return image.permute(1, 2, 0).numpy()  # (C, H, W) → (H, W, C)


def expected(images, patches, fill=None):
    """Run the reference image by image: images, masks, and the pixels too close to a tie to be judged."""
    pasted, masks, ties = [], [], []
    for b, image in enumerate(images):
        patch = one_patch(patches, b)
        one, mask = paste_reference(to_numpy(image), patch, None if fill is None else to_numpy(fill[b]))
        pasted.append(torch.from_numpy(one).permute(2, 0, 1))  # (H, W, C) → (C, H, W)
        masks.append(torch.from_numpy(mask)[None])
        ties.append(torch.from_numpy(source_pixels(patch, *image.shape[1:])[3])[None])
    return torch.stack(pasted), torch.stack(masks), torch.stack(ties)


def check_against_reference(images, patches, fill=None, *, tolerance=0.0, most_ties=0.005):
    """Compare with the reference everywhere but at ties, which must be rare."""
    reference, mask, tie = expected(images, patches, fill)
    result = paste(images, patches, fill)
    assert tie.double().mean() <= most_ties
    assert torch.equal(result.mask & ~tie, mask & ~tie)
    difference = (result.images.double() - reference.double()).abs() * ~tie
    assert difference.max() <= tolerance
    return difference


def check_against_reference_in_float(images, patches, tolerance):
    reference, mask, tie = expected(images.double(), patches)
    result = paste(images, patches)
    assert torch.equal(result.mask & ~tie, mask & ~tie)
    assert ((result.images.double() - reference).abs() * ~tie).max() <= tolerance
