"""CutPaste inside an NVIDIA DALI pipeline: from image files to torch tensors, on a GPU without a way back.

python examples/dali_pipeline.py
"""

import tempfile
from pathlib import Path

import torch
from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.plugin.pytorch import DALIGenericIterator

from fastcutpaste.adapters.dali import cutpaste, cutpaste_scar
from fastcutpaste.images.textures import make_demo, write_demo

ON_GPU = torch.cuda.is_available()


@pipeline_def(num_threads=2, device_id=0 if ON_GPU else None, seed=0)
def three_way(folder: Path, size: int):
    """Give each image untouched, with a patch and with a scar, and the masks of what was pasted."""
    files, _ = fn.readers.file(file_root=str(folder), dir_filters=["good"], random_shuffle=True, name="files")
    images = fn.decoders.image(files, device="mixed" if ON_GPU else "cpu")  # (H, W, 3), any size
    images = fn.resize(images, size=[size, size], interp_type=types.INTERP_CUBIC)
    pasted, mask, _ = cutpaste(images)
    scarred, scar_mask, _ = cutpaste_scar(images)
    return images, pasted, scarred, mask, scar_mask


def main(folder: Path | None = None, size: int = 96, batch: int = 8) -> torch.Tensor:
    """Load all images of folder/good, by default the demo's bricks, and show shapes; give the last batch."""
    with tempfile.TemporaryDirectory() as temporary:
        if folder is None:
            write_demo(make_demo("brick", train_count=24, calibration_count=8), Path(temporary) / "brick")
            folder = Path(temporary) / "brick" / "train"  # images lie in its folder good
        names = ["normal", "cutpaste", "scar", "mask", "scar_mask"]
        pipeline = three_way(folder, size, batch_size=batch)
        for [loaded] in DALIGenericIterator(pipeline, names, reader_name="files"):
            images = torch.cat([loaded[name] for name in names[:3]])  # (3·B, H, W, 3), uint8, on the pipeline's device
            images = images.permute(0, 3, 1, 2)  # (3·B, 3, H, W), channels_last in memory, as networks like it
            labels = torch.arange(3, device=images.device).repeat_interleave(len(images) // 3)
            share = loaded["mask"].float().mean().item()
            print(f"images {tuple(images.shape)} on {images.device}, labels {tuple(labels.shape)}, pasted {share:.1%}")
    return images


if __name__ == "__main__":
    main()
