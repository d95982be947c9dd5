"""Whether an exported graph says of images what the detector says: both score them, and a table tells how far apart."""

import copy
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from fastcutpaste.networks.backbone import computes_bf16
from fastcutpaste.scoring.dense import resize_map, score_maps
from fastcutpaste.scoring.detector import Detector
from fastcutpaste.scoring.ensemble import Ensemble, Scored
from fastcutpaste.scoring.export import Format, fingerprint

Opened = Format | Literal["openvino"]
Pixels = NDArray[np.uint8]
Run = Callable[[Pixels], Sequence[Any]]  # images (B, 3, H, W) or (B, H, W, 3), as the graph has it

TOLERANCE = 1e-3  # of the range; of photographs of 900² resized to 256² maps came 1e-5 apart


class Parity(NamedTuple):
    """Hold how far a graph's results are from the detector's, both in float32.

    scores, maps: largest and mean difference, as shares of the range of the detector's maps, or of whole images of the
        largest score; no maps of whole images.
    decisions: images of which the two say different things.
    images: how many were scored.
    tolerance: largest difference that may be.
    rounded: where the detector computes in bfloat16 on this machine: largest difference of its scores then, and images
        of which the decision differs; else None.
    milliseconds: an image, of the graph, the median, and of the detector as it computes on this machine, the mean.
    """

    scores: tuple[float, float]
    maps: tuple[float, float] | None
    decisions: int
    images: int
    tolerance: float
    rounded: tuple[float, int] | None = None
    milliseconds: tuple[float, float] | None = None

    @property
    def agrees(self) -> bool:
        """Whether no difference is above the tolerance; then decisions differ within it of the threshold alone."""
        return self.scores[0] <= self.tolerance and (self.maps is None or self.maps[0] <= self.tolerance)

    @property
    def table(self) -> str:
        """Tell it in Markdown."""
        rows = [("scores", self.scores), *([("maps", self.maps)] if self.maps else [])]
        text = "| difference, share of the range | largest | mean |\n|---|---:|---:|\n"
        text += "".join(f"| {name} | {largest:.1e} | {mean:.1e} |\n" for name, (largest, mean) in rows)
        text += (
            f"\ndecisions that differ: {self.decisions} of {self.images}; allowed: {self.tolerance:g} of the range\n"
        )
        if self.rounded is not None:
            text += (
                f"\nThe graph computes in float32, and so did the detector for this; in bfloat16, as it does on this "
                f"machine, its scores differ by {self.rounded[0]:.1e} at most, and {self.rounded[1]} decisions.\n"
            )
        if self.milliseconds is not None:
            graph, detector = self.milliseconds
            text += f"\nAn image took the graph {graph:.0f} ms and the detector {detector:.0f} ms, resize included.\n"
        return text


def compare(
    scorer: Detector | Ensemble, path: str | Path, kind: Opened, images: Sequence[Pixels], tolerance: float = TOLERANCE
) -> Parity:
    """Score images by an exported graph and by the detector it was made of.

    Args:
        scorer: what was exported, on the CPU.
        path: the exported file.
        kind: its format.
        images: uint8 (H, W, 3) each, RGB, of any sizes, at least 1.
        tolerance: largest difference that may be, a share of the range.

    Raises:
        ValueError: no images, images of another kind, a file that `open_graph` refuses, one of another detector.
        ImportError: onnxruntime, or openvino, is missing.
    """
    if not images:
        raise ValueError("compare: at least 1 image required, got none")
    for image in images:
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
            raise ValueError(f"compare: images uint8 (H, W, 3) required, got {image.dtype} {image.shape}")
    run, about = open_graph(path, kind)
    if about["detector"] != fingerprint(scorer):
        raise ValueError(
            f"{path}: a graph of this detector, as it is now, required, got one of another: export it anew"
        )
    last = about["inputs"]["images"]["shape"][-1] == 3
    results, seconds = [], []
    for image in images:
        given = (image if last else image.transpose(2, 0, 1))[None].copy()  # torch warns of a read-only one
        begun = time.perf_counter()
        results.append(run(given))
        if kind == "openvino":  # which has compiled for this size: it is judged by that result, and timed by the next
            begun = time.perf_counter()
            run(given)
        seconds.append(time.perf_counter() - begun)
    scores, maps = _scored(_in_float32(scorer), images)
    got = torch.stack([torch.as_tensor(result[-2])[0] for result in results])
    decided = torch.stack([torch.as_tensor(result[-1])[0] for result in results])
    low, high = (scores.new_zeros(1), scores.abs().max()) if maps is None else _range(maps)
    scale = (high - low).clamp(min=1e-12)
    between = None
    if maps is not None:
        apart = [(torch.as_tensor(result[0])[0] - one).abs() / scale for result, one in zip(results, maps, strict=True)]
        means = torch.stack([each.mean() for each in apart])
        between = float(torch.stack([each.max() for each in apart]).max()), float(means.mean())
    differences = (got - scores).abs() / scale
    rounded = None
    begun = time.perf_counter()
    here = _scored(scorer, images)[0]
    milliseconds = 1e3 * float(np.median(seconds)), 1e3 * (time.perf_counter() - begun) / len(images)
    if computes_bf16(torch.device("cpu")):
        rounded = float((got - here).abs().max() / scale), int((decided != (here > scorer.threshold)).sum())
    return Parity(
        (float(differences.max()), float(differences.mean())),
        between,
        int((decided != (scores > scorer.threshold)).sum()),
        len(images),
        tolerance,
        rounded,
        milliseconds,
    )


def open_graph(path: str | Path, kind: Opened) -> tuple[Run, dict[str, Any]]:
    """Open an exported graph: give what runs it on a CPU, and what it says of itself.

    Raises:
        ValueError: a file that cannot be opened, or says nothing of itself.
        ImportError: onnxruntime, or openvino, is missing.
    """
    try:
        run, told = _OPENERS[kind](path)
    except ImportError:
        raise
    except Exception as error:  # each runtime has errors of its own
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path}: a graph that this runtime can open required, got: {reason}") from error
    try:
        about = json.loads(told)
        about["detector"], about["inputs"]["images"]["shape"][-1]
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{path}: a graph with the metadata that export gives it required, got one without") from error
    return run, about


def make_images(size: tuple[int, int]) -> list[Pixels]:
    """Draw images of five sizes about a detector's (height, width): stains of all sizes, always the same."""
    random = np.random.default_rng(0)
    made = []
    for factor in (1.0, 0.6, 1.3, 2.1, 3.5):
        height, width = (max(1, round(length * factor)) for length in size)
        image = np.full((height, width, 3), 128.0)
        for cells in (2, 8, 32):
            noise = random.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
            stains = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
            image += (np.asarray(stains) - 127.5) * 0.3
        made.append(image.clip(0, 255).astype(np.uint8))
    return made


def _open_onnx(path: str | Path) -> tuple[Run, str]:
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    told = str(session.get_modelmeta().custom_metadata_map.get("fastcutpaste", ""))
    return lambda images: session.run(None, {"images": images}), told


def _open_openvino(path: str | Path) -> tuple[Run, str]:
    import openvino

    model = openvino.Core().read_model(path)
    told = model.get_rt_info("fastcutpaste").value if model.has_rt_info("fastcutpaste") else ""
    made: dict[tuple[int, ...], Any] = {}

    def run(images: Pixels) -> Sequence[Any]:
        if images.shape not in made:  # anew for each: of some graphs 2026.4 gets what it is given first wrong, no more
            # unless it is told to, it computes in bfloat16 where a processor is fast at it
            made[images.shape] = openvino.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        return list(made[images.shape]({"images": images}).to_tuple())

    return run, str(told)


def _open_torch(path: str | Path) -> tuple[Run, str]:
    extra: dict[str, Any] = {"fastcutpaste.json": ""}
    module = torch.export.load(path, extra_files=extra).module()

    def run(images: Pixels) -> Sequence[Any]:
        with torch.no_grad():
            outputs: Sequence[Any] = module(torch.from_numpy(images))
        return outputs

    return run, str(extra["fastcutpaste.json"])


def _open_compiled(path: str | Path) -> tuple[Run, str]:
    import torch._inductor

    package = torch._inductor.aoti_load_package(str(path))
    told = package.loader.get_metadata().get("fastcutpaste", "")
    return lambda images: package(torch.from_numpy(images)), str(told)


_OPENERS = {"onnx": _open_onnx, "openvino": _open_openvino, "torch": _open_torch, "compiled": _open_compiled}


def _scored(scorer: Detector | Ensemble, images: Sequence[Pixels]) -> Scored:
    """Score images (H, W, 3) as the library does files: resized by Pillow, the maps brought back to their sizes."""
    height, width = scorer.config.size
    resized = [Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR) for image in images]
    pixels = torch.from_numpy(np.stack([np.asarray(one) for one in resized])).permute(0, 3, 1, 2).contiguous()
    scored: list[Scored] = []
    for member in scorer.members if isinstance(scorer, Ensemble) else [scorer]:
        if member.config.patch is None:
            scored.append((member.score(pixels), None))
            continue
        maps = member.localize(pixels)  # (N, H, W) of the detector's size
        back = [resize_map(one[None], image.shape[:2])[0] for one, image in zip(maps, images, strict=True)]
        scored.append((score_maps(maps), back))
    return scorer.together(scored) if isinstance(scorer, Ensemble) else scored[0]


class _Float32(nn.Module):
    """Run a backbone in float32, whatever is cast around it."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, normalized: Tensor) -> Tensor:
        with torch.autocast(normalized.device.type, enabled=False):
            maps: Tensor = self.backbone(normalized)
        return maps


def _in_float32(scorer: Detector | Ensemble) -> Detector | Ensemble:
    """Give a copy that computes in float32 where the machine would take bfloat16."""
    copied = copy.deepcopy(scorer)
    for member in copied.members if isinstance(copied, Ensemble) else [copied]:
        member.network.backbone = _Float32(member.network.backbone).eval()  # a copied graph is in training mode
    return copied


def _range(maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    return torch.stack([one.min() for one in maps]).min(), torch.stack([one.max() for one in maps]).max()
