"""Grad-CAM: where a network of whole images sees what it takes for a defect, for comparison with patch scores."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastcutpaste.networks.backbone import Network
from fastcutpaste.op.checks import check_images


def grad_cam(network: Network, images: Tensor) -> Tensor:
    """Draw the Grad-CAM of each image, for the network's belief that it is not normal.

    The belief is the log odds of all classes but the first, which is the untouched image in every pretext task. The
    maps are those of the last module that gives (B, D, h, w): the channels are weighed with the mean gradient of the
    belief, their sum is cut off at zero and resized to the image.

    Args:
        network: of whole images, in eval mode; its weights get no gradients.
        images: (B, 3, H, W), uint8 0–255 or floating point 0–1.

    Returns:
        (B, H, W) float32, >= 0; higher where the image looks more anomalous. Not comparable between images.

    Raises:
        ValueError: a network with fewer than two classes, or without maps.

    Source: Selvaraju et al., "Grad-CAM", ICCV 2017; Li et al. 2021, §4.2, report a pixel AUROC of 88.3.
    """
    check_images("grad_cam", images)
    if network.config.classes < 2:
        raise ValueError(f"grad_cam: a network of at least 2 classes required, got {network.config.classes}")
    maps: list[Tensor] = []

    def note(module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and output.shape[-1] > 1 and output.requires_grad:
            maps.append(output)

    hooks = [module.register_forward_hook(note) for module in network.backbone.modules()]
    try:
        with torch.enable_grad():
            scores = network(images)
            if not maps or not _of_an_image(maps[-1], images):
                raise ValueError(f"grad_cam: a backbone with maps (B, D, h, w) required, got {network.config.backbone}")
            belief = scores[:, 1:].logsumexp(1) - scores[:, 0]
            gradient = torch.autograd.grad(belief.sum(), maps[-1])[0]  # (B, D, h, w)
    finally:
        for hook in hooks:
            hook.remove()
    weights = gradient.mean((-2, -1), keepdim=True)  # (B, D, 1, 1)
    cam = (weights * maps[-1].detach()).sum(1, keepdim=True).relu().float()  # (B, 1, h, w)
    return F.interpolate(cam, size=images.shape[-2:], mode="bilinear", align_corners=False).squeeze(1)


def _of_an_image(found: Tensor, images: Tensor) -> bool:
    """Tell maps (B, D, h, w) of images from ones whose channels come last, as Swin's in timm do: which is as wide?"""
    height, width = images.shape[-2:]
    last, first = (abs(rows * width - columns * height) for rows, columns in (found.shape[2:], found.shape[1:3]))
    return last <= first
