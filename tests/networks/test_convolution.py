"""Small maps as matrix products: what `conv2d` gives, in values and gradients, and everything else untouched."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fastcutpaste.networks import backbone as backbone_module
from fastcutpaste.networks import convolution
from fastcutpaste.networks.backbone import Network, NetworkConfig
from fastcutpaste.networks.convolution import SmallConvolutions

# channels before and after, size of the maps, kernel, stride, padding; the last two for the weights alone
SHAPES = [
    (8, 16, (4, 4), (3, 3), (1, 1), (1, 1)),
    (8, 16, (4, 4), (3, 3), (1, 1), (0, 0)),
    (8, 16, (8, 8), (3, 3), (2, 2), (1, 1)),
    (8, 16, (5, 7), (3, 3), (2, 2), (1, 1)),
    (8, 16, (7, 5), (1, 1), (2, 2), (0, 0)),
    (4, 8, (2, 9), (2, 5), (1, 2), (1, 0)),
    (3, 5, (1, 1), (3, 3), (1, 1), (1, 1)),
    (8, 120, (6, 6), (3, 3), (1, 1), (1, 1)),
    (8, 120, (12, 11), (3, 3), (2, 2), (1, 1)),
]


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The positions of each map that took the way of matrix products."""
    seen: list[int] = []
    apply = convolution._Convolution.apply

    def spy(*args: Any) -> Any:
        maps = apply(*args)
        seen.append(maps.shape[-2] * maps.shape[-1])
        return maps

    monkeypatch.setattr(convolution._Convolution, "apply", spy)
    return seen


def run(images: Tensor, weight: Tensor, bias: Tensor | None, gradient: Tensor | None, *how: Any) -> list[Tensor]:
    """Give the maps, and where a gradient of them comes, those of images, weights and bias."""
    images, weight = (each.clone().requires_grad_(gradient is not None) for each in (images, weight))
    bias = None if bias is None else bias.clone().requires_grad_(gradient is not None)
    maps = F.conv2d(images, weight, bias, *how, (1, 1), 1)
    if gradient is None:
        return [maps]
    maps.backward(gradient)
    assert images.grad is not None
    assert weight.grad is not None
    return [maps.detach(), images.grad, weight.grad, *([] if bias is None or bias.grad is None else [bias.grad])]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_values_and_gradients_are_those_of_conv2d(shape: Any, layout: torch.memory_format, taken: list[int]) -> None:
    channels, widths, size, kernel, *how = shape
    generator = torch.Generator().manual_seed(0)
    images, weight, bias = (
        torch.randn(*sides, generator=generator).bfloat16()
        for sides in ((6, channels, *size), (widths, channels, *kernel), (widths,))
    )
    images, weight = (each.contiguous(memory_format=layout) for each in (images, weight))
    gradient = torch.randn(F.conv2d(images, weight, bias, *how).shape, generator=generator).bfloat16()
    wanted = run(images.double(), weight.double(), bias.double(), gradient.double(), *how)
    with SmallConvolutions():
        ours = run(images, weight, bias, gradient, *how)
        alone = run(images, weight, None, None, *how)
    assert len(taken) == 2
    torch.testing.assert_close(
        alone[0].double(), F.conv2d(images.double(), weight.double(), None, *how), rtol=0.01, atol=0.05
    )
    for mine, true in zip(ours, wanted, strict=True):
        assert mine.dtype == torch.bfloat16
        assert mine.shape == true.shape
        assert float((mine - true).norm() / true.norm()) < 0.006  # a bfloat16 has eight bits


def test_a_channels_last_network_keeps_its_layout(taken: list[int]) -> None:
    layer = nn.Conv2d(8, 16, 3, padding=1, bias=False).to(memory_format=torch.channels_last).bfloat16()
    images = torch.randn(2, 8, 4, 4).bfloat16().contiguous(memory_format=torch.channels_last).requires_grad_()
    with SmallConvolutions():
        maps = layer(images)
    maps.sum().backward()
    assert taken == [16]
    for each in (maps, images.grad, layer.weight.grad):
        assert each is not None
        assert each.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("images", "weight"), [(torch.float64, torch.float64), (torch.bfloat16, torch.float32)])
def test_what_torch_does_not_round_is_not_rounded(images: torch.dtype, weight: torch.dtype, taken: list[int]) -> None:
    layer, given = nn.Conv2d(8, 16, 3, padding=1).to(weight), torch.randn(2, 8, 4, 4, dtype=images)
    autocast = torch.autocast("cpu", torch.bfloat16, enabled=images == torch.float64)
    with SmallConvolutions(), autocast:
        if images == weight:
            assert layer(given).dtype == torch.float64
        else:
            with pytest.raises(RuntimeError, match="type"):
                layer(given)
    assert not taken


def test_no_images_give_no_maps_and_a_gradient_of_zero(taken: list[int]) -> None:
    layer = nn.Conv2d(8, 16, 3, padding=1).bfloat16()
    with SmallConvolutions():
        maps = layer(torch.zeros(0, 8, 4, 4).bfloat16().requires_grad_())
    maps.sum().backward()
    assert maps.shape == (0, 16, 4, 4)
    assert taken == [16]
    assert layer.weight.grad is not None
    assert not layer.weight.grad.any()


@pytest.mark.parametrize("size", [4, 6])  # 16 and 36 positions
@pytest.mark.parametrize("wanted", ["images", "weight"])
def test_only_the_gradient_that_is_wanted_is_computed(size: int, wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images, weight = torch.randn(2, 8, size, size).bfloat16(), torch.randn(120, 8, 3, 3).bfloat16()
    (images if wanted == "images" else weight).requires_grad_()
    with SmallConvolutions():
        loss = F.conv2d(images, weight, None, (1, 1), (1, 1), (1, 1), 1).sum()
    for unwanted in ("_columns",) if wanted == "images" else ("_spread", "conv2d_input"):
        monkeypatch.delattr(convolution, unwanted)
    loss.backward()  # type: ignore[no-untyped-call]


def test_the_layer_behind_may_work_in_place_and_gradients_have_gradients(taken: list[int]) -> None:
    images = torch.randn(2, 8, 4, 4).bfloat16().requires_grad_()
    weight = torch.randn(16, 8, 3, 3).bfloat16().requires_grad_()

    def penalty(images: Tensor, weight: Tensor) -> Tensor:
        """The squared gradient of the images: its own gradient needs that of the convolution's."""
        maps = F.conv2d(images, weight, None, (1, 1), (1, 1), (1, 1), 1).relu_().square()
        (first,) = torch.autograd.grad(maps.sum(), images, create_graph=True)
        (second,) = torch.autograd.grad(first.float().square().sum(), weight)
        return second

    with SmallConvolutions():
        ours = penalty(images, weight)
    assert taken == [16]
    true = penalty(*(each.detach().double().requires_grad_() for each in (images, weight)))
    assert float((ours - true).norm() / true.norm()) < 0.02


def test_functional_transforms_go_through(taken: list[int]) -> None:
    images, weight = torch.randn(3, 2, 8, 4, 4).bfloat16(), torch.randn(16, 8, 3, 3).bfloat16()

    def total(weight: Tensor, images: Tensor) -> Tensor:
        return F.conv2d(images, weight, None, (1, 1), (1, 1), (1, 1), 1).float().square().sum()

    gradient = torch.func.grad(total)
    wanted = torch.stack([gradient(weight, part) for part in images])
    assert not taken
    with SmallConvolutions():
        ours = torch.vmap(gradient, (None, 0))(weight, images)
    assert set(taken) == {16}
    assert float((ours - wanted).norm() / wanted.norm()) < 0.02


def test_exported_graphs_have_torchs_own_convolutions(taken: list[int]) -> None:
    network, images = Network(NetworkConfig("patchnet")).eval(), torch.zeros(2, 3, 64, 64, dtype=torch.uint8)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        torch.export.export(network, (images,))
        assert not taken
        network(images)
    assert set(taken) == {4, 16, 36}


class Whole(nn.Conv2d):
    """Calls with stride and padding as one number each."""

    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d(input, self.weight, self.bias, 1, 1, (1, 1), 1)


@pytest.mark.parametrize(
    ("layer", "images"),
    [
        (nn.Conv2d(8, 16, 3, padding=1), torch.randn(2, 8, 4, 4)),  # float32
        (nn.Conv2d(8, 16, 3, padding=1).bfloat16(), torch.randn(2, 8, 5, 5).bfloat16()),  # 25 positions
        (nn.Conv2d(8, 16, 3, padding=1, dilation=2).bfloat16(), torch.randn(2, 8, 4, 4).bfloat16()),
        (nn.Conv2d(8, 16, 3, padding=1, groups=2).bfloat16(), torch.randn(2, 8, 4, 4).bfloat16()),
        (nn.Conv2d(8, 16, 3, padding="same").bfloat16(), torch.randn(2, 8, 4, 4).bfloat16()),
        (nn.Conv2d(8, 16, 3, padding=1).bfloat16(), torch.randn(8, 4, 4).bfloat16()),  # one image, no batch
        (Whole(8, 16, 3).bfloat16(), torch.randn(2, 8, 4, 4).bfloat16()),
    ],
    ids=["float32", "large", "dilated", "grouped", "same", "unbatched", "whole numbers"],
)
def test_everything_else_is_left_to_torch(layer: nn.Conv2d, images: Tensor, taken: list[int]) -> None:
    with SmallConvolutions():
        maps = layer(images)
    assert not taken
    assert torch.equal(maps, layer(images))


@pytest.mark.parametrize("side", [5, 6])  # of the result: 0 × 0, and -1 × -1
def test_an_image_that_is_too_small_gets_torchs_own_error(side: int) -> None:
    layer = nn.Conv2d(8, 16, side).bfloat16()
    with SmallConvolutions(), pytest.raises(RuntimeError, match="Kernel size can't be greater"):
        layer(torch.zeros(2, 8, 4, 4).bfloat16())


@pytest.mark.parametrize(("backbone", "positions"), [("patchnet", {4, 16, 36}), ("resnet18", {4, 16})])
def test_gradients_of_a_network_are_as_near_to_those_in_float32_as_without_it(
    backbone: str, positions: set[int], taken: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = torch.randint(0, 256, (12, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))

    def gradients(bf16: bool) -> Tensor:
        torch.manual_seed(0)
        network = Network(NetworkConfig(backbone)).to(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = F.cross_entropy(network(images).float(), torch.arange(3).repeat(4))
        loss.backward()  # type: ignore[no-untyped-call]
        return torch.cat([value.grad.flatten() for value in network.parameters() if value.grad is not None])

    wanted = gradients(bf16=False)
    assert not taken
    ours = gradients(bf16=True)
    assert set(taken) == positions
    monkeypatch.setattr(backbone_module, "SmallConvolutions", nullcontext)
    without = gradients(bf16=True)
    assert float((ours - wanted).norm()) < 1.2 * float((without - wanted).norm())
