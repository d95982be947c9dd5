"""Train anomalib's DRAEM on anomalies made here, for a few steps: a recipe in place of its own generator.

pip install 'fastcutpaste[anomalib]' && python examples/anomalib_draem.py FOLDER
"""

import sys
import tempfile
from pathlib import Path

from anomalib.data import Folder
from anomalib.engine import Engine
from anomalib.models import Draem

from fastcutpaste.adapters.anomalib import AnomalyGenerator
from fastcutpaste.images.textures import make_demo, write_demo
from fastcutpaste.transforms.recipes import draem


def main(folder: Path | None = None, steps: int = 4, size: int = 64, batch: int = 4) -> float:
    """Train on the images of folder/train/good, by default the demo's bricks; give the last loss."""
    with tempfile.TemporaryDirectory() as temporary:
        if folder is None:
            folder = Path(temporary) / "brick"
            write_demo(make_demo("brick", train_count=24, calibration_count=8), folder)
        images = Folder("brick", folder / "train/good", train_batch_size=batch, num_workers=0, val_split_mode="none")
        resized = Draem.configure_pre_processor((size, size))
        model = Draem(
            dtd_dir=folder, pre_processor=resized, evaluator=False, visualizer=False
        )  # a folder that is there
        model.augmenter = AnomalyGenerator(draem())
        engine = Engine(max_steps=steps, logger=False, limit_val_batches=0, default_root_dir=temporary)
        engine.fit(model, images)
        loss = float(engine.trainer.callback_metrics["train_loss_step"])
    print(f"loss {loss:.3f} after {engine.trainer.global_step} steps")
    return loss


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
