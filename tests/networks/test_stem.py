"""The stem in the form that suits a GPU: the same function and gradients, the same parameters, the same files."""

from typing import Any

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from fastcutpaste.networks import backbone, pooling, stem
from fastcutpaste.networks.backbone import Network, NetworkConfig
from fastcutpaste.networks.pooling import PoolThenReLU
from fastcutpaste.networks.stem import StemConvolution, convolve_by_blocks

SIZES = [((32, 32), (3, 3)), ((33, 32), (3, 3)), ((20, 41), (3, 3)), ((19, 17), (0, 0)), ((16, 31), (0, 0)),
         ((17, 10), (1, 2)), ((7, 8), (0, 0)), ((1, 2), (3, 3))]  # fmt: skip
CLOSE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 1e-2}  # of the largest number
RESNETS = ["resnet18", "resnet34", "resnet50"]


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Let a CPU take the GPU's ways; give the shape of the images each time that they are convolved by blocks."""
    taken: list[tuple[int, ...]] = []

    def spy(images: Tensor, *others: Any) -> Tensor:
        taken.append(tuple(images.shape))
        return convolve_by_blocks(images, *others)

    for module in (stem, pooling):
        monkeypatch.setattr(module, "on_a_gpu", lambda _: True)
    monkeypatch.setattr(pooling, "_starts", lambda: False)
    monkeypatch.setattr(stem, "convolve_by_blocks", spy)
    return taken


def draw_images(count: int = 2, height: int = 64, width: int = 64) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=generator)


def as_torchvision(config: NetworkConfig) -> Network:
    """Build a network whose stem is left as the library made it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backbone, "arrange_stem", lambda *_: None)
        torch.manual_seed(0)
        return Network(config)


def learn(network: nn.Module, images: Tensor, bf16: bool) -> Tensor:
    """Give the gradients of all parameters, one after another."""
    network.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        scores = network(images).float()
    F.cross_entropy(scores, torch.arange(len(images)) % scores.shape[1]).backward()  # type: ignore[no-untyped-call]
    return torch.cat([value.grad.flatten() for value in network.parameters() if value.grad is not None])


def gap(mine: Tensor, true: Tensor) -> float:
    return float((mine - true).norm() / true.norm())


# The convolution


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", CLOSE, ids=str)
@pytest.mark.parametrize(("size", "padding"), SIZES)
def test_by_blocks_it_is_conv2d_in_values_and_all_gradients(
    size: tuple[int, int], padding: tuple[int, int], dtype: torch.dtype, layout: torch.memory_format
) -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = (3, 3, *size), (10, 3, 7, 7), (10,)
    given = [torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype) for shape in shapes]
    given[:2] = [each.contiguous(memory_format=layout) for each in given[:2]]

    def values_and_gradients(convolve: Any, inputs: list[Tensor]) -> list[Tensor]:
        inputs = [each.clone().requires_grad_() for each in inputs]
        maps = convolve(*inputs)
        weights = torch.linspace(-1, 1, maps.numel(), dtype=torch.float64).view_as(maps).to(dtype).to(maps.dtype)
        return [maps.detach(), *torch.autograd.grad(maps, inputs, weights)]

    ours = values_and_gradients(lambda *inputs: convolve_by_blocks(*inputs, padding), given)
    true = values_and_gradients(lambda *inputs: F.conv2d(*inputs, 2, padding), [each.double() for each in given])
    for mine, wanted in zip(ours, true, strict=True):
        assert mine.dtype == dtype
        assert mine.shape == wanted.shape
        assert float((mine - wanted).abs().max()) <= CLOSE[dtype] * float(wanted.abs().max())


def test_blocks_have_sixteen_channels_beside_each_other_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Tensor] = []
    plainly = F.conv2d
    monkeypatch.setattr(F, "conv2d", lambda *given: seen.extend(given[:2]) or plainly(*given))
    convolve_by_blocks(torch.randn(2, 3, 16, 18), torch.randn(5, 3, 7, 7), None, (3, 3))
    assert [tuple(each.shape) for each in seen] == [(2, 16, 11, 12), (5, 16, 4, 4)]
    assert all(each.is_contiguous(memory_format=torch.channels_last) for each in seen)


@pytest.mark.parametrize("size", [(6, 9), (5, 5)])
def test_an_image_that_is_too_small_gets_torchs_own_error(size: tuple[int, int]) -> None:
    with pytest.raises(RuntimeError, match="Kernel size can't be greater"):
        convolve_by_blocks(torch.zeros(1, 3, *size), torch.zeros(4, 3, 7, 7), None, (0, 0))


def test_functional_transforms_go_through() -> None:
    images, weight = torch.randn(4, 2, 3, 15, 16), torch.randn(6, 3, 7, 7)

    def total(weight: Tensor, images: Tensor, ours: bool) -> Tensor:
        maps = convolve_by_blocks(images, weight, None, (3, 3)) if ours else F.conv2d(images, weight, None, 2, 3)
        return maps.square().sum()

    mine, true = (torch.vmap(torch.func.grad(total), (None, 0, None))(weight, images, ours) for ours in (True, False))
    torch.testing.assert_close(mine, true, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("dtype", "rounded", "blocks"),
    [
        (torch.float32, True, True),
        (torch.bfloat16, False, True),
        (torch.float16, False, True),
        (torch.float32, False, False),
        (torch.float64, True, False),
    ],
)
def test_only_what_is_computed_in_half_precision_goes_by_blocks(
    dtype: torch.dtype, rounded: bool, blocks: bool, as_on_a_gpu: list[tuple[int, ...]]
) -> None:
    plain = nn.Conv2d(3, 8, 7, 2, 3).to(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=rounded):
        mine, true = (layer(torch.randn(1, 3, 12, 12, dtype=dtype)) for layer in (StemConvolution.of(plain), plain))
    assert bool(as_on_a_gpu) == blocks
    assert mine.dtype == true.dtype


def test_a_cpu_and_a_single_image_keep_the_convolution(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stem, "convolve_by_blocks", None)
    plain = nn.Conv2d(3, 8, 7, 2, 3).bfloat16()
    images = torch.randn(2, 3, 12, 12).bfloat16()
    assert torch.equal(StemConvolution.of(plain)(images), plain(images))
    for module in (stem, pooling):
        monkeypatch.setattr(module, "on_a_gpu", lambda _: True)
    monkeypatch.setattr(pooling, "_starts", lambda: False)
    assert torch.equal(StemConvolution.of(plain)(images[0]), plain(images[0]))


# The pool


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_pool_before_the_relu_is_the_pool_after_it_bit_for_bit(dtype: torch.dtype) -> None:
    maps = torch.randn(2, 8, 15, 16, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    mine, true = PoolThenReLU()(maps), F.max_pool2d(F.relu(maps), 3, 2, 1)
    assert torch.equal(mine, true)
    gradient = torch.randn(mine.shape).to(dtype)
    assert torch.equal(*(torch.autograd.grad(each, maps, gradient)[0] for each in (mine, true)))


# Which layers, and what stays


@pytest.mark.parametrize(
    ("name", "convolutions", "pools"),
    [
        *((name, 1, 1) for name in RESNETS),
        ("patchnet", 1, 0),
        ("densenet121", 1, 0),
        ("mobilenet_v3_small", 0, 0),
        ("squeezenet1_1", 0, 0),
        ("shufflenet_v2_x0_5", 0, 0),  # has a maxpool, too
        ("alexnet", 0, 0),
    ],
)
def test_layers_are_exchanged_and_parameters_are_not(name: str, convolutions: int, pools: int) -> None:
    torch.manual_seed(0)
    network, plain = Network(NetworkConfig(name)), as_torchvision(NetworkConfig(name))
    kinds = [type(module) for module in network.modules()]
    assert (kinds.count(StemConvolution), kinds.count(PoolThenReLU)) == (convolutions, pools)
    mine, true = network.state_dict(), plain.state_dict()
    assert list(mine) == list(true)
    assert all(map(torch.equal, mine.values(), true.values()))
    assert [name for name, _ in network.named_parameters()] == [name for name, _ in plain.named_parameters()]


def test_torchvisions_own_network_takes_the_weights() -> None:
    state = Network(NetworkConfig("resnet18")).backbone.state_dict()
    missing, unknown = torchvision.models.resnet18().load_state_dict(state, strict=False)
    assert set(missing) == {"fc.weight", "fc.bias"}
    assert not unknown


@pytest.mark.parametrize("stage", ["conv1", "bn1", "relu", "maxpool", "layer1.0.relu", "layer2"])
def test_a_network_cut_anywhere_gives_the_same(stage: str) -> None:
    config, images = NetworkConfig("resnet18", stage=stage), draw_images(2, 41, 32)
    torch.manual_seed(0)
    network, plain = Network(config), as_torchvision(config)
    for training in (True, False):
        assert torch.equal(network.train(training).embed_map(images), plain.train(training).embed_map(images))


@pytest.mark.parametrize("name", [*RESNETS, "patchnet"])
def test_a_network_learns_the_same(name: str, as_on_a_gpu: list[tuple[int, ...]]) -> None:
    config, images = NetworkConfig(name), draw_images(6, 65, 64)
    torch.manual_seed(0)
    network, plain = Network(config), as_torchvision(config)
    as_on_a_gpu.clear()
    exact, ours = learn(plain, images, bf16=False), learn(network, images, bf16=True)
    assert as_on_a_gpu == [(6, 3, 65, 64)]
    assert gap(ours, exact) < 1.2 * gap(learn(plain, images, bf16=True), exact)


class Stem(nn.Module):
    """The first layers of a ResNet-18, and a class score of their mean."""

    def __init__(self, whole: Any) -> None:
        super().__init__()
        self.layers = nn.Sequential(whole.conv1, whole.bn1, whole.relu, whole.maxpool)
        self.head = nn.Linear(64, 3)

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.head(self.layers(images.float() / 255).mean((2, 3)))
        return scores


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_compiled_as_a_whole_it_learns_the_same(
    backend: str, as_on_a_gpu: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("triton")
    from fastcutpaste.networks import kernel_pool

    launched: list[str] = []

    class Counted:
        def __init__(self, name: str) -> None:
            self.name, self.kernel = name, getattr(kernel_pool, name)

        def __getitem__(self, grid: tuple[int, ...]) -> Any:
            launched.append(self.name)
            return self.kernel[grid]

    for name in ("_pool", "_spread"):
        monkeypatch.setattr(kernel_pool, name, Counted(name))
    images = draw_images(4, 23, 16)
    torch.manual_seed(0)
    network = Stem(Network(NetworkConfig("resnet18")).backbone).train()
    eager, exact = learn(network, images, bf16=True), learn(network, images, bf16=False)
    assert not launched
    ours = learn(torch.compile(network, backend=backend, fullgraph=True), images, bf16=True)
    assert launched == ["_pool", "_spread"]
    assert gap(ours, exact) < 1.2 * gap(eager, exact)


def test_exported_graphs_have_the_librarys_own_layers(as_on_a_gpu: list[tuple[int, ...]]) -> None:
    network = Network(NetworkConfig("resnet18")).eval().bfloat16()
    as_on_a_gpu.clear()
    graph = torch.export.export(network, (draw_images(1),)).graph
    assert not as_on_a_gpu
    targets = [str(node.target) for node in graph.nodes]
    assert targets.count("aten.conv2d.default") == 20
    assert any("max_pool2d" in target for target in targets)
    assert not any("fastcutpaste" in target for target in targets)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("compiled", [False, True])
def test_a_gpu_learns_the_same(compiled: bool) -> None:
    config, images = NetworkConfig("resnet18"), draw_images(12, 97, 64).cuda()
    torch.manual_seed(0)
    network, plain = Network(config).cuda(), as_torchvision(config).cuda()
    labels = torch.arange(3).repeat(4).cuda()

    def gradients(network: nn.Module, bf16: bool, run: Any) -> Tensor:
        network.to(memory_format=torch.channels_last).zero_grad()  # type: ignore[call-overload]
        with torch.autocast("cuda", torch.bfloat16, enabled=bf16):
            scores = run(images).float()
        F.cross_entropy(scores, labels).backward()  # type: ignore[no-untyped-call]
        return torch.cat([value.grad.flatten() for value in network.parameters() if value.grad is not None])

    exact = gradients(plain, False, plain)
    ours = gradients(network, True, torch.compile(network, fullgraph=True) if compiled else network)
    assert gap(ours, exact) < 1.2 * gap(gradients(plain, True, plain), exact)
