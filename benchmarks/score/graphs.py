"""A detector and its exported graphs on the same images, in turns, from pixels to heat maps.

    python -m benchmarks.score.graphs FOLDER    of normal images; prints a table in Markdown

An untrained PatchNet at 64/4 on 256² is fitted on 40 of them. One more, at 256² and enlarged to 900², is then scored by
each in turn, forwards and backwards; times are medians, the resize to 256² included. The compiled graph takes minutes
to make.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from benchmarks.rows import name_of
from benchmarks.score.providers import SIZE, STRIDE, make_network
from fastcutpaste.console import people
from fastcutpaste.images.decode import load_images
from fastcutpaste.images.folders import find_test_images
from fastcutpaste.networks import backbone
from fastcutpaste.scoring.config import DetectorConfig
from fastcutpaste.scoring.detector import Detector
from fastcutpaste.scoring.export import Format, export_detector
from fastcutpaste.scoring.formats import convert_to_openvino, quantize_graph
from fastcutpaste.scoring.parity import Opened, open_graph

Pixels = NDArray[np.uint8]
ROUNDS = 20
PATCH = 64


def main() -> None:
    """Make the graphs, time them in turns, print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.score.graphs", description=__doc__)
    parser.add_argument("folder", type=Path)
    paths = find_test_images(parser.parse_args().folder).paths
    if len(paths) < 61:
        raise SystemExit(f"at least 61 images required, got {len(paths)}")
    pixels = load_images(paths[:60], (SIZE, SIZE)).pixels
    config = DetectorConfig((SIZE, SIZE), patch=PATCH, stride=STRIDE)
    detector = Detector(make_network("patchnet", PATCH, torch.device("cpu")), config).fit(pixels[:40], pixels[40:])
    with Image.open(paths[60]) as opened:
        picture = opened.convert("RGB")
    images = [np.array(picture.resize((side, side), Image.Resampling.BICUBIC)) for side in (SIZE, 900)]
    with tempfile.TemporaryDirectory() as folder:
        runs = {**library(detector), **graphs(detector, Path(folder), list(pixels[40:].permute(0, 2, 3, 1).numpy()))}
        table = [in_turns(runs, image) for image in images]
    people.print(f"| ms an image, {name_of(torch.device('cpu'))}, {torch.get_num_threads()} threads | 256² | 900² |")
    people.print("|---|---:|---:|")
    for name in runs:
        people.print(f"| {name} | {table[0][name]:.0f} | {table[1][name]:.0f} |")


def library(detector: Detector) -> dict[str, Callable[[Pixels], object]]:
    """Give what scores an image (H, W, 3) by the library, as it computes here and in float32."""
    here = backbone.computes_bf16

    def score(image: Pixels) -> object:
        resized = Image.fromarray(image).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        return detector.localize(torch.from_numpy(np.asarray(resized)).permute(2, 0, 1)[None])

    def score_in_float32(image: Pixels) -> object:
        backbone.computes_bf16 = lambda _: False
        try:
            return score(image)
        finally:
            backbone.computes_bf16 = here

    rounded = {"the library, bfloat16": score} if here(torch.device("cpu")) else {}
    return {**rounded, "the library, float32": score_in_float32}


def graphs(detector: Detector, folder: Path, normal: list[Pixels]) -> dict[str, Callable[[Pixels], object]]:
    """Export the detector in each way; give what scores an image (H, W, 3) by it."""
    export_detector(detector, folder / "float32.onnx", channels_last=True)
    export_detector(detector, folder / "half.onnx", channels_last=True, half=True)
    quantize_graph(folder / "float32.onnx", folder / "int8.onnx", normal)
    convert_to_openvino(folder / "float32.onnx", folder / "float32.xml")
    ways: dict[str, tuple[str, Opened]] = {
        "ONNX Runtime": ("float32.onnx", "onnx"),
        "ONNX Runtime, `--half`": ("half.onnx", "onnx"),
        "ONNX Runtime, `--int8`": ("int8.onnx", "onnx"),
        "OpenVINO": ("float32.xml", "openvino"),
        "`--format torch`": ("torch.pt2", "torch"),
        "`--format compiled`": ("compiled.pt2", "compiled"),
    }
    made: dict[str, Callable[[Pixels], object]] = {}
    for name, (file, kind) in ways.items():
        if kind in ("torch", "compiled"):
            export_detector(detector, folder / file, cast(Format, kind), channels_last=True)
        run, _ = open_graph(folder / file, kind)
        made[name] = lambda image, run=run: run(image[None])  # type: ignore[misc]
    return made


def in_turns(runs: dict[str, Callable[[Pixels], object]], image: Pixels) -> dict[str, float]:
    """Time each on the image, in turns, forwards and backwards; give the median milliseconds without the first two."""
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(ROUNDS):
        for name in list(runs)[:: 1 if turn % 2 else -1]:
            begun = time.perf_counter()
            runs[name](image)
            taken[name].append((time.perf_counter() - begun) * 1e3)
    return {name: float(np.median(times[2:])) for name, times in taken.items()}


if __name__ == "__main__":
    main()
