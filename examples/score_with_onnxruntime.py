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
    """Print and give the score of every image, and where the most anomalous pixel of a defective one is."""
    session = onnxruntime.InferenceSession(graph_file)
    about = json.loads(session.get_modelmeta().custom_metadata_map["fastcutpaste"])
    normal = np.array(about["calibration"]["scores"])  # of images that were held out in training
    found: dict[str, float] = {}
    for path in sorted(Path(folder).iterdir()):
        if path.suffix.lower() not in (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif"):
            continue
        with Image.open(path) as picture:
            upright = ImageOps.exif_transpose(picture)
        if upright.mode == "F":  # of 0 to 1
            upright = Image.fromarray(np.rint(np.asarray(upright) * 255).clip(0, 255).astype(np.uint8))
        elif upright.mode[0] == "I":  # the upper 8 of so many bits as the detector's own images had
            values = np.asarray(upright) >> ((about["bits"] or 16) - 8)
            upright = Image.fromarray(np.minimum(values, 255).astype(np.uint8))
        image = np.array(upright.convert("RGB")).transpose(2, 0, 1)[None]  # uint8 (1, 3, H, W), of any size
        *maps, (score,), (defective,) = session.run(None, {"images": image})  # no maps of a detector of whole images
        found[path.name] = float(score)
        text = f"{score / about['threshold']:.2f} × threshold"
        if len(normal):  # p: the share of normal images, this one among them, that score at least as high
            text += f", p {(1 + (normal >= score).sum()) / (len(normal) + 1):.2g}"
        place = np.unravel_index(maps[0][0].argmax(), maps[0][0].shape) if maps and defective else ()
        where = f"  at row {place[0]}, column {place[1]}" if place else ""
        print(f"{about['labels'][int(defective)]:>9}  {score:8.2f}  {text:<27}  {path.name}{where}")
    return found


if __name__ == "__main__":
    main(*sys.argv[1:3]) if len(sys.argv) == 3 else sys.exit(__doc__)
