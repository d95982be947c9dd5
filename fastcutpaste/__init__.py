"""Batched CutPaste for anomaly detection: the op, the pretext tasks and detectors, each loaded on first use.

Images are (B, C, H, W) tensors, uint8 0–255 or floating point 0–1, before normalization.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # loaded on first use, below: the op needs torch alone, and --help not even that
    from fastcutpaste.images.batches import image_batches
    from fastcutpaste.images.decode import find_bits, load_images
    from fastcutpaste.images.folders import find_training_images
    from fastcutpaste.images.hold_out import hold_out
    from fastcutpaste.networks.backbone import Network, NetworkConfig
    from fastcutpaste.op.color import Jitter, normalize
    from fastcutpaste.op.paste import Pasted, paste, paste_normalized, random_crops
    from fastcutpaste.op.placement import Patches, draw, place_cutpaste, place_scar
    from fastcutpaste.scoring.config import DetectorConfig
    from fastcutpaste.scoring.detector import Detector
    from fastcutpaste.scoring.ensemble import Ensemble
    from fastcutpaste.training.loop import train
    from fastcutpaste.training.recipe import train_network
    from fastcutpaste.training.step import TrainConfig
    from fastcutpaste.transforms.baselines import Confetti, Cutout, QuarterTurn, Scar
    from fastcutpaste.transforms.defect import Defect, Mixture
    from fastcutpaste.transforms.foreground import OnForeground
    from fastcutpaste.transforms.patch import BaseAugmentation, CutPaste, CutPasteScar, OneOf
    from fastcutpaste.transforms.recipes import recipe
    from fastcutpaste.transforms.tasks import CutPaste3Way, PretextTask

__version__ = "0.1.0"

__all__ = [
    "BaseAugmentation",
    "Confetti",
    "CutPaste",
    "CutPaste3Way",
    "CutPasteScar",
    "Cutout",
    "Defect",
    "Detector",
    "DetectorConfig",
    "Ensemble",
    "Jitter",
    "Mixture",
    "Network",
    "NetworkConfig",
    "OnForeground",
    "OneOf",
    "Pasted",
    "Patches",
    "PretextTask",
    "QuarterTurn",
    "Scar",
    "TrainConfig",
    "__version__",
    "draw",
    "find_bits",
    "find_training_images",
    "hold_out",
    "image_batches",
    "load_images",
    "normalize",
    "paste",
    "paste_normalized",
    "place_cutpaste",
    "place_scar",
    "random_crops",
    "recipe",
    "train",
    "train_network",
]

_ON_FIRST_USE = {
    "BaseAugmentation": "transforms.patch",
    "Confetti": "transforms.baselines",
    "CutPaste": "transforms.patch",
    "CutPaste3Way": "transforms.tasks",
    "CutPasteScar": "transforms.patch",
    "Cutout": "transforms.baselines",
    "Defect": "transforms.defect",
    "Detector": "scoring.detector",
    "DetectorConfig": "scoring.config",
    "Ensemble": "scoring.ensemble",
    "Jitter": "op.color",
    "Mixture": "transforms.defect",
    "Network": "networks.backbone",
    "NetworkConfig": "networks.backbone",
    "OnForeground": "transforms.foreground",
    "OneOf": "transforms.patch",
    "Pasted": "op.paste",
    "Patches": "op.placement",
    "PretextTask": "transforms.tasks",
    "QuarterTurn": "transforms.baselines",
    "Scar": "transforms.baselines",
    "TrainConfig": "training.step",
    "draw": "op.placement",
    "find_bits": "images.decode",
    "find_training_images": "images.folders",
    "hold_out": "images.hold_out",
    "image_batches": "images.batches",
    "load_images": "images.decode",
    "normalize": "op.color",
    "paste": "op.paste",
    "paste_normalized": "op.paste",
    "place_cutpaste": "op.placement",
    "place_scar": "op.placement",
    "random_crops": "op.paste",
    "recipe": "transforms.recipes",
    "train": "training.loop",
    "train_network": "training.recipe",
}


def __getattr__(name: str) -> Any:
    if name not in _ON_FIRST_USE:
        raise AttributeError(f"module 'fastcutpaste' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"fastcutpaste.{_ON_FIRST_USE[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
