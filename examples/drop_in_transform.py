"""CutPaste as a drop-in in a plain PyTorch training loop: three lines of it are this library's.

python examples/drop_in_transform.py
"""

import torch
import torchvision
from torch.nn import functional as F

from fastcutpaste import CutPaste3Way, normalize
from fastcutpaste.images.textures import make_demo


def main(steps: int = 30, size: int = 96, batch: int = 16) -> float:
    """Train for a few steps on the demo's bricks; give the last loss."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    images = make_demo("brick", size=size).train.to(device)  # uint8 (N, 3, H, W); put your own here
    mean, std = torch.tensor([0.5] * 3, device=device), torch.tensor([0.25] * 3, device=device)

    task = CutPaste3Way()
    network = torchvision.models.resnet18(num_classes=task.classes).to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.03, momentum=0.9, weight_decay=3e-5)
    for step in range(steps):
        index = torch.randint(len(images), (batch,), device=device)
        augmented, labels = task(images[index])  # uint8 (3·batch, 3, H, W), labels 0, 1, 2
        loss = F.cross_entropy(network(normalize(augmented, mean, std)), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 10 == 0:
            print(f"step {step:3d}  loss {loss.item():.3f}")
    return loss.item()


if __name__ == "__main__":
    main()
