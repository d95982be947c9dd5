"""Grad-CAM against the same written out by hand, layer by layer."""

import pytest
import torch
from pictures import draw_images
from torch import nn

from fastcutpaste.networks.backbone import Network, NetworkConfig
from fastcutpaste.networks.gradcam import grad_cam
from fastcutpaste.op.color import normalize


def make_network(backbone: str = "resnet18", **others: object) -> Network:
    torch.manual_seed(0)
    return Network(NetworkConfig(backbone, head=(16,), **others)).eval()  # type: ignore[arg-type]


def test_grad_cam_is_that_of_the_last_maps_written_out_by_hand() -> None:
    network, images = make_network(), draw_images(3, 72, 96)
    backbone: nn.Module = network.backbone
    x = normalize(images, network.mean, network.std)
    x = backbone.maxpool(backbone.relu(backbone.bn1(backbone.conv1(x))))  # type: ignore[operator]
    maps = nn.Sequential(backbone.layer1, backbone.layer2, backbone.layer3, backbone.layer4)(x).detach()  # type: ignore[arg-type]
    maps.requires_grad_()
    scores = network.head(maps.mean((2, 3)))
    odds = (scores[:, 1].exp() + scores[:, 2].exp()).log() - scores[:, 0]
    expected = torch.zeros(3, 3, 3)
    for i in range(3):
        gradient = torch.autograd.grad(odds[i], maps, retain_graph=True)[0][i]
        for channel in range(512):
            expected[i] += gradient[channel].mean() * maps[i, channel].detach()
    expected = nn.functional.interpolate(expected.clamp(min=0)[:, None], (72, 96), mode="bilinear")[:, 0]
    found = grad_cam(network, images)
    assert found.shape == (3, 72, 96)
    assert expected.std() > 0
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5 * float(expected.max()) + 1e-8)


def test_it_leaves_no_hooks_and_no_gradients_and_works_where_gradients_are_off() -> None:
    network, images = make_network(), draw_images(3, 72, 96)
    with torch.no_grad():
        first = grad_cam(network, images)
    assert torch.equal(first, grad_cam(network, images))
    assert not any(module._forward_hooks for module in network.modules())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_network_without_padding_and_one_cut_at_a_stage_have_maps_too() -> None:
    images = draw_images(3, 72, 96)
    for network in (make_network("patchnet"), make_network(stage="layer2")):
        cam = grad_cam(network, images)
        assert cam.shape == (3, 72, 96)
        assert (cam >= 0).all()


def test_maps_whose_channels_come_last_are_no_maps() -> None:
    with pytest.raises(ValueError, match=r"maps \(B, D, h, w\) required, got \(1, 14, 14, 384\) from swin_t at"):
        Network(NetworkConfig("swin_t", stage="features.5"))
    pytest.importorskip("timm")
    name = "swin_tiny_patch4_window7_224"
    with pytest.raises(ValueError, match=rf"a backbone with maps \(B, D, h, w\) required, got {name}"):
        grad_cam(Network(NetworkConfig(name, head=())).eval(), torch.zeros(1, 3, 224, 224, dtype=torch.uint8))


def test_a_network_of_one_class_is_refused() -> None:
    with pytest.raises(ValueError, match="a network of at least 2 classes required, got 1"):
        grad_cam(make_network(classes=1), draw_images(3, 72, 96))
