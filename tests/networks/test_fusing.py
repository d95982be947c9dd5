"""Convolutions with their ReLUs: the same maps as one after the other, found wherever a network has them."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from fastcutpaste.networks.backbone import Network, NetworkConfig
from fastcutpaste.networks.folding import fold_batch_norms, round_convolutions
from fastcutpaste.networks.fusing import ConvolutionReLU, fuse_activations

on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")


def folded(name: str, patch: int = 64) -> Network:
    """Make a network with batch norms that have seen something, folded."""
    torch.manual_seed(0)
    network = Network(NetworkConfig(name, patch=patch))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean = torch.randn_like(module.running_mean) / 4  # type: ignore[arg-type]
            module.running_var = torch.rand_like(module.running_var) + 0.5  # type: ignore[arg-type]
    return fold_batch_norms(network)


def fused_layers(network: Network) -> int:
    return sum(isinstance(module, ConvolutionReLU) for module in network.modules())


@pytest.mark.parametrize(
    ("name", "count"),
    [("resnet18", 17), ("resnet50", 49), ("patchnet", 7), ("vgg11_bn", 8), ("mobilenet_v3_small", 0)],
)
@torch.inference_mode()
def test_fused_gives_the_same_maps(name: str, count: int) -> None:
    network = folded(name)
    images = torch.randint(0, 256, (2, 3, 96, 80), dtype=torch.uint8)
    wanted = network.embed_map(images)
    fuse_activations(network)
    assert_close(network.embed_map(images), wanted)
    if count:
        assert fused_layers(network) == count  # every ReLU: nothing is left to do after a convolution
        left = [module for module in network.backbone.modules() if isinstance(module, nn.ReLU)]
        used = {node.target for node in network.backbone.graph.nodes}  # type: ignore[union-attr]
        assert not left or not any("relu" in str(target) for target in used)


@torch.inference_mode()
def test_what_is_added_may_be_stretched() -> None:
    class Stretched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, images: Tensor) -> Tensor:
            return torch.relu(images.mean((2, 3), keepdim=True)[:, :1] + self.conv(images))

    network = folded("patchnet", 32)
    network.backbone = Stretched()
    images = torch.rand(2, 3, 8, 8)
    wanted = network.backbone(images)
    fuse_activations(network)
    assert fused_layers(network) == 1
    assert_close(network.backbone(images), wanted)
    layer = network.backbone.conv
    assert isinstance(layer, ConvolutionReLU)
    assert layer._shape(images) == wanted.shape


@torch.inference_mode()
def test_maps_that_others_read_stay() -> None:
    class Read(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.twice = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)

        def forward(self, images: Tensor) -> Tensor:
            maps = self.conv(images)
            return torch.relu(maps) + maps + torch.relu(self.twice(self.twice(maps)))

    network = folded("patchnet", 32)
    network.backbone = Read()
    images = torch.rand(2, 3, 8, 8)
    wanted = network.backbone(images)
    fuse_activations(network)
    assert fused_layers(network) == 0
    assert_close(network.backbone(images), wanted)


@torch.inference_mode()
def test_a_flow_that_cannot_be_followed_stays() -> None:
    class Looking(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images if float(images.sum()) > 0 else -images

    network = folded("patchnet", 32)
    network.backbone = backbone = Looking()
    fuse_activations(network)
    assert network.backbone is backbone


@pytest.mark.gpu
@on_a_gpu
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "patchnet"])
@torch.inference_mode()
def test_on_a_gpu_one_kernel_gives_the_same(name: str) -> None:
    network = folded(name).to("cuda")
    images = torch.randint(0, 256, (4, 3, 97, 80), dtype=torch.uint8, device="cuda")
    true = network.embed_map(images)
    round_convolutions(network)
    plain, fused = copy.deepcopy(network), network
    fuse_activations(fused)
    with torch.autocast("cuda", dtype=torch.bfloat16):
        apart, together = plain.embed_map(images).float(), fused.embed_map(images).float()
    assert fused_layers(fused) > 0
    assert (together - true).norm() <= 1.2 * (apart - true).norm() + 1e-6 * true.norm()  # no further from float32
