"""Laws of one step: its settings and rates, the images that reach the network, and on which of them it depends."""

import math
from itertools import islice

import pytest
import torch
from small_training import STILL, TASK, Tiny, draw_batches, repeat_flat, scaling_fabric, settings, weights_after
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from fastcutpaste.op import paste as paste_module
from fastcutpaste.training.loop import Training, train
from fastcutpaste.training.step import PRESETS, TrainConfig
from fastcutpaste.transforms.baselines import Cutout
from fastcutpaste.transforms.tasks import CutPaste3Way, PretextTask


def test_the_defaults_and_presets_are_the_papers() -> None:
    paper = PRESETS["paper"]
    assert paper == TrainConfig()
    assert (paper.steps, paper.batch, paper.crop, paper.learning_rate) == (65_536, 32, None, 0.03)
    assert (paper.momentum, paper.weight_decay) == (0.9, 3e-5)
    assert PRESETS["fast"] == TrainConfig(steps=32_768)
    assert PRESETS["quick"].steps < 1000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("steps", 0),
        ("batch", 0),
        ("crop", 7),
        ("learning_rate", -0.1),
        ("learning_rate", -1),
        ("learning_rate", math.nan),
        ("momentum", math.inf),
        ("jitter", -0.1),
        ("optimizer", "adam"),
        ("source", "others"),
        ("weight_decay", -1e-5),
        ("precision", "fp8"),
        ("head_steps", -1),
        ("head_steps", 65_537),
        ("tuning_rate", -1.0),
        ("seed", -1),
    ],
)
def test_settings_out_of_bounds_are_refused_by_name(name: str, value: float | str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: .* required, got '?{value}"):
        TrainConfig(**{name: value})  # type: ignore[arg-type]


def test_the_learning_rate_is_one_cosine_from_its_first_value_to_nearly_zero() -> None:
    reports = train(Tiny(), repeat_flat(), TASK, settings(10, learning_rate=0.3), report_every=1)
    rates = [report.learning_rate for report in reports]
    assert rates == pytest.approx([0.3 * (1 + math.cos(math.pi * step / 10)) / 2 for step in range(10)])
    assert rates[0] == 0.3
    assert rates[-1] < 0.03 * 0.3


def test_each_stage_has_a_cosine_of_its_own() -> None:
    config = TrainConfig(steps=10, head_steps=4, learning_rate=0.4, tuning_rate=0.01)
    rates = [config.rate_at(step) for step in range(1, 11)]
    assert rates[:4] == pytest.approx([0.4 * (1 + math.cos(math.pi * i / 4)) / 2 for i in range(4)])
    assert rates[4:] == pytest.approx([0.01 * (1 + math.cos(math.pi * i / 6)) / 2 for i in range(6)])


# Images


@pytest.mark.parametrize(("crop", "side"), [(None, 24), (16, 16), (24, 24)])
def test_the_network_sees_each_class_of_each_crop(crop: int | None, side: int) -> None:
    network = Tiny(classes=3)
    config = settings(2, crop=crop, learning_rate=0.0, batch=5)
    train(network, repeat_flat(5), PretextTask(Cutout(), Cutout("mean")), config)
    assert network.seen == [(15, 3, side, side)] * 2


def test_images_are_augmented_unless_the_base_does_nothing() -> None:
    default, still = weights_after(settings(2)), weights_after(settings(2), STILL)
    assert not torch.equal(default[0], still[0])


def test_a_crop_larger_than_the_images_is_refused() -> None:
    with pytest.raises(ValueError, match=r"crop.* required, got 32×32 from 24×24"):
        train(Tiny(), repeat_flat(), TASK, settings(2, crop=32))


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_the_images_of_a_step_do_not_depend_on_the_precision(precision: str) -> None:
    """Fabric rounds inputs; random numbers in bfloat16 place patches on a grid, and some outside of the image."""
    shown: dict[str, list[Tensor]] = {"fp32": [], precision: []}
    for name, seen in shown.items():
        network = Tiny(3)
        network.register_forward_pre_hook(lambda _, inputs, seen=seen: seen.append(inputs[0]))
        fabric = scaling_fabric() if name == "fp16" else None
        config = settings(12, crop=16, precision="fp32" if fabric else name)
        training = Training(network, CutPaste3Way(), config, None, fabric)
        for images in islice(draw_batches(), 12):
            training.advance(images)
    assert all(torch.equal(one, other) for one, other in zip(*shown.values(), strict=True))


def test_augmentation_needs_no_pixel_on_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fake tensors have no contents: whatever looks at one fails."""
    monkeypatch.setattr(paste_module, "touches_little", lambda *_: False)
    training = Training(Tiny(3), CutPaste3Way(), settings(2, crop=16))
    with FakeTensorMode(allow_non_fake_inputs=True):
        images = torch.randint(0, 256, (8, 3, 24, 24), dtype=torch.uint8)
        draws = torch.rand(8, sum(training._module.counts))
        shown, labels = training._module.augment(images, draws)
        assert (tuple(shown.shape), tuple(labels.shape)) == ((24, 3, 16, 16), (24,))
        with pytest.raises(DataDependentOutputException):
            float(shown[0, 0, 0, 0])
