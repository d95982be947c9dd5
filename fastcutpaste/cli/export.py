"""fastcutpaste export: a detector as one graph for other runtimes, which is seen to agree before it is there."""

import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import click
import numpy as np
import torch

from fastcutpaste.cli.options import Finite, finish
from fastcutpaste.console import people
from fastcutpaste.files import written_whole
from fastcutpaste.images.decode import read_image
from fastcutpaste.images.folders import find_test_images
from fastcutpaste.images.pages import all_pages
from fastcutpaste.reports.runs import load_run
from fastcutpaste.scoring.detector import Detector
from fastcutpaste.scoring.ensemble import Ensemble
from fastcutpaste.scoring.export import Format, about_graph, check_extra, export_detector
from fastcutpaste.scoring.formats import convert_to_openvino, quantize_graph
from fastcutpaste.scoring.parity import TOLERANCE, Pixels, compare, make_images

_SUFFIXES = {"onnx": ".onnx", "openvino": ".xml", "torch": ".pt2", "compiled": ".pt2"}
_MOST_IMAGES = 16  # that are scored both ways: spread over those there are
_MOST_NORMAL = 64  # that scales come from


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--format", "kind", type=click.Choice(list(_SUFFIXES)), default="onnx", show_default=True,
              help="openvino: its .xml and .bin; torch: for torch.export.load; compiled: by AOTInductor.")  # fmt: skip
@click.option(
    "--out", type=click.Path(path_type=Path), help="File to write.  [default: detector.onnx, .xml, .pt2 in RUN]"
)
@click.option("--channels-last", is_flag=True, help="Take images (B, H, W, 3) instead of (B, 3, H, W).")
@click.option("--images", type=click.Path(path_type=Path),
              help="File or folder, of which images, 16 at most, are scored both ways.  [default: drawn]")  # fmt: skip
@click.option("--half", is_flag=True, help="Networks in float16: half the file.")
@click.option("--int8", "normal", type=click.Path(path_type=Path), metavar="IMAGES",
              help="Convolutions in 8-bit whole numbers, scaled by these normal images, 64 at most.")  # fmt: skip
@click.option("--tolerance", type=Finite(0, 1, min_open=True), default=TOLERANCE, show_default=True,
              help="Largest difference from the detector that may be, a share of the range of its maps.")  # fmt: skip
def export(
    run: Path, kind: Any, out: Path | None, channels_last: bool, images: Path | None, half: bool, normal: Path | None,
    tolerance: float,
) -> None:  # fmt: skip
    """Write the detector in RUN as one graph, from uint8 images of any size to heat maps, scores and decisions.

    Graph and detector score some images before the file is put in its place. How far they are apart is printed, and
    written beside it; too far, and there is no file.
    """
    if normal is not None and (half or kind != "onnx"):
        raise ValueError("export: --int8 with onnx, and without --half, required, got another way")
    if kind == "openvino":
        check_extra("onnx", "onnxscript", "onnxruntime", "openvino", extra="openvino")
    if kind == "onnx":
        check_extra("onnx", "onnxscript", "onnxruntime")
    scorer = load_run(run, torch.device("cpu"))
    bits = scorer.config.bits
    seen = make_images(scorer.config.size) if images is None else _read(images, bits, _MOST_IMAGES)
    folder = run if run.is_dir() else run.parent
    out = out or folder / f"detector{_SUFFIXES[kind]}"
    if out.suffix != _SUFFIXES[kind]:
        raise ValueError(f"export: a name that ends in {_SUFFIXES[kind]} required, got {out}")
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".export", dir=out.parent) as made:
        path = Path(made) / f"graph{out.suffix}"
        _write(scorer, path, kind, channels_last, half, None if normal is None else _read(normal, bits, _MOST_NORMAL))
        parity = compare(scorer, path, kind, seen, tolerance)
        told = out.with_name(f"{out.name}.{'parity' if parity.agrees else 'refused'}.md")
        with written_whole(told) as page:
            page.write_text(f"{out.name}: the exported graph beside its detector\n\n{parity.table}", encoding="utf-8")
        for line in parity.table.splitlines():
            people.print(line)
        if not parity.agrees:
            raise ValueError(f"export: differences of at most {tolerance:g} required, got those in {told}; "
                             "--tolerance allows more")  # fmt: skip
        out.with_name(f"{out.name}.refused.md").unlink(missing_ok=True)  # of an earlier try
        parts = sorted(path.parent.glob("graph.*"))  # OpenVINO's .bin before the .xml that is read first
        size = sum(part.stat().st_size for part in parts)
        for part in parts:
            with written_whole(out.with_suffix(part.suffix)) as temporary:
                os.replace(part, temporary)
    about = about_graph(scorer, channels_last)
    shape = ", ".join(map(str, about["inputs"]["images"]["shape"]))
    people.print(f"{out}: images uint8 ({shape}) in, {', '.join(about['outputs'])} out", markup=False)
    compared = {"scores": parity.scores, "maps": parity.maps, "decisions": parity.decisions, "images": parity.images,
                "milliseconds": parity.milliseconds}  # fmt: skip
    finish({"exported": str(out), "format": kind, "threshold": scorer.threshold, "bytes": size,
            "parity": compared, "table": str(told)})  # fmt: skip


def _write(
    scorer: Detector | Ensemble, path: Path, kind: str, channels_last: bool, half: bool, normal: list[Pixels] | None
) -> None:
    """Write the detector to `path`; for OpenVINO, and in whole numbers, by way of a file beside it."""
    if kind != "openvino" and normal is None:
        export_detector(scorer, path, cast(Format, kind), channels_last, half)
        return
    plain = path.with_name("plain.onnx")
    export_detector(scorer, plain, "onnx", channels_last, half, at_once=normal is not None)
    if normal is None:
        convert_to_openvino(plain, path)
    else:
        quantize_graph(plain, path, normal)


def _read(path: Path, bits: int | None, most: int) -> list[Pixels]:
    """Read at most so many images, uint8 (H, W, 3) each, spread evenly over those of a folder and their pages."""
    found = _spread(all_pages(_spread(find_test_images(path).paths, most)), most)
    return [np.asarray(read_image(path, bits)) for path in found]


def _spread(paths: Sequence[Path], most: int) -> list[Path]:
    places = np.linspace(0, len(paths) - 1, min(len(paths), most)).round().astype(int)
    return [paths[place] for place in places]
