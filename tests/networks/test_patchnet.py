"""PatchNet: no padding, a field no larger than the patch, and one pass that equals a pass a patch."""

import pytest
import torch
from pictures import draw_images
from torch import Tensor

from fastcutpaste.networks.backbone import Network, NetworkConfig
from fastcutpaste.networks.patchnet import SMALLEST_PATCH, STEP, PatchNet
from fastcutpaste.scoring.dense import embed_densely, embed_patches, grid_shape


def make_network(patch: int) -> Network:
    """Build a network whose batch norms have seen images, so that features are of order 1 and differ."""
    torch.manual_seed(0)
    network = Network(NetworkConfig("patchnet", patch=patch)).train()
    with torch.no_grad():
        for _ in range(20):
            network(draw_images(8, patch, patch))
    return network.eval()


@pytest.mark.parametrize(("patch", "field"), [(64, 59), (32, 27), (19, 19), (26, 19), (27, 27), (100, 99)])
def test_the_field_is_the_largest_that_the_patch_has_room_for(patch: int, field: int) -> None:
    assert PatchNet(patch).field == field


@pytest.mark.parametrize("patch", [64, 32, 19])
def test_a_position_sees_its_field_and_nothing_else(patch: int) -> None:
    torch.manual_seed(0)
    network = PatchNet(patch).double().eval()
    side = network.field + 3 * STEP
    image = torch.rand(1, 3, side, side, dtype=torch.float64, requires_grad=True)
    maps = network(image)
    assert maps.shape == (1, 256, 4, 4)
    maps[0, :, 1, 2].square().sum().backward()
    assert image.grad is not None
    seen = image.grad.abs().sum((0, 1)) > 0
    rows, columns = seen.any(1).nonzero().flatten(), seen.any(0).nonzero().flatten()
    assert STEP <= rows[0] <= rows[-1] < STEP + network.field
    assert 2 * STEP <= columns[0] <= columns[-1] < 2 * STEP + network.field


@pytest.mark.parametrize(
    ("patch", "stride", "height", "width"),
    [(64, 4, 83, 96), (64, 8, 100, 79), (32, 4, 47, 66), (32, 12, 64, 64), (35, 4, 40, 51), (64, 4, 64, 64)],
)
def test_one_pass_gives_the_features_of_every_patch_by_itself(patch: int, stride: int, height: int, width: int) -> None:
    network, images = make_network(patch), draw_images(2, height, width)
    assert network.field is not None
    exact = embed_patches(images, network.embed, patch=patch, stride=stride)
    dense = embed_densely(images, network.embed_map, patch=patch, stride=stride, field=network.field, step=STEP)
    assert dense.shape == (2, *grid_shape(height, width, patch, stride), 256)
    assert exact.std() > 0.1
    torch.testing.assert_close(dense, exact, rtol=1e-4, atol=1e-5)


def test_a_patch_too_small_is_refused() -> None:
    with pytest.raises(ValueError, match=f"PatchNet: a patch of at least {SMALLEST_PATCH} pixels required, got 18"):
        PatchNet(18)


def test_dense_grids_that_do_not_fit_the_network_are_refused() -> None:
    def never(images: Tensor) -> Tensor:
        raise AssertionError

    images = draw_images(1, 70, 70)
    for patch, stride, message in (
        (32, 4, "embed_densely: a patch of at least the field of 59 pixels required, got 32"),
        (64, 6, "embed_densely: a stride that is a multiple of 4 required, got 6"),
        (71, 4, "patch grid: an image of at least 71×71 pixels required, got 70×70"),
        (64, 0, "patch grid: a stride of at least 1 pixel required, got 0"),
    ):
        with pytest.raises(ValueError, match=message):
            embed_densely(images, never, patch=patch, stride=stride, field=59, step=STEP)


def test_it_is_chosen_by_name_and_learns() -> None:
    network = make_network(32).train()
    assert network.features == 256
    assert network.field == 27
    optimizer = torch.optim.SGD(network.parameters(), 0.05)
    images, labels = draw_images(12, 32, 32), torch.arange(12) % 3
    losses = []
    for _ in range(12):
        loss = torch.nn.functional.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 2


def test_other_backbones_and_stages_have_no_field() -> None:
    assert Network(NetworkConfig(stage="layer1")).field is None
    assert Network(NetworkConfig("patchnet", stage="layers.4")).field is None
    with pytest.raises(ValueError, match="a local file or none required for patchnet, got 'imagenet'"):
        Network(NetworkConfig("patchnet"), "imagenet")
