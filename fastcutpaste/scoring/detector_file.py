"""The detector's file: network, densities and settings in one safetensors file, in which nothing can run code."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from safetensors import SafetensorError, safe_open
from torch import Tensor

from fastcutpaste.files import read_json
from fastcutpaste.networks.backbone import Network, NetworkConfig
from fastcutpaste.scoring.calibration import Calibration, calibration_from
from fastcutpaste.scoring.config import DetectorConfig
from fastcutpaste.scoring.density import Density, density_from_state
from fastcutpaste.scoring.tensors import checksum, save_tensors

FORMAT = 7  # raised when older versions could no longer read it
_CHECKED = 7  # from which on files have a checksum
_KEY = "fastcutpaste"
_T = TypeVar("_T")


class Parts(NamedTuple):
    """Hold what a detector is made of, in the order in which it takes them."""

    network: Network
    config: DetectorConfig
    density: Density
    threshold: float
    typical: float
    provenance: dict[str, Any] | None
    area_densities: tuple[Density, ...]
    brightness: float
    calibration: Calibration


def write_detector(path: str | Path, parts: Parts) -> None:
    """Write the parts of a detector, whole or not at all; the settings are JSON in the header."""
    tensors = {f"network.{name}": tensor for name, tensor in parts.network.state_dict().items()}
    tensors |= {f"density.{name}": tensor for name, tensor in parts.density.state().items()}
    for area, wide in zip(parts.config.areas, parts.area_densities, strict=True):
        tensors |= {f"area.{area}.{name}": tensor for name, tensor in wide.state().items()}
    header = {
        "format": FORMAT,
        "network": asdict(parts.network.config),
        "detector": asdict(parts.config),
        "threshold": parts.threshold,
        "calibration": parts.calibration.told(),
        "typical": parts.typical,
        "brightness": parts.brightness if parts.config.level else None,
        "provenance": parts.provenance,
    }
    tensors = {name: tensor.detach().cpu() for name, tensor in tensors.items()}
    # one text: of several safetensors writes now one first, now another, and equal detectors would be other files
    save_tensors(path, tensors, {_KEY: json.dumps(header | {"checksum": checksum(tensors, json.dumps(header))})})


def read_detector(path: str | Path, build: Callable[..., _T]) -> _T:
    """Read a detector.

    Args:
        path: what `write_detector` wrote, in this version or an earlier one.
        build: makes the detector of its `Parts`, one argument each; what it refuses is said of the file.

    Raises:
        ValueError: no such file, not a detector, damaged, or from a newer version.
    """
    path = Path(path)
    header, tensors = _contents(path)
    try:
        network = Network(NetworkConfig(**header["network"] | {"head": tuple(header["network"]["head"])}))
        network.load_state_dict(_under("network.", tensors))
        settings = header["detector"]  # earlier formats have fewer: what is missing was as is now the default
        tuples = {name: tuple(settings[name]) for name in ("size", "areas") if name in settings}
        config = DetectorConfig(**settings | tuples)
        density = density_from_state(_under("density.", tensors))
        wide = tuple(density_from_state(_under(f"area.{area}.", tensors)) for area in config.areas)
        threshold, typical = float(header["threshold"]), float(header["typical"])
        brightness = float(header["brightness"]) if config.level else math.nan
        provenance = header.get("provenance")
        calibration = calibration_from(threshold, header.get("calibration"))
        return build(*Parts(network, config, density, threshold, typical, provenance, wide, brightness, calibration))
    except (KeyError, TypeError, ValueError, RuntimeError, AttributeError, ArithmeticError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{path}: a whole detector file required, got one that is damaged: {reason}") from error


def _contents(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Give header and tensors of a file that says it is a detector this version can read."""
    if not path.is_file():
        raise ValueError(f"{path}: a detector file required, got {'a folder' if path.exists() else 'nothing'}")
    try:
        with safe_open(path, "pt") as file:
            header = read_json((file.metadata() or {}).get(_KEY, "null"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, not a dict
    except (SafetensorError, ValueError, OSError) as error:
        raise ValueError(f"{path}: a whole detector file (safetensors) required, got: {error}") from error
    if header is None:
        raise ValueError(f"{path}: a detector file required, got a safetensors file of something else")
    version = header.get("format") if isinstance(header, dict) else None
    if not isinstance(version, int):
        raise ValueError(f"{path}: a whole detector file required, got one without a format number")
    if version > FORMAT:
        raise ValueError(
            f"{path}: a detector of format {FORMAT} or older required, got format {version}; "
            "a newer fastcutpaste reads it"
        )
    claimed = header.pop("checksum", None)
    early = claimed is None and version < _CHECKED
    if not early and claimed != checksum(tensors, json.dumps(header)):
        raise ValueError(f"{path}: a whole detector file required, got a damaged one: its checksum is another")
    wrong = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if wrong:
        raise ValueError(f"{path}: a detector of finite numbers required, got others in {wrong[0]}")
    return header, tensors


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
