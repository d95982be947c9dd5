"""Rows: how a measurement is taken, and what is kept of it."""

import platform
import re
import subprocess
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import torch

from fastcutpaste.networks.backbone import computes_bf16

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
_CHANGED = ("status", "--porcelain", "--untracked-files=no", "--", ".", ":!benchmarks/results", ":!docs", ":!README.md")


@dataclass(frozen=True)
class Row:
    """Hold one measurement; the fields up to `dtype` are its key: a new row replaces an old one of the same key."""

    device: str
    threads: int
    op: str
    provider: str
    batch: int
    size: int
    dtype: str  # of what comes out
    p20_ms: float  # of one call on the whole batch
    p50_ms: float
    p80_ms: float
    images_per_s: float  # normal images that went in, at the median
    torch: str
    commit: str
    date: str
    peak_mb: float = 0.0  # of the device; on a CPU, of this process; 0: not measured

    @property
    def key(self) -> tuple[object, ...]:
        return tuple(asdict(self).values())[:7]


def measure(
    call: Callable[[], object], seconds: float = 2.0, least: int = 5, clock: Callable[[], float] = time.perf_counter
) -> list[float]:
    """Time a call again and again, the device's work included; give the sorted milliseconds of each.

    With `time.process_time` for a clock it is the time of this process alone, the system's work for it included, on
    all of its threads: what a core spends, whatever else the machine does.
    """
    call()
    call()  # warm: allocator, lazily made kernels
    taken: list[float] = []
    begun = time.perf_counter()
    while len(taken) < least or time.perf_counter() - begun < seconds:
        start = clock()
        call()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        taken.append((clock() - start) * 1e3)
    return sorted(taken)


def peak_mb(device: torch.device, begin: bool = False) -> float:
    """Give the peak of memory since the last call with `begin`: of the GPU, or of this process (Linux; else 0)."""
    if device.type == "cuda":
        if begin:
            torch.cuda.reset_peak_memory_stats(device)
        return round(torch.cuda.max_memory_allocated(device) / 1e6, 1)
    status = Path("/proc/self/status")
    if not status.is_file():
        return 0.0
    if begin:
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM"))
    return round(int(line.split()[1]) * 1024 / 1e6, 1)


def name_of(device: torch.device) -> str:
    """Name a device as rows do."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()


def make_row(
    op: str,
    provider: str,
    batch: int,
    size: int,
    taken: list[float],
    device: torch.device,
    dtype: str = "float32",
    peak_mb: float = 0.0,
) -> Row:
    """Put sorted times and what they were measured on into a row."""
    p20, p50, p80 = (round(taken[min(int(len(taken) * q), len(taken) - 1)], 4) for q in (0.2, 0.5, 0.8))
    name = name_of(device)
    throughput = round(batch / p50 * 1e3, 1)
    when = date.today().isoformat()
    return Row(
        name, torch.get_num_threads(), op, provider, batch, size, dtype, p20, p50, p80, throughput, torch.__version__,
        commit(), when, peak_mb,
    )  # fmt: skip


def cpu_name() -> str:
    """Name the processor, as far as the system tells, and say whether it computes in bfloat16, and with tiles (AMX)."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*:\s*(.+)", info.read_text(encoding="utf-8")) if info.exists() else None
    name = found[1].strip() if found else platform.processor() or platform.machine()
    tiles = getattr(torch.cpu, "_is_amx_tile_supported", None)  # private, so its absence must not hurt
    in_tiles = " with AMX" * (tiles is not None and bool(tiles()))
    return name + f", bf16{in_tiles}" * computes_bf16(torch.device("cpu"))


def commit() -> str:
    """Give the short hash of the code that is measured, with a + if a file that git tracks was changed since.

    Rows, and the pages that are drawn from them, are no code: a study that keeps them as it goes stays of one commit.
    """
    try:
        described, changed = (
            subprocess.run(["git", *words], capture_output=True, text=True, check=False, cwd=ROOT).stdout.strip()
            for words in (("describe", "--always"), _CHANGED)
        )
    except OSError:  # no git on this machine
        return "unknown"
    return f"{described}+" if described and changed else described or "unknown"
