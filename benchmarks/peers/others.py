"""What others train and fit without a download, each by its own package: images in, a scorer of images out.

Each takes the normal images of a folder, (N, 3, S, S) uint8, a seed, the seconds that it may train for, where it
trains by steps, and a file of EfficientNet-Lite0's ImageNet weights for those that begin with some. What it gives takes
such images and gives a score each, and heat maps (N, S, S) or None.
"""

import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.train.rungs import ThreeWay, loader, plain
from fastcutpaste.networks.backbone import Network
from tests.reference import TO_NORMALIZED

Scorer = Callable[[Tensor], tuple[Tensor, Tensor | None]]
LAYERS = ("blocks.1", "blocks.2", "blocks.4")  # strides 4, 8 and 16
BATCH = 8


def classic(images: Tensor, folder: Path, seed: int, seconds: float, weights: Path | None) -> Scorer:
    """Train 3-way as it is usually written, the first rung of `benchmarks.train`, with scikit-learn's LedoitWolf."""
    from sklearn.covariance import LedoitWolf

    torch.manual_seed(seed)
    network, device = Network(), torch.device("cpu")
    step = plain(network, (torch.cat(parts) for parts in loader(ThreeWay(images), BATCH, device)), device)
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        step()
    network.eval()

    @torch.no_grad()
    def features(given: Tensor) -> Tensor:
        normalized = [TO_NORMALIZED(Image.fromarray(image.permute(1, 2, 0).numpy())) for image in given]
        return torch.cat([network.backbone(part).double() for part in torch.stack(normalized).split(BATCH)])

    density = LedoitWolf().fit(features(images).numpy())
    return lambda given: (torch.from_numpy(density.mahalanobis(features(given).numpy())), None)


def padim(images: Tensor, folder: Path, seed: int, seconds: float, weights: Path | None) -> Scorer:
    """Fit anomalib's PaDiM, a Gaussian a place of 100 of the features."""
    from anomalib.models import Padim

    torch.manual_seed(seed)  # which features
    model = Padim(backbone="tf_efficientnet_lite0", layers=list(LAYERS), pre_trained=False, n_features=100)
    return _fitted(model, folder, seed, weights)


def patchcore(images: Tensor, folder: Path, seed: int, seconds: float, weights: Path | None) -> Scorer:
    """Fit anomalib's PatchCore, the nearest of one feature in 1,000: choosing 3,300 takes half an hour."""
    from anomalib.models import Patchcore

    torch.manual_seed(seed)
    model = Patchcore(
        backbone="tf_efficientnet_lite0", layers=list(LAYERS[1:]), pre_trained=False, coreset_sampling_ratio=0.001
    )
    return _fitted(model, folder, seed, weights)


def ganomaly(images: Tensor, folder: Path, seed: int, seconds: float, weights: Path | None) -> Scorer:
    """Train anomalib's GANomaly, from scratch."""
    from anomalib.models import Ganomaly

    torch.manual_seed(seed)
    return _fitted(Ganomaly(batch_size=BATCH), folder, seed, None, seconds)


def _fitted(model: nn.Module, folder: Path, seed: int, weights: Path | None, seconds: float | None = None) -> Scorer:
    """Fit a model of anomalib by its own engine and reader of folders."""
    from anomalib.data import Folder
    from anomalib.engine import Engine
    from safetensors.torch import load_file

    if weights is not None:
        network = model.model.feature_extractor.feature_extractor
        found = load_file(weights)
        network.load_state_dict({name: found[name] for name in network.state_dict()})  # not all blocks are used
    data = Folder(
        folder.name, "train/good", folder, train_batch_size=BATCH, num_workers=0, seed=seed, test_split_mode="none",
        val_split_mode="none",
    )  # fmt: skip
    limit = {} if seconds is None else {"max_epochs": -1, "max_time": {"seconds": round(seconds)}}
    with TemporaryDirectory() as results:
        engine = Engine(default_root_dir=results, accelerator="cpu", devices=1, barebones=True, **limit)
        data.setup("fit")
        engine.fit(model, train_dataloaders=data.train_dataloader())
    model.eval()

    @torch.no_grad()
    def score(given: Tensor) -> tuple[Tensor, Tensor | None]:
        made = [model.model(model.pre_processor(part / 255)) for part in given.split(BATCH)]
        scores = torch.cat([each.pred_score.flatten() for each in made])
        maps = [each.anomaly_map for each in made]
        if maps[0] is None:
            return scores, None
        return scores, F.interpolate(torch.cat(maps), given.shape[-2:], mode="bilinear").squeeze(1)  # it resizes images

    return score


PEERS = {
    "NumPy and PIL, ResNet-18, scikit-learn": classic,
    "PaDiM, EfficientNet-Lite0": padim,
    "PatchCore, EfficientNet-Lite0": patchcore,
    "GANomaly": ganomaly,
}
PRETRAINED = (padim, patchcore)
