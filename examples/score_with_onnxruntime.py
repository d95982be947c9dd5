"""Score a folder of images with ONNX Runtime alone: no torch, no fastcutpaste.

fastcutpaste export run && python examples/score_with_onnxruntime.py run/detector.onnx path/to/images
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps


def main(graph_file: str, folder: str) -> dict[str, float]:
    """Print and give the score of every image, and where the most anomalous pixel of a defective one is.

    Beside the score are the score over the threshold, and p: the share of normal images, this one among them, that
    score at least as high.
    """
    session = onnxruntime.InferenceSession(graph_file)
    about = json.loads(session.get_modelmeta().custom_metadata_map["fastcutpaste"])
    (height, width), threshold = about["size"], about["threshold"]
    normal = np.array(about["calibration"]["scores"])  # of images that were held out in training
    found: dict[str, float] = {}
    for path in sorted(Path(folder).iterdir()):
        if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"):
            continue
        with Image.open(path) as picture:
            upright = ImageOps.exif_transpose(picture)
        if upright.mode[0] == "I":  # the upper 8 of so many bits as the detector's own images had
            values = np.asarray(upright) >> ((about["bits"] or 16) - 8)
            upright = Image.fromarray(np.minimum(values, 255).astype(np.uint8))
        resized = upright.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
        image = np.asarray(resized).transpose(2, 0, 1)[None]  # uint8 (1, 3, H, W)
        *maps, scores = session.run(None, {"images": image})  # no maps of a detector of whole images
        found[path.name] = float(scores[0])
        defective, where = scores[0] > threshold, ""
        p = (1 + (normal >= scores[0]).sum()) / (len(normal) + 1)
        text = f"{scores[0] / threshold:.2f} × threshold" + (f", p {p:.2g}" if len(normal) else "")
        if maps and defective:
            y, x = np.unravel_index(maps[0][0].argmax(), (height, width))
            where = f"  at row {y}, column {x} of {height}×{width}"
        print(f"{'DEFECTIVE' if defective else 'normal':>9}  {scores[0]:8.2f}  {text:<27}  {path.name}{where}")
    return found


if __name__ == "__main__":
    main(*sys.argv[1:3])
