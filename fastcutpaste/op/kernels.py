"""Paste on a GPU: two Triton kernels, which read the images about once and write each byte of the result once.

The first places the patches, or takes placed ones, and sums their greys. The second copies the batch, as often as there
are patches an image; a program whose pixels meet a patch computes them there, while they are in the cache.
`paste._paste_grid` is the same op in torch's own: Inductor makes thirteen kernels of it, which keep the hue's
intermediates of every pixel in device memory, 24 MB an image where 1.4 would do, although patches cover a twelfth of a
CutPaste. Loaded when the first batch comes to a GPU.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-decorators, allow-untyped-calls

import functools
import warnings

import torch
import triton
from torch import Tensor
from torch._subclasses.fake_tensor import unset_fake_temporarily

from fastcutpaste.op.checks import memory_format_of
from fastcutpaste.op.kernel_constants import PARTS, PLAN
from fastcutpaste.op.kernel_paste import copy_and_paste
from fastcutpaste.op.kernel_plan import plan_patches
from fastcutpaste.op.placement import Patches, uniform
from fastcutpaste.op.rules import Kind, Rule, Rules, rules_from

COPIED, COPIED_BYTES = 1_024, 2_048  # pixels a program of the second kernel copies, of each channel; of uint8
MOST_PROGRAMS = 4_096  # of the first kernel, where more would only place the same patches again


@functools.cache
def triton_starts() -> bool:
    """Tell whether kernels can be launched; warn, once, if not.

    Triton compiles its driver at the first use, and slim machines have no C compiler.
    """
    try:
        triton.runtime.driver.active.get_current_target()
    except Exception as error:  # whatever a compiler, or its absence, makes of it
        reason = " ".join(str(error).split())[:200]
        warnings.warn(f"paste: Triton does not start; torch's own operations paste, slower ({reason})", stacklevel=4)
        return False
    return True


def paste_kernels(
    images: Tensor,
    patches: Patches,
    fill: Tensor | None = None,
    *,
    masked: bool = True,
    mean: Tensor | None = None,
    std: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor]:
    """Do what `paste` does, for checked images (B, 1 or 3, H, W) of uint8 or up to 32 floating bits.

    Args:
        images, patches, fill: as `paste` takes them.
        masked: whether the mask is wanted; if not, what comes in its place is empty.
        mean: (C,) and
        std: (C,) on the 0–1 scale: give normalized images, in channels_last, instead of images.
        dtype: floating-point type of the result where mean and std are given.

    Returns:
        Images (k·B, C, H, W), and mask (k·B, 1, H, W) or (0, 1, H, W), bool.

    Cost: two launches and two or three that make tables of the patches; no host sync, no allocation whose size is not
        known to the host. The images are read once, the pixels of the patches twice more; the result is written once.
    """
    where = torch.stack(patches.geometry[:6])  # (6, N) int64: source_y, source_x, y, x, height, width
    how = torch.stack([field.float() for field in patches.tensors[6:]])  # (1 to 7, N): angle, jitter, feather
    op = _paste if _is_plain(images) else paste_op
    return op(images, where, how, fill, mean, std, dtype or images.dtype, masked)


def draw_and_paste_kernels(
    images: Tensor,
    draws: Tensor | None,
    numbers: int,
    rules: Rules | str,
    fill: Tensor | None = None,
    foreground: Tensor | None = None,
    *,
    masked: bool = True,
    mean: Tensor | None = None,
    std: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Do what `place_cutpaste`, `place_scar` and `paste` do for all classes of a task, straight from the draws.

    Args:
        images, fill, masked, mean, std, dtype: as `paste_kernels` takes them.
        draws: (B, numbers) float32 in [0, 1); None: drawn in the op, by the default generator.
        numbers: how many an image takes.
        rules: of k classes, or their description; of several members, a draw chooses one for each image.
        foreground: (B, 1 + H, 1 + W) int32, how much lies above and left of each corner of a pixel, for rules with
            candidates.

    Returns:
        Images (k·B, C, H, W), mask (k·B, 1, H, W) or (0, 1, H, W), bool, and the class (k·B,) int64 of each image.

    Cost: two launches, and one where it draws; else as `paste_kernels`.
    """
    dtype = dtype or images.dtype
    if _is_plain(images):
        return _draw_and_paste(images, draws, numbers, rules, fill, foreground, mean, std, dtype, masked)
    described = rules if isinstance(rules, str) else rules.described()
    result: tuple[Tensor, Tensor, Tensor]
    result = draw_and_paste_op(images, draws, numbers, described, fill, foreground, mean, std, dtype, masked)
    return result


def _is_plain(images: Tensor) -> bool:
    """Tell whether nothing watches what is called: an op that torch knows of costs the host 20 µs more."""
    watched = torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0
    return type(images) is Tensor and not watched


def _paste(
    images: Tensor, where: Tensor, how: Tensor, fill: Tensor | None, mean: Tensor | None, std: Tensor | None,
    dtype: torch.dtype, masked: bool,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Launch the kernels on placed patches, which come as two tables."""
    flags = {"DRAWN": False, "JITTERED": len(how) >= 6, "FEATHERED": len(how) in (2, 7), "MIRRORED": False, "TRIED": 0}
    tables = where.contiguous(), how.contiguous(), how, how, 0, 0
    return _launch(images, where.shape[1], tables, fill, mean, std, dtype, masked, flags)[:2]


def _draw_and_paste(
    images: Tensor, draws: Tensor | None, numbers: int, rules: Rules | str, fill: Tensor | None,
    foreground: Tensor | None, mean: Tensor | None, std: Tensor | None, dtype: torch.dtype, masked: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Launch the kernels on draws (B, numbers) and rules."""
    rules = rules_from(rules) if isinstance(rules, str) else rules
    table, flags = _rules_on(images.device, rules.table)
    draws = uniform((len(images), numbers), images.device) if draws is None else draws.contiguous()
    tables = draws, draws, table, draws if foreground is None else foreground.contiguous(), numbers, rules.members
    return _launch(images, len(images) * rules.classes, tables, fill, mean, std, dtype, masked, flags)


paste_op = torch.library.custom_op("fastcutpaste::paste", _paste, mutates_args=())


@torch.library.custom_op("fastcutpaste::draw_and_paste", mutates_args=(), tags=(torch.Tag.nondeterministic_seeded,))
def draw_and_paste_op(
    images: Tensor, draws: Tensor | None, numbers: int, rules: str, fill: Tensor | None, foreground: Tensor | None,
    mean: Tensor | None, std: Tensor | None, dtype: torch.dtype, masked: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Do the same where torch watches."""
    return _draw_and_paste(images, draws, numbers, rules, fill, foreground, mean, std, dtype, masked)


@paste_op.register_fake
def _(images, where, how, fill, mean, std, dtype, masked):
    return _empty_like_result(images, where.shape[1], mean, dtype, masked)


@draw_and_paste_op.register_fake
def _(images, draws, numbers, rules, fill, foreground, mean, std, dtype, masked):
    if images.device.type == "cpu" or torch.cuda.is_available():
        with unset_fake_temporarily():  # now, not later, when a CUDA graph keeps what is made for a pool of its own
            _rules_on(images.device, rules_from(rules).table)
    count = images.shape[0] * rules_from(rules).classes  # of symbols `len` would make numbers
    labels = torch.empty(count, dtype=torch.int64, device=images.device)
    return *_empty_like_result(images, count, mean, dtype, masked), labels


@functools.cache  # never dropped: a CUDA graph may read it again; a kilobyte each
def _rules_on(device: torch.device, rules: tuple[float, ...]) -> tuple[Tensor, dict[str, int]]:
    """Give the rules as a float64 table on the device, copied there once, and what they ask of the kernels."""
    fields = len(Rule._fields)
    each = [Rule(*rules[i : i + fields]) for i in range(0, len(rules), fields)]
    jittered = any(max(rule.brightness, rule.contrast, rule.saturation, rule.hue) > 0 for rule in each)
    tried = max(rule.candidates for rule in each)
    flags = {
        "DRAWN": True,
        "JITTERED": jittered,
        "FEATHERED": any(rule.feather > 0 for rule in each),
        "MIRRORED": any(rule.kind == Kind.WHOLE for rule in each),
        "TRIED": triton.next_power_of_2(int(tried) + 1) if tried else 0,
    }
    return torch.tensor(rules, dtype=torch.float64).to(device), flags


def _launch(
    images: Tensor, count: int, tables: tuple[Tensor, Tensor, Tensor, Tensor, int, int], fill: Tensor | None,
    mean: Tensor | None, std: Tensor | None, dtype: torch.dtype, masked: bool, flags: dict[str, int],
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    order = memory_format_of(images)
    images = images.contiguous(memory_format=order)
    pasted, mask = _empty_like_result(images, count, mean, dtype, masked)
    labels = torch.empty(count if flags["DRAWN"] else 0, dtype=torch.int64, device=images.device)
    if count == 0:
        return pasted, mask, labels
    batch, channels, height, width = images.shape
    is_color = fill is not None and fill.shape[2:] != images.shape[2:]
    source = images if fill is None else fill
    # a color is an image whose rows and columns are all the same place
    strides = (*source.stride()[:2], 0, 0) if is_color else source.stride()
    plan = torch.empty((count, PLAN.value), dtype=torch.float32, device=images.device)
    shape = (batch, count, height, width, len(source), *strides)
    summed = bool(flags["JITTERED"]) and not is_color
    factors = (plan, plan) if mean is None or std is None else (mean.contiguous(), std.contiguous())
    parts = max(1, min(PARTS.value, MOST_PROGRAMS // count)) if summed else 1
    overlapped, copied = _overlaps(images.device), COPIED_BYTES if images.dtype == torch.uint8 else COPIED
    with torch.cuda.device_of(images):
        plan_patches[(count, parts)](
            source, plan, labels, *tables, *shape, CHANNELS=channels, SUMMED=summed, OVERLAPPED=overlapped, **flags,
            enable_fp_fusion=False,  # a fused product rounds otherwise than `placement` does
        )  # fmt: skip
        copy_and_paste[(batch * triton.cdiv(height * width, copied),)](
            images, source, pasted, mask, plan, *factors, *shape, *images.stride()[1:], *pasted.stride()[1:],
            CHANNELS=channels, JITTERED=flags["JITTERED"], FEATHERED=flags["FEATHERED"], MIRRORED=flags["MIRRORED"],
            SUMMED=summed, NORMALIZED=mean is not None, IS_COLOR=is_color, MASKED=masked,
            IN_PLANAR=order != torch.channels_last, OUT_PLANAR=mean is None and order != torch.channels_last,
            COPIED=copied, OVERLAPPED=overlapped, **({"launch_pdl": True} if overlapped else {}),
        )  # fmt: skip
    return pasted, mask, labels


@functools.cache
def _overlaps(device: torch.device) -> bool:
    """Tell whether the second kernel can begin while the first still runs: programmatic launch, from Hopper on."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (9, 0) and torch.version.hip is None


def _empty_like_result(
    images: Tensor, count: int, mean: Tensor | None, dtype: torch.dtype, masked: bool
) -> tuple[Tensor, Tensor]:
    """Allocate images (N, C, H, W) and mask (N or 0, 1, H, W)."""
    size = images.shape[2:]
    order = memory_format_of(images) if mean is None else torch.channels_last
    pasted = torch.empty((count, images.shape[1], *size), dtype=dtype, device=images.device, memory_format=order)
    return pasted, torch.empty((count if masked else 0, 1, *size), dtype=torch.bool, device=images.device)
