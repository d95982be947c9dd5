"""Training: steps one after another, what is reported of them, and what can be saved and taken up again.

All that is random in a step follows from the seed and the step's number, so a run that goes on from step n draws what
it would have drawn, and several processes draw the same numbers, each using those of its own share of the batch.
"""

import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.profiler import record_function

from fastcutpaste.images.seeds import seed_of
from fastcutpaste.networks.backbone import computes_bf16
from fastcutpaste.op.placement import uniform
from fastcutpaste.training.allocation import keep_freed_memory
from fastcutpaste.training.launch import (
    make_fabric,
    matrix_products,
    resolve_precision,
    tried_convolutions,
    without_notes,
)
from fastcutpaste.training.step import Step, TrainConfig
from fastcutpaste.transforms.patch import BaseAugmentation
from fastcutpaste.transforms.tasks import PretextTask

_DRAWS, _NETWORK = 2, 3  # what the seeds of this module are for
WINDOW = 20  # steps between two reports: only then the host waits for the device


class Report(NamedTuple):
    """Hold how training stood at a step; loss and accuracy (0 to 1) are means since the report before."""

    step: int
    loss: float
    accuracy: float
    learning_rate: float


class Training:
    """Hold a network on its way: the number of steps made, the optimizer, and what can be saved and taken up again.

    On a CPU, the process keeps the memory it frees from here on, see `allocation.keep_freed_memory`.

    Args:
        network: maps images (B, 3, H, W) as they are to class scores (B, classes); trained in place. With
            `config.head_steps` it has a `backbone`.
        task: makes ((k+1)·B) images and labels of B images.
        config: how to train.
        base: augments whole images or crops before the task; `BaseAugmentation()` if None.
        fabric: launched, for several processes; None: this process, on the network's device.
        window: most steps between two reports.

    Attributes:
        step: steps made so far.
        device: where batches have to be.

    Raises:
        ValueError: a precision that the device does not compute in, a batch the processes cannot share evenly.
    """

    def __init__(
        self,
        network: nn.Module,
        task: PretextTask,
        config: TrainConfig,
        base: nn.Module | None = None,
        fabric: Fabric | None = None,
        window: int = WINDOW,
    ) -> None:
        device = next(network.parameters()).device
        self.config, self.network, self.window, self.step = config, network, window, 0
        self.fabric = make_fabric(device, config.precision) if fabric is None else fabric
        self.device = self.fabric.device
        if self.device.type == "cpu":
            keep_freed_memory()
        self.precision = resolve_precision(self.device, config.precision)
        if config.batch % self.fabric.world_size:
            raise ValueError(f"batch: one that {self.fabric.world_size} processes can share evenly required, got "
                             f"{config.batch}")  # fmt: skip
        network.to(self.device).to(memory_format=torch.channels_last)
        self._module = Step(network, task, BaseAugmentation() if base is None else base, config.crop)
        self._generator = torch.Generator(self.device)
        self._window = torch.zeros(window, 2, device=self.device)  # loss and accuracy of the steps since a report
        self._reported = 0
        self._untried = config.compile or (config.compile is None and self.device.type == "cuda")
        if self._untried:
            mode = "reduce-overhead" if self.device.type == "cuda" else "default"  # CUDA graphs, on a GPU
            self._module.run = torch.compile(self._module.measure, mode=mode)
        self._enter_stage()

    @property
    def share(self) -> tuple[int, int]:
        """The part of each batch this process works on: (i, n), the i-th of n."""
        return self.fabric.global_rank, self.fabric.world_size

    def advance(self, images: Tensor) -> None:
        """Make one step on this process's share of the batch, (B / n, 3, H, W); the host waits for nothing.

        Raises:
            ValueError: images smaller than the crop.
            MemoryError: the device has no room for the step; names what to lower.
        """
        if len(images) * self.fabric.world_size != self.config.batch:
            came = f"{len(images)} of {self.fabric.world_size} processes"
            raise ValueError(f"training: {self.config.batch} images a step required, got {came}")
        if self.step == self.config.head_steps > 0:
            self._enter_stage()
        seed = seed_of(self.config.seed, _DRAWS, self.step)
        draws = uniform((self.config.batch, sum(self._module.counts)), self.device, self._generator.manual_seed(seed))
        rank, world = self.share
        draws = draws.view(world, -1, draws.shape[1])[rank]  # (B / n, numbers)
        self._seed_network()
        for group in self._optimizer.param_groups:
            group["lr"] = self.config.rate_at(self.step + 1)
        try:
            self._update(images, draws)
        except (torch.OutOfMemoryError, RuntimeError) as error:
            if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
                raise MemoryError(self._too_large(images)) from error
            raise
        self.step += 1

    def read(self) -> Report | None:
        """Wait for the device and give the report of the steps since the last one; None if there were none.

        Raises:
            FloatingPointError: the loss of one of them was not finite; names the step and what to lower.
        """
        count = self.step - self._reported
        if count == 0:
            return None
        rows = self._window[:count].clone()
        values = self.fabric.all_reduce(rows, reduce_op="mean").tolist()  # type: ignore[union-attr]
        for i, (loss, _) in enumerate(values):
            if not math.isfinite(loss):
                raise FloatingPointError(
                    self._not_finite(f"a finite loss required, got {loss}", self._reported + i + 1)
                )
        loss, accuracy = (sum(column) / count for column in zip(*values, strict=True))
        return Report(self.step, loss, accuracy, self.config.rate_at(self.step))

    def start_window(self) -> None:
        """Let the next report begin after this step."""
        self._reported = self.step

    def state(self) -> dict[str, Tensor]:
        """Give what training goes on from: weights, the optimizer's state, losses not yet reported, the fp16 scale.

        Raises:
            FloatingPointError: a loss or a weight is not finite, and the state worth nothing.
        """
        self.read()
        tensors = {f"network.{name}": value for name, value in self.network.state_dict().items()}
        finite = torch.stack([value.isfinite().all() for value in tensors.values()])
        if not bool(finite.all()):
            raise FloatingPointError(self._not_finite("finite weights required, got others", self.step))
        for name, parameter in self.network.named_parameters():
            for key, value in self._optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{key}.{name}"] = value
        tensors["step"] = torch.tensor([self.step, self._reported])
        tensors["window"] = self._window
        scaler: dict[str, Any] = self.fabric.strategy.precision.state_dict()
        if scaler:
            tensors["scaler"] = torch.tensor([scaler["scale"], scaler["_growth_tracker"]], dtype=torch.float64)
        return tensors

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take up a state.

        Raises:
            ValueError: a state of another network.
        """
        network = {name[8:]: value for name, value in tensors.items() if name.startswith("network.")}
        wanted = self.network.state_dict()
        unlike = [name for name in {**wanted, **network} if name not in network or name not in wanted
                  or network[name].shape != wanted[name].shape]  # fmt: skip
        if unlike:
            raise ValueError(f"restore: the state of this network required, got {len(unlike)} tensors that do not fit "
                             f"(first: {unlike[0]})")  # fmt: skip
        self.network.load_state_dict(network)
        self.step, self._reported = tensors["step"].tolist()
        self._window.copy_(tensors["window"])
        self._enter_stage()
        parameters = dict(self.network.named_parameters())
        for key, value in tensors.items():
            if key.startswith("optimizer."):
                kind, name = key.split(".", 2)[1:]
                parameter = parameters[name]
                one = parameter if value.shape == parameter.shape else value  # Adam counts its steps in a scalar
                self._optimizer.state[parameter][kind] = torch.empty_like(one, device=parameter.device).copy_(value)
        if "scaler" in tensors:
            scale, tracker = tensors["scaler"].tolist()
            scaler = self.fabric.strategy.precision.state_dict()
            self.fabric.strategy.precision.load_state_dict(scaler | {"scale": scale, "_growth_tracker": int(tracker)})

    def finish(self) -> None:
        """Leave the network in eval mode, all of it able to learn."""
        self.network.eval().requires_grad_(True)

    def _enter_stage(self) -> None:
        """Set what learns from this step on, with an optimizer of its own."""
        self.network.train().requires_grad_(True)
        if self.config.head_steps:
            backbone: nn.Module = self.network.backbone  # type: ignore[assignment]
            if self.step < self.config.head_steps:
                backbone.eval().requires_grad_(False)
            for module in backbone.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval().requires_grad_(False)
        learning = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        self._optimizer = self.config.make_optimizer(learning)
        self._step, self._update_weights = self.fabric.setup(self._module, self._optimizer)

    def _seed_network(self) -> None:
        """Let dropout draw what it draws at this step, whatever came before."""
        torch.manual_seed(seed_of(self.config.seed, _NETWORK, self.step, self.share[0]))

    def _update(self, images: Tensor, draws: Tensor) -> None:
        if self._untried:
            self._try_compiled(images, draws)
            self._seed_network()  # the trial has drawn from it
        self._backward(images, draws)
        with record_function("update"):
            self._update_weights.step()

    def _backward(self, images: Tensor, draws: Tensor) -> None:
        """Give the weights their gradients, and the window this step's loss and accuracy."""
        torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call]
        self._optimizer.zero_grad()
        with record_function("augment and forward"):
            loss, accuracy = self._step(lambda: (images, draws))
        with record_function("backward"):
            self.fabric.backward(loss)
        self._window[self.step - self._reported] = torch.stack([loss.detach(), accuracy])

    def _try_compiled(self, images: Tensor, draws: Tensor) -> None:
        """Compile now, on a step that changes nothing; say so and go on without where that fails."""
        self._untried = False
        buffers = [buffer.clone() for buffer in self.network.buffers()]
        try:
            self._backward(images, draws)
        except (torch.OutOfMemoryError, KeyboardInterrupt):
            raise
        except Exception as error:  # no compiler, an operator it does not know, a backend of the user's that is broken
            reason = (str(error) or type(error).__name__).strip().splitlines()[0]
            warnings.warn(f"training goes on uncompiled, torch.compile failed: {reason}", stacklevel=2)
            self._module.run = self._module.measure
        for buffer, kept in zip(self.network.buffers(), buffers, strict=True):
            buffer.copy_(kept)

    def _not_finite(self, what: str, step: int) -> str:
        rate = self.config.rate_at(step)
        calmer = "" if self.precision == "fp32" else " or precision 'fp32'"
        return f"training: {what} at step {step}; try a learning rate below {rate:g}{calmer}"

    def _too_large(self, images: Tensor) -> str:
        side = "the size of the images" if self.config.crop is None else f"crop (now {self.config.crop})"
        half = " or set precision 'bf16'" if self.precision in ("fp32", "tf32") and computes_bf16(self.device) else ""
        return (
            f"training: {self.device} has too little memory for a step of {self.config.batch} images times "
            f"{self._module.task.classes} classes; lower batch (now {self.config.batch}) or {side}{half}"
        )


def train(
    network: nn.Module,
    batches: Iterator[Tensor],
    task: PretextTask,
    config: TrainConfig,
    *,
    base: nn.Module | None = None,
    on_report: Callable[[Report], None] | None = None,
    report_every: int = WINDOW,
) -> list[Report]:
    """Train a network to tell the classes of a pretext task apart.

    Args:
        network: maps images (B, 3, H, W) as they are to class scores (B, classes); trained in place, left in eval mode.
        batches: iterator of images (B, 3, H, W), uint8 0–255 or floating point 0–1, on the network's device, B being
            `config.batch`.
        task: makes ((k+1)·B) images and labels of B images.
        config: steps, crop, optimizer, precision and seed.
        base: augments whole images or crops before the task; `BaseAugmentation()` if None.
        on_report: called with each report, for progress bars and logs.
        report_every: steps from one report to the next: only then the host waits for the device.

    Returns:
        All reports.

    Raises:
        ValueError: images smaller than the crop, a batch of another size, a precision the device lacks.
        FloatingPointError: the loss is not finite; names the step and what to lower.
        MemoryError: no room for a step; names what to lower.
    """
    reports: list[Report] = []

    def keep(report: Report) -> None:
        reports.append(report)
        if on_report is not None:
            on_report(report)

    proceed(Training(network, task, config, base, window=report_every), batches, on_report=keep)
    return reports


def proceed(
    training: Training,
    batches: Iterator[Tensor],
    *,
    on_report: Callable[[Report], None] | None = None,
    on_step: Callable[[Training], None] | None = None,
) -> None:
    """Make the steps that are left.

    Args:
        training: where it stands.
        batches: as `train` takes them, of this process's share, from the batch of the next step on.
        on_report: called with each report.
        on_step: called after each step, and after its report; what it raises ends the training.

    Raises:
        What `train` raises, and what `on_step` raises.
    """
    devices = [training.device] if training.device.type == "cuda" else []
    with torch.random.fork_rng(devices), matrix_products(training.precision), tried_convolutions(), without_notes():
        while training.step < training.config.steps:
            with record_function("data"):
                images = next(batches)
            training.advance(images)
            if training.step % training.window == 0 or training.step == training.config.steps:
                report = training.read()
                training.start_window()
                if report is not None and on_report is not None:
                    on_report(report)
            if on_step is not None:
                on_step(training)
    training.finish()
