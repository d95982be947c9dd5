"""Planted defects: cracks, chips, stains, smears and strands, drawn on grey images with exact masks.

They are drawn with fractures, spills, wipes and broken-out pieces in mind and share nothing with the augmentations of
this library: no rectangle is cut, nothing is pasted from elsewhere in the image.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, signal
from skimage.draw import polygon2mask

Float = NDArray[np.float64]
Byte = NDArray[np.uint8]
Bool = NDArray[np.bool_]

VISIBLE_LEVELS = 8  # of 255. A pixel that a defect changes by this much or more belongs to its mask.
_TRIES = 100  # drawings of a defect, of which most are good at the first
DEFECT_AREA = (0.003, 0.06)  # smallest and largest defect, as a fraction of the image


def plant_defect(clean: Byte, kind: str, random: np.random.Generator) -> tuple[Byte, Bool]:
    """Draw one defect on a copy of a grey image.

    A drawing whose mask is smaller or larger than `DEFECT_AREA` (off the border, or lost in a texture as dark as it)
    is thrown away and drawn anew.

    Args:
        clean: uint8 (S, S), not written to.
        kind: "chip", "crack", "smear", "stain" or "strand".
        random: where all random numbers come from.

    Returns:
        The defective image, uint8 (S, S), and its mask, bool (S, S).

    Raises:
        ValueError: an image that is not square, or on which nothing can be seen, as on a black one.
    """
    if clean.ndim != 2 or clean.shape[0] != clean.shape[1]:
        raise ValueError(f"plant_defect: a square grey image (S, S) required, got {clean.shape}")
    for _ in range(_TRIES):
        drawn = DEFECTS[kind](clean.astype(np.float64), random)
        image = to_bytes(drawn)
        visible = np.abs(image.astype(np.int16) - clean) >= VISIBLE_LEVELS
        # Some pixels within a defect look by chance as they did before; closing takes them in, as a person would.
        mask: Bool = visible | ndimage.binary_fill_holes(ndimage.binary_closing(visible, iterations=2))
        if DEFECT_AREA[0] <= mask.mean() <= DEFECT_AREA[1]:
            return image, mask
    raise ValueError(f"plant_defect: an image on which a {kind} can be seen required, {_TRIES} drawings could not be")


def _draw_crack(image: Float, random: np.random.Generator) -> Float:
    """Draw a jagged dark fracture with branches, tapering to its ends, one lip catching the light."""
    size = image.shape[0]
    scale = size / 192
    angle = random.uniform(0, 2 * np.pi)
    length = size * random.uniform(0.35, 0.95)
    middle = size * random.uniform(0.2, 0.8, 2)
    start = middle - length / 2 * np.array([np.sin(angle), np.cos(angle)])
    radius = max(0.5, scale * random.uniform(0.7, 1.6))
    trunk = _walk(start, angle, length, random, kink=0.45)
    cover = _cover_path(image.shape, trunk, radius, random)
    for _ in range(random.integers(0, 4)):
        fork = random.integers(len(trunk) // 6, 5 * len(trunk) // 6)
        turn = random.choice((-1, 1)) * random.uniform(0.4, 1.1)
        branch = _walk(trunk[fork], angle + turn, length * random.uniform(0.12, 0.4), random, kink=0.45)
        cover = np.maximum(cover, _cover_path(image.shape, branch, radius * random.uniform(0.5, 0.8), random))
    lip = np.clip(_cast(cover, 1) - cover, 0, 1)
    dark = _soften(image, 4 * scale) * random.uniform(0.25, 0.6)
    return (image * (1 - cover) + dark * cover) * (1 + random.uniform(0.05, 0.2) * lip)


def _draw_strand(image: Float, random: np.random.Generator) -> Float:
    """Lay a bent wire or twig on the surface, round in its shading, with a soft shadow to its lower right."""
    size = image.shape[0]
    scale = size / 192
    angle = random.uniform(0, 2 * np.pi)
    length = size * random.uniform(0.35, 0.9)
    start = size * random.uniform(0.25, 0.75, 2) - length / 2 * np.array([np.sin(angle), np.cos(angle)])
    path = _walk(start, angle, length, random, kink=0.06)
    cover = _cover_path(image.shape, path, max(0.7, scale * random.uniform(1.1, 2)), random, waver=0.1)
    shadow = _cast(_soften(cover, 1.2 * scale), 2 * scale)
    light = np.clip(cover - _cast(cover, 1.2 * scale), 0, 1)
    tone = random.uniform(30, 70) if random.random() < 0.5 else random.uniform(180, 220)
    return image * (1 - 0.6 * shadow) * (1 - cover) + (0.85 * tone + 40 * light) * cover


def _walk(start: Float, angle: float, length: float, random: np.random.Generator, *, kink: float) -> Float:
    """Walk (count, 2) points y, x, half a pixel apart: straight pieces that turn off the main direction by `kink`."""
    count = max(8, int(2 * length))
    pieces = np.cumsum(random.random(count) < 0.12)  # a kink each 4 pixels or so
    bends = random.normal(0, kink, count)[pieces - pieces[0]]
    drift = np.cumsum(random.normal(0, 0.02, count))
    headings = angle + bends + drift
    steps = 0.5 * np.stack([np.sin(headings), np.cos(headings)], 1)  # (count, 2)
    return start + np.cumsum(steps, 0)


def _cover_path(
    shape: tuple[int, ...], path: Float, radius: float, random: np.random.Generator, *, waver: float = 0.35
) -> Float:
    """Give the (H, W) coverage, 0 to 1, of a brush along the path; its radius in pixels wavers and ends in points."""
    along = np.linspace(0, 1, len(path))
    taper = np.sqrt(np.clip(4 * np.minimum(along, 1 - along), 0, 1))
    wobble = ndimage.gaussian_filter1d(random.normal(0, 1, len(path)), 6)
    radii = radius * taper * np.clip(1 + waver * wobble / wobble.std(), 0.3, 2)
    cover = np.zeros(shape)
    reach = int(2 * radius) + 2
    for (y, x), r in zip(path, radii, strict=True):
        top, left = max(0, int(y) - reach), max(0, int(x) - reach)
        window = cover[top : max(0, int(y) + reach + 1), left : max(0, int(x) + reach + 1)]
        rows, columns = np.ogrid[top : top + window.shape[0], left : left + window.shape[1]]
        distance = np.hypot(rows - y, columns - x)
        np.maximum(window, np.clip(r + 0.5 - distance, 0, min(1, 2 * r)), out=window)
    return cover


def _draw_stain(image: Float, random: np.random.Generator) -> Float:
    """Darken or lighten an irregular patch with a soft edge, as a dried spill does, its rim a little stronger."""
    scale = image.shape[0] / 192
    inside = _blob(image.shape, random, area=_log_uniform(random, 0.015, 0.055), stretch=random.uniform(1, 2))
    cover = np.clip(inside / random.uniform(0.12, 0.4), 0, 1)
    cover = cover * cover * (3 - 2 * cover)  # smoothstep: no visible line where it starts
    rim = cover * np.exp(-(((inside - 0.2) / 0.15) ** 2))
    mottle = _smooth_noise(image.shape, 3 * scale, random)
    strength = random.uniform(0.28, 0.52) * cover * (1 + 0.25 * rim + 0.1 * mottle)
    opaque = random.uniform(0, 0.6) * cover  # water lets the surface through, paint hides it
    surface = image * (1 - opaque) + _soften(image, 6 * scale) * opaque
    if random.random() < 0.6:
        return surface * (1 - strength)
    return surface + (240 - surface) * strength


def _draw_smear(image: Float, random: np.random.Generator) -> Float:
    """Drag the surface along one direction in a long patch, and leave fine streaks on it, as a wiped film does."""
    scale = image.shape[0] / 192
    angle = random.uniform(0, np.pi)
    stretch = random.uniform(1.8, 3.5)
    inside = _blob(image.shape, random, area=_log_uniform(random, 0.015, 0.06), stretch=stretch, angle=angle)
    length = scale * random.uniform(14, 28)
    dragged = _blur_along(image, angle, length)
    streaks = _blur_along(random.normal(0, 1, image.shape), angle, 2 * length)
    streaks /= streaks.std()
    film = dragged * random.uniform(0.88, 1.12) + random.uniform(6, 13) * streaks
    cover = random.uniform(0.8, 1) * np.clip((inside + 0.06 * streaks) / 0.2, 0, 1)
    return image * (1 - cover) + film * cover


def _draw_chip(image: Float, random: np.random.Generator) -> Float:
    """Break a piece out: a jagged outline, a rough and darker ground, shadow and light on its walls."""
    size = image.shape[0]
    scale = size / 192
    radius = size * np.sqrt(_log_uniform(random, 0.006, 0.05) / np.pi)
    corners = random.integers(7, 14)
    angles = np.sort((np.arange(corners) + random.uniform(-0.35, 0.35, corners)) * 2 * np.pi / corners)
    reach = radius * random.uniform(0.65, 1.3, corners)
    stretch = random.uniform(1, 1.6)
    turn = random.uniform(0, np.pi)
    along, across = reach * np.cos(angles) * np.sqrt(stretch), reach * np.sin(angles) / np.sqrt(stretch)
    offsets = np.stack([along * np.sin(turn) + across * np.cos(turn), along * np.cos(turn) - across * np.sin(turn)], 1)
    outline = _roughen(size * random.uniform(0.12, 0.88, 2) + offsets, 0.06 * radius, random)  # (points, 2)
    fine = 3  # drawn three times larger, then averaged: a smooth edge
    piece = polygon2mask((fine * size, fine * size), fine * outline + 1)
    cover = piece.reshape(size, fine, size, fine).mean((1, 3))  # (size, 3, size, 3) → (size, size)
    ground = image.mean() * random.uniform(0.5, 0.8)
    rough = 0.6 * _smooth_noise(image.shape, 0.8, random) + 0.8 * _smooth_noise(image.shape, 3 * scale, random)
    ground = ground + random.uniform(5, 10) * rough
    # Depth falls over a few pixels from the outline; its slope against the light (upper left) shades the walls.
    depth = _soften(np.minimum(ndimage.distance_transform_edt(cover > 0.5), 4 * scale), 0.8)
    slope_y, slope_x = np.gradient(depth)
    ground = ground - random.uniform(15, 30) * (slope_y + slope_x)
    broken: Float = image * (1 - cover) + ground * cover
    return broken


def _roughen(outline: Float, amount: float, random: np.random.Generator) -> Float:
    """Put jittered points on the sides of a closed (corners, 2) outline: (8 · corners, 2)."""
    ends = np.roll(outline, -1, 0)
    fractions = np.arange(8)[:, None] / 8
    points = outline[:, None] * (1 - fractions) + ends[:, None] * fractions  # (corners, 8, 2)
    points[:, 1:] += random.normal(0, amount, points[:, 1:].shape)
    return points.reshape(-1, 2)


def _blob(
    shape: tuple[int, ...], random: np.random.Generator, *, area: float, stretch: float, angle: float | None = None
) -> Float:
    """Give a (H, W) height: positive inside an irregular patch, 0 on its outline, 1 in the middle of an ellipse.

    Args:
        shape: H, W.
        random: where the position, the turn and the outline come from.
        area: about the fraction of the image that the patch covers.
        stretch: length over width.
        angle: of the long axis from the x axis towards y, radians; by chance if None.
    """
    radius = shape[0] * np.sqrt(area / np.pi)
    angle = random.uniform(0, np.pi) if angle is None else angle
    center = shape[0] * random.uniform(0.12, 0.88, 2)
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    y, x = rows - center[0], columns - center[1]
    along = (x * np.cos(angle) + y * np.sin(angle)) / np.sqrt(stretch)
    across = (y * np.cos(angle) - x * np.sin(angle)) * np.sqrt(stretch)
    distance: Float = np.hypot(along, across) / radius
    wide, narrow = _smooth_noise(shape, radius / 2.5, random), _smooth_noise(shape, radius / 8, random)
    return 1 - distance + (0.18 * wide + 0.05 * narrow) * np.minimum(1, distance)


def _blur_along(image: Float, angle: float, length: float) -> Float:
    """Average (H, W) along a line of `length` pixels through each pixel, `angle` radians from x towards y."""
    reach = int(length / 2) + 1
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    along, across = np.abs(x * np.cos(angle) + y * np.sin(angle)), np.abs(y * np.cos(angle) - x * np.sin(angle))
    line = np.clip(length / 2 + 0.5 - along, 0, 1) * np.clip(1 - across, 0, 1)  # (2 · reach + 1, 2 · reach + 1)
    blurred: Float = signal.fftconvolve(np.pad(image, reach, mode="reflect"), line / line.sum(), mode="valid")
    return blurred


def _soften(image: Float, sigma: float) -> Float:
    """Blur (H, W) by a Gaussian of `sigma` pixels."""
    softened: Float = ndimage.gaussian_filter(image, sigma)
    return softened


def _cast(cover: Float, distance: float) -> Float:
    """Move (H, W) by `distance` pixels down and to the right, away from the light at the upper left."""
    moved: Float = ndimage.shift(cover, distance, order=1)
    return moved


def _smooth_noise(shape: tuple[int, ...], sigma: float, random: np.random.Generator) -> Float:
    """Give (H, W) Gaussian noise, smooth over `sigma` pixels, with standard deviation 1."""
    noise = ndimage.gaussian_filter(random.normal(0, 1, shape), sigma, mode="wrap")
    unit: Float = noise / noise.std()
    return unit


def _log_uniform(random: np.random.Generator, low: float, high: float) -> float:
    """Draw a number between `low` and `high`, each octave as likely as another."""
    return float(np.exp(random.uniform(np.log(low), np.log(high))))


def to_bytes(values: Float) -> Byte:
    """Round to whole levels, 0 to 255."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


DEFECTS: dict[str, Callable[[Float, np.random.Generator], Float]] = {
    "chip": _draw_chip,
    "crack": _draw_crack,
    "smear": _draw_smear,
    "stain": _draw_stain,
    "strand": _draw_strand,
}
