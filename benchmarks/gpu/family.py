"""The family on a GPU: each recipe's time, launches and waits, as its `augment` compiles it there."""

import time

import torch
from torch import Tensor

from benchmarks.gpu.device import Call, device_times, launches, profile_table, rotated, waits
from benchmarks.gpu.figures import Figures, Plan
from benchmarks.photographs import make_photographs
from fastcutpaste.op.poisson import poisson_blend
from fastcutpaste.transforms.recipes import RECIPES, recipe

MOST_LAUNCHES = 12  # of a recipe that solves no equation


def measure_family(plan: Plan, figures: Figures) -> None:
    """Measure each recipe, and the blend by gradients alone, on uint8 images, the second smallest of the batches."""
    batch = plan.batches[1]
    photographs = make_photographs(min(batch, 32), plan.size)
    images = photographs.repeat(-(-batch // len(photographs)), 1, 1, 1)[:batch]
    inputs = rotated(images.to(plan.device))
    for name in RECIPES:
        measure_recipe(name, images, inputs, plan, figures)
    mask = _rectangles(inputs[0])
    blend = plan.compiled(poisson_blend)
    compare(poisson_blend(images, images.roll(1, 0), mask.cpu()), blend(inputs[0], inputs[0].roll(1, 0), mask))
    _measure("blend by gradients", lambda given: blend(given, given.roll(1, 0), mask), inputs, plan, figures)


def measure_recipe(name: str, images: Tensor, inputs: list[Tensor], plan: Plan, figures: Figures) -> None:
    """Measure one recipe on inputs, copies of the images on the device; what it compiles first, counts apart."""
    try:
        maker, draws = recipe(name), torch.rand(len(images), recipe(name).numbers)
        wanted = maker.augment(images, draws=draws)
        on_device, begun = recipe(name).to(plan.device), time.perf_counter()
        made = on_device.augment(inputs[0], draws=draws.to(plan.device))
        compare(wanted.mask, made.mask)  # waits for the device
        figures.add(f"{name}: first call", time.perf_counter() - begun, "s")
        compare(wanted.images, made.images)
        bound = "" if name == "nsa" else f"<= {MOST_LAUNCHES}"
        _measure(name, on_device.augment, inputs, plan, figures, bound)
    except Exception as error:  # the others are worth having all the same
        figures.fail(name, error)


def compare(wanted: Tensor, made: Tensor) -> None:
    """Refuse to time what is wrong: on the device an op must give what it gives on a CPU of the same draws."""
    away = ((made.cpu().int() - wanted.int()).abs() > (wanted.dtype == torch.uint8)).double().mean().item()
    if away > 0.002:
        raise AssertionError(f"{away:.2%} of {wanted.dtype} differ from a CPU's")


def _measure(name: str, call: Call, inputs: list[Tensor], plan: Plan, figures: Figures, bound: str = "") -> None:
    taken = figures.row(plan, name, "fastcutpaste", len(inputs[0]), device_times(call, inputs, plan.seconds))
    figures.add(f"{name}, batch {len(inputs[0])}", taken, "ms")
    figures.add(f"{name}: launches", launches(call, inputs[0]), "", bound)
    figures.add(f"{name}: waits for the device", waits(call, inputs[0]), "", "<= 0")
    figures.profiles.append(f"{name}\n{profile_table(call, inputs[0])}")


def _rectangles(images: Tensor) -> Tensor:
    """Give masks (B, 1, H, W) from an eighth to seven eighths of the side, image after image."""
    batch, _, height, width = images.shape
    share = torch.linspace(1 / 8, 7 / 8, batch, device=images.device).view(-1, 1, 1, 1)
    rows = torch.arange(height, device=images.device).view(-1, 1)
    columns = torch.arange(width, device=images.device)
    return (rows < share * height) & (columns < share * width)
