"""A detector as one graph, network, density and map together, for runtimes that know nothing of this library."""

import json
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from fastcutpaste.files import written_whole
from fastcutpaste.networks.patchnet import STEP
from fastcutpaste.op.color import level_brightness
from fastcutpaste.scoring.dense import continue_edges, embed_densely, reach_weights, score_maps, widen_patches
from fastcutpaste.scoring.detector import Detector

Format = Literal["onnx", "torch"]


class ScoringGraph(nn.Module):
    """Map uint8 images (B, 3, H, W) of the detector's size to heat maps (B, H, W) and scores (B,), float32.

    The same numbers as `Detector.localize` and `Detector.score` in float32, in plain tensor operations; a detector of
    whole images gives scores alone.

    Args:
        detector: fitted; its network and density are used, not copied.

    Raises:
        RuntimeError: not fitted.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        if detector.density is None:
            raise RuntimeError("ScoringGraph: a fitted detector required, got one without a density")
        self.network, self.density, self.config = detector.network, detector.density, detector.config
        self.area_densities, self.brightness = detector.area_densities, detector.brightness
        margin, stride = self.config.margin, self.config.stride
        for side in self.config.sides:
            grid = self.config.grid_of(side)
            for i, (name, length) in enumerate(zip(("rows", "columns"), self.config.size, strict=True)):
                weights = reach_weights(length + 2 * margin, grid[i], side, stride, True)[margin : margin + length]
                self.register_buffer(f"{name}_{side}", weights.to(detector.device), persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        if self.config.level:
            images = level_brightness(images, self.brightness)
        if self.config.patch is None:
            return (self.density.score(self.network.embed(images)),)
        continued = continue_edges(images, self.config.margin)
        features = self._features(continued, self.config.patch, self.config.stride)
        spread = []
        for side, density in zip(self.config.sides, (self.density, *self.area_densities), strict=True):
            scores = density.score(widen_patches(features, self.config.patches_along(side)))
            spread.append(self._spread(side, scores))
        maps = torch.stack(spread).mean(0)
        return maps, score_maps(maps)

    def _spread(self, side: int, scores: Tensor) -> Tensor:
        rows, columns = (self.get_buffer(f"{name}_{side}") for name in ("rows", "columns"))
        return rows @ scores @ columns.T  # (H, h) · (B, h, w) · (w, W)

    def _features(self, images: Tensor, patch: int, stride: int) -> Tensor:
        network = self.network
        if network.field is not None and stride % STEP == 0:
            return embed_densely(images, network.embed_map, patch=patch, stride=stride, field=network.field, step=STEP)
        h, w = self.config.grid
        inside = torch.arange(patch, device=images.device)
        row = (torch.arange(h, device=images.device) * stride).view(-1, 1, 1, 1) + inside.view(-1, 1)  # (h, 1, P, 1)
        column = (torch.arange(w, device=images.device) * stride).view(-1, 1, 1) + inside  # (w, 1, P)
        patches = images[:, :, row, column].permute(0, 2, 3, 1, 4, 5)  # (B, h, w, 3, P, P)
        return network.embed(patches.reshape(-1, 3, patch, patch)).view(len(images), h, w, -1)


def export_detector(detector: Detector, path: str | Path, kind: Format = "onnx", batch: int = 1) -> None:
    """Write a detector as one graph: input `images`, outputs `maps` and `scores`, or `scores` alone.

    The settings, the threshold with the held-out scores it comes from, and what is typical of normal images go with it
    as JSON: in the metadata of the ONNX file, under "fastcutpaste"; in the torch file as
    `extra_files["fastcutpaste.json"]`.

    Args:
        detector: fitted.
        path: file to write, whole or not at all.
        kind: "onnx", which needs `pip install 'fastcutpaste[export]'`; or "torch", for `torch.export.load`.
        batch: images a call, fixed in the graph.

    Raises:
        ValueError: another kind, a batch below 1.
        RuntimeError: not fitted.
        ImportError: onnx or onnxscript is missing.

    Cost: a network with padding is given all patches of the images at once: at 64/4 and 256² that takes some 2.5 GB
        an image when it runs; a larger stride, or a PatchNet, takes far less.
    """
    if kind not in ("onnx", "torch"):
        raise ValueError(f"export_detector: 'onnx' or 'torch' required, got {kind!r}")
    if batch < 1:
        raise ValueError(f"export_detector: a batch of at least 1 image required, got {batch}")
    graph = ScoringGraph(detector).eval()
    images = torch.zeros(batch, 3, *detector.config.size, dtype=torch.uint8, device=detector.device)
    about = json.dumps(
        {
            "size": detector.config.size,
            "bits": detector.config.bits,
            "threshold": detector.threshold,
            "calibration": detector.calibration.told(),
            "typical": detector.typical,
            "provenance": detector.provenance,
        }
    )
    outputs = ["scores"] if detector.config.patch is None else ["maps", "scores"]
    with torch.no_grad(), written_whole(path) as temporary:
        if kind == "torch":
            torch.export.save(
                torch.export.export(graph, (images,)), temporary, extra_files={"fastcutpaste.json": about}
            )
            return
        program = torch.onnx.export(
            graph, (images,), dynamo=True, input_names=["images"], output_names=outputs, verbose=False
        )
        assert program is not None
        program.model.metadata_props["fastcutpaste"] = about
        program.save(temporary)
