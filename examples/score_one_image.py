"""Score one image and decide.

python examples/score_one_image.py detector.safetensors photo.png
"""

import sys

from fastcutpaste import Detector, load_images


def main(detector_file: str, image_file: str) -> tuple[float, bool]:
    """Give the image's score and whether it is called defective."""
    detector = Detector.load(detector_file)
    image = load_images([image_file], detector.config.size, bits=detector.config.bits).pixels  # uint8 (1, 3, H, W)
    [decision] = detector.calibration.decide(detector.score(image))
    print(f"{image_file}: {decision.score:.2f}, {'defective' if decision.defective else 'normal'} ({decision.text})")
    return decision.score, decision.defective


if __name__ == "__main__":
    main(*sys.argv[1:3]) if len(sys.argv) == 3 else sys.exit(__doc__)
