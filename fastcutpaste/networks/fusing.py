"""Convolution, bias, shortcut and ReLU as one kernel of cuDNN, for folded networks on a GPU."""

import operator
from collections import Counter
from typing import Any, TypeGuard

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from fastcutpaste.networks.backbone import Network, computes_bf16
from fastcutpaste.networks.folding import LayersOnly, fold_batch_norms, round_convolutions
from fastcutpaste.networks.pooling import HALF, PoolThenReLU, on_a_gpu
from fastcutpaste.networks.stem import StemConvolution, image_blocks, weight_blocks

_ADDITIONS = (operator.add, operator.iadd, torch.add)
_ACTIVATIONS = (torch.relu, F.relu)


class ConvolutionReLU(nn.Module):
    """Give the ReLU of a convolution with a bias, or of its sum with other maps.

    On a GPU in half precision cuDNN does it in one kernel; torch's own take the maps three times through memory.
    """

    blocks: Tensor

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.layer, self.padding = layer, (int(layer.padding[0]), int(layer.padding[1]))
        if isinstance(layer, StemConvolution):
            self.register_buffer("blocks", weight_blocks(layer.weight.detach()))

    def forward(self, maps: Tensor, other: Tensor | None = None) -> Tensor:
        """Take maps (B, C, H, W), and others of the result's shape (B, D, h, w)."""
        layer, weight = self.layer, self.layer.weight
        if not (on_a_gpu(maps) and weight.dtype in HALF and (other is None or other.shape == self._shape(maps))):
            made = layer(maps)
            return torch.relu(made if other is None else made + other)
        maps, stride, padding = maps.to(weight.dtype), layer.stride, self.padding
        if isinstance(layer, StemConvolution):
            maps, weight, stride, padding = image_blocks(maps, padding), self.blocks, (1, 1), (0, 0)
        form = layer.bias, stride, padding, layer.dilation, layer.groups
        if other is None:
            return torch.cudnn_convolution_relu(maps, weight, *form)
        return torch.cudnn_convolution_add_relu(maps, weight, other.to(weight.dtype), 1.0, *form)

    def _shape(self, maps: Tensor) -> tuple[int, ...]:
        """Give the shape of the result; another one of what is added would have to be stretched."""
        layer = self.layer
        sides = (
            (length + 2 * padding - dilation * (side - 1) - 1) // stride + 1
            for length, padding, dilation, side, stride in zip(
                maps.shape[2:], self.padding, layer.dilation, layer.kernel_size, layer.stride, strict=True
            )
        )
        return (len(maps), layer.out_channels, *sides)


def faster(network: Network) -> Network:
    """Give a copy that computes the same, to rounding, with less work on its device, to score alone."""
    folded = fold_batch_norms(network)
    if computes_bf16(network.mean.device):
        round_convolutions(folded)
        if network.mean.is_cuda:
            fuse_activations(folded)
    return folded


def fuse_activations(network: Network) -> None:
    """Put `ConvolutionReLU` where a ReLU follows a convolution with a bias, or its sum with a shortcut; in place.

    Args:
        network: of `fold_batch_norms`. Where its flow cannot be followed, it is left as it is.
    """
    backbone = network.backbone
    try:
        graph = LayersOnly().trace(backbone)
    except Exception:  # whatever a network's code makes of what is not a tensor; folding has said it
        return
    modules: dict[str, Any] = dict(backbone.named_modules())
    calls = Counter(node.target for node in graph.nodes if node.op == "call_module")

    def is_convolution(node: Any) -> TypeGuard[fx.Node]:
        if not isinstance(node, fx.Node) or node.op != "call_module" or len(node.users) > 1 or calls[node.target] > 1:
            return False
        layer = modules[str(node.target)]
        return type(layer) in (nn.Conv2d, StemConvolution) and _is_known(layer)

    for node in list(graph.nodes):
        pool = node.op == "call_module" and isinstance(modules[str(node.target)], PoolThenReLU)
        if not (pool or _is_relu(node, modules)):
            continue
        before, other = _origin(node.args[0], modules), None
        if isinstance(before, fx.Node) and before.target in _ADDITIONS and len(before.users) == 1:
            sides = [_origin(side, modules) for side in before.args]
            first = next((i for i, side in enumerate(sides) if is_convolution(side)), None)
            if first is None:
                continue
            before, other = sides[first], before.args[1 - first]
        if not is_convolution(before) or (other is not None and not isinstance(other, fx.Node)):
            continue
        name = str(before.target)
        backbone.set_submodule(name, ConvolutionReLU(modules[name]))
        with graph.inserting_before(node):
            fused = graph.call_module(name, (before.args[0],) if other is None else (before.args[0], other))
        if pool:  # the pool of a ReLU has none to do
            with graph.inserting_before(node):
                made = graph.call_function(F.max_pool2d, (fused, 3, 2, 1))
            node.replace_all_uses_with(made)
        else:
            node.replace_all_uses_with(fused)
        graph.erase_node(node)
    followed = fx.GraphModule(backbone, graph)
    followed.graph.eliminate_dead_code()
    followed.recompile()
    followed.delete_all_unused_submodules()
    network.backbone = followed


def _is_known(layer: Any) -> bool:
    plain = layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    return bool(plain and layer.bias is not None and layer.groups == 1)


def _is_relu(node: fx.Node, modules: dict[str, Any]) -> bool:
    if node.op == "call_module":
        return type(modules[str(node.target)]) is nn.ReLU
    return (node.op == "call_function" and node.target in _ACTIVATIONS) or (
        node.op == "call_method" and node.target in ("relu", "relu_")
    )


def _origin(node: Any, modules: dict[str, Any]) -> Any:
    """Go back over layers that do nothing, such as batch norms that are folded."""
    while isinstance(node, fx.Node) and node.op == "call_module" and len(node.users) == 1:
        layer = modules[str(node.target)]
        nothing = isinstance(layer, nn.Identity) or (isinstance(layer, nn.Sequential) and not len(layer))
        if not nothing:
            break
        node = node.args[0]
    return node
