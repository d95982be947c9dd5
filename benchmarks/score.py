"""Dense scoring and the density fit: patch by patch, in one pass, compiled, exported, and against scikit-learn.

    python -m benchmarks.score            every provider, 256² at 64/4 and 32/4: rows and table
    python -m benchmarks.score --quick    the ratios, JSON on the last line

Images are uint8 and already on the device; a call ends with the features of every patch. The naive loop is what
public code does: slices stacked to batches of 128, float32, NCHW. Results are compared before anything is timed.
"""

import argparse
import functools
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import torch
from sklearn.covariance import LedoitWolf
from torch import Tensor

from benchmarks import plots
from benchmarks.photographs import make_photographs
from benchmarks.rows import RESULTS, keep, make_row, measure, peak_mb
from fastcutpaste.networks.backbone import Network, NetworkConfig, autocast, computes_bf16
from fastcutpaste.networks.patchnet import STEP
from fastcutpaste.scoring.config import DetectorConfig
from fastcutpaste.scoring.covariance import ledoit_wolf
from fastcutpaste.scoring.dense import embed_densely, embed_patches, grid_shape
from fastcutpaste.scoring.detector import Detector
from fastcutpaste.scoring.export import export_detector

SIZE, STRIDE = 256, 4


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


def in_turns(calls: dict[str, Callable[[], object]], rounds: int = 3) -> dict[str, float]:
    """Time calls in turns, so that a busy moment of the machine hits all alike; give the least milliseconds of each."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            begun = time.perf_counter()
            call()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            taken[name].append((time.perf_counter() - begun) * 1e3)
    return {name: min(times) for name, times in taken.items()}


def fit_density(rows: int, columns: int) -> dict[str, float]:
    """Compare the Ledoit-Wolf fit with scikit-learn's: its time over ours, and the largest difference."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(columns, columns, generator=generator) / columns**0.5
    features = torch.randn(rows, columns, generator=generator) @ mixing + 1
    array = features.numpy()
    _, covariance, _ = ledoit_wolf(features)
    wanted = torch.from_numpy(LedoitWolf().fit(array.astype("float64")).covariance_)
    scale = float(wanted.diagonal().mean())
    difference = float((covariance - wanted).abs().max()) / scale
    if difference > 1e-5:
        raise AssertionError(f"the covariance differs from scikit-learn's by {difference:.1e} of its scale")
    double = array.astype("float64")  # what scikit-learn needs to be as close: in float32 it is off by 1e-6
    times = in_turns(
        {
            "ours": lambda: ledoit_wolf(features),
            "sklearn": lambda: LedoitWolf().fit(double),
            "sklearn float32": lambda: LedoitWolf().fit(array),
        },
        rounds=4,
    )
    return {
        "density_fit_vs_sklearn": round(times["sklearn"] / times["ours"], 2),
        "density_fit_vs_sklearn_float32": round(times["sklearn float32"] / times["ours"], 2),
        "density_fit_s": round(times["ours"] / 1e3, 2),
        "density_difference": difference,
    }


def run_quick(size: int = SIZE) -> dict[str, float]:
    """Measure the ratios on one image at 64/4."""
    device, patch = torch.device("cpu"), 64
    image = make_photographs(1, size).to(device)
    resnet, patchnet = (make_network(name, patch, device) for name in ("resnet18", "patchnet"))
    corner = image[..., : patch + 16, : patch + 12]
    with torch.inference_mode():
        wanted = naive(resnet, corner, patch, STRIDE)
        check(exact(resnet, corner, patch, STRIDE), wanted, 0.2)  # bf16, where the processor has it: 0.11 by AMX
        check(embed_patches(corner, resnet.embed, patch=patch), wanted, 1e-3)
        unfolded = embed_patches(corner, patchnet.embed, patch=patch)
        assert patchnet.field is not None
        in_float = embed_densely(corner, patchnet.embed_map, patch=patch, stride=4, field=patchnet.field, step=STEP)
        difference = check(in_float, unfolded, 1e-4)
    times = in_turns(
        {
            "resnet18 naive": lambda: naive(resnet, image, patch, STRIDE),
            "resnet18 exact": lambda: exact(resnet, image, patch, STRIDE),
            "patchnet exact": lambda: exact(patchnet, image, patch, STRIDE),
            "patchnet dense": lambda: [dense(patchnet, image, patch, STRIDE) for _ in range(10)],
        }
    )
    one_pass = times["patchnet dense"] / 10
    return {
        "exact_vs_naive": round(times["resnet18 naive"] / times["resnet18 exact"], 2),
        "dense_vs_exact": round(times["patchnet exact"] / one_pass, 1),
        "dense_vs_resnet18_exact": round(times["resnet18 exact"] / one_pass, 1),
        "dense_ms_per_image": round(one_pass, 2),
        "resnet18_exact_ms_per_image": round(times["resnet18 exact"], 1),
        "resnet18_naive_ms_per_image": round(times["resnet18 naive"], 1),
        "dense_difference": difference,
        **fit_density(200_000, 512),
    }


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


def run_all(device: torch.device, path: Path, seconds: float = 2.0) -> None:
    """Measure every provider, latency at batch 1 and throughput at batch 16, and keep the rows.

    The first provider of a network's features is the one that the others have to agree with.
    """
    wanted: dict[tuple[str, str], Tensor] = {}
    tolerance = 0.3 if computes_bf16(device) else 1e-3  # of the features' spread; the naive loop is in float32
    with tempfile.TemporaryDirectory() as folder:
        for patch in (64, 32):
            for op, name, call, batches in providers(patch, device, Path(folder)):
                if op.startswith("score"):
                    result = call(make_photographs(1).to(device))
                    assert isinstance(result, Tensor)
                    check(result, wanted.setdefault((op, name.split()[0]), result.float()), tolerance)
                for batch in batches:
                    images = make_photographs(batch).to(device)
                    peak_mb(device, begin=True)
                    taken = measure(functools.partial(call, images), seconds=seconds, least=3)
                    row = make_row(op, name, batch, SIZE, taken, device, peak_mb=peak_mb(device))
                    keep([row], path)
                    print(
                        f"{op:12} {name:26} batch {batch:3d}  {row.p50_ms:9.1f} ms  {row.peak_mb:7,.0f} MB", flush=True
                    )


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
    yield score, "resnet18 exact, compiled", exact_compiled, one
    yield score, "patchnet exact", functools.partial(exact, patchnet, **arguments), one
    yield score, "patchnet dense", functools.partial(dense, patchnet, **arguments), both
    compiled = torch.compile(patchnet.embed_map)  # with `dense` around it, it would be compiled anew at each call
    yield score, "patchnet dense, compiled", functools.partial(dense, patchnet, embed_map=compiled, **arguments), both
    op = f"map {patch}/{STRIDE}"
    yield op, "patchnet, to heat maps", fitted(patchnet, patch).localize, both
    session = exported(patchnet, patch, device, folder)
    if session is not None:
        yield op, "patchnet in ONNX Runtime, to heat maps", session, both


def main() -> None:
    """Run what the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the ratios on a CPU, JSON on the last line")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=RESULTS / "score.csv")
    arguments = parser.parse_args()
    if arguments.quick:
        print(json.dumps(run_quick()))
    else:
        run_all(torch.device(arguments.device), arguments.out)
        if arguments.out == RESULTS / "score.csv":
            plots.main()


if __name__ == "__main__":
    main()
