"""Draw where an image is defective, at its original size.

python examples/localize.py detector.safetensors photo.png heatmap.png
"""

import sys

from PIL import Image

from fastcutpaste import Detector, load_images
from fastcutpaste.reports.pictures import overlay
from fastcutpaste.scoring.dense import resize_map


def main(detector_file: str, image_file: str, picture_file: str) -> tuple[int, int]:
    """Write the overlay; give the (y, x) of the most anomalous pixel."""
    detector = Detector.load(detector_file)
    bits = detector.config.bits
    image, [size] = load_images([image_file], detector.config.size, bits=bits)  # uint8 (1, 3, H, W), the original size
    score_map = resize_map(detector.localize(image), size)[0]  # (height, width) of the file
    original = load_images([image_file], size, bits=bits).pixels[0]
    picture = overlay(original, score_map, low=detector.typical, high=2 * detector.threshold - detector.typical)
    Image.fromarray(picture.permute(1, 2, 0).numpy()).save(picture_file)
    y, x = divmod(int(score_map.argmax()), size[1])
    print(f"{picture_file}: highest score {score_map.max():.2f} at row {y}, column {x}")
    return y, x


if __name__ == "__main__":
    main(*sys.argv[1:4]) if len(sys.argv) == 4 else sys.exit(__doc__)
