"""Folded batch norms: the same features with fewer layers, and what must not be folded is not."""

import copy
import warnings

import pytest
import torch
from pictures import draw_images
from torch import Tensor, nn

from fastcutpaste.networks.backbone import Network, NetworkConfig
from fastcutpaste.networks.folding import fold_batch_norms, round_convolutions

BACKBONES = [
    ("patchnet", None),
    ("resnet18", None),
    ("resnet18", "layer2"),
    ("resnet18", "layer1.0.conv2"),  # cut between a convolution and its batch norm
    ("efficientnet_lite0", None),
    ("tf_efficientnet_lite0", None),  # whose convolutions pad as TensorFlow's do
]


def with_statistics(network: Network) -> Network:
    """Let batch norms see images, and give them factors and summands that differ."""
    torch.manual_seed(1)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.2)
        for seed in range(10):
            network.train().embed(draw_images(8, seed=seed))
    return network.eval()


def make_network(backbone: str, stage: str | None = None) -> Network:
    if "lite" in backbone:
        pytest.importorskip("timm", reason="pip install 'fastcutpaste[timm]'")
    torch.manual_seed(0)
    return with_statistics(Network(NetworkConfig(backbone, stage=stage, head=())))


def norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@torch.no_grad()
def assert_same_features(network: Network, folded: Network, tolerance: float = 1e-4) -> None:
    images = draw_images(4, seed=20)
    wanted, made = network.embed_map(images), folded.embed_map(images)
    assert wanted.std() > 1e-3
    torch.testing.assert_close(made, wanted, rtol=0, atol=tolerance * float(wanted.max() - wanted.min()))


@pytest.mark.parametrize(("backbone", "stage"), BACKBONES)
def test_a_folded_network_gives_the_same_features(backbone: str, stage: str | None) -> None:
    network = make_network(backbone, stage)
    folded = fold_batch_norms(network)
    assert norms(network.backbone) > 0
    assert norms(folded.backbone) == 0
    assert_same_features(network, folded)


def test_the_network_stays_as_it_is() -> None:
    network = make_network("patchnet").train()
    before = copy.deepcopy(network.state_dict())
    folded = fold_batch_norms(network)
    assert not any(parameter.requires_grad for parameter in folded.parameters())
    assert not folded.training
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[name], value) for name, value in before.items())


class Weighted(nn.Conv2d):
    """Make its weights anew in each call."""

    def forward(self, maps: Tensor) -> Tensor:
        return self._conv_forward(maps, self.weight / self.weight.norm(), self.bias)


class Awkward(nn.Module):
    """Use convolutions and batch norms in ways in which the second cannot be folded into the first."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.first = Weighted(3, 4, 3) if kind == "weights made anew" else nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        if kind == "no statistics":
            self.norm = nn.BatchNorm2d(4, track_running_stats=False)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.first(images)
        if self.kind == "read twice":
            return torch.cat([self.norm(maps), maps], 1)
        if self.kind == "norm used twice":
            return torch.cat([self.norm(maps), self.norm(torch.relu(images.repeat(1, 2, 1, 1)[:, :4, 1:-1, 1:-1]))], 1)
        if self.kind == "convolution used twice":
            return torch.cat([self.norm(maps), self.first(images.flip(-1))], 1)
        if self.kind == "something between":
            return self.norm(torch.relu(maps))  # type: ignore[no-any-return]
        return self.norm(maps)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "kind",
    ["read twice", "norm used twice", "convolution used twice", "something between", "weights made anew",
     "no statistics"],
)  # fmt: skip
def test_a_batch_norm_stays_where_it_cannot_be_folded(kind: str) -> None:
    torch.manual_seed(0)
    network = make_network("resnet18", "layer1.0.bn1")
    network.backbone = Awkward(kind)
    if kind != "no statistics":
        with_statistics(network)
    folded = fold_batch_norms(network)
    assert norms(folded.backbone) == 1
    assert_same_features(network.eval(), folded)


def test_a_network_whose_flow_cannot_be_followed_stays_as_it_is_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    network = make_network("patchnet")
    forward = type(network.backbone).forward

    def choosing(self: nn.Module, normalized: Tensor) -> Tensor:
        result: Tensor = forward(self, normalized if normalized.mean() > -9 else -normalized)  # type: ignore[arg-type]
        return result

    monkeypatch.setattr(type(network.backbone), "forward", choosing)
    with pytest.warns(UserWarning, match="patchnet: its batch norms stay, its flow cannot be followed: symbolically"):
        folded = fold_batch_norms(network)
    assert norms(folded.backbone) == norms(network.backbone)
    assert_same_features(network, folded, tolerance=0)


@torch.no_grad()
def test_weights_rounded_beforehand_give_what_autocast_rounds_at_each_call() -> None:
    folded = fold_batch_norms(make_network("resnet18", "layer2"))
    images = draw_images(2)
    with torch.autocast("cpu", torch.bfloat16):
        wanted = folded.embed_map(images)
        round_convolutions(folded)
        assert folded.backbone.get_parameter("extractor.conv1.weight").dtype == torch.bfloat16
        assert torch.equal(folded.embed_map(images), wanted)


def test_folding_warns_of_nothing_where_it_works() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fold_batch_norms(make_network("patchnet"))
