"""Max-pool and ReLU in Triton: torch's own in values and gradients, ties and all; on a GPU, or in the interpreter."""

import os

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fastcutpaste.op.paste import HAS_TRITON

pytestmark = pytest.mark.skipif(not HAS_TRITON, reason="needs Triton")
GPU, INTERPRETED = torch.cuda.is_available(), os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cuda" if GPU else "cpu"
runs_kernels = pytest.mark.gpu if GPU else pytest.mark.skipif(not INTERPRETED, reason="needs TRITON_INTERPRET=1")


def draw_maps(shape: tuple[int, ...], dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Draw maps of which many neighbours are equal, in channels_last."""
    maps = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).mul(2).round() / 2
    return maps.to(DEVICE, dtype).contiguous(memory_format=torch.channels_last)


def pooled(maps: Tensor, gradient: Tensor, ours: bool) -> tuple[Tensor, Tensor]:
    """Give the result and the gradient of the maps."""
    from fastcutpaste.networks.kernel_pool import PoolReLU

    maps = maps.clone().requires_grad_()
    result: Tensor = PoolReLU.apply(maps) if ours else F.max_pool2d(F.relu(maps), 3, 2, 1)
    (of_maps,) = torch.autograd.grad(result, maps, gradient.to(result))
    return result.detach(), of_maps


@runs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "shape", [(2, 64, 12, 10), (1, 3, 7, 9), (2, 5, 8, 5), (1, 64, 3, 40), (2, 2, 1, 1), (1, 1, 2, 2), (0, 4, 6, 6)]
)
def test_it_is_the_pool_of_the_relu_bit_for_bit(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    maps = draw_maps(shape, dtype)
    batch, channels, height, width = shape
    gradient = torch.randn(batch, channels, (height + 1) // 2, (width + 1) // 2).to(DEVICE, dtype)
    mine, of_mine = pooled(maps, gradient, ours=True)
    true, of_true = pooled(maps.float(), gradient, ours=False)  # which on a CPU adds up in the maps' own type
    assert mine.dtype == of_mine.dtype == dtype
    assert torch.equal(mine, true.to(dtype))
    rounding = 2**-7 if dtype == torch.bfloat16 and not GPU else 0  # the interpreter cuts off what it should round
    torch.testing.assert_close(of_mine, of_true.to(dtype), rtol=rounding, atol=0)
    for each in (mine, of_mine):
        assert each.is_contiguous(memory_format=torch.channels_last)


@runs_kernels
def test_of_equal_pixels_the_first_has_the_gradient_and_of_none_above_0_none() -> None:
    maps = torch.full((1, 1, 3, 3), 2.0, device=DEVICE)
    maps[0, 0, 0, 0] = 1.0
    assert pooled(maps, torch.ones(1, 1, 2, 2), ours=True)[1].flatten().tolist() == [0, 2, 0, 1, 1, 0, 0, 0, 0]
    assert not pooled(-maps, torch.ones(1, 1, 2, 2), ours=True)[1].any()
    assert not pooled(maps * 0, torch.ones(1, 1, 2, 2), ours=True)[1].any()


@runs_kernels
def test_what_is_not_a_number_is_passed_on() -> None:
    maps = draw_maps((1, 2, 6, 6))
    maps[0, 0, 3, 3], maps[0, 1, 2, 1] = float("nan"), float("inf")
    result, of_maps = pooled(maps, torch.ones(1, 2, 3, 3), ours=True)
    wanted, of_wanted = pooled(maps, torch.ones(1, 2, 3, 3), ours=False)
    assert result[0, 0].isnan().sum() == 4
    torch.testing.assert_close(result, wanted, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(of_maps, of_wanted, rtol=0, atol=0, equal_nan=True)


@runs_kernels
def test_planar_maps_and_gradients_give_the_same() -> None:
    maps, gradient = draw_maps((2, 5, 9, 8)), torch.randn(2, 5, 5, 4)
    planar = pooled(maps.contiguous(), gradient.contiguous(memory_format=torch.channels_last), ours=True)
    assert all(map(torch.equal, planar, pooled(maps, gradient, ours=True)))


@runs_kernels
def test_torch_knows_what_the_ops_give_without_running_them() -> None:
    from fastcutpaste.networks.kernel_pool import pool_relu_backward_op, pool_relu_op

    checks = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    maps = draw_maps((2, 4, 7, 6))
    torch.library.opcheck(pool_relu_op, (maps,), test_utils=checks)
    result, chosen = pool_relu_op(maps)
    torch.library.opcheck(pool_relu_backward_op, (result, chosen, 7, 6), test_utils=checks)


@runs_kernels
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("shape", "side", "stride"),
    [((2, 64, 12, 10), 3, 2), ((1, 3, 7, 9), 2, 1), ((2, 5, 8, 5), 1, 1), ((1, 256, 5, 6), 5, 1), ((0, 4, 6, 6), 2, 2)],
)
def test_means_are_torchs(shape: tuple[int, ...], side: int, stride: int, dtype: torch.dtype) -> None:
    from fastcutpaste.networks.kernel_pool import mean_pool_kernel

    maps = draw_maps(shape, dtype)
    mine, true = mean_pool_kernel(maps, side, stride), F.avg_pool2d(maps.float(), side, stride)
    assert mine.dtype == dtype
    assert mine.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(mine.float(), true, rtol={torch.float32: 1e-6}.get(dtype, 2**-7), atol=1e-6)
    planar = maps.contiguous()  # given otherwise it is laid out anew
    assert torch.equal(mean_pool_kernel(planar, side, stride), mine)
