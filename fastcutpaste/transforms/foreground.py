"""Object-aware placement: cut patches from the object and paste them onto it.

On an image of an object most rectangles lie on plain background, and background pasted on background is no defect at
all: the network is asked to tell equal images apart. Here many positions are drawn at once and the first that holds
enough foreground is taken, counted with an integral image: no loop over images or candidates, no host sync.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastcutpaste.op.checks import check_images, touches_little
from fastcutpaste.op.paste import has_kernels
from fastcutpaste.op.placement import Patches, turned_reach
from fastcutpaste.op.rules import Rule
from fastcutpaste.transforms.patch import PatchTransform

CANDIDATES = 16  # positions drawn for each patch


def unlike_border(images: Tensor, threshold: float = 0.1) -> Tensor:
    """Take as foreground what differs from the image's border: a simple test for objects on a plain background.

    Args:
        images: (B, C, H, W), uint8 0–255 or floating point 0–1.
        threshold: least difference of any channel to the median of the border pixels, fraction of the range.

    Returns:
        (B, 1, H, W) bool.
    """
    check_images("unlike_border", images)
    return _unlike(images, _border(images, threshold)[0], threshold)


def object_or_all(images: Tensor, threshold: float = 0.1, most: float = 0.1) -> Tensor:
    """Take `unlike_border` as foreground, and all of an image whose border is not plain: it shows a surface.

    Args:
        images: (B, C, H, W), uint8 0–255 or floating point 0–1.
        threshold: as for `unlike_border`.
        most: share of the border that may be unlike its median.

    Returns:
        (B, 1, H, W) bool.
    """
    check_images("object_or_all", images)
    background, unlike = _border(images, threshold)
    return _unlike(images, background, threshold) | (unlike > most)


def _border(images: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """Give the median (B, C, 1, 1) of the pixels of the four edges, and the share (B, 1, 1, 1) of them unlike it."""
    if has_kernels(images):
        from fastcutpaste.op.kernel_border import border_op

        median, share = border_op(images, threshold)
        return median.to(images.dtype), share
    edges = (images[..., 0, :], images[..., -1, :], images[..., :, 0], images[..., :, -1])
    border = torch.cat(edges, dim=-1)[..., None]  # (B, C, 2·H + 2·W, 1)
    median = border.median(-2, keepdim=True).values
    return median, _unlike(border, median, threshold).float().mean((2, 3), keepdim=True)


def _unlike(pixels: Tensor, background: Tensor, threshold: float) -> Tensor:
    """Tell which pixels (B, C, h, w) differ from a background (B, C, 1, 1): (B, 1, h, w) bool."""
    if pixels.dtype == torch.uint8:
        level = int(threshold * 255)  # whole levels that differ by more than a fraction differ by more than its floor
        low = (background.int() - level).clamp(min=0).to(torch.uint8)
        high = (background.int() + level).clamp(max=255).to(torch.uint8)
    else:
        low, high = background - threshold, background + threshold
    if not touches_little(pixels):
        return ((pixels < low) | (pixels > high)).any(1, keepdim=True)
    found = torch.zeros_like(pixels[:, :1], dtype=torch.bool)  # NumPy compares with one number in a tenth of the time
    bounds = zip(low[..., 0, 0].numpy(), high[..., 0, 0].numpy(), strict=True)
    for unlike, image, (least, most) in zip(found[:, 0].numpy(), pixels.numpy(), bounds, strict=True):
        for plane, lowest, highest in zip(image, least, most, strict=True):
            unlike |= (plane < lowest) | (plane > highest)  # noqa: PLW2901 - written in place
    return found


def move_onto(
    patches: Patches, foreground: Tensor, draws: Tensor, least: float = 0.5, source: Tensor | None = None
) -> Patches:
    """Move patches so that source and destination lie on the foreground.

    Args:
        patches: one per image; where a patch lies now is its first candidate.
        foreground: (B, 1, H, W) bool.
        draws: (B, candidates, 4) uniform numbers in [0, 1): source y and x, destination y and x.
        least: share of the patch's rectangle that has to be foreground, 0 to 1.
        source: (B, 1, H, W) bool, the foreground of what patches are cut from; None: of the images themselves.

    Returns:
        Patches at the first candidate that holds enough foreground, source and destination chosen apart; where none
        does, as in an image without foreground, at the candidate that holds most.

    Raises:
        ValueError: a foreground of another shape, a share out of bounds.
    """
    for given in (foreground, foreground if source is None else source):
        if given.ndim != 4 or given.shape[:2] != (len(draws), 1) or given.dtype != torch.bool:
            raise ValueError(
                f"move_onto: a bool foreground of shape ({len(draws)}, 1, H, W) required, "
                f"got {given.dtype} {tuple(given.shape)}"
            )
    if not 0 <= least <= 1:
        raise ValueError(f"move_onto: least from 0 to 1 required, got {least}")
    integral = foreground_sums(foreground)
    integral_of_source = integral if source is None else foreground_sums(source)
    corner = (patches.source_y, patches.source_x)
    upright = (torch.zeros_like(patches.y), torch.zeros_like(patches.x))
    source_y, source_x = _choose(integral_of_source, patches, corner, upright, draws[..., :2], least)
    beyond = turned_reach(patches.height, patches.width, patches.angle)
    y, x = _choose(integral, patches, (patches.y, patches.x), beyond, draws[..., 2:], least)
    return patches._replace(source_y=source_y, source_x=source_x, y=y, x=x)


def foreground_sums(foreground: Tensor) -> Tensor:
    """Count the foreground (B, 1, H, W) above and to the left of each corner of a pixel: (B, 1 + H, 1 + W)."""
    counts = foreground.squeeze(1).cumsum(1, dtype=torch.int32).cumsum(2, dtype=torch.int32)  # (B, H, W)
    return F.pad(counts, (1, 0, 1, 0))


def _choose(
    integral: Tensor,
    patches: Patches,
    corner: tuple[Tensor, Tensor],
    beyond: tuple[Tensor, Tensor],
    draws: Tensor,
    least: float,
) -> tuple[Tensor, Tensor]:
    """Give the first candidate corner (B,), (B,) whose rectangle holds enough foreground, else the fullest one."""
    height, width = integral.shape[1] - 1, integral.shape[2] - 1
    rows = _candidates(corner[0], beyond[0], height - patches.height, draws[..., 0])  # (B, 1 + candidates)
    columns = _candidates(corner[1], beyond[1], width - patches.width, draws[..., 1])
    top, bottom = rows.clamp(0, height), (rows + patches.height[:, None]).clamp(0, height)
    left, right = columns.clamp(0, width), (columns + patches.width[:, None]).clamp(0, width)
    image = torch.arange(len(integral), device=integral.device)[:, None]
    held = integral[image, bottom, right] - integral[image, top, right]
    held = held - integral[image, bottom, left] + integral[image, top, left]  # (B, 1 + candidates)
    share = held / (patches.height * patches.width).clamp(min=1)[:, None]
    # Enough counts as 2, so argmax gives the first that has enough, or else the fullest.
    chosen = torch.where(share >= least, 2.0, share).argmax(1, keepdim=True)
    return rows.gather(1, chosen).squeeze(1), columns.gather(1, chosen).squeeze(1)


def _candidates(now: Tensor, beyond: Tensor, room: Tensor, draws: Tensor) -> Tensor:
    """Put positions drawn evenly over what keeps a patch inside behind where it lies now: (B, 1 + candidates)."""
    room = (room - 2 * beyond).clamp(min=0)[:, None]
    drawn = torch.minimum((draws * (room + 1)).long(), room) + beyond[:, None]
    return torch.cat([now[:, None], drawn], dim=1)


class OnForeground(PatchTransform):
    """Keep the patches of another transform on the object.

    Args:
        transform: the patch transform whose patches are moved.
        foreground: gives the object (B, 1, H, W) bool of images (B, C, H, W); `unlike_border` by default.
        least: share of a patch that has to be foreground, in its source and at its destination.
        candidates: positions tried for each.

    Source: the constraint of several successors of CutPaste; REB and object-aware CutPaste report +1.5 to +2 points.
    """

    def __init__(
        self,
        transform: PatchTransform,
        foreground: Callable[[Tensor], Tensor] = unlike_border,
        least: float = 0.5,
        candidates: int = CANDIDATES,
    ) -> None:
        super().__init__()
        if not isinstance(transform, nn.Module) or not hasattr(transform, "choose"):
            raise TypeError(f"OnForeground: a patch transform required, got {type(transform).__name__}")
        if not 0 <= least <= 1:
            raise ValueError(f"OnForeground: least from 0 to 1 required, got {least}")
        if candidates < 1:
            raise ValueError(f"OnForeground: at least 1 candidate required, got {candidates}")
        self.transform, self.foreground, self.least, self.candidates = transform, foreground, least, candidates
        self.numbers = transform.numbers + 4 * candidates

    def patches(self, draws: Tensor, height: int, width: int) -> Patches:
        raise TypeError("OnForeground: images required to find the foreground in, got draws alone (of kornia's masks?)")

    def rules(self) -> tuple[Rule, ...]:
        tried = {"candidates": self.candidates, "candidate": self.transform.numbers, "least": self.least}
        inner = self.transform.rules() if isinstance(self.transform, PatchTransform) else ()
        once = all(rule.candidates == 0 for rule in inner) and type(self).choose is OnForeground.choose
        return tuple(rule._replace(**tried) for rule in inner) if once else ()

    def fill(self, images: Tensor, draws: Tensor) -> Tensor | None:
        return self.transform.fill(images, draws[:, : self.transform.numbers])

    def foreground_sums(self, images: Tensor) -> Tensor:
        return foreground_sums(self.foreground(images))

    def choose(self, images: Tensor, draws: Tensor) -> tuple[Patches, Tensor | None]:
        own, candidates = torch.split(draws, [self.transform.numbers, 4 * self.candidates], dim=1)
        patches, fill = self.transform.choose(images, own)
        target = self.foreground(images)
        of_images = fill is not None and fill.shape == images.shape  # patches are cut from it: it has an object too
        source = self.foreground(fill) if of_images else None  # type: ignore[arg-type]
        return move_onto(patches, target, candidates.view(len(images), -1, 4), self.least, source), fill
