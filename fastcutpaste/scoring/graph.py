"""An exported graph as a detector: read and run by ONNX Runtime, without torch."""

import math
import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastcutpaste.files import read_json
from fastcutpaste.scoring.calibration import Calibration, calibration_from

GRAPH_SUFFIX = ".onnx"


class GraphConfig(NamedTuple):
    """Say which images a graph is given: (height, width), px, and the bits of files of more than 8, or None."""

    size: tuple[int, int]
    bits: int | None


class Graph:
    """Score images with an exported ONNX file.

    Args:
        path: what `export_detector` wrote.

    Attributes:
        config: which images it is given.
        calibration: the threshold with what it comes from and can promise.
        typical: the score of normal images' pixels in the middle.
        provenance: what the detector was made of.
        has_maps: whether it draws heat maps; of whole images it does not.

    Raises:
        ValueError: no such file, one that ONNX Runtime cannot open, a graph of something else or without what export
            tells of it.
        ImportError: onnxruntime is missing.
    """

    def __init__(self, path: str | Path) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ImportError(f"{path}: onnxruntime required to score by a graph, got none; pip install onnxruntime",
                              name="onnxruntime") from error  # fmt: skip
        if not Path(path).is_file():
            raise ValueError(f"{path}: an ONNX file required, got {'a folder' if Path(path).exists() else 'nothing'}")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what it logs, it raises as well
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            told = self._session.get_modelmeta().custom_metadata_map.get("fastcutpaste")
        except Exception as error:  # it has errors of its own
            required = f"{path}: an ONNX file that ONNX Runtime {onnxruntime.__version__} can open required"
            raise ValueError(f"{required}, got: {reason_of(error)}") from error
        required = f"{path}: a graph as `fastcutpaste export` writes it required"
        if told is None:
            raise ValueError(f"{required}, got one without its metadata, which has the threshold: a graph of something "
                             "else, or one that another tool has changed")  # fmt: skip
        try:
            self._read(read_json(told))
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else str(error).splitlines()[0]
            raise ValueError(f"{required}, got one with other metadata: {reason}") from error

    @property
    def threshold(self) -> float:
        """Images with a higher score are called defective."""
        return self.calibration.threshold

    def score(self, image: NDArray[np.uint8]) -> tuple[float, NDArray[np.float32] | None]:
        """Score one image.

        Args:
            image: (3, H, W) uint8 RGB of `config.size`.

        Returns:
            The score, and the heat map (H, W), or None of whole images.

        Raises:
            ValueError: what the graph gives is not what its metadata says.
        """
        given = image.transpose(1, 2, 0) if self._channels_last else image
        try:
            *maps, scores = self._session.run(self._outputs, {"images": np.ascontiguousarray(given[None])})
        except Exception as error:  # its own, of a graph that was changed
            raise ValueError(f"Graph: a graph that runs required, got: {reason_of(error)}") from error
        heat = maps[0][0] if maps else None
        if scores.shape != (1,) or not np.isfinite(scores).all():
            raise ValueError("Graph: one finite score required, got others: export it anew")
        if heat is not None and heat.shape != image.shape[1:]:
            raise ValueError(f"Graph: a map of shape {image.shape[1:]} required, got {heat.shape}: export it anew")
        return float(scores[0]), heat

    def _read(self, about: Any) -> None:
        """Take what the metadata tells, and see that it is of this graph."""
        height, width = about["size"]
        if not all(type(length) is int and length > 0 for length in (height, width)):
            raise ValueError(f"size: two lengths in pixels required, got {about['size']}")
        bits = about.get("bits")
        if bits is not None and not (type(bits) is int and 8 <= bits <= 16):
            raise ValueError(f"bits: from 8 to 16 required, got {bits}")
        self.config = GraphConfig((height, width), bits)
        self.calibration: Calibration = calibration_from(float(about["threshold"]), about["calibration"])
        self.typical = float(about["typical"])
        if not math.isfinite(self.threshold) or not math.isfinite(self.typical):
            raise ValueError(f"threshold and typical: finite ones required, got {self.threshold} and {self.typical}")
        self.provenance: dict[str, Any] = dict(about["provenance"])
        self.has_maps = "maps" in about["outputs"]
        self._channels_last = about["inputs"]["images"]["shape"][-1] == 3
        self._outputs = ["maps", "scores"] if self.has_maps else ["scores"]
        there = {one.name for one in self._session.get_outputs()}
        if [one.name for one in self._session.get_inputs()] != ["images"] or not set(self._outputs) <= there:
            raise ValueError(f"outputs {', '.join(self._outputs)} of images required, got {', '.join(sorted(there))}")


def reason_of(error: Exception) -> str:
    """Give what ONNX Runtime says in an error, in a line, without the place in its source that says it."""
    text = (str(error) or type(error).__name__).splitlines()[0].rpartition(" failed:")[2]
    return re.sub(r"^/\S+ .*?\) (?=[A-Z])", "", text)


def resize_array(values: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Resize a map (H, W) to `size`, pixels, bilinearly, as `resize_map` does tensors."""
    for axis, length in enumerate(size):
        had = values.shape[axis]
        place = (np.arange(length, dtype=np.float32) + np.float32(0.5)) * np.float32(had / length) - np.float32(0.5)
        place = place.clip(0, had - 1)
        low = place.astype(int)
        share = (place - low).astype(np.float32).reshape((-1, 1) if axis == 0 else (1, -1))
        high = values.take(np.minimum(low + 1, had - 1), axis)
        values = values.take(low, axis) * (1 - share) + high * share
    return values
