"""What a device does in a call: its time, its launches, its waits, and the two ceilings of the card itself.

On a GPU times come from CUDA events, and calls take turns on several inputs, together larger than the cache. On a CPU
the same functions use the clock, count no launches and see no waits.
"""

import itertools
import math
import time
import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

CACHE = 128 * 2**20  # bytes: more than the L2 cache of any card
Call = Callable[[Tensor], object]


def device_times(call: Call, inputs: Sequence[Tensor], seconds: float) -> list[float]:
    """Time call(input) for some seconds, inputs in turn, at least once; give the sorted milliseconds of each call.

    Events lie around each call, so that what the host does between two calls counts where the device waits for it.
    """
    on_gpu = inputs[0].is_cuda
    for given in (*inputs, inputs[0]):
        call(given)
    taken: list[float] = []
    begun = time.perf_counter()
    while not taken or time.perf_counter() - begun < seconds:
        if on_gpu:
            taken += _event_times(call, inputs)
        else:
            start = time.perf_counter()
            call(inputs[len(taken) % len(inputs)])
            taken.append((time.perf_counter() - start) * 1e3)
    return sorted(taken)


def _event_times(call: Call, inputs: Sequence[Tensor], count: int = 20) -> list[float]:
    """Time `count` calls that are queued without waiting in between."""
    torch.cuda.synchronize()
    marks = [torch.cuda.Event(enable_timing=True) for _ in range(count + 1)]
    marks[0].record()
    for i, mark in enumerate(marks[1:]):
        call(inputs[i % len(inputs)])
        mark.record()
    torch.cuda.synchronize()
    return [before.elapsed_time(after) for before, after in itertools.pairwise(marks)]


def rotated(images: Tensor) -> list[Tensor]:
    """Give copies of images, as many as it takes to be larger than the cache together, at least two."""
    copies = math.ceil(CACHE / images.nbytes) if images.is_cuda else 2
    return [images.clone(memory_format=torch.preserve_format) for _ in range(min(max(copies, 2), 16))]


def replayed_times(call: Call, inputs: Sequence[Tensor], seconds: float) -> list[float]:
    """Time call(input) as `device_times`, replayed from one CUDA graph that holds a call of each input."""
    if not inputs[0].is_cuda:
        return device_times(call, inputs, seconds)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call(inputs[0])
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for given in inputs:
            call(given)
    return [whole / len(inputs) for whole in device_times(lambda _: graph.replay(), inputs[:1], seconds)]


def launches(call: Call, image_batch: Tensor) -> int:
    """Count the kernels, copies and fills a call puts on the device."""
    call(image_batch)
    with profile(activities=[ProfilerActivity.CPU, *_device_activity(image_batch)]) as seen:
        call(image_batch)
        _wait(image_batch)
    on_device = [event for event in seen.events() or () if event.device_type == DeviceType.CUDA]
    return sum(not event.is_user_annotation for event in on_device)


def waits(call: Call, image_batch: Tensor) -> int:
    """Count how often a call makes the host wait for the device."""
    call(image_batch)
    if not image_batch.is_cuda:
        return 0
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            call(image_batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(warning.message) for warning in seen)


def profile_table(call: Call, image_batch: Tensor, rows: int = 15) -> str:
    """Say in a table where the time of a call goes."""
    call(image_batch)
    with profile(activities=[ProfilerActivity.CPU, *_device_activity(image_batch)]) as seen:
        call(image_batch)
        _wait(image_batch)
    order = "self_device_time_total" if image_batch.is_cuda else "self_cpu_time_total"
    return seen.key_averages().table(sort_by=order, row_limit=rows, max_name_column_width=60)


def copy_ceiling(device: torch.device, megabytes: int, seconds: float) -> float:
    """Measure the bytes a second, read and written together, of a large copy on the device."""
    source = torch.randint(0, 256, (megabytes * 2**20,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    taken = device_times(target.copy_, [source], seconds)
    return 2 * source.numel() / (taken[len(taken) // 2] / 1e3)


def fill_ceiling(device: torch.device, megabytes: int, seconds: float) -> float:
    """Measure the bytes a second of a large fill on the device: the limit of what is only written."""
    target = torch.empty(megabytes * 2**20, dtype=torch.uint8, device=device)
    taken = device_times(lambda given: given.zero_(), [target], seconds)
    return target.numel() / (taken[len(taken) // 2] / 1e3)


def product_ceiling(device: torch.device, side: int, seconds: float) -> float:
    """Measure the FLOP a second of a large bf16 matrix product of random numbers."""
    left, right = torch.randn(2, side, side, device=device).bfloat16()
    taken = device_times(lambda matrix: matrix @ right, [left], seconds)
    return 2 * side**3 / (taken[len(taken) // 2] / 1e3)


def _device_activity(image_batch: Tensor) -> list[ProfilerActivity]:
    return [ProfilerActivity.CUDA] if image_batch.is_cuda else []


def _wait(image_batch: Tensor) -> None:
    if image_batch.is_cuda:
        torch.cuda.synchronize()
