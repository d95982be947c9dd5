"""Batch norms folded into the convolutions before them, for networks that only score."""

import copy
import warnings
from collections import Counter

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from fastcutpaste.networks.backbone import Network
from fastcutpaste.networks.pooling import MeanPool, PoolThenReLU
from fastcutpaste.networks.stem import StemConvolution


def fold_batch_norms(network: Network) -> Network:
    """Give a copy whose convolutions do the work of the batch norms that follow them; the same features, to rounding.

    In evaluation a batch norm is a factor and a summand a channel: both go into the convolution's weights, in their own
    precision. The copy has other tensors than the network, is in evaluation mode, and is not for training.

    A batch norm stays as it is where something else reads the convolution, too, where either is used twice, and behind
    a convolution of a kind that makes its weights anew. Where the backbone's flow cannot be followed, all stay, and a
    warning says so.

    Args:
        network: what its batch norms have learnt is folded; left as it is.

    Cost: the network's memory once more, and no more than a second.
    """
    folded = copy.deepcopy(network).requires_grad_(False).eval()
    backbone = folded.backbone
    try:
        nodes = list(LayersOnly().trace(backbone).nodes)
    except Exception as error:  # whatever a network's code makes of what is not a tensor
        reason = (str(error) or type(error).__name__).splitlines()[0]
        warnings.warn(f"{network.config.backbone}: its batch norms stay, its flow cannot be followed: {reason}",
                      stacklevel=2)  # fmt: skip
        return folded
    calls = Counter(node.target for node in nodes if node.op == "call_module")
    for node in nodes:
        before = node.args[0] if node.args else None
        if not isinstance(before, fx.Node) or not node.op == before.op == "call_module" or len(before.users) > 1:
            continue
        names = str(before.target), str(node.target)
        first, second = (backbone.get_submodule(name) for name in names)
        if is_plain(first) and _is_norm(second) and calls[before.target] == calls[node.target] == 1:
            assert isinstance(first, nn.Conv2d)
            assert isinstance(second, nn.BatchNorm2d)
            backbone.set_submodule(names[0], fuse_conv_bn_eval(first, second))
            backbone.set_submodule(names[1], _rest_of(second))
    return folded.to(memory_format=torch.channels_last)


def round_convolutions(network: Network) -> None:
    """Keep in bfloat16 the weights of convolutions that autocast rounds to it at each call; the same results."""
    for module in network.backbone.modules():
        if is_plain(module):
            module.bfloat16()


class LayersOnly(fx.Tracer):
    """Follow a network down to its layers; convolutions and batch norms of other libraries are layers, too."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        ours = nn.Conv2d | nn.BatchNorm2d | MeanPool | PoolThenReLU
        return isinstance(module, ours) or super().is_leaf_module(module, name)


def is_plain(module: nn.Module) -> bool:
    """Tell whether a layer convolves with its weights as they are; timm's pads besides, which changes nothing here."""
    kind = type(module)
    timms = kind.__module__.startswith("timm.") and kind.__name__ == "Conv2dSame"
    return kind in (nn.Conv2d, StemConvolution) or timms


def _is_norm(module: nn.Module) -> bool:
    """Tell whether a layer is a batch norm with statistics of its own, alone or with an activation behind (timm)."""
    kind = type(module)
    known = kind is nn.BatchNorm2d or (kind.__module__.startswith("timm.") and kind.__name__ == "BatchNormAct2d")
    return known and getattr(module, "running_var", None) is not None


def _rest_of(norm: nn.BatchNorm2d) -> nn.Module:
    """Give what a batch norm does besides: nothing, or in timm's the dropout and the activation."""
    return nn.Sequential(*(getattr(norm, name) for name in ("drop", "act") if hasattr(norm, name)))
