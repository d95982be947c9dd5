"""The op on a GPU: how near the memory limit, how many launches and waits, and how far ahead of what others use."""

import os
from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor
from torch.testing import assert_close

from benchmarks.augment import providers as augment
from benchmarks.gpu.device import device_times, launches, profile_table, replayed_times, rotated, waits
from benchmarks.gpu.figures import Figures, Plan
from benchmarks.photographs import make_photographs
from benchmarks.rows import measure
from fastcutpaste import CutPaste, CutPaste3Way, normalize
from fastcutpaste.op.paste import _paste_grid, paste_images, paste_normalized
from fastcutpaste.op.placement import draw

Work = Callable[[Tensor], Tensor]


def three_way(plan: Plan) -> dict[str, Work]:
    """Give, by provider, uint8 (B, 3, H, W) to normalized bf16 channels_last (3·B, 3, H, W)."""
    task, mean, std = CutPaste3Way(), augment.MEAN.to(plan.device), augment.STD.to(plan.device)

    def eager(images: Tensor) -> Tensor:
        return task.normalized(images, mean, std, torch.bfloat16)[0]

    def grid(images: Tensor) -> Tensor:
        patches = task._patches(images, torch.rand(len(images), task.numbers, device=images.device))
        assert patches is not None
        pasted = _paste_grid(images, patches, None).images
        return normalize(pasted, mean, std, torch.bfloat16).contiguous(memory_format=torch.channels_last)

    def placed(images: Tensor) -> Work:
        patches = task._patches(images, torch.rand(len(images), task.numbers, device=images.device))
        assert patches is not None
        return lambda given: paste_normalized(given, patches, mean, std, torch.bfloat16)

    return _ways(plan, eager, grid, placed)


def cutpaste(plan: Plan) -> dict[str, Work]:
    """Give, by provider, images (B, 3, H, W) to images with a patch each, of the same type."""
    transform = CutPaste()

    def grid(images: Tensor) -> Tensor:
        patches = transform.patches(draw(len(images), images.device), *images.shape[2:])
        return _paste_grid(images, patches, None).images

    def placed(images: Tensor) -> Work:
        patches = transform.patches(draw(len(images), images.device), *images.shape[2:])
        return lambda given: paste_images(given, patches)

    return _ways(plan, transform, grid, placed)


class _Placed:
    """Paste patches that were placed beforehand, anew for each batch size."""

    def __init__(self, place: Callable[[Tensor], Work]) -> None:
        self.place = place
        self.works: dict[int, Work] = {}

    def __call__(self, images: Tensor) -> Tensor:
        if len(images) not in self.works:
            self.works[len(images)] = self.place(images)
        return self.works[len(images)](images)


def _ways(plan: Plan, eager: Work, grid: Work, placed: Callable[[Tensor], Work]) -> dict[str, Work]:
    return {
        "eager": eager,
        "compiled": plan.compiled(eager, fuse_small=True),
        "whole images, compiled": plan.compiled(grid),
        "paste alone": _Placed(placed),
    }


def check(plan: Plan) -> None:
    """Refuse to time what is wrong: against the slow reference, and fused against one step after the other."""
    images = make_photographs(8, plan.size).to(plan.device)
    augment.check(images)
    task, mean, std = CutPaste3Way(), augment.MEAN.to(plan.device), augment.STD.to(plan.device)
    draws = torch.rand(len(images), task.numbers, device=plan.device)
    for given in (images, images.contiguous(memory_format=torch.channels_last)):
        fused, _ = task.normalized(given, mean, std, torch.bfloat16, draws=draws)
        apart = normalize(task.augment(given, draws=draws).images, mean, std, torch.bfloat16)
        assert_close(fused, apart, atol=2e-2, rtol=0)
        if fused.is_cuda and not fused.is_contiguous(memory_format=torch.channels_last):
            raise AssertionError("normalized: channels_last required")


def measure_op(plan: Plan, figures: Figures) -> None:
    """Measure the op over batches, image types and ways to run it, as a share of what copying the bytes would take."""
    check(plan)
    pixels = 3 * plan.size**2
    works = [  # name, image type, providers, bytes read and bytes written an image
        ("3-way uint8 to bf16", torch.uint8, three_way(plan), pixels, pixels * 3 * 2),
        ("CutPaste uint8", torch.uint8, cutpaste(plan), pixels, pixels),
        ("CutPaste bf16", torch.bfloat16, cutpaste(plan), pixels * 2, pixels * 2),
    ]
    photographs = make_photographs(min(max(plan.batches), 32), plan.size).to(plan.device)
    for op, dtype, providers, taken_in, written in works:
        for batch in plan.batches:
            images = photographs.repeat(-(-batch // len(photographs)), 1, 1, 1)[:batch]
            images = images if dtype == torch.uint8 else (images / 255).to(dtype)
            inputs = rotated(images)
            for name, call in providers.items():
                if name.startswith("whole") and (batch != plan.batches[1] or not op.startswith("3-way")):
                    continue  # gigabytes of intermediates, half a minute of compiling
                try:
                    times = {name: device_times(call, inputs, plan.seconds)}
                    if name in ("compiled", "paste alone"):
                        times[f"{name}, CUDA graph"] = replayed_times(call, inputs, plan.seconds)
                except Exception as error:
                    figures.fail(f"{op}, batch {batch}, {name}", error)
                    continue
                medians = [figures.row(plan, op, way, batch, taken) for way, taken in times.items()]
                if figures.copy and batch in plan.batches[1:] and len(medians) == 2:
                    second = batch / (medians[1] / 1e3)  # images
                    target = (">= 75" if batch < 512 else ">= 88") if name == "compiled" else ""
                    share = (taken_in + written) * second / figures.copy * 100
                    figures.add(f"{op}, batch {batch}, {name}: share of the copy", share, "%", target)
                    share = written * second / figures.fill * 100
                    figures.add(f"{op}, batch {batch}, {name}: share of a fill of the result", share, "%")
                if name == "eager" and batch <= 128:
                    figures.add(f"{op}, batch {batch}, eager", medians[0], "ms", "<= 0.15")
        for name, target in (("eager", "<= 6"), ("compiled", "<= 3")):
            figures.add(f"{op}, {name}: launches", launches(providers[name], inputs[0]), "", target)
            figures.add(f"{op}, {name}: waits for the device", waits(providers[name], inputs[0]), "", "<= 0")
        figures.profiles.append(f"{op}, compiled\n" + profile_table(providers["compiled"], inputs[0]))


def measure_rivals(plan: Plan, figures: Figures) -> None:
    """Measure the 3-way op against PIL in loader workers on all cores, and against all else that is installed."""
    batch = plan.batches[1]
    images = make_photographs(min(batch, 32), plan.size)
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images]
    images = images.repeat(-(-batch // len(images)), 1, 1, 1)[:batch].to(plan.device)
    compiled = three_way(plan)["compiled"]
    ours = figures.row(plan, "3-way", "fastcutpaste", batch, replayed_times(compiled, rotated(images), plan.seconds))
    workers = max(1, min(os.cpu_count() or 1, 2 if plan.rehearsal else 64))
    length = 32 * workers * (1 if plan.rehearsal else 4)
    loader = augment.loader_call(augment.ThreeWayPIL(pictures, length), workers)
    taken = [one * batch / length for one in measure(loader, least=3)]
    pil = figures.row(plan, "3-way", f"PIL, {workers} workers", batch, taken)
    figures.add(f"3-way against PIL in {workers} workers", pil / ours, "times", ">= 100")
    rivals = augment.providers(images, (pictures * -(-batch // len(pictures)))[:batch], torch.float32)
    for name, call in rivals.items():
        if name.startswith("fastcutpaste") and not name.endswith("DALI"):
            continue  # measured above
        try:
            times = device_times(lambda _, call=call: call(), [images], plan.seconds)  # type: ignore[misc]
        except ImportError as error:
            figures.skip(name, str(error).splitlines()[0])
            continue
        except RuntimeError as error:  # the others' figures are worth having all the same
            figures.skip(name, f"FAILED: {str(error).splitlines()[0]}")
            continue
        figures.add(f"3-way against {name}", figures.row(plan, "3-way", name, batch, times) / ours, "times")
    for name in ("kornia", "torchvision", "DALI"):
        if not any(name.lower() in provider.lower() for provider in rivals):
            figures.skip(name, "benchmarks.augment has no provider of it, or it is not installed")
