"""A detector as one graph, from images of any size to decisions, for runtimes that know nothing of this library."""

import hashlib
import io
import json
import math
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch._higher_order_ops.scan import scan

from fastcutpaste.files import written_whole
from fastcutpaste.networks.folding import fold_batch_norms
from fastcutpaste.networks.patchnet import STEP
from fastcutpaste.op.color import level_brightness
from fastcutpaste.scoring.dense import (
    continue_edges,
    embed_densely,
    reach_weights,
    resize_map,
    score_maps,
    widen_patches,
)
from fastcutpaste.scoring.detector import Detector
from fastcutpaste.scoring.ensemble import Ensemble
from fastcutpaste.scoring.resize import resize_as_pillow

Format = Literal["onnx", "torch", "compiled"]
LABELS = ("normal", "defective")  # what `defective` says: False, True
OPSET = 18

_UNITS = {
    "gaussian": "Mahalanobis distance from normal features",
    "location": "Mahalanobis distance from normal features",
    "kernel": "squared distance from normal features",
    "nearest": "distance from the nearest normal feature",
}


class ScoringGraph(nn.Module):
    """Map uint8 images (B, 3, H, W) of the detector's size to heat maps (B, H, W) and scores (B,), float32.

    The same numbers as `Detector.localize` and `Detector.score` in float32, in plain tensor operations; a detector of
    whole images gives scores alone.

    Args:
        detector: fitted; its density is used, not copied, and its network's batch norms are folded, in a copy.
        half: the network computes in float16; density and maps in float32, whose small differences it would lose.
        at_once: a network with padding is given all patches of the images at once, not a row of one image.

    Raises:
        RuntimeError: not fitted.
    """

    def __init__(self, detector: Detector, half: bool = False, at_once: bool = False) -> None:
        super().__init__()
        if detector.density is None:
            raise RuntimeError("ScoringGraph: a fitted detector required, got one without a density")
        self.network = fold_batch_norms(detector.network)  # torch's ONNX exporter does so itself, torch.export does not
        if half:
            self.network.half()
        self.density, self.config, self.at_once = detector.density, detector.config, at_once
        self.area_densities, self.brightness = detector.area_densities, detector.brightness
        margin, stride = self.config.margin, self.config.stride
        for side in self.config.sides:
            grid = self.config.grid_of(side)
            for i, (name, length) in enumerate(zip(("rows", "columns"), self.config.size, strict=True)):
                weights = reach_weights(length + 2 * margin, grid[i], side, stride, True)[margin : margin + length]
                self.register_buffer(f"{name}_{side}", weights.clone().to(detector.device), persistent=False)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        if self.config.level:
            images = level_brightness(images, self.brightness)
        if self.config.patch is None:
            return (self.density.score(self.network.embed(images).float()),)
        continued = continue_edges(images, self.config.margin)
        features = self._features(continued, self.config.patch, self.config.stride).float()
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

        def embed_rows(images: Tensor, rows: Tensor) -> Tensor:
            """Give features (n·w, D) of rows (n, 2) of the grid, each of an image: 0 to B - 1, 0 to h - 1."""
            inside = torch.arange(patch, device=images.device)
            columns = (torch.arange(w, device=images.device) * stride).view(-1, 1) + inside  # (w, P)
            strips = images[rows[:, :1], :, rows[:, 1:] * stride + inside]  # (n, P, 3, W)
            patches = strips[..., columns].permute(0, 3, 2, 1, 4)  # (n, P, 3, w, P) → (n, w, 3, P, P)
            return network.embed(patches.reshape(-1, 3, patch, patch))

        image, row = torch.arange(images.shape[0], device=images.device), torch.arange(h, device=images.device)
        rows = torch.cartesian_prod(image, row)
        # One at a time where it may be: all patches of an image of 256² at 64/4 take a ResNet-18 1.5 GB.
        if self.at_once:
            features = embed_rows(images, rows)
        else:  # the images go along from step to step, as OpenVINO wants what a step sees
            _, features = scan(lambda kept, one: (kept.clone(), embed_rows(kept, one[None])), images, rows)
        return features.view(images.shape[0], h, w, -1)


class DecisionGraph(nn.Module):
    """Map uint8 images of any size, of one size a call, to heat maps at that size, scores and decisions.

    The images are brought to the detector's size as Pillow does for `load_images`, bit for bit: a runtime's own resize
    takes its places from float32, and 1 value in 50 of noise comes out otherwise by 1 of 255. The maps are brought back
    bilinearly; the scores are of the maps before that, as the library's.

    Args:
        scorer: a fitted detector, or several that are scored together.
        channels_last: images come as (B, H, W, 3), as decoders give them; else as (B, 3, H, W).
        half: the networks compute in float16.
        at_once: networks with padding are given all patches of the images at once.

    Raises:
        RuntimeError: not fitted.
        ValueError: no threshold.
    """

    def __init__(
        self, scorer: Detector | Ensemble, channels_last: bool = False, half: bool = False, at_once: bool = False
    ) -> None:
        super().__init__()
        if not scorer.config.resize:
            raise ValueError("export: a detector of images that are resized required, got one that scores them at "
                             "their own scale")  # fmt: skip
        self.members = nn.ModuleList(ScoringGraph(member, half, at_once) for member in _members(scorer))
        self.scales = scorer.scales if isinstance(scorer, Ensemble) else [(0.0, 1.0)]
        self.size, self.whole, self.threshold = scorer.config.size, scorer.config.patch is None, scorer.threshold
        self.channels_last = channels_last
        if math.isnan(self.threshold):
            raise ValueError("DecisionGraph: a detector with a threshold required, got one without: calibrate it")

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        if self.channels_last:
            images = images.permute(0, 3, 1, 2)  # (B, H, W, 3) -> (B, 3, H, W)
        height, width = images.shape[-2:]
        resized = resize_as_pillow(images, self.size)
        # for each member ((B, H, W), (B,)), or of whole images ((B,),)
        made = [
            [(values - typical) / (top - typical) for values in member(resized)]
            for member, (typical, top) in zip(self.members, self.scales, strict=True)
        ]
        *maps, scores = (torch.stack(same).mean(0) for same in zip(*made, strict=True))
        return *(resize_map(each, (height, width)) for each in maps), scores, scores > self.threshold


def check_extra(*packages: str, extra: str = "export") -> None:
    """Raise an ImportError that names the extra, if one of its packages is missing."""
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ImportError(f"export: {', '.join(packages)} required, got no {', no '.join(missing)}; "
                          f"pip install 'fastcutpaste[{extra}]'")  # fmt: skip


def export_detector(
    scorer: Detector | Ensemble,
    path: str | Path,
    kind: Format = "onnx",
    channels_last: bool = False,
    half: bool = False,
    at_once: bool = False,
) -> None:
    """Write a detector, or several that are scored together, as one graph, as `DecisionGraph` has it.

    Its input is `images`, uint8 RGB, as many and of whatever size; its outputs are `maps`, `scores` and `defective`, of
    whole images the last two. What `about_graph` tells goes with it as JSON: in the metadata of the ONNX file, under
    "fastcutpaste"; in the torch file as `extra_files["fastcutpaste.json"]`; in a compiled one's
    `loader.get_metadata()`.

    Args:
        scorer: fitted.
        path: file to write, whole or not at all.
        kind: "onnx", of opset 18, which needs `pip install 'fastcutpaste[export]'`; "torch", for `torch.export.load`;
            or "compiled", by AOTInductor for this processor, which needs a C++ compiler and minutes, and a path that
            ends in .pt2 for `torch._inductor.aoti_load_package`.
        channels_last: images (B, H, W, 3) instead of (B, 3, H, W).
        half: the networks compute in float16, and take half the space; a CPU is no faster with it.
        at_once: a network with padding is given all patches of the images at once, as `quantize_graph` requires.

    Raises:
        ValueError: another kind, a network that cannot be followed, no threshold.
        RuntimeError: not fitted.
        ImportError: onnx or onnxscript is missing, or onnxscript older than torch.

    Cost: with `at_once` the graph of a ResNet-18 at 64/4 takes 1.5 GB an image of 256² when it runs, else 0.3 GB.
    """
    if kind not in get_args(Format):
        raise ValueError(f"export_detector: one of {', '.join(get_args(Format))} required, got {kind!r}")
    if kind == "onnx":
        check_extra("onnx", "onnxscript")
    at_once = at_once or kind == "compiled"  # torch 2.14's Inductor misses a size inside the scan: KeyError
    graph = DecisionGraph(scorer, channels_last, half, at_once).eval()
    about = about_graph(scorer, channels_last) | {"precision": "float16" if half else "float32"}
    height, width = (length + 1 for length in scorer.config.size)  # as the detector's, they would be taken for fixed
    shape = (2, height, width, 3) if channels_last else (2, 3, height, width)
    images = torch.zeros(shape, dtype=torch.uint8, device=_members(scorer)[0].device)
    open_sizes = {
        i: torch.export.Dim(name, min=1)
        for i, name in enumerate(about["inputs"]["images"]["shape"])
        if isinstance(name, str)
    }
    names, told = list(about["outputs"]), json.dumps(about)
    with torch.no_grad(), written_whole(path) as temporary:
        try:
            if kind != "onnx":
                program = torch.export.export(graph, (images,), dynamic_shapes=(open_sizes,))
            else:
                written = torch.onnx.export(
                    graph, (images,), dynamo=True, input_names=["images"], output_names=names,
                    dynamic_shapes=(open_sizes,), opset_version=OPSET, verbose=False,
                )  # fmt: skip
        except Exception as error:  # whatever following a network's code makes of it
            if isinstance(error, ImportError) and "onnxscript" in str(error):  # torch came later than it
                required = f"export_detector: an onnxscript that knows torch {torch.__version__} required"
                raise ImportError(f"{required}, got an older one ({error}): pip install -U onnxscript") from error
            backbones = ", ".join(dict.fromkeys(member.network.config.backbone for member in _members(scorer)))
            reason = (str(error) or type(error).__name__).splitlines()[0]
            required = "export_detector: a backbone that can be followed, by torch 2.14 or newer, required"
            raise ValueError(f"{required}, got {backbones} and torch {torch.__version__}: {reason}") from error
        if kind != "onnx":
            file = io.BytesIO()  # on a full disk torch's own way of writing one ends the process
            if kind == "torch":
                with warnings.catch_warnings():  # of weights whose channels are last, which it writes nevertheless
                    warnings.filterwarnings("ignore", "No complete tensor found", UserWarning)
                    torch.export.save(program, file, extra_files={"fastcutpaste.json": told})
            else:
                _compile(program, file, told)
            temporary.write_bytes(file.getbuffer())
            return
        assert written is not None
        _give_bodies_their_weights(written.model)
        written.model.metadata_props["fastcutpaste"] = told
        written.save(temporary)


def about_graph(scorer: Detector | Ensemble, channels_last: bool = False) -> dict[str, Any]:
    """Tell of an exported graph what its file says: names, shapes, units, labels, and what the threshold promises."""
    together = isinstance(scorer, Ensemble)
    unit = "0 typical of normal images, 1 a member's threshold" if together else _UNITS[scorer.config.density]
    outputs: dict[str, Any] = {
        "maps": {"shape": ["batch", "height", "width"], "type": "float32", "unit": unit},
        "scores": {"shape": ["batch"], "type": "float32", "unit": unit},
        "defective": {"shape": ["batch"], "type": "bool", "unit": "the score is above the threshold"},
    }
    if scorer.config.patch is None:
        del outputs["maps"]
    shape = ["batch", "height", "width", 3] if channels_last else ["batch", 3, "height", "width"]
    return {
        "inputs": {"images": {"shape": shape, "type": "uint8", "unit": "red, green, blue, 0 to 255"}},
        "outputs": outputs,
        "labels": list(LABELS),
        "size": list(scorer.config.size),
        "bits": scorer.config.bits,
        "threshold": scorer.threshold,
        "promised": scorer.calibration.promised,
        "calibration": scorer.calibration.told(),
        "typical": None if math.isnan(scorer.typical) else scorer.typical,
        "provenance": scorer.provenance,
        "detector": fingerprint(scorer),
    }


def fingerprint(scorer: Detector | Ensemble) -> str:
    """Give 16 hex digits that tell a detector from others: of its weights, densities, settings and threshold."""
    digest = hashlib.sha256(repr((scorer.threshold, getattr(scorer, "scales", None))).encode())
    for member in _members(scorer):
        config, densities = member.config, (member.density, *member.area_densities)
        settings = config.size, config.patch, config.stride, config.border, config.level, config.areas
        digest.update(repr((*settings, member.brightness if config.level else None)).encode())
        states = [member.network.backbone.state_dict(), *(each.state() for each in densities if each is not None)]
        for state in states:
            for name, tensor in state.items():
                digest.update(name.encode())
                digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _compile(program: torch.export.ExportedProgram, file: io.BytesIO, told: str) -> None:
    """Write a program as machine code of this processor, with what is told of it."""
    try:
        torch._inductor.aoti_compile_and_package(
            program, package_path=file, inductor_configs={"aot_inductor.metadata": {"fastcutpaste": told}}
        )
    except Exception as error:  # of compilers
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"export_detector: a C++ compiler that builds the graph required, got: {reason}") from error


def _give_bodies_their_weights(model: Any) -> None:
    """Move each weight that is used in the body of a `Scan` alone into it, and drop those that nothing uses.

    ONNX Runtime warns of these, and prepares no weights outside a body for it: a ResNet-18 then takes nearly twice as
    long.
    """
    outside = model.graph.initializers
    bodies = [node.attributes["body"].as_graph() for node in model.graph if node.op_type == "Scan"]
    for name, weight in list(outside.items()):
        users = [use.node.graph for use in weight.uses()]
        inside = next((body for body in bodies if users and all(user is body for user in users)), None)
        if inside is not None or not users:
            del outside[name]
        if inside is not None:
            inside.initializers[name] = weight


def _members(scorer: Detector | Ensemble) -> list[Detector]:
    return scorer.members if isinstance(scorer, Ensemble) else [scorer]
