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
from collections.abc import Callable
from pathlib import Path

import torch
from sklearn.covariance import LedoitWolf
from torch import Tensor

from benchmarks import plots
from benchmarks.kept import keep
from benchmarks.photographs import make_photographs
from benchmarks.rows import RESULTS, make_row, measure, peak_mb
from benchmarks.score.providers import SIZE, STRIDE, check, dense, exact, make_network, naive, providers
from fastcutpaste.networks.backbone import computes_bf16
from fastcutpaste.networks.patchnet import STEP
from fastcutpaste.scoring.covariance import ledoit_wolf
from fastcutpaste.scoring.dense import embed_densely, embed_patches


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


def main(words: list[str] | None = None) -> None:
    """Run what the command line, or the words given, ask for."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.score", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="the ratios on a CPU, JSON on the last line")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--out", type=Path, default=RESULTS / "score.csv")
    arguments = parser.parse_args(words)
    if arguments.quick:
        print(json.dumps(run_quick()))
    else:
        run_all(torch.device(arguments.device), arguments.out)
        if arguments.out == RESULTS / "score.csv":
            plots.main()


if __name__ == "__main__":
    main()
