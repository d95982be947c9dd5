"""CutPaste as a step of a torchvision pipeline, in the workers of a DataLoader: is there a patch in the image or not?

python examples/torchvision_pipeline.py
"""

import torch
import torchvision
from torch.utils.data import DataLoader, TensorDataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from fastcutpaste import CutPaste
from fastcutpaste.adapters.torchvision import V2Transform
from fastcutpaste.images.textures import make_demo

PIPELINE = v2.Compose(
    [
        v2.RandomHorizontalFlip(),
        V2Transform(CutPaste(p=0.5)),  # half of the images; before Normalize, because it wants 0–255 or 0–1
        v2.ToDtype(torch.float32, scale=True),
        v2.Normalize([0.5] * 3, [0.25] * 3),
    ]
)


class Bricks(TensorDataset):
    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        image = tv_tensors.Image(self.tensors[0][index])  # uint8 (3, H, W); your own may be a PIL image as well
        empty = tv_tensors.Mask(torch.zeros(image.shape[-2:], dtype=torch.bool))
        return PIPELINE(image, empty)  # the mask comes back with the pasted pixels marked


def main(epochs: int = 3, size: int = 96, batch: int = 20, workers: int = 2) -> float:
    """Train for a few epochs on the demo's bricks; give the last loss."""
    bricks = Bricks(make_demo("brick", size=size).train)
    network = torchvision.models.resnet18(num_classes=2)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.003, momentum=0.9)
    for epoch in range(epochs):
        for images, masks in DataLoader(bricks, batch, shuffle=True, num_workers=workers):
            labels = masks.flatten(1).any(1).long()  # (B, H, W) → (B,): 1 where there is a patch
            loss = torch.nn.functional.cross_entropy(network(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch}  loss {loss.item():.3f}  {labels.float().mean():.0%} of the last batch with a patch")
    return loss.item()


if __name__ == "__main__":
    main()
