"""Plots and tables, drawn from the rows of the CSVs alone.

python -m benchmarks.plots        docs/augment.svg and gpu.svg, and what is between the marks of the README and docs
"""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator, StrMethodFormatter

from benchmarks.kept import read
from benchmarks.rows import RESULTS, Row
from fastcutpaste.files import written_whole

ROOT = Path(__file__).parents[1]
GPU_OP = "3-way uint8 to bf16"
OURS = ("compiled, CUDA graph", "compiled", "eager")  # ways to run it, the fastest first
RUNGS = (  # of benchmarks.train, each with one thing more than the one before
    "PIL workers, fp32, NCHW",
    "+ batched op",
    "+ resident data",
    "+ channels_last, fused SGD",
    "+ bf16 where the device has it",
    "+ compile",
)


def main() -> None:
    """Draw and write what there are rows for."""
    matplotlib.rcParams["svg.hashsalt"] = "fastcutpaste"  # the same rows, the same file
    augment = [row for row in read(Row, RESULTS / "augment.csv") if row.op == "3-way"]
    if augment:
        draw(augment, ROOT / "docs" / "augment.svg")
    gpu = read(Row, RESULTS / "gpu.csv")
    if gpu:
        draw_gpu(gpu, ROOT / "docs" / "gpu.svg")
    tables: tuple[tuple[str, str, list[Row], Callable[[list[Row]], str]], ...] = (
        ("README.md", "gpu", gpu, gpu_table),
        ("docs/speed.md", "gpu", gpu, gpu_table),
        ("docs/speed.md", "augment", augment, augment_table),
        ("docs/deployment.md", "score", read(Row, RESULTS / "score.csv"), score_table),
        ("benchmarks/README.md", "train", read(Row, RESULTS / "train.csv"), train_table),
    )
    if not any(rows for _, _, rows, _ in tables):
        raise SystemExit("benchmarks.plots: rows required in benchmarks/results; run benchmarks.augment first")
    for file, name, rows, table in tables:
        if rows:
            replace_between(ROOT / file, name, table(rows))


def gpu_table(rows: list[Row]) -> str:
    """Give images a second of the 3-way task on a GPU over the batch; what others take besides, and under it how."""
    names = {row.provider: f"fastcutpaste, {row.provider}" for row in rows if row.provider in OURS}
    here = [replace(row, provider=names[row.provider]) for row in rows if row.op == GPU_OP and row.provider in OURS]
    here += [row for row in rows if row.op == "3-way" and row.provider != "fastcutpaste"]
    here.sort(key=lambda row: row.batch)
    best = {name: max(row.images_per_s for row in here if row.provider == name) for name in _providers(here)}
    order = [names[each] for each in OURS if each in names]  # with large batches the same speed: as it may fall
    order += sorted(set(best) - set(order), key=lambda name: -best[name])
    made = f"images/s, torch {here[0].torch.partition('+')[0]}, {_commits(here)}"
    return _tables(made, here, order, lambda row: f"batch {row.batch}", lambda row: f"{row.images_per_s:,.0f}")


def augment_table(rows: list[Row]) -> str:
    """Give images a second, normalized 256² float32 out, over the batch; the fastest provider first."""
    here = sorted((row for row in rows if (row.size, row.dtype) == (256, "float32")), key=lambda row: row.batch)
    best = {name: max(row.images_per_s for row in here if row.provider == name) for name in _providers(here)}
    names = sorted(best, key=lambda name: -best[name])
    return _tables("images/s", here, names, lambda row: f"batch {row.batch}", lambda row: f"{row.images_per_s:,.0f}")


def score_table(rows: list[Row]) -> str:
    """Give milliseconds an image, to features or heat maps, over patch, stride and batch."""
    rows = sorted(rows, key=lambda row: (row.op.split()[1] != "64/4", row.batch))
    return _tables(
        "ms an image",
        rows,
        sorted(_providers(rows), key=lambda name: -max(row.p50_ms / row.batch for row in rows if row.provider == name)),
        lambda row: f"{row.op.split()[1]}, batch {row.batch}",
        lambda row: f"{row.p50_ms / row.batch:,.0f}",
    )


def train_table(rows: list[Row]) -> str:
    """Give normal images a second over size and batch, rung by rung, and what augmentation costs."""
    rows = sorted(rows, key=lambda row: row.size)
    names = sorted(_providers(rows), key=lambda name: RUNGS.index(name) if name in RUNGS else len(RUNGS))
    return _tables(
        "images/s", rows, names, lambda row: f"{row.size}², batch {row.batch}", lambda row: f"{row.images_per_s:,.1f}"
    )


def _commits(rows: list[Row]) -> str:
    """Say which commits rows were measured at: ours, then that of the others where it is an earlier one."""
    ours = [row.commit for row in rows if "PIL" not in row.provider]
    commits = list(dict.fromkeys([*ours, *(row.commit for row in rows)]))
    return "commit " + ", others ".join(commits)


def _providers(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(row.provider for row in rows))


def _tables(
    what: str, rows: list[Row], names: list[str], column: Callable[[Row], str], cell: Callable[[Row], str]
) -> str:
    """Give a Markdown table for each device; a line a provider, the columns in the order of the rows."""
    parts = []
    for device, threads in dict.fromkeys((row.device, row.threads) for row in rows):
        here = [row for row in rows if (row.device, row.threads) == (device, threads)]
        columns = list(dict.fromkeys(column(row) for row in here))
        cells = {(row.provider, column(row)): cell(row) for row in here}
        core = f"{threads} core{'s' * (threads > 1)}" if "NVIDIA" not in device else "GPU"
        parts.append(f"| {what}, {device}, {core} | " + " | ".join(columns) + " |")
        parts.append("|---|" + "---:|" * len(columns))
        parts += [
            f"| {name} | " + " | ".join(cells.get((name, each), "") for each in columns) + " |"
            for name in names
            if name in _providers(here)
        ]
        parts.append("")
    return "\n".join(parts)


def draw(rows: list[Row], path: Path, size: int = 256) -> None:
    """Draw images a second over the batch, a line a provider, a panel a device."""
    devices = sorted({(row.device, row.threads) for row in rows})
    figure, axes = plt.subplots(1, len(devices), figsize=(7 * len(devices), 4.5), squeeze=False, layout="constrained")
    for axis, (device, threads) in zip(axes[0], devices, strict=True):
        here = [r for r in rows if (r.device, r.threads, r.size, r.dtype) == (device, threads, size, "float32")]
        for name in sorted({row.provider for row in here}):
            points = sorted((row.batch, row.images_per_s) for row in here if row.provider == name)
            style = "-o" if name.startswith("fastcutpaste") else "--s"
            if len(points) > 1:
                axis.plot(*zip(*points, strict=True), style, label=name, markersize=4)
        axis.set(xscale="log", yscale="log", xlabel="batch", ylabel="images / s", title=f"{device}, {threads} threads")
        batches = sorted({row.batch for row in here})
        axis.set_xticks(batches, [str(batch) for batch in batches])
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axis.minorticks_off()
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    with written_whole(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})
    plt.close(figure)


def draw_gpu(rows: list[Row], path: Path) -> None:
    """Draw the 3-way task's images a second over the batch, what copying the bytes would take, and what PIL does."""
    figures = {
        each["what"]: each["value"]
        for each in json.loads((RESULTS / "gpu.json").read_text(encoding="utf-8"))["figures"]
    }
    moved = 3 * 256**2 * (1 + 3 * 2)  # bytes an image, read and written
    limit = figures["device copy, read and written"] * 1e12 / moved
    pil = next(row for row in rows if row.provider.startswith("PIL,"))
    figure, axis = plt.subplots(figsize=(8, 4.2), layout="constrained")
    for provider in OURS:
        points = sorted((row.batch, row.images_per_s) for row in rows if (row.op, row.provider) == (GPU_OP, provider))
        axis.plot(*zip(*points, strict=True), "-o", label=f"fastcutpaste, {provider}", markersize=4)
    axis.axhline(limit, color="0.4", linestyle=":", label="copying the bytes")
    axis.plot([pil.batch], [pil.images_per_s], "s", color="0.2", label=pil.provider)
    shown = [pil, *(row for row in rows if row.op == GPU_OP and row.provider in OURS)]
    batches = sorted({row.batch for row in shown[1:]})
    axis.set(xscale="log", yscale="log", xlabel="batch", ylabel="images / s", ylim=(1e3, 6e6))
    figure.suptitle(f"3-way, uint8 to bf16, 256²: {pil.device}, torch {pil.torch}, {_commits(shown)}", fontsize=9)
    axis.set_xticks(batches, [str(batch) for batch in batches])
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axis.minorticks_off()
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    with written_whole(path) as temporary:
        figure.savefig(temporary, format="svg", metadata={"Date": None})
    plt.close(figure)


def replace_between(path: Path, name: str, text: str) -> None:
    """Put a text between `<!-- name -->` and `<!-- /name -->` of a file."""
    before = path.read_text(encoding="utf-8")
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if not pattern.search(before):
        raise SystemExit(f"benchmarks.plots: marks <!-- {name} --> and <!-- /{name} --> required in {path.name}")
    with written_whole(path) as temporary:
        Path(temporary).write_text(pattern.sub(lambda found: found[1] + text + found[2], before), encoding="utf-8")


if __name__ == "__main__":
    main()
