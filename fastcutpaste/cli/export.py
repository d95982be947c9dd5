"""fastcutpaste export: a detector as one graph for other runtimes."""

from pathlib import Path
from typing import Any

import click
import torch

from fastcutpaste.cli.options import finish
from fastcutpaste.console import people
from fastcutpaste.reports.runs import load_run
from fastcutpaste.scoring.ensemble import Ensemble
from fastcutpaste.scoring.export import export_detector


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--format", "kind", type=click.Choice(["onnx", "torch"]), default="onnx", show_default=True,
              help="onnx: for ONNX Runtime and others; torch: for torch.export.load.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="File to write.  [default: detector.onnx or .pt2 in RUN]")
@click.option("--batch", default=1, show_default=True, help="Images a call, fixed in the graph.")
def export(run: Path, kind: Any, out: Path | None, batch: int) -> None:
    """Write the detector in RUN, network, density and heat map together, as one graph for uint8 images."""
    detector = load_run(run, torch.device("cpu"))
    if isinstance(detector, Ensemble):
        raise ValueError(f"export: one detector required, {run} is an ensemble of {len(detector.members)}: export one")
    folder = run if run.is_dir() else run.parent
    out = out or folder / ("detector.onnx" if kind == "onnx" else "detector.pt2")
    export_detector(detector, out, kind, batch)
    height, width = detector.config.size
    given = "scores" if detector.config.patch is None else "heat maps and scores"
    people.print(f"{out}: images uint8 ({batch}, 3, {height}, {width}) in, {given} out")
    finish({"exported": str(out), "format": kind, "threshold": detector.threshold, "bytes": out.stat().st_size})
