"""Exported graphs in other forms: in whole numbers of 8 bits, and for OpenVINO."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def quantize_graph(source: str | Path, target: str | Path, images: Sequence[NDArray[np.uint8]]) -> None:
    """Write an ONNX graph anew with its convolutions in whole numbers of 8 bits, by ONNX Runtime's static quantization.

    Resize, density and maps stay in float32. Weights have a scale a channel; what the convolutions take and give is
    scaled by the least and greatest values that come of the images.

    Args:
        source: an ONNX file of `export_detector`, in float32, of a network with padding with `at_once`.
        target: file to write.
        images: uint8 (H, W, 3) each, normal ones as will be scored, at least 1.

    Raises:
        ValueError: no images, or no convolution to quantize.
        ImportError: onnxruntime or onnx is missing.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    if not images:
        raise ValueError("quantize_graph: at least 1 normal image required, got none")
    model = onnx.load(source)
    about = _about(model)
    add_pre_process_metadata(model)  # as it is: its own preparation does not take open sizes, and warns where it is not
    last = about["inputs"]["images"]["shape"][-1] == 3
    rest = iter(images)

    class Images(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            image = next(rest, None)
            if image is None:
                return None
            return {"images": np.ascontiguousarray(image if last else image.transpose(2, 0, 1))[None]}

    quantize_static(
        model, target, Images(), quant_format=QuantFormat.QDQ, op_types_to_quantize=["Conv"], per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    model = onnx.load(target)
    if not any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        raise ValueError("quantize_graph: convolutions required, got none; those of networks with padding need at_once")
    for entry in model.metadata_props:
        if entry.key == "fastcutpaste":
            entry.value = json.dumps({**about, "precision": "int8"})
    onnx.save(model, target)


def convert_to_openvino(source: str | Path, target: str | Path) -> None:
    """Write an ONNX graph of `export_detector` as OpenVINO's IR: `target`, an .xml file, and a .bin file beside it.

    Numbers stay of the width they have. What the graph says of itself is under "fastcutpaste" in its `rt_info`.

    Raises:
        ImportError: openvino or onnx is missing.
    """
    import onnx
    import openvino

    told = json.dumps(_about(onnx.load(source)))
    model = openvino.Core().read_model(source)
    model.set_rt_info(told, "fastcutpaste")
    openvino.serialize(model, target, Path(target).with_suffix(".bin"))


def _about(model: Any) -> dict[str, Any]:
    about: dict[str, Any] = json.loads(next(one.value for one in model.metadata_props if one.key == "fastcutpaste"))
    return about
