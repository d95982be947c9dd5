"""How a detector scores images: what size, which patches and areas, against which density."""

from dataclasses import dataclass
from typing import Literal

from fastcutpaste.scoring.dense import grid_shape
from fastcutpaste.scoring.density import make_density


@dataclass(frozen=True)
class DetectorConfig:
    """Say how images are scored.

    Attributes:
        size: (height, width) that images are resized to, pixels; where they are not, that of a tile.
        patch: side of the patches that are scored, pixels; None: whole images, without heat maps.
        stride: pixels from one patch to the next.
        border: continue the images by half a patch on every side with the pixels of their edge, so that what lies at
            the edge is in the middle of some patch, as everything else is: finer maps of objects on plain ground, but
            a texture looks odd where it is continued, and normal images get their highest scores there. False, as in
            the paper: the outermost patches end with the image, and their scores are spread to its edge.
        level: bring every image to the mean brightness of the images it is fitted on, by a factor, before it is scored:
            for cameras and lamps whose exposure differs from one image, or one day, to the next. Takes a difference
            away that may be what is searched for, such as a discolored whole.
        areas: sides of larger squares, pixels, that are scored too, each by the mean of the features of the patches in
            it and with a density of its own; the heat map is the mean of all. For defects larger than a patch, which
            looks normal in their midst: a worn region, a large stain. Small defects are blurred by it. Each is larger
            than `patch` by a multiple of `stride`. With "gaussian" alone: distances of the other densities are not on
            one scale for different sides.
        density: "gaussian", "kernel" or "nearest", one for all patches; or "location", a Gaussian at every place of
            the grid.
        false_positive_rate: share of normal images the threshold lets be called defective.
        fit_patches: most patches, or areas of one side, that a density for all of them is fitted on; grids are thinned
            out until they are fewer.
        chunk: patches, or whole images, a forward pass; bounds the memory, changes scores by rounding at most. None:
            what the free memory allows. A network that scores all patches in one pass has its own bound, see
            `Detector.localize`.
        bits: of the values in image files of more than 8 bits, as `load_images` takes them: one scale for the images
            that are learned from and those that are scored. None: no such files were learned from.
        resize: bring every image to `size`. False: images of any size are learned from and scored at their own scale, a
            tile at a time; patches of neighbouring tiles overlap so that heat maps have no seams.
        overlap: pixels that neighbouring tiles have in common at least, where whole tiles are scored, not patches.
    """

    size: tuple[int, int] = (256, 256)
    patch: int | None = 64
    stride: int = 4
    border: bool = False
    level: bool = False
    areas: tuple[int, ...] = ()
    density: Literal["gaussian", "kernel", "nearest", "location"] = "gaussian"
    false_positive_rate: float = 0.05
    fit_patches: int = 50_000
    chunk: int | None = None
    bits: int | None = None
    resize: bool = True
    overlap: int = 0

    def __post_init__(self) -> None:
        if self.patch is not None:
            grid_shape(*self.size, self.patch, self.stride)
            if self.stride > self.patch:
                raise ValueError(f"stride: at most the {self.patch} pixels of a patch required, since nothing looks at "
                                 f"what lies between two, got {self.stride}")  # fmt: skip
        if not 0 < self.false_positive_rate < 1:
            raise ValueError(f"false_positive_rate: above 0 and below 1 required, got {self.false_positive_rate}")
        for name, count in (("fit_patches", self.fit_patches), ("chunk", self.chunk)):
            if count is not None and count < 1:
                raise ValueError(f"{name}: at least 1 required, got {count}")
        if self.bits is not None and not 8 <= self.bits <= 16:
            raise ValueError(f"bits: from 8 to 16 required, got {self.bits}")
        make_density(self.density)
        if self.density == "location" and self.patch is None:
            raise ValueError("density: 'gaussian', 'kernel' or 'nearest' required for whole images, got 'location'")
        if self.areas and self.density != "gaussian":
            raise ValueError(f"density: 'gaussian' required with areas, got {self.density!r}")
        self._check_areas()
        self._check_scale()

    @property
    def margin(self) -> int:
        """Pixels by which images are continued on every side before their patches are scored."""
        return self.patch // 2 if self.patch is not None and self.border else 0

    @property
    def sides(self) -> tuple[int, ...]:
        """Sides of the squares that are scored, pixels, the patches' first; none of whole images."""
        return () if self.patch is None else (self.patch, *self.areas)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the grid of patches over an image of `size`; (1, 1) of whole images."""
        return (1, 1) if self.patch is None else self.grid_of(self.patch)

    def grid_of(self, side: int, size: tuple[int, int] | None = None) -> tuple[int, int]:
        """Give rows and columns of the grid of squares of a side, pixels, over an image of a size; None: of `size`."""
        height, width = (length + 2 * self.margin for length in size or self.size)
        return grid_shape(height, width, side, self.stride)

    def patches_along(self, area: int) -> int:
        """Give how many patches of the grid lie along a side of an area; 1 along a patch's."""
        assert self.patch is not None
        return (area - self.patch) // self.stride + 1

    @property
    def least(self) -> tuple[int, int]:
        """The smallest (height, width) of an image at its own scale, pixels."""
        if self.patch is None:
            return self.size
        side = max([self.patch, *(area - 2 * self.margin for area in self.areas)])
        return side, side

    def _check_scale(self) -> None:
        if self.resize or self.patch is not None:
            if self.overlap:
                raise ValueError(f"overlap: 0 required, but of whole tiles at their own scale, got {self.overlap}")
        elif not 0 <= self.overlap < min(self.size):
            raise ValueError(f"overlap: 0 to below a tile's {min(self.size)} pixels required, got {self.overlap}")
        if not self.resize and self.density == "location":
            raise ValueError("density: 'gaussian', 'kernel' or 'nearest' required at the images' own scale, where a "
                             "place of the grid is none of the object, got 'location'")  # fmt: skip

    def _check_areas(self) -> None:
        if not isinstance(self.areas, tuple) or any(type(area) is not int for area in self.areas):
            raise TypeError(f"areas: a tuple of whole numbers required, got {self.areas!r}")
        if self.areas and self.patch is None:
            raise ValueError(f"areas: none, of whole images, required, got {self.areas}")
        if len(set(self.areas)) < len(self.areas):
            raise ValueError(f"areas: different sides required, got {self.areas}")
        for area in self.areas:
            least, most = (self.patch or 0) + self.stride, min(self.size) + 2 * self.margin
            if not least <= area <= most or (area - least) % self.stride:
                some = f"{least} pixels, or a multiple of {self.stride} more up to {most},"
                raise ValueError(f"areas: sides of {some} required, got {area}")
