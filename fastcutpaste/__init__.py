"""Batched CutPaste for anomaly detection: the op, the pretext tasks; the rest is in the modules beside it.

Images are (B, C, H, W) tensors, uint8 0–255 or floating point 0–1, before normalization.
"""

from fastcutpaste.baselines import Confetti, Cutout, QuarterTurn, Scar
from fastcutpaste.color import Jitter, normalize
from fastcutpaste.foreground import OnForeground
from fastcutpaste.functional import Pasted, paste, paste_normalized, random_crops
from fastcutpaste.placement import Patches, draw, place_cutpaste, place_scar
from fastcutpaste.tasks import CutPaste3Way, PretextTask
from fastcutpaste.transforms import BaseAugmentation, CutPaste, CutPasteScar, OneOf

__version__ = "0.1.0"

__all__ = [
    "BaseAugmentation",
    "Confetti",
    "CutPaste",
    "CutPaste3Way",
    "CutPasteScar",
    "Cutout",
    "Jitter",
    "OnForeground",
    "OneOf",
    "Pasted",
    "Patches",
    "PretextTask",
    "QuarterTurn",
    "Scar",
    "__version__",
    "draw",
    "normalize",
    "paste",
    "paste_normalized",
    "place_cutpaste",
    "place_scar",
    "random_crops",
]
