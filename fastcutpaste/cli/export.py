"""fastcutpaste export: a detector as one graph for other runtimes, which is seen to agree before it is there."""

from pathlib import Path
from typing import Any

import click
import numpy as np
import torch

from fastcutpaste.cli.options import finish
from fastcutpaste.console import people
from fastcutpaste.files import written_whole
from fastcutpaste.images.decode import read_image
from fastcutpaste.images.folders import find_test_images
from fastcutpaste.reports.runs import load_run
from fastcutpaste.scoring.export import about_graph, check_extra, export_detector
from fastcutpaste.scoring.parity import Pixels, compare, make_images

_MOST_IMAGES = 16  # that are scored both ways: spread over those there are


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--format", "kind", type=click.Choice(["onnx", "torch"]), default="onnx", show_default=True,
              help="onnx: for ONNX Runtime and others; torch: for torch.export.load.")  # fmt: skip
@click.option("--out", type=click.Path(path_type=Path), help="File to write.  [default: detector.onnx or .pt2 in RUN]")
@click.option("--channels-last", is_flag=True, help="Take images (B, H, W, 3) instead of (B, 3, H, W).")
@click.option("--images", type=click.Path(path_type=Path),
              help="File or folder, of which images, 16 at most, are scored both ways.  [default: drawn]")  # fmt: skip
def export(run: Path, kind: Any, out: Path | None, channels_last: bool, images: Path | None) -> None:
    """Write the detector in RUN as one graph, from uint8 images of any size to heat maps, scores and decisions.

    Graph and detector score some images before the file is put in its place. How far they are apart is printed, and
    written beside it; too far, and there is no file.
    """
    if kind == "onnx":
        check_extra("onnx", "onnxscript", "onnxruntime")
    scorer = load_run(run, torch.device("cpu"))
    seen = make_images(scorer.config.size) if images is None else _read(images, scorer.config.bits)
    folder = run if run.is_dir() else run.parent
    out = out or folder / ("detector.onnx" if kind == "onnx" else "detector.pt2")
    with written_whole(out) as temporary:
        export_detector(scorer, temporary, kind, channels_last)
        parity = compare(scorer, temporary, kind, seen)
        told = out.with_suffix(".parity.md")
        with written_whole(told) as page:
            page.write_text(f"{out.name}: the exported graph beside its detector\n\n{parity.table}", encoding="utf-8")
        for line in parity.table.splitlines():
            people.print(line)
        if not parity.agrees:
            raise ValueError(f"export: differences of at most {parity.tolerance:g} required, got those in {told}")
    about = about_graph(scorer, channels_last)
    shape = ", ".join(map(str, about["inputs"]["images"]["shape"]))
    people.print(f"{out}: images uint8 ({shape}) in, {', '.join(about['outputs'])} out", markup=False)
    compared = {"scores": parity.scores, "maps": parity.maps, "decisions": parity.decisions, "images": parity.images}
    finish({"exported": str(out), "format": kind, "threshold": scorer.threshold, "bytes": out.stat().st_size,
            "parity": compared, "table": str(told)})  # fmt: skip


def _read(path: Path, bits: int | None) -> list[Pixels]:
    """Read at most 16 images, uint8 (H, W, 3) each, spread evenly over those of a folder, at their own sizes."""
    paths = find_test_images(path).paths
    places = np.linspace(0, len(paths) - 1, min(len(paths), _MOST_IMAGES)).round().astype(int)
    return [np.asarray(read_image(paths[place], bits)) for place in places]
