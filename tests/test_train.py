"""The training step against a plain loop, and the laws of its settings, seeds and reports."""

import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

from fastcutpaste.baselines import Cutout
from fastcutpaste.functional import random_crops
from fastcutpaste.model import Network, NetworkConfig
from fastcutpaste.tasks import PretextTask
from fastcutpaste.train import PRESETS, Report, TrainConfig, train
from fastcutpaste.transforms import BaseAugmentation, CutPaste

TASK = PretextTask(Cutout("black"))
STILL = BaseAugmentation(shift=0.0, jitter=0.0)


class Tiny(nn.Module):
    """A network of a few hundred weights that keeps the shapes it saw."""

    def __init__(self, classes: int = 2) -> None:
        super().__init__()
        torch.manual_seed(0)
        layers = (nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten())
        self.layers = nn.Sequential(*layers, nn.Linear(8, classes))
        self.seen: list[tuple[int, ...]] = []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(tuple(images.shape))
        scores: Tensor = self.layers(images / 255 if images.dtype == torch.uint8 else images)
        return scores


def repeat_flat(batch: int = 8, side: int = 24) -> Iterator[Tensor]:
    """Repeat one batch of flat light-grey uint8 images."""
    levels = torch.linspace(120, 200, batch).to(torch.uint8)
    while True:
        yield levels.view(-1, 1, 1, 1).expand(-1, 3, side, side).contiguous()


def draw_noise(batch: int = 6, side: int = 24, seed: int = 0) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    while True:
        yield torch.rand(batch, 3, side, side, generator=generator)


def settings(steps: int, learning_rate: float = 0.1, seed: int = 0, crop: int | None = None) -> TrainConfig:
    return TrainConfig(steps=steps, learning_rate=learning_rate, seed=seed, crop=crop, precision="fp32")


def weights_after(config: TrainConfig, base: nn.Module | None = None) -> list[Tensor]:
    network = Tiny()
    train(network, draw_noise(), TASK, config, base=base)
    return list(network.state_dict().values())


def test_loss_falls_on_a_task_that_can_be_learned() -> None:
    reports = train(Tiny(), repeat_flat(), TASK, settings(40), base=STILL, report_every=5)
    assert reports[0].loss > 0.3
    assert reports[-1].loss < 0.15
    assert reports[-1].accuracy > 0.95


def test_train_equals_a_plain_loop_with_the_update_written_out() -> None:
    config = TrainConfig(steps=6, learning_rate=0.2, momentum=0.8, weight_decay=0.05, seed=4, crop=16, precision="fp32")
    task, base = PretextTask(CutPaste()), BaseAugmentation()
    trained, plain = Tiny(), Tiny()
    train(trained, draw_noise(), task, config, base=base)

    generator, batches = torch.Generator().manual_seed(4), draw_noise()
    velocity = [torch.zeros_like(parameter) for parameter in plain.parameters()]
    for step in range(6):
        rate = 0.2 * (1 + math.cos(math.pi * step / 6)) / 2
        crops = random_crops(next(batches), 16, generator)
        images, labels = task(base(crops, generator), generator)
        scores = plain(images)
        loss = (scores.exp().sum(1).log() - scores[torch.arange(len(labels)), labels]).mean()
        gradients = torch.autograd.grad(loss, list(plain.parameters()))
        with torch.no_grad():
            for parameter, gradient, moving in zip(plain.parameters(), gradients, velocity, strict=True):
                moving.mul_(0.8).add_(gradient + 0.05 * parameter)
                parameter.sub_(rate * moving)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(trained.state_dict()[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_equal_seeds_give_equal_weights_and_other_seeds_others() -> None:
    first, again, other = (weights_after(settings(5, seed=seed)) for seed in (1, 1, 2))
    assert all(torch.equal(one, two) for one, two in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


def test_the_global_seed_and_its_state_play_no_part_in_training() -> None:
    weights = []
    for seed in (0, 1):
        network = Tiny()
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        train(network, draw_noise(), TASK, settings(3))
        assert torch.equal(torch.get_rng_state(), before)
        weights.append(network.state_dict()["layers.0.weight"])
    assert torch.equal(weights[0], weights[1])


def test_equal_seeds_give_equal_weights_of_the_real_network() -> None:
    weights = []
    for _ in range(2):
        torch.manual_seed(7)
        network = Network(NetworkConfig(classes=2, head=(16,), stage="layer2"))
        before = network.backbone.state_dict()["extractor.conv1.weight"].clone()
        train(network, draw_noise(4, 32), TASK, TrainConfig(steps=2))
        weights.append(list(network.state_dict().values()))
        assert not torch.equal(network.backbone.state_dict()["extractor.conv1.weight"], before)
    assert all(torch.equal(one, two) for one, two in zip(*weights, strict=True))


def test_a_learning_rate_of_zero_moves_no_weight() -> None:
    network = Tiny()
    train(network, draw_noise(), TASK, settings(3, learning_rate=0.0))
    assert all(torch.equal(one, two) for one, two in zip(network.parameters(), Tiny().parameters(), strict=True))


def test_the_learning_rate_is_one_cosine_from_its_first_value_to_nearly_zero() -> None:
    reports = train(Tiny(), repeat_flat(), TASK, settings(10, learning_rate=0.3), report_every=1)
    rates = [report.learning_rate for report in reports]
    assert rates == pytest.approx([0.3 * (1 + math.cos(math.pi * step / 10)) / 2 for step in range(10)])
    assert rates[0] == 0.3
    assert rates[-1] < 0.03 * 0.3


def test_reports_come_every_so_often_and_at_the_end_and_hold_means_since_the_last() -> None:
    heard: list[Report] = []
    every = train(Tiny(), draw_noise(), TASK, settings(7), report_every=1)
    reports = train(Tiny(), draw_noise(), TASK, settings(7), report_every=3, on_report=heard.append)
    assert heard == reports
    assert [report.step for report in reports] == [3, 6, 7]
    for report, window in zip(reports, (every[0:3], every[3:6], every[6:7]), strict=True):
        assert report.loss == pytest.approx(sum(one.loss for one in window) / len(window), rel=1e-5)
        assert report.accuracy == pytest.approx(sum(one.accuracy for one in window) / len(window), rel=1e-5)
        assert report.learning_rate == window[-1].learning_rate


def test_fewer_steps_than_a_report_takes_give_one_report() -> None:
    assert [report.step for report in train(Tiny(), repeat_flat(), TASK, settings(2))] == [2]


def test_training_leaves_the_network_in_eval_mode_after_training_its_batch_norms() -> None:
    network = Tiny().eval()
    before = network.state_dict()["layers.1.running_mean"].clone()
    train(network, repeat_flat(), TASK, settings(2))
    assert not any(module.training for module in network.modules())
    assert not torch.equal(network.state_dict()["layers.1.running_mean"], before)


@pytest.mark.parametrize(("crop", "side"), [(None, 24), (16, 16), (24, 24)])
def test_the_network_sees_each_class_of_each_crop(crop: int | None, side: int) -> None:
    network = Tiny(classes=3)
    train(network, repeat_flat(5), PretextTask(Cutout(), Cutout("mean")), settings(2, crop=crop, learning_rate=0.0))
    assert network.seen == [(15, 3, side, side)] * 2


def test_images_are_augmented_unless_the_base_does_nothing() -> None:
    default, still = weights_after(settings(2)), weights_after(settings(2), STILL)
    assert not torch.equal(default[0], still[0])


def test_training_writes_into_no_image_of_the_caller() -> None:
    images = next(draw_noise())
    kept = images.clone()
    train(Tiny(), iter([images, images]), TASK, settings(2))
    assert torch.equal(images, kept)


def test_a_crop_larger_than_the_images_is_refused() -> None:
    with pytest.raises(ValueError, match=r"crop.* required, got 32×32 from 24×24"):
        train(Tiny(), repeat_flat(), TASK, settings(2, crop=32))


def test_images_that_are_not_finite_stop_training_at_the_next_report() -> None:
    batches = iter([*(next(repeat_flat()) / 255 for _ in range(2)), *(torch.full((8, 3, 24, 24), math.nan),) * 9])
    heard: list[Report] = []
    with pytest.raises(FloatingPointError, match=r"^training: a finite loss required, got nan by step 4; .*below 0.1"):
        train(Tiny(), batches, TASK, settings(9), report_every=2, on_report=heard.append)
    assert [report.step for report in heard] == [2]


def test_a_far_too_high_learning_rate_stops_training() -> None:
    with pytest.raises(FloatingPointError, match=r"step 4; try a learning rate below 1e\+30"):
        train(Tiny(), draw_noise(), TASK, settings(4, learning_rate=1e30))


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
        ("weight_decay", -1e-5),
        ("precision", "fp16"),
    ],
)
def test_settings_out_of_bounds_are_refused_by_name(name: str, value: float | str) -> None:
    with pytest.raises(ValueError, match=rf"^{name}: .* required, got '?{value}"):
        TrainConfig(**{name: value})  # type: ignore[arg-type]
