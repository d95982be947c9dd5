"""Train a detector on a folder of normal images and keep it in one file.

python examples/train_on_a_folder.py path/to/normal/images detector.safetensors
"""

import sys

import torch

from fastcutpaste import (
    BaseAugmentation,
    CutPaste,
    CutPasteScar,
    Detector,
    DetectorConfig,
    Network,
    PretextTask,
    TrainConfig,
    find_bits,
    find_training_images,
    hold_out,
    image_batches,
    load_images,
    train,
)


def main(folder: str, path: str, steps: int = 600, size: int = 256, crop: int = 64, stride: int = 16) -> Detector:
    """Train on crops, fit the density, set the threshold, save."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    paths = find_training_images(folder).paths
    bits = find_bits(paths)  # of a camera's 10 to 16; the detector keeps them, for the images that it will score
    images = load_images(paths, size, bits=bits, progress=True).pixels.to(device)
    normal, calibration = (images[part] for part in hold_out(paths))  # of images not learned from: the threshold

    torch.manual_seed(0)
    network = Network().to(device)
    config = TrainConfig(steps=steps, batch=24, crop=crop)
    batches = image_batches(normal, config.batch, seed=config.seed)
    task = PretextTask(CutPaste(), CutPasteScar(reference=None))  # on crops a scar keeps its size in pixels
    train(network, batches, task, config, base=BaseAugmentation(shift=0), on_report=print)

    detector = Detector(network, DetectorConfig((size, size), crop, stride, bits=bits)).fit(normal, calibration)
    detector.save(path)
    print(f"{path}: images with a score above {detector.threshold:.2f} are called defective")
    return detector


if __name__ == "__main__":
    main(*sys.argv[1:3]) if len(sys.argv) == 3 else sys.exit(__doc__)
