"""NVIDIA DALI: CutPaste on its way from the file to the GPU, in a pipeline or in dynamic mode.

Made of DALI's own operators, so that on a GPU no pixel passes through the host. Images are (H, W, C) and may differ
in size; everything is drawn per image. Parameters live on the CPU, as DALI wants its arguments, on either backend.

The color jitter is written out in arithmetic because `fn.color_twist` means something else by the same numbers: it
turns the hue in YIQ instead of HSV (0.1 turns: up to 86 of 255 levels apart on a colorful image), takes contrast about
128 instead of the patch's mean grey (factor 1.1: 9 levels on a dark image), and knows one order.
"""

from math import log, radians
from typing import Any

import numpy as np

from fastcutpaste.op.checks import Range
from fastcutpaste.op.color import Jitter, JitterStrength
from fastcutpaste.op.placement import DRAWS, AspectDistribution, Patches, place_cutpaste, place_scar, uniform

OLDEST = (2, 2)  # 2.0 has no % for what a pipeline computes, which the turned strips take; 2.1 was not tried

try:
    from nvidia import dali
    from nvidia.dali import fn, types
    from nvidia.dali import math as pipeline_math
    from nvidia.dali.data_node import DataNode

    if tuple(int(number) for number in dali.__version__.split(".")[:2]) < OLDEST:
        raise ImportError(f"version {dali.__version__} is installed")
except ImportError as error:
    raise ImportError(
        f"fastcutpaste.adapters.dali: NVIDIA DALI {OLDEST[0]}.{OLDEST[1]} or newer required, got: {error}; "
        "pip install 'fastcutpaste[dali]'"
    ) from error

Node = Any  # what DALI computes with: a DataNode in a pipeline, a Batch or Tensor in dynamic mode
DIFFERENCES = [[0.0, 1.0, -1.0], [-1.0, 0.0, 1.0], [1.0, -1.0, 0.0]]  # red, green, blue to green - blue, …
GREY = [0.2989, 0.587, 0.114]
GREYS = [[*GREY, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, *GREY]]  # of the pixels and of the rotated ones


def cutpaste(
    images: Node,
    *,
    area: Range = (0.02, 0.15),
    aspect: Range = (0.3, 3.3),
    aspect_distribution: AspectDistribution = "log_uniform",
    jitter: JitterStrength = 0.1,
    draws: Node | None = None,
) -> tuple[Node, Node, Patches]:
    """Cut a rectangle out of each image and paste it, color-jittered, elsewhere in the same image.

    Args:
        images: (H, W, C) each, uint8 0–255, on the CPU or a GPU; with jitter C is 3.
        area: smallest and largest patch area, fractions of the image; sides are cut to the image where they exceed it.
        aspect: smallest and largest height : width of the patch.
        aspect_distribution: "log_uniform" or "two_uniforms", see `placement.place_cutpaste`.
        jitter: largest change of brightness, contrast, saturation (factors 1 ± jitter) and hue (turns, at most 0.5),
            one number for all four or one for each.
        draws: (DRAWS,) uniform numbers in [0, 1) for each image, on the CPU; drawn here if None, from the seed of the
            pipeline or, in dynamic mode, the default generator.

    Returns:
        Images like the given ones; mask (H, W, 1), bool, of the pasted pixels; `functional.Patches`, each field one
        number for each image, on the CPU: a pipeline returns them as `*patches.tensors`.

    Raises:
        ValueError: a range upside down or out of bounds.
    """
    place_cutpaste(  # wrong settings fail here
        uniform((0, DRAWS), "cpu"), 1, 1, area=area, aspect=aspect, aspect_distribution=aspect_distribution,
        jitter=jitter,
    )  # fmt: skip
    ops, math, drawn, height, width = _start(images, draws)
    areas = _between(_at(drawn, 0), area) * (height * width)
    if aspect_distribution == "log_uniform":
        aspects = math.exp(_between(_at(drawn, 1), (log(aspect[0]), log(aspect[1]))))
    else:
        low = math.min(_at(drawn, 1) * 2.0, 1.0)  # the lower half of the draws goes below 1, the upper above
        high = math.max(_at(drawn, 1) * 2.0 - 1.0, 0.0)
        aspects = _between(low, (aspect[0], 1.0)) + high * (aspect[1] - 1.0)
    heights = math.clamp(math.floor(math.sqrt(areas * aspects) + 0.5), 1.0, height)
    widths = math.clamp(math.floor(math.sqrt(areas / aspects) + 0.5), 1.0, width)
    patches = Patches(
        source_y=_inside(ops, math, _at(drawn, 2), height - heights),
        source_x=_inside(ops, math, _at(drawn, 3), width - widths),
        y=_inside(ops, math, _at(drawn, 4), height - heights),
        x=_inside(ops, math, _at(drawn, 5), width - widths),
        height=_integer(ops, heights),
        width=_integer(ops, widths),
        angle=_at(drawn, 6) * 0.0,
        jitter=_place_jitter(drawn, jitter),
    )
    return *paste(images, patches, turned=False), patches


def cutpaste_scar(
    images: Node,
    *,
    scar_width: Range = (2, 16),
    scar_length: Range = (10, 25),
    rotation: Range = (-45, 45),
    reference: int | None = 256,
    jitter: JitterStrength = 0.1,
    draws: Node | None = None,
) -> tuple[Node, Node, Patches]:
    """Cut a thin strip out of each image, turn it, jitter its color and paste it elsewhere in the same image.

    Args:
        images: (H, W, C) each, uint8 0–255, on the CPU or a GPU; with jitter C is 3.
        scar_width: thinnest and thickest scar, pixels of an image whose shorter side is `reference`.
        scar_length: shortest and longest scar, the same pixels.
        rotation: smallest and largest angle, degrees counter-clockwise.
        reference: image side the lengths above refer to, scaled with the shorter side; None: pixels as they are.
        jitter: as in `cutpaste`.
        draws: as in `cutpaste`.

    Returns:
        As `cutpaste`.

    Raises:
        ValueError: a range upside down or out of bounds.
    """
    place_scar(  # wrong settings fail here
        uniform((0, DRAWS), "cpu"),
        1,
        1,
        scar_width=scar_width,
        scar_length=scar_length,
        rotation=rotation,
        reference=reference,
        jitter=jitter,
    )
    ops, math, drawn, height, width = _start(images, draws)
    scale = 1.0 if reference is None else math.min(height, width) / float(reference)
    heights = math.clamp(math.floor(_between(_at(drawn, 0), scar_length) * scale + 0.5), 1.0, height)
    widths = math.clamp(math.floor(_between(_at(drawn, 1), scar_width) * scale + 0.5), 1.0, width)
    angle = _between(_at(drawn, 6), rotation)
    beyond_y, beyond_x = _beyond(math, heights, widths, *_turn(math, angle))
    patches = Patches(
        source_y=_inside(ops, math, _at(drawn, 2), height - heights),
        source_x=_inside(ops, math, _at(drawn, 3), width - widths),
        y=_inside(ops, math, _at(drawn, 4), height - heights - beyond_y * 2.0) + _integer(ops, beyond_y),
        x=_inside(ops, math, _at(drawn, 5), width - widths - beyond_x * 2.0) + _integer(ops, beyond_x),
        height=_integer(ops, heights),
        width=_integer(ops, widths),
        angle=angle,
        jitter=_place_jitter(drawn, jitter),
    )
    return *paste(images, patches, turned=True), patches


def paste(images: Node, patches: Patches, *, turned: bool) -> tuple[Node, Node]:
    """Paste one given patch into each image, as `paste` does.

    Upright pixels are the same as there. Of turned ones some 1 in 60,000 (measured) lies so exactly between two pixels
    of the patch that float32 rounds to the other. With jitter, values agree within one level of 255.

    Args:
        images: (H, W, C) each, uint8 0–255, on the CPU or a GPU; with jitter C is 3.
        patches: one patch of at least one pixel for each image, cut out fully inside it; fields are one number each,
            on the CPU, int32 or float32.
        turned: whether any angle differs from 0; if not, angles are not looked at and destinations lie fully inside.

    Returns:
        Images like the given ones and the mask (H, W, 1), bool, of the pasted pixels.

    Cost: the images are read and written once; jitter and turning work on the patch and its surroundings alone.
    """
    ops, math = operators(images)
    height, width = (_integer(ops, side) for side in _size(images))
    shape = ops.stack(patches.height, patches.width)
    patch = ops.slice(images, start=ops.stack(patches.source_y, patches.source_x), shape=shape, axes=[0, 1])
    if patches.jitter is not None:
        patch = _recolor(ops, math, patch, patches.jitter)
    first = ops.slice(patch, start=[0], shape=[1], axes=[2])  # (h, w, 1)
    covered = ops.coord_transform(first, M=0.0, T=1.0, dtype=types.UINT8)  # (h, w, 1) of ones
    start = ops.stack(patches.y, patches.x)
    if turned:
        cos, sin = _turn(math, patches.angle)
        beyond_y, beyond_x = _beyond(math, patches.height, patches.width, cos, sin)
        top = math.clamp(patches.y - _integer(ops, beyond_y), 0, height)  # the box around the turned patch
        left = math.clamp(patches.x - _integer(ops, beyond_x), 0, width)
        bottom = math.clamp(patches.y + patches.height + _integer(ops, beyond_y), 0, height)
        right = math.clamp(patches.x + patches.width + _integer(ops, beyond_x), 0, width)
        start, shape = ops.stack(top, left), ops.stack(bottom - top, right - left)
        y, x = patches.y - top + patches.height * 0.5, patches.x - left + patches.width * 0.5  # its centre in the box
        row = ops.stack(sin, cos, patches.height * 0.5 - sin * x - cos * y)  # of the patch, from x, y, 1 of the box
        column = ops.stack(cos, -sin, patches.width * 0.5 - cos * x + sin * y)
        warp = {"matrix": ops.stack(column, row), "size": shape, "interp_type": types.INTERP_NN, "fill_value": 0.0}
        covered = ops.warp_affine(covered, **warp)
        below = ops.slice(images, start=start, shape=shape, axes=[0, 1])
        patch = below * (covered == 0) + ops.warp_affine(patch, **warp)
    size, nowhere = ops.stack(height, width), start * 0
    pasted = ops.multi_paste(
        images,
        patch,
        in_anchors=ops.stack(nowhere, nowhere),
        shapes=ops.stack(size, shape),
        out_anchors=ops.stack(nowhere, start),
        output_size=size,
    )
    mask = ops.multi_paste(covered, out_anchors=ops.stack(start), output_size=size) != 0
    return pasted, mask


def _recolor(ops: Any, math: Any, patch: Node, jitter: Jitter) -> Node:
    """Apply the jitter to patches (h, w, 3), uint8: `color.rotate_hue` and `color.recolor` in DALI's arithmetic."""
    value = ops.reductions.max(patch, axes=[2], keep_dims=True)  # (h, w, 1)
    chroma = value - ops.reductions.min(patch, axes=[2], keep_dims=True)
    # One more than the hue, in sixths of a turn: that of the largest channel; of two equally large ones both give it.
    slopes = ops.coord_transform(patch, M=_matrix(ops, DIFFERENCES)) / math.max(chroma, 1)  # (h, w, 3)
    sixths = ops.coord_transform(slopes, T=[1.0, 3.0, 5.0]) * (patch == value)
    sixths = ops.reductions.max(sixths, axes=[2], keep_dims=True)  # (h, w, 1)
    turn = jitter.hue * 6.0 + 6.0  # a whole turn more: % wants positive numbers
    shifts = ops.stack(turn + 4.0, turn + 2.0, turn)
    distance = ops.coord_transform(sixths, M=_matrix(ops, [[1.0]] * 3), T=shifts) % 6.0  # (h, w, 3)
    rotated = value - chroma * math.clamp(math.min(distance, 4.0 - distance), 0.0, 1.0)
    both = ops.cat(ops.cast(patch, dtype=types.FLOAT), rotated, axis=2)  # (h, w, 6)
    greys = ops.coord_transform(both, M=_matrix(ops, GREYS))  # (h, w, 2)
    means = ops.reductions.mean(greys, axes=[0, 1], keep_dims=True)  # (1, 1, 2)
    gain = jitter.brightness * jitter.contrast
    after = (jitter.order < 1 / 2) * 1.0  # hue comes before saturation, which so mixes in the grey after it
    share = (jitter.order < 1 / 3) * 1.0 + (jitter.order > 5 / 6) * jitter.saturation  # see `color.greys`
    faded, level = gain * (1.0 - jitter.saturation), jitter.brightness * (1.0 - jitter.contrast)
    recolored = (
        ops.coord_transform(rotated, M=gain * jitter.saturation)
        + ops.coord_transform(greys, M=ops.stack(*[ops.stack(faded * (1.0 - after), faded * after)] * 3))
        + ops.coord_transform(means, M=ops.stack(*[ops.stack(level * (1.0 - share), level * share)] * 3))
    )
    return ops.cast(recolored, dtype=types.UINT8)  # rounds and clamps


def _place_jitter(drawn: Node, strength: JitterStrength) -> Jitter | None:
    """Turn draws into jitter factors, as `color.place_jitter` does."""
    strengths = (float(strength),) * 4 if isinstance(strength, int | float) else tuple(float(each) for each in strength)
    if max(strengths) == 0:
        return None
    change = [(_at(drawn, 7 + i) * 2.0 - 1.0) * strengths[i] for i in range(4)]
    return Jitter(change[0] + 1.0, change[1] + 1.0, change[2] + 1.0, change[3], _at(drawn, 11))


def _turn(math: Any, angle: Node) -> tuple[Node, Node]:
    """Give cosine and sine of degrees, the cosine of a quarter turn being 0 as in `paste`."""
    cos, sin = math.cos(angle * radians(1)), math.sin(angle * radians(1))
    return cos * (math.abs(cos) >= 1e-6), sin


def _beyond(math: Any, height: Node, width: Node, cos: Node, sin: Node) -> tuple[Node, Node]:
    """Give the pixels the box around a turned patch reaches beyond the upright one on each side, whole, as floats."""
    cos, sin = math.abs(cos), math.abs(sin)
    return (
        math.ceil((height * cos + width * sin - height) * 0.5),
        math.ceil((height * sin + width * cos - width) * 0.5),
    )


def _between(drawn: Node, values: Range) -> Node:
    return drawn * float(values[1] - values[0]) + float(values[0])


def _inside(ops: Any, math: Any, drawn: Node, room: Node) -> Node:
    """Turn a uniform number into an integer 0 … room, evenly; a negative room counts as 0."""
    room = math.max(room, 0.0)
    return _integer(ops, math.min(math.floor(drawn * (room + 1.0)), room))


def _matrix(ops: Any, rows: list[list[float]]) -> Any:
    """Give a constant matrix as the operators take it.

    A pipeline would make a node of the whole batch of an array, which DALI refuses inside an `if`.
    """
    return [value for row in rows for value in row] if ops is fn else np.array(rows, np.float32)


def _integer(ops: Any, whole: Node) -> Node:
    return ops.cast(whole, dtype=types.INT32)  # DALI takes no int64 for positions and sizes


def _at(values: Node, index: int) -> Node:
    """Give one of the numbers of each image."""
    return values.slice[index] if hasattr(values, "slice") else values[index]  # the brackets of a Batch choose images


def operators(images: Node) -> tuple[Any, Any]:
    """Give DALI's operators and its functions of numbers, for a pipeline or for dynamic mode."""
    if isinstance(images, DataNode):
        return fn, pipeline_math
    from nvidia.dali.experimental import dynamic

    if not isinstance(images, dynamic.Batch | dynamic.Tensor):
        raise TypeError(
            "fastcutpaste.adapters.dali: images as a DataNode of a pipeline, or a Batch or Tensor of dynamic mode, "
            f"required, got {type(images).__name__}"
        )
    return dynamic, dynamic.math


def _size(images: Node) -> tuple[Node, Node]:
    """Give height and width of each image, float32, on the CPU."""
    if isinstance(images, DataNode):
        shape = images.shape(dtype=types.FLOAT)
        return shape[0], shape[1]
    from nvidia.dali.experimental import dynamic

    if isinstance(images, dynamic.Tensor):
        height, width, _ = (dynamic.as_tensor(np.float32(side), device="cpu") for side in images.shape)
        return height, width
    heights, widths, _ = np.array(images.shape, np.float32).T.copy()  # (3, B); DALI takes no strides
    return dynamic.as_batch(heights, device="cpu"), dynamic.as_batch(widths, device="cpu")


def _start(images: Node, draws: Node | None) -> tuple[Any, Any, Node, Node, Node]:
    """Give operators, functions, random numbers, and the height and width of each image."""
    ops, math = operators(images)
    return ops, math, draw(ops, images, DRAWS) if draws is None else draws, *_size(images)


def draw(ops: Any, images: Node, numbers: int) -> Node:
    """Draw uniform numbers for each image, on the CPU."""
    alone = isinstance(images, DataNode) or not hasattr(images, "batch_size")
    batch = {} if alone else {"batch_size": images.batch_size}
    return ops.random.uniform(range=(0.0, 1.0), shape=[numbers], device="cpu", **batch)
