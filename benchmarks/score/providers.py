"""What scores images, by name: patch by patch, in one pass, compiled, exported; and the check that all agree."""

import functools
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.photographs import make_photographs
from fastcutpaste.networks.backbone import Network, NetworkConfig, autocast, computes_bf16
from fastcutpaste.networks.folding import fold_batch_norms
from fastcutpaste.networks.patchnet import STEP
from fastcutpaste.scoring.config import DetectorConfig
from fastcutpaste.scoring.dense import embed_densely, embed_patches, grid_shape
from fastcutpaste.scoring.detector import Detector
from fastcutpaste.scoring.export import export_detector

SIZE, STRIDE = 256, 4  # pixels


def make_network(backbone: str, patch: int, device: torch.device) -> Network:
    """Build a network whose batch norms have seen the images, so that features are of order 1 and differ."""
    torch.manual_seed(0)
    network = Network(NetworkConfig(backbone, patch=patch)).to(device)
    crops = make_photographs(16)[..., :patch, :patch].to(device)
    with torch.no_grad():
        for _ in range(10):
            network(crops)
    return network.to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload, no-any-return]


@torch.inference_mode()
def naive(network: Network, images: Tensor, patch: int, stride: int, batch: int = 128) -> Tensor:
    """Give the features (B, h, w, D) of slices, stacked to batches, float32 in NCHW."""
    rows, columns = grid_shape(images.shape[-2], images.shape[-1], patch, stride)
    mean, std = network.mean.view(3, 1, 1), network.std.view(3, 1, 1)
    slices = [
        image[:, y : y + patch, x : x + patch]
        for image in (images.float() / 255 - mean) / std
        for y in range(0, rows * stride, stride)
        for x in range(0, columns * stride, stride)
    ]
    features = [network.backbone(torch.stack(slices[i : i + batch])) for i in range(0, len(slices), batch)]
    features = [part.mean((-2, -1)) if part.ndim == 4 else part for part in features]
    return torch.cat(features).view(len(images), rows, columns, -1)


def exact(network: Network, images: Tensor, patch: int, stride: int) -> Tensor:
    """Give the features as the detector does, patch by patch."""
    with autocast(images.device):
        return embed_patches(images, network.embed, patch=patch, stride=stride)


def dense(
    network: Network, images: Tensor, patch: int, stride: int, embed_map: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """Give the features as the detector does, in one pass; by `embed_map`, where it is the network's, compiled."""
    assert network.field is not None
    embed_map = embed_map or network.embed_map
    with autocast(images.device):
        return embed_densely(images, embed_map, patch=patch, stride=stride, field=network.field, step=STEP)


def check(features: Tensor, wanted: Tensor, tolerance: float) -> float:
    """Refuse to time what is wrong; give the largest difference in units of the features' spread."""
    difference = float((features.float() - wanted).abs().max() / wanted.std())
    if not difference <= tolerance:
        raise AssertionError(f"features differ by {difference:.1e} of their spread, {tolerance:.0e} allowed")
    return difference


def providers(
    patch: int, device: torch.device, folder: Path
) -> Iterator[tuple[str, str, Callable[[Tensor], object], tuple[int, ...]]]:
    """Give what is measured: op, name, call and batches. `score` ends with features, `map` with heat maps."""
    resnet, patchnet = (make_network(name, patch, device) for name in ("resnet18", "patchnet"))
    embed = torch.compile(resnet.embed)

    def exact_compiled(images: Tensor) -> Tensor:
        with autocast(images.device):
            return embed_patches(images, embed, patch=patch, stride=STRIDE)

    score, one, both = f"score {patch}/{STRIDE}", (1,), (1, 16)
    arguments = {"patch": patch, "stride": STRIDE}
    yield score, "resnet18 naive", functools.partial(naive, resnet, **arguments), one
    yield score, "resnet18 exact", functools.partial(exact, resnet, **arguments), one
    yield score, "resnet18 exact, folded", functools.partial(exact, fold_batch_norms(resnet), **arguments), one
    yield score, "resnet18 exact, compiled", exact_compiled, one
    yield score, "patchnet exact", functools.partial(exact, patchnet, **arguments), one
    yield score, "patchnet dense", functools.partial(dense, patchnet, **arguments), both
    yield score, "patchnet dense, folded", functools.partial(dense, fold_batch_norms(patchnet), **arguments), both
    compiled = torch.compile(patchnet.embed_map)  # with `dense` around it, it would be compiled anew at each call
    yield score, "patchnet dense, compiled", functools.partial(dense, patchnet, embed_map=compiled, **arguments), both
    op = f"map {patch}/{STRIDE}"
    detector = fitted(patchnet, patch)
    yield op, "patchnet, to heat maps", detector.localize, both
    fast = detector.optimized()
    yield op, "patchnet, optimized, to heat maps", functools.partial(fast.localize, device=device), both
    session = exported(patchnet, patch, device, folder)
    if session is not None:
        yield op, "patchnet in ONNX Runtime, to heat maps", session, both


def exported(network: Network, patch: int, device: torch.device, folder: Path) -> Callable[[Tensor], object] | None:
    """Export a detector of the network and give its ONNX Runtime session, from images to maps; None without it."""
    if find_spec("onnxruntime") is None or find_spec("onnxscript") is None or device.type != "cpu":
        return None
    import onnxruntime

    detector = fitted(network, patch)
    path = folder / f"{network.config.backbone}-{patch}.onnx"
    export_detector(detector, path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    images = make_photographs(1)
    wanted = detector.localize(images)
    difference = float((torch.from_numpy(session.run(None, {"images": images.numpy()})[0]) - wanted).abs().max())
    if difference > (0.1 if computes_bf16(device) else 1e-2) * float(wanted.std()):  # the graph is in float32
        raise AssertionError(f"the exported maps differ by {difference:.1e}, their spread is {float(wanted.std()):.1e}")
    return lambda batch: [session.run(None, {"images": one.numpy()}) for one in torch.split(batch, 1)]


def fitted(network: Network, patch: int) -> Detector:
    """Give a detector of the network, as it is in use."""
    images = make_photographs(3)
    config = DetectorConfig((SIZE, SIZE), patch=patch, stride=STRIDE, fit_patches=5_000)
    return Detector(network, config).fit(images, images[:1])
