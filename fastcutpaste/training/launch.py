"""Devices, precision and processes: Lightning Fabric, asked in this library's words."""

import atexit
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Literal

import torch

from fastcutpaste.networks.backbone import computes_bf16

if TYPE_CHECKING:  # it loads torch's compiler, two seconds
    from lightning_fabric import Fabric

Precision = Literal["auto", "bf16", "fp16", "tf32", "fp32"]
PRECISIONS: tuple[Precision, ...] = ("auto", "bf16", "fp16", "tf32", "fp32")
_PATIENCE = timedelta(hours=12)  # the first process fits the density of one seed while the others wait for the next
_NOTES = (r"\s*Online softmax is disabled on the fly", "TensorFloat32 tensor cores for float32 matrix multiplication")
_MIXED: dict[Precision, Literal["bf16-mixed", "16-mixed"]] = {"bf16": "bf16-mixed", "fp16": "16-mixed"}


def make_fabric(device: torch.device, precision: Precision = "auto", devices: int = 1, nodes: int = 1) -> "Fabric":
    """Make the Fabric that training runs under.

    Args:
        device: a CPU, or a GPU: with an index that one, without it the first `devices` of the machine.
        precision: "bf16" autocast, "fp16" autocast with scaled losses, "fp32" throughout, "tf32": fp32 whose matrix
            products may round to TF32, or "auto": bf16 where the device computes in it, else fp32.
        devices: processes on this machine, one a GPU, or that many on the CPU.
        nodes: machines, each with as many devices.

    Returns:
        A Fabric that is not launched yet; `torchrun` and SLURM are recognized by it. The group of several processes is
        left when the program ends.

    Raises:
        ValueError: fewer devices than asked for, a precision the device does not compute in.
    """
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.precision import MixedPrecision
    from lightning_fabric.strategies.ddp import DDPStrategy

    chosen = resolve_precision(device, precision)
    if devices < 1 or nodes < 1:
        raise ValueError(f"devices: at least 1 device and 1 node required, got {devices} and {nodes}")
    several = devices * nodes > 1
    if device.type == "cuda":
        present = torch.cuda.device_count()
        if several and device.index is not None:
            raise ValueError(f"devices: a device without a number required for {devices} of them, got {device}")
        if devices > present or (device.index or 0) >= present:
            asked = f"{devices} asked for" if device.index is None else str(device)
            raise ValueError(f"devices: GPUs that torch sees required, got {present} ({asked})")
    if several:
        atexit.register(_leave_group)
    mixed = MixedPrecision(_MIXED[chosen], device.type) if chosen in _MIXED else None  # by name, it prints a line
    place = [device.index] if device.index is not None and device.type == "cuda" else devices
    return Fabric(
        accelerator=device.type,
        devices=place,
        num_nodes=nodes,
        strategy=DDPStrategy(timeout=_PATIENCE) if several else "auto",
        plugins=mixed,
    )


def _leave_group() -> None:
    """Join the threads of gloo's group before the interpreter ends: now and then it aborts a process that has not."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def resolve_precision(device: torch.device, precision: Precision) -> Precision:
    """Give the precision that "auto" means on a device; refuse one it does not compute in."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision: one of {', '.join(PRECISIONS)} required, got {precision!r}")
    if precision == "auto":
        return "bf16" if computes_bf16(device) else "fp32"
    if precision == "fp16" and device.type == "cpu":
        raise ValueError("precision: fp16 requires a GPU, got cpu; bf16 and fp32 work on both")
    if precision == "tf32" and not (device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)):
        raise ValueError(f"precision: tf32 requires an NVIDIA GPU of compute capability 8.0 or above, got {device}")
    return precision


@contextmanager
def matrix_products(precision: Precision) -> Iterator[None]:
    """Let fp32 matrix products and convolutions round to TF32 if the precision says so, and only then.

    Torch's own default allows it in convolutions alone. The settings are global, so they are put back at the end.
    """
    # The older of torch's two interfaces: after the newer one is used, torch.compile fails to read the settings.
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = precision == "tf32"
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


@contextmanager
def tried_convolutions() -> Iterator[None]:
    """Let cuDNN try, at the first convolution of each shape, which of its ways is the fastest, and keep to it.

    For steps that are all of one shape. Two runs may choose differently, and round so: where the program asks torch for
    what can be repeated, nothing is tried. The setting is global, so it is put back at the end.
    """
    before = torch.backends.cudnn.benchmark
    repeated = torch.backends.cudnn.deterministic or torch.are_deterministic_algorithms_enabled()
    try:
        torch.backends.cudnn.benchmark = before or not repeated
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@contextmanager
def without_notes() -> Iterator[None]:
    """Keep back two notes of torch's compiler that ask for nothing, and no other warning.

    Torch 2.11 says, in the midst of the progress, that it computes a softmax the usual way, and that fp32 products
    could be rounded to TF32, which is for `precision` to say. Torch 2.14 says neither.
    """
    with warnings.catch_warnings():
        for note in _NOTES:
            warnings.filterwarnings("ignore", note, UserWarning)
        yield
