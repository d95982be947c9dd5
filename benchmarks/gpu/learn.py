"""The training step, the trainer, the scorer and the density on a GPU."""

import functools
import itertools
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu.device import device_times, profile_table, waits
from benchmarks.gpu.figures import Figures, Plan
from benchmarks.photographs import make_photographs
from benchmarks.rows import peak_mb
from fastcutpaste import BaseAugmentation, CutPaste3Way
from fastcutpaste.networks.backbone import Network, NetworkConfig, autocast
from fastcutpaste.scoring.config import DetectorConfig
from fastcutpaste.scoring.dense import embed_patches, spread_scores
from fastcutpaste.scoring.density import GaussianDensity
from fastcutpaste.scoring.detector import Detector
from fastcutpaste.training.launch import matrix_products
from fastcutpaste.training.loop import train
from fastcutpaste.training.step import PRESETS, TrainConfig

Step = Callable[[Tensor], object]


def make_step(plan: Plan, precision: str, layout: torch.memory_format, compiled: bool, augmented: bool) -> Step:
    """Make one update of a ResNet-18 on images (B, 3, H, W), three classes of them; the result is the loss."""
    torch.manual_seed(0)
    network = Network().to(plan.device).to(memory_format=layout)  # type: ignore[call-overload]
    base, task = BaseAugmentation(), CutPaste3Way()
    optimizer = torch.optim.SGD(network.parameters(), 0.001, 0.9, fused=True)

    def loss_of(images: Tensor) -> Tensor:
        if augmented:
            images, labels = task(base(images))
        else:
            images = images.repeat(3, 1, 1, 1)
            labels = torch.arange(3, device=images.device).repeat_interleave(len(images) // 3)
        with autocast(plan.device, "bf16" if precision == "bf16" else "fp32"):
            scores = network(images)
        return F.cross_entropy(scores.float(), labels)

    forward = plan.compiled(loss_of, fullgraph=False) if compiled else loss_of

    def step(images: Tensor) -> Tensor:
        optimizer.zero_grad()
        loss = forward(images)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return loss.detach()

    return step


def named(precision: str, layout: str, compiled: bool) -> str:
    """Name a way to compute the step."""
    return f"{precision} {layout}{', compiled' if compiled else ''}"


@matrix_products("fp32")
def measure_step(plan: Plan, figures: Figures) -> None:
    """Measure precision × layout × compilation, the share of the matrix ceiling, and what augmentation adds."""
    images = make_photographs(plan.step_batch, plan.size).to(plan.device)
    layouts = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}
    with FlopCounterMode(display=False) as counter:
        loss = make_step(plan, "fp32", torch.contiguous_format, compiled=False, augmented=False)(images)
    if not bool(loss.isfinite()):
        raise AssertionError(f"training step: a finite loss required, got {loss}")
    medians: dict[tuple[str, str, bool], float] = {}
    steps: dict[tuple[str, str, bool], Step] = {}
    for precision, layout, compiled in itertools.product(("fp32", "bf16"), layouts, (False, True)):
        if compiled and (precision, layout) != ("bf16", "channels_last"):
            continue  # a minute of compiling each
        way = (precision, layout, compiled)
        steps[way] = make_step(plan, precision, layouts[layout], compiled, augmented=False)
        taken = device_times(steps[way], [images], plan.seconds)
        medians[way] = figures.row(plan, "training step", named(*way), plan.step_batch, taken)
    best = min(medians, key=lambda way: medians[way])
    median, (precision, layout, compiled) = medians[best], best
    rate = counter.get_total_flops() / (median / 1e3)
    figures.add("training step, FLOP", counter.get_total_flops() / 1e12, "TFLOP")
    figures.add(f"training step, {named(*best)}", median, "ms")
    if figures.product:
        figures.add("training step, share of the matrix product's rate", rate / figures.product * 100, "%")
    ready = steps[best]
    ours = make_step(plan, precision, layouts[layout], compiled, augmented=True)
    pairs = [
        (device_times(ready, [images], plan.seconds / 3), device_times(ours, [images], plan.seconds / 3))
        for _ in range(5)  # in turns
    ]
    ratios = sorted(with_it[len(with_it) // 2] / without[len(without) // 2] for without, with_it in pairs)
    taken = sorted(itertools.chain.from_iterable(with_it for _, with_it in pairs))
    figures.row(plan, "training step", f"{named(*best)}, augmented", plan.step_batch, taken)
    figures.add("training step with augmentation against without", ratios[2], "times", "<= 1.03")
    figures.profiles.append("training step with augmentation\n" + profile_table(ours, images))


def measure_trainer(plan: Plan, figures: Figures) -> None:
    """Measure the trainer itself in steady state, and say how long its presets take at that rate."""
    images = make_photographs(plan.step_batch, plan.size).to(plan.device)
    every, times = max(1, plan.trainer_steps // 10), []
    torch.manual_seed(0)
    network = Network().to(plan.device)
    config = TrainConfig(steps=plan.trainer_steps, batch=plan.step_batch)
    peak_mb(plan.device, begin=True)

    def note(_: object) -> None:  # a report waits for the device
        times.append(time.perf_counter())

    reports = train(network, itertools.repeat(images), CutPaste3Way(), config, on_report=note, report_every=every)
    if not reports[-1].loss < 10:
        raise AssertionError(f"trainer: a loss below 10 required, got {reports[-1].loss}")
    windows = sorted((after - before) / every * 1e3 for before, after in itertools.pairwise(times))
    median = figures.row(plan, "trainer", "fastcutpaste", plan.step_batch, windows)
    figures.add("trainer, images a second", plan.step_batch / median * 1e3, "images/s")
    figures.add("trainer, memory", peak_mb(plan.device), "MB")
    for name, target in (("paper", "<= 360"), ("fast", "<= 180")):
        figures.add(f"preset {name}, one category", PRESETS[name].steps * median / 1e3, "s", target)


def measure_scorer(plan: Plan, figures: Figures) -> None:
    """Measure heat maps, exact with ResNet-18 and in one pass with PatchNet: latency, throughput, memory.

    Both as they come, on the CPU, and optimized, left on the device.
    """
    normal = make_photographs(4, plan.size).to(plan.device)
    for backbone, wanted_ms, wanted_rate in (("resnet18", "<= 4", ""), ("patchnet", "<= 0.3", ">= 20000")):
        torch.manual_seed(0)
        try:
            network = Network(NetworkConfig(backbone)).to(plan.device)
        except ValueError as error:
            figures.skip(f"scorer, {backbone}", str(error))
            continue
        with torch.no_grad():
            for _ in range(3):
                network(normal[..., :64, :64])  # batch norms see images, so that features differ
        config = DetectorConfig((plan.size, plan.size), patch=64, stride=plan.stride, border=False)  # as in the paper
        detector = Detector(network, config).to(plan.device).fit(normal, normal[:1])
        fast = detector.optimized()
        staying = functools.partial(fast.localize, device=plan.device)
        for scorer in (detector, fast):
            check_scorer(scorer, normal[:1], plan.stride)
        for name, call, targets in (
            (backbone, detector.localize, ("", "")),
            (f"{backbone}, optimized, to the CPU", fast.localize, ("", "")),
            (f"{backbone}, optimized", staying, (wanted_ms, wanted_rate)),
        ):
            for batch in (1, plan.score_batch):
                images = normal[:1].expand(batch, -1, -1, -1).contiguous()
                peak_mb(plan.device, begin=True)
                taken = device_times(call, [images], plan.seconds)
                median = figures.row(plan, "heat map", name, batch, taken)
                if batch == 1:
                    figures.add(f"heat map, {name}, latency", median, "ms", targets[0])
                else:
                    figures.add(f"heat map, {name}, batch {batch}", batch / median * 1e3, "images/s", targets[1])
                figures.add(f"heat map, {name}, batch {batch}, memory", peak_mb(plan.device), "MB")
        figures.add(f"heat map, {backbone}, optimized: waits for the device", waits(staying, normal[:1]), "", "<= 0")


def check_scorer(detector: Detector, images: Tensor, stride: int) -> None:
    """Refuse to time what is wrong: the map must be that of patches in float32, one by one, within bf16's rounding."""
    features = embed_patches(images, detector.network.embed, patch=64, stride=stride, chunk=256)
    assert detector.density is not None
    wanted = spread_scores(detector.density.score(features), tuple(images.shape[2:]), patch=64, stride=stride).cpu()  # type: ignore[arg-type]
    difference = float((detector.localize(images) - wanted).norm() / wanted.norm())
    if not difference <= 0.1:
        raise AssertionError(f"heat map: differs by {difference:.1%} from that of patches in float32")


def measure_density(plan: Plan, figures: Figures) -> None:
    """Measure the fit of a Gaussian against scikit-learn's on this machine's CPU."""
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(plan.density_width, plan.density_width, generator=generator)
    features = torch.randn(plan.density_rows, plan.density_width, generator=generator) @ mixing
    moved = features.to(plan.device)
    density = GaussianDensity().fit(moved)
    taken = device_times(lambda rows: GaussianDensity().fit(rows), [moved], plan.seconds)
    ours = figures.row(plan, "density fit", "fastcutpaste", plan.density_rows, taken)
    try:
        from sklearn.covariance import LedoitWolf
    except ImportError:
        figures.skip("density against scikit-learn", "scikit-learn is not installed")
        return
    rows = features.double().numpy()
    start = time.perf_counter()
    fitted = LedoitWolf().fit(rows)
    theirs = figures.row(plan, "density fit", "scikit-learn", plan.density_rows, [(time.perf_counter() - start) * 1e3])
    wanted = np.sqrt(fitted.mahalanobis(rows[:500]))
    difference = float(np.abs(density.score(moved[:500]).cpu().numpy() / wanted - 1).max())
    figures.add("density, largest difference to scikit-learn", difference, "", "<= 0.001")
    if not difference <= 1e-3:
        raise AssertionError(f"density: distances differ by {difference:.1e} from scikit-learn's")
    figures.add("density fit against scikit-learn", theirs / ours, "times", ">= 50")
