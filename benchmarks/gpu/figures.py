"""What `benchmarks.gpu` measures with, and what it found: sizes, rows, figures, what was skipped and why."""

import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import torch

from benchmarks.rows import Row, cpu_name, make_row

Function = TypeVar("Function", bound=Callable[..., object])


@dataclass(frozen=True)
class Plan:
    """Say how large everything is; the defaults are for one H100 or H200."""

    rehearsal: bool = False
    size: int = 256  # side of the images, pixels
    batches: tuple[int, ...] = (32, 128, 512, 1024)  # of the op
    step_batch: int = 32  # normal images a training step
    trainer_steps: int = 200
    score_batch: int = 16
    stride: int = 4  # of the scored patches of 64 pixels
    density_rows: int = 500_000
    density_width: int = 512
    copy_megabytes: int = 2048
    product_side: int = 8192
    seconds: float = 0.3  # a measurement
    limit: float = 400.0  # after so many seconds no section begins

    @staticmethod
    def rehearsing() -> "Plan":
        """Give the sizes of a rehearsal on a CPU; at 64² a map had one patch, whose score bf16 moves by a sixth."""
        return Plan(
            rehearsal=True, size=96, batches=(2, 3), step_batch=1, trainer_steps=3, score_batch=2, stride=16,
            density_rows=3000, density_width=16, copy_megabytes=1, product_side=64, seconds=0.0, limit=1e9,
        )  # fmt: skip

    def compiled(self, function: Function, fullgraph: bool = True, fuse_small: bool = False) -> Function:
        """Give a function compiled; in a rehearsal traced alone, since generating code takes minutes on a CPU.

        Args:
            function: what to compile.
            fullgraph: fail where the graph breaks.
            fuse_small: put kernels that do not depend on each other into one; placing patches is a dozen small ones.
        """
        if self.rehearsal:
            return torch.compile(function, fullgraph=fullgraph, backend="eager")
        return torch.compile(function, fullgraph=fullgraph, options={"combo_kernels": True} if fuse_small else None)

    @property
    def device(self) -> torch.device:
        """The GPU; of a rehearsal, the CPU."""
        return torch.device("cpu" if self.rehearsal else "cuda")

    @property
    def device_name(self) -> str:
        """The name of the device, as rows hold it."""
        return cpu_name() if self.rehearsal else torch.cuda.get_device_name()


class Figure(NamedTuple):
    """Hold one number worth reading, or a word; `target` is what it is to reach, e.g. ">= 70"."""

    what: str
    value: float | str
    unit: str = ""
    target: str = ""

    @property
    def verdict(self) -> str:
        """Tell whether the target is reached; nothing where there is none."""
        if not self.target or isinstance(self.value, str):
            return ""
        sign, _, number = self.target.partition(" ")
        reached = self.value >= float(number) if sign == ">=" else self.value <= float(number)
        return "yes" if reached else "NO"


@dataclass
class Figures:
    """Collect what was found.

    Attributes:
        copy: bytes a second of a device copy, read and written together; 0 until measured.
        fill: bytes a second of a device fill; 0 until measured.
        product: FLOP a second of a bf16 matrix product; 0 until measured.
        failed: whether anything went wrong.
    """

    rows: list[Row] = field(default_factory=list)
    entries: list[Figure] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    profiles: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    copy: float = 0.0
    fill: float = 0.0
    product: float = 0.0
    failed: bool = False

    def add(self, what: str, value: float | str, unit: str = "", target: str = "") -> None:
        """Keep a figure, four digits of it."""
        self.entries.append(Figure(what, value if isinstance(value, str) else float(f"{value:.4g}"), unit, target))

    def skip(self, what: str, why: str) -> None:
        """Note what was not measured, and say so at once."""
        self.skipped[what] = why
        print(f"skipped {what}: {why}", flush=True)

    def fail(self, what: str, error: Exception) -> None:
        """Note what went wrong, so that all else can go on."""
        self.failed = True
        traceback.print_exception(error)
        self.skip(what, f"FAILED: {type(error).__name__}: {(str(error).splitlines() or [''])[0]}")

    def row(self, plan: Plan, op: str, provider: str, batch: int, taken: list[float]) -> float:
        """Keep a row of sorted times; give the median in milliseconds."""
        self.rows.append(make_row(op, provider, batch, plan.size, taken, plan.device))
        print(f"{op:28} {provider:32} batch {batch:5d}  {self.rows[-1].p50_ms:10.4f} ms", flush=True)
        return self.rows[-1].p50_ms

    def table(self, plan: Plan) -> str:
        """Give all figures as a table, targets beside them."""
        lines = [f"{'figure':58} {'value':>12} {'unit':10} {'target':>10}  reached", "-" * 102]
        for entry in self.entries:
            value = entry.value if isinstance(entry.value, str) else f"{entry.value:,.4g}"
            if len(value) > 12:
                lines.append(f"{entry.what}: {value}")
            else:
                verdict = "" if plan.rehearsal else entry.verdict
                lines.append(f"{entry.what:58} {value:>12} {entry.unit:10} {entry.target:>10}  {verdict}".rstrip())
        lines += [f"skipped {what}: {why}" for what, why in self.skipped.items()]
        note = "; a rehearsal: the numbers mean nothing" if plan.rehearsal else ""
        return "\n".join([*lines, f"{plan.device_name}, torch {torch.__version__}{note}"])
