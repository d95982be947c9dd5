"""Plots and README tables, drawn from the rows of a CSV alone.

python -m benchmarks.plots        docs/augment.svg and the table between the marks in README.md, of the newest rows
"""

import re
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator, StrMethodFormatter

from benchmarks.rows import RESULTS, Row, read
from fastcutpaste.files import written_whole

ROOT = Path(__file__).parents[1]
BASELINE = "PIL"


def main() -> None:
    """Draw and write what there are rows for."""
    rows = [row for row in read(RESULTS / "augment.csv") if row.op == "3-way"]
    if not rows:
        raise SystemExit(
            "benchmarks.plots: rows required in benchmarks/results/augment.csv; run benchmarks.augment first"
        )
    draw(rows, ROOT / "docs" / "augment.svg")
    replace_between(ROOT / "README.md", "augment", table(rows))


def table(rows: list[Row], size: int = 256, dtype: str = "float32") -> str:
    """Give the Markdown table of images a second, one row a provider, one column a batch, for each device."""
    parts = []
    for device, threads in sorted({(row.device, row.threads) for row in rows}):
        here = [r for r in rows if (r.device, r.threads, r.size, r.dtype) == (device, threads, size, dtype)]
        batches = sorted({row.batch for row in here})
        speeds = {(row.provider, row.batch): row.images_per_s for row in here}
        names = sorted({row.provider for row in here}, key=lambda name: -max(speeds.get((name, b), 0) for b in batches))
        core = f"{threads} core{'s' * (threads > 1)}" if "NVIDIA" not in device else "GPU"
        parts.append(f"| images/s, {device}, {core} | " + " | ".join(f"batch {b}" for b in batches) + " |")
        parts.append("|---|" + "---:|" * len(batches))
        for name in names:
            cells = [f"{speeds[name, b]:,.0f}" if (name, b) in speeds else "" for b in batches]
            parts.append(f"| {name} | " + " | ".join(cells) + " |")
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


def replace_between(path: Path, name: str, text: str) -> None:
    """Put a text between `<!-- name -->` and `<!-- /name -->` of a file."""
    before = path.read_text()
    pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if not pattern.search(before):
        raise SystemExit(f"benchmarks.plots: marks <!-- {name} --> and <!-- /{name} --> required in {path.name}")
    with written_whole(path) as temporary:
        Path(temporary).write_text(pattern.sub(lambda found: found[1] + text + found[2], before))


if __name__ == "__main__":
    main()
