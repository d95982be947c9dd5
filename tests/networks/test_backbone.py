"""The network: features by name of backbone and stage, weights from local files, and what is refused."""

import os
import pickle
import re
import sys
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
import torchvision
from pictures import draw_images
from safetensors.torch import save_file
from torch import Tensor, nn

from fastcutpaste.networks.backbone import IMAGENET_MEAN, IMAGENET_STD, Network, NetworkConfig, autocast, computes_bf16

SMALL = "shufflenet_v2_x0_5"  # 0.3 M parameters


def build(**config: Any) -> Network:
    torch.manual_seed(0)
    return Network(NetworkConfig(**config)).eval()


@pytest.fixture(scope="module")
def resnet() -> Network:
    return build()


@pytest.fixture(scope="module")
def donor() -> nn.Module:
    """A whole torchvision classifier whose batch norms have moved, as a trained one's have: features of order 1."""
    torch.manual_seed(1)
    model: nn.Module = torchvision.models.get_model(SMALL, weights=None)
    for part in model.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.rand(4, 3, 64, 64))
    return model.eval()


@torch.no_grad()
def donor_features(donor: nn.Module, images: Tensor) -> Tensor:
    """What the donor hands its classifier, seen by a hook: independent of how the network cuts the classifier off."""
    seen: list[Tensor] = []
    handle = donor.fc.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))  # type: ignore[union-attr]
    mean, std = torch.tensor(IMAGENET_MEAN).view(3, 1, 1), torch.tensor(IMAGENET_STD).view(3, 1, 1)
    donor((images / 255 - mean) / std)
    handle.remove()
    return seen[0]


def test_resnet18_has_512_pooled_features_and_the_papers_head(resnet: Network) -> None:
    images = draw_images(2, 32, 48)
    assert resnet.features == 512
    assert resnet.embed(images).shape == (2, 512)
    assert resnet(images).shape == (2, 3)
    linear = [layer for layer in resnet.head if isinstance(layer, nn.Linear)]
    assert [(layer.in_features, layer.out_features) for layer in linear] == [(512, 512), (512, 128), (128, 3)]


def test_an_empty_head_is_one_linear_layer_over_the_classes() -> None:
    network = build(backbone=SMALL, classes=5, head=())
    assert [type(layer) for layer in network.head] == [nn.Linear]
    assert network(draw_images()).shape == (2, 5)


def test_a_stage_gives_its_maps_averaged_over_the_image(resnet: Network) -> None:
    network = build(stage="layer3")
    images = draw_images(2, 48, 80)
    seen: list[Tensor] = []
    handle = resnet.backbone.layer3.register_forward_hook(lambda *args: seen.append(args[2]))  # type: ignore[union-attr]
    with torch.no_grad():
        resnet.embed(images)
        handle.remove()
        assert network.features == 256
        assert seen[0].shape == (2, 256, 3, 5)
        torch.testing.assert_close(network.embed(images), seen[0].mean((2, 3)), rtol=1e-4, atol=1e-4)


def test_a_stage_drops_what_comes_after_it() -> None:
    count = sum(parameter.numel() for parameter in build(stage="layer1").backbone.parameters())
    assert count == 64 * 3 * 49 + 128 + 4 * (64 * 64 * 9 + 128)  # the stem and two blocks


@pytest.mark.parametrize(
    ("backbone", "features"),
    [
        ("mobilenet_v3_small", 576),
        ("efficientnet_b0", 1280),
        ("regnet_y_400mf", 440),
        ("convnext_tiny", 768),
        ("squeezenet1_1", 512),
        ("alexnet", 256),
        ("googlenet", 1024),
    ],
)
@pytest.mark.filterwarnings("ignore:The default weight initialization:FutureWarning")
def test_other_families_give_pooled_features_of_any_size_and_train(backbone: str, features: int) -> None:
    network = build(backbone=backbone, head=(8,))
    assert network.features == features
    with torch.no_grad():
        for size in ((64, 64), (64, 96)):
            assert network.embed(draw_images(1, *size)).shape == (1, features)
        assert network.train()(draw_images(2)).shape == (2, 3)


def test_timm_models_are_found_by_name() -> None:
    pytest.importorskip("timm")
    network = build(backbone="resnet10t")
    assert network.features == 512
    assert network.embed(draw_images(1, 64, 32)).shape == (1, 512)


def test_uint8_and_floating_point_images_give_the_same_features(resnet: Network) -> None:
    images = draw_images()
    with torch.no_grad():
        torch.testing.assert_close(resnet.embed(images), resnet.embed(images / 255), rtol=1e-4, atol=1e-4)
        assert not torch.allclose(resnet.embed(images), resnet.embed(images * 0.0), rtol=1e-2, atol=1e-2)


def test_features_are_those_of_normalized_images(donor: nn.Module, tmp_path: Path) -> None:
    torch.save(donor.state_dict(), tmp_path / "donor.pt")
    network = Network(NetworkConfig(SMALL), tmp_path / "donor.pt").eval()
    expected = donor_features(donor, draw_images())
    assert expected.std() > 0.1
    with torch.no_grad():
        torch.testing.assert_close(network.embed(draw_images()), expected, rtol=1e-3, atol=1e-3)


def test_memory_format_of_the_images_changes_no_feature(resnet: Network) -> None:
    images = draw_images(2, 40, 56)
    with torch.no_grad():
        last = resnet.embed(images.contiguous(memory_format=torch.channels_last))
        assert torch.equal(resnet.embed(images), last)


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
@pytest.mark.parametrize("classifier", [True, False])
def test_weights_come_from_a_file_with_or_without_a_classifier(
    suffix: str, classifier: bool, donor: nn.Module, tmp_path: Path
) -> None:
    state = {key: value for key, value in donor.state_dict().items() if classifier or not key.startswith("fc.")}
    path = tmp_path / f"weights{suffix}"
    if suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    loaded = Network(NetworkConfig(SMALL), str(path)).backbone.state_dict()
    assert loaded
    assert all(torch.equal(value, state[key]) for key, value in loaded.items())


def test_weights_are_found_under_state_dict_and_may_lack_batch_counts(donor: nn.Module, tmp_path: Path) -> None:
    state = {key: value for key, value in donor.state_dict().items() if not key.endswith("num_batches_tracked")}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "weights.pt")
    network = Network(NetworkConfig(SMALL), tmp_path / "weights.pt")
    assert torch.equal(network.backbone.state_dict()["conv1.0.weight"], state["conv1.0.weight"])


def test_weights_of_the_whole_backbone_fit_a_network_cut_at_a_stage(donor: nn.Module, tmp_path: Path) -> None:
    torch.save(donor.state_dict(), tmp_path / "weights.pt")
    network = Network(NetworkConfig(SMALL, stage="stage2"), tmp_path / "weights.pt")
    loaded = network.backbone.state_dict()
    assert torch.equal(loaded["extractor.conv1.0.weight"], donor.state_dict()["conv1.0.weight"])
    assert network.features == 48


class Bomb:
    """Touch a file when unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


@pytest.mark.parametrize("name", ["bomb.pt", "bomb.pkl", "bomb.safetensors"])
@pytest.mark.parametrize("raw", [True, False])
def test_code_in_a_weights_file_is_refused_and_does_not_run(name: str, raw: bool, tmp_path: Path) -> None:
    mark, path = tmp_path / "exploded", tmp_path / name
    content = {"state_dict": {}, "bomb": Bomb(mark)}
    if raw:
        path.write_bytes(pickle.dumps(content, 2))
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=rf"^.*{name}: a file of plain tensors required, got: .+$"):
        Network(NetworkConfig(SMALL), path)
    assert not mark.exists()
    if raw:  # the bomb itself works
        pickle.loads(path.read_bytes())
        assert mark.exists()


@pytest.mark.parametrize("change", ["missing", "shape", "unknown"])
def test_weights_that_do_not_fit_are_refused(change: str, donor: nn.Module, tmp_path: Path) -> None:
    state = dict(donor.state_dict())
    if change == "missing":
        del state["conv1.0.weight"]
    elif change == "shape":
        state["conv1.0.weight"] = torch.zeros(1)
    else:
        state["encoder.weight"] = torch.zeros(1)
    torch.save(state, tmp_path / "weights.pt")
    counts = [int(change == kind) for kind in ("missing", "shape", "unknown")]
    first = "encoder.weight" if change == "unknown" else "conv1.0.weight"
    said = f"got {counts[0]} tensors missing, {counts[1]} of another shape and {counts[2]} unknown .first: {first}"
    with pytest.raises(ValueError, match=f"weights.pt: weights of this backbone required, {said}"):
        Network(NetworkConfig(SMALL), tmp_path / "weights.pt")


@pytest.mark.parametrize("content", [torch.zeros(3), [torch.zeros(3)]])
def test_a_file_that_holds_no_dict_is_refused(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(ValueError, match=r"weights.pt: .* required, got"):
        Network(NetworkConfig(SMALL), tmp_path / "weights.pt")


@pytest.mark.parametrize("name", ["cut.pt", "cut.safetensors", "empty.pt"])
def test_a_damaged_weights_file_is_refused_in_one_line(name: str, donor: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / name
    if path.suffix == ".pt":
        torch.save(donor.state_dict(), path)
    else:
        save_file(donor.state_dict(), path)
    size = 0 if name == "empty.pt" else path.stat().st_size // 2
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=rf"^.*{name}: .* required, got.*$") as caught:
        Network(NetworkConfig(SMALL), path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a letter, not weights", "no torch file (21 bytes)"),
        (b"", "no torch file (0 bytes)"),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), "no torch file (107 bytes)"),
        (b"PK\x03\x04" + bytes(99), "a torch file that is damaged or cut short (103 bytes)"),
        (pickle.dumps({"a": 1}), "no torch file ("),
        (nn.Linear(2, 2), "a file that holds more than tensors, such as a whole model; save its state_dict() alone"),
    ],
)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_what_a_weights_file_is_instead_is_said_without_how_to_switch_safety_off(
    content: Any, said: str, tmp_path: Path
) -> None:
    path = tmp_path / "weights.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=re.escape(f"{path}: a file of plain tensors required, got: {said}")) as caught:
        Network(NetworkConfig(SMALL), path)
    assert "weights_only" not in str(caught.value)


def test_a_missing_weights_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^weights: 'imagenet' or an existing file required, got .*nowhere\.pt$"):
        Network(NetworkConfig(SMALL), tmp_path / "nowhere.pt")


def test_weights_that_cannot_be_downloaded_say_what_else_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_arguments: Any, **_settings: Any) -> None:
        raise URLError("Name or service not known")

    monkeypatch.setattr(torchvision.models, "get_model", refuse)
    with pytest.raises(OSError, match=r"a download required, got: .*not known.*; weights can be a file"):
        Network(NetworkConfig("resnet18"), "imagenet")


def test_an_unknown_backbone_is_answered_with_near_names() -> None:
    with pytest.raises(ValueError, match=r"backbone: .*\(near: .*resnet18.*\), got 'resnet_18'"):
        Network(NetworkConfig("resnet_18"))


def test_without_timm_its_models_are_refused_with_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r"got 'resnet10t'; for timm's models: pip install 'fastcutpaste\[timm\]'"):
        Network(NetworkConfig("resnet10t"))


def test_an_unknown_stage_is_answered_with_the_stages() -> None:
    with pytest.raises(ValueError, match=r"stage: .*stage2, stage3.* required, got 'layer3'"):
        Network(NetworkConfig(SMALL, stage="layer3"))


@pytest.mark.parametrize(
    "config", [NetworkConfig("vit_tiny_patch16_384"), NetworkConfig("vit_tiny_patch16_224", stage="blocks.0")]
)
def test_backbones_without_pooled_features_at_224_pixels_are_refused(config: NetworkConfig) -> None:
    pytest.importorskip("timm")
    with pytest.raises(ValueError, match=r"^backbone: .* required, got .*vit_tiny"):
        Network(config)


def test_a_probe_of_the_real_size_tells_what_a_backbone_will_not_take(resnet: Network) -> None:
    transformer = Network(NetworkConfig("vit_b_32"))
    with pytest.raises(ValueError, match=r"one that takes 64×64 pixels required, got vit_b_32: Wrong image height"):
        transformer.probe((64, 64))
    assert transformer.training
    before = [buffer.clone() for buffer in resnet.buffers()]
    assert resnet.probe((64, 96)).shape == (1, 512)
    assert all(map(torch.equal, before, resnet.buffers()))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_network_of_another_type_takes_the_same_images(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    network = Network(NetworkConfig("patchnet")).eval()
    images = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        wanted = network.embed(images)
        features = network.to(dtype).embed(images)
    assert features.dtype == dtype
    torch.testing.assert_close(features.float(), wanted, rtol=0.05, atol=0.05 * float(wanted.std()))


def test_autocast_follows_the_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    matrix = torch.eye(2)
    expected = {"bf16": torch.bfloat16, "fp32": torch.float32}
    for precision, dtype in expected.items():
        with autocast(cpu, precision):  # type: ignore[arg-type]
            assert (matrix @ matrix).dtype == dtype
    for able in (True, False):
        monkeypatch.setattr("fastcutpaste.networks.backbone.computes_bf16", lambda _, able=able: able)
        with autocast(cpu):
            assert (matrix @ matrix).dtype == expected["bf16" if able else "fp32"]
    assert isinstance(computes_bf16(cpu), bool)
