"""Training against a plain loop, and the laws of its seeds, reports, states, compilation and stages."""

import math
import warnings
from collections import Counter
from itertools import islice
from typing import Any

import pytest
import torch
from small_training import STILL, TASK, Tiny, draw_batches, repeat_flat, scaling_fabric, settings, weights_after
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from fastcutpaste.images.seeds import seed_of
from fastcutpaste.networks.backbone import Network, NetworkConfig
from fastcutpaste.op import paste as paste_module
from fastcutpaste.op.paste import random_crops
from fastcutpaste.training.loop import Report, Training, proceed, train
from fastcutpaste.training.step import TrainConfig
from fastcutpaste.transforms.patch import BaseAugmentation, CutPaste
from fastcutpaste.transforms.tasks import CutPaste3Way, PretextTask


def test_loss_falls_on_a_task_that_can_be_learned() -> None:
    reports = train(Tiny(), repeat_flat(), TASK, settings(40), base=STILL, report_every=5)
    assert reports[0].loss > 0.3
    assert reports[-1].loss < 0.15
    assert reports[-1].accuracy > 0.95


def test_train_equals_a_plain_loop_with_the_update_written_out() -> None:
    config = settings(6, 0.2, batch=6, momentum=0.8, weight_decay=0.05, seed=4, crop=16)
    task, base = PretextTask(CutPaste()), BaseAugmentation()
    trained, plain = Tiny(), Tiny()
    train(trained, draw_batches(6), task, config, base=base)

    batches = draw_batches(6)
    velocity = [torch.zeros_like(parameter) for parameter in plain.parameters()]
    for step in range(6):
        rate = 0.2 * (1 + math.cos(math.pi * step / 6)) / 2
        generator = torch.Generator().manual_seed(seed_of(4, 2, step))
        draws = torch.rand(6, 2 + base.numbers + task.numbers, generator=generator)
        crops = random_crops(next(batches), 16, draws=draws[:, :2])
        images, labels = task(base(crops, draws=draws[:, 2 : 2 + base.numbers]), draws=draws[:, 2 + base.numbers :])
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
        train(network, draw_batches(), TASK, settings(3))
        assert torch.equal(torch.get_rng_state(), before)
        weights.append(network.state_dict()["layers.0.weight"])
    assert torch.equal(weights[0], weights[1])


def test_equal_seeds_give_equal_weights_of_the_real_network() -> None:
    weights = []
    for _ in range(2):
        torch.manual_seed(7)
        network = Network(NetworkConfig(classes=2, head=(16,), stage="layer2"))
        before = network.backbone.state_dict()["extractor.conv1.weight"].clone()
        train(network, draw_batches(4, 32), TASK, TrainConfig(steps=2, batch=4))
        weights.append(list(network.state_dict().values()))
        assert not torch.equal(network.backbone.state_dict()["extractor.conv1.weight"], before)
    assert all(torch.equal(one, two) for one, two in zip(*weights, strict=True))


def test_a_learning_rate_of_zero_moves_no_weight() -> None:
    network = Tiny()
    train(network, draw_batches(), TASK, settings(3, learning_rate=0.0))
    assert all(torch.equal(one, two) for one, two in zip(network.parameters(), Tiny().parameters(), strict=True))


def test_reports_come_every_so_often_and_at_the_end_and_hold_means_since_the_last() -> None:
    heard: list[Report] = []
    every = train(Tiny(), draw_batches(), TASK, settings(7), report_every=1)
    reports = train(Tiny(), draw_batches(), TASK, settings(7), report_every=3, on_report=heard.append)
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


def test_training_writes_into_no_image_of_the_caller() -> None:
    images = next(draw_batches())
    kept = images.clone()
    train(Tiny(), iter([images, images]), TASK, settings(2))
    assert torch.equal(images, kept)


def test_images_that_are_not_finite_stop_training_at_the_next_report_which_names_their_step() -> None:
    batches = iter([*(next(repeat_flat()) / 255 for _ in range(2)), *(torch.full((8, 3, 24, 24), math.nan),) * 9])
    heard: list[Report] = []
    with pytest.raises(FloatingPointError, match=r"^training: a finite loss required, got nan at step 3; .*below 0.08"):
        train(Tiny(), batches, TASK, settings(9), report_every=2, on_report=heard.append)
    assert [report.step for report in heard] == [2]


def test_a_far_too_high_learning_rate_stops_training() -> None:
    with pytest.raises(FloatingPointError, match=r"at step [23]; try a learning rate below [78].*e\+29"):
        train(Tiny(), draw_batches(), TASK, settings(4, learning_rate=1e30))


# Taking up a state


def test_a_batch_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^training: 4 images a step required, got 8 of 1 processes"):
        train(Tiny(), draw_batches(8), TASK, settings(2, batch=4))


@pytest.mark.parametrize("cut", [1, 3, 4, 8])
@pytest.mark.parametrize("others", ["fp32", "bf16", "scaled fp16", "stages", "adamw"])
def test_a_training_taken_up_anywhere_ends_as_the_one_that_was_not_cut(cut: int, others: str) -> None:
    precision = others if others in ("fp32", "bf16") else "fp32"
    optimizer = "adamw" if others == "adamw" else "sgd"
    config = settings(8, precision=precision, head_steps=4 if others == "stages" else 0, optimizer=optimizer)

    def make() -> tuple[Training, list[Report]]:
        network = Tiny()
        network.backbone = network.layers[:3]  # type: ignore[assignment]
        return Training(
            network, TASK, config, None, scaling_fabric() if others == "scaled fp16" else None, window=3
        ), []

    (whole, wanted), (first, _), (second, reports) = make(), make(), make()
    proceed(whole, draw_batches(), on_report=wanted.append)

    def stop(training: Training) -> None:
        if training.step == cut:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        proceed(first, draw_batches(), on_step=stop)
    second.restore({name: value.clone() for name, value in first.state().items()})
    proceed(second, islice(draw_batches(), cut, None), on_report=reports.append)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(second.network.state_dict()[name], value), name
    assert reports == [report for report in wanted if report.step > cut]


@pytest.mark.parametrize("compiled", [False, True])
def test_dropout_is_the_same_after_taking_up_a_state(compiled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda call, mode: call)  # whose first call is a trial

    def make() -> Training:
        network = Tiny()
        network.layers.insert(5, nn.Dropout(0.5))
        return Training(network, TASK, settings(4, compile=compiled))

    def stop(training: Training) -> None:
        if training.step == 2:
            raise InterruptedError

    whole, first, second = make(), make(), make()
    proceed(whole, draw_batches())
    with pytest.raises(InterruptedError):
        proceed(first, draw_batches(), on_step=stop)
    torch.manual_seed(99)
    second.restore(first.state())
    proceed(second, islice(draw_batches(), 2, None))
    for name, value in whole.network.state_dict().items():
        assert torch.equal(second.network.state_dict()[name], value), name


def test_the_state_of_another_network_is_refused_by_name() -> None:
    training = Training(Tiny(), TASK, settings(2))
    with pytest.raises(ValueError, match=r"^restore: .* 2 tensors .*layers\.5\.weight"):
        training.restore(Training(Tiny(3), TASK, settings(2)).state())


def test_weights_that_are_not_finite_are_never_a_state() -> None:
    training = Training(Tiny(), TASK, settings(3))
    training.advance(next(draw_batches()))
    training.state()
    with torch.no_grad():
        training.network.layers[0].bias[2] = math.inf  # type: ignore[index, union-attr]
    with pytest.raises(FloatingPointError, match="finite weights required, got others at step 1"):
        training.state()


# Speed: what the host waits for, what is compiled


class HostReads(TorchDispatchMode):
    """Count the operators whose result the host, or the shape of the next tensor, has to wait for."""

    WAITING = ("_local_scalar_dense", "item", "nonzero", "masked_select", "unique", "equal", "is_nonzero")

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen[function.name().partition("::")[2].partition(".")[0]] += 1
        return function(*args, **kwargs or {})

    @property
    def waiting(self) -> int:
        return sum(count for name, count in self.seen.items() if any(name.startswith(word) for word in self.WAITING))


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_step_reads_nothing_back_to_the_host(precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the path of a GPU: whole images, here on a CPU, where the slices would read each patch."""
    monkeypatch.setattr(paste_module, "touches_little", lambda *_: False)
    monkeypatch.setattr(paste_module, "check_values", lambda *_: None)  # which looks at those on a CPU alone
    fabric = scaling_fabric() if precision == "fp16" else None
    config = settings(9, crop=16, precision="fp32" if fabric else precision)
    training = Training(Tiny(3), CutPaste3Way(), config, None, fabric, 9)
    batches = draw_batches()
    training.advance(next(batches))
    with HostReads() as reads:
        for _ in range(3):
            training.advance(next(batches))
        steady, kinds = sum(reads.seen.values()), len(reads.seen)
        assert reads.waiting == 0, reads.seen
        training.read()
        assert sum(reads.seen.values()) >= steady
    assert kinds > 10
    with HostReads() as known:
        bool(torch.ones(2).sum() > 1)
    assert known.waiting == 1


def test_the_step_compiles_once_and_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    graphs: list[int] = []
    compile_plainly = torch.compile

    def count(module: Any, example_inputs: Any) -> Any:
        graphs.append(sum(node.op == "call_function" for node in module.graph.nodes))
        return module.forward

    monkeypatch.setattr(torch, "compile", lambda call, mode: compile_plainly(call, backend=count, fullgraph=True))
    compiled, eager = (nn.Sequential(*Tiny(3).layers) for _ in range(2))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "training goes on uncompiled")  # torch warns of Python 3.13.0
        train(compiled, draw_batches(), CutPaste3Way(), settings(6, crop=16, compile=True), report_every=2)
    assert len(graphs) == 1
    assert graphs[0] > 100
    monkeypatch.setattr(paste_module, "touches_little", lambda *_: False)
    train(eager, draw_batches(), CutPaste3Way(), settings(6, crop=16, compile=False))
    for name, value in eager.state_dict().items():  # the trial step before the first has left no trace
        torch.testing.assert_close(compiled.state_dict()[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_a_step_that_cannot_be_compiled_goes_on_uncompiled_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no compiler here\nand more")

    monkeypatch.setattr(torch, "compile", lambda call, mode: fail)
    with pytest.warns(UserWarning, match="^training goes on uncompiled, torch.compile failed: no compiler here$"):
        weights = weights_after(settings(3, compile=True))
    assert all(torch.equal(one, two) for one, two in zip(weights, weights_after(settings(3)), strict=True))


# Precision


def test_fp16_scales_its_losses_and_learns() -> None:
    scales: list[float] = []

    def look(training: Training) -> None:
        scales.append(training.state()["scaler"][0].item())

    training = Training(Tiny(), TASK, settings(30), STILL, scaling_fabric())
    reports: list[Report] = []
    proceed(training, repeat_flat(), on_report=reports.append, on_step=look)
    assert min(scales) > 1
    assert reports[-1].loss < 0.6


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"),
                                   RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried")])  # fmt: skip
def test_out_of_memory_tells_what_to_lower(error: RuntimeError, monkeypatch: pytest.MonkeyPatch) -> None:
    network = Tiny()

    def fail(images: Tensor) -> Tensor:
        raise error

    monkeypatch.setattr(network, "forward", fail)
    with pytest.raises(
        MemoryError, match=r"cpu has too little memory .* 8 images times 2 classes; lower batch \(now 8\)"
    ):
        train(network, draw_batches(), TASK, settings(2))


# The two stages of a pretrained backbone


def test_the_head_learns_first_and_the_backbones_norms_never() -> None:
    torch.manual_seed(0)
    network = Network(NetworkConfig(classes=2, head=(8,), stage="layer1"))
    names = [name for name, _ in network.named_parameters()]
    norms = [name for name in names if name.startswith("backbone") and (".bn" in name or "downsample.1" in name)]
    moved: list[set[str]] = []
    before = {name: value.clone() for name, value in network.state_dict().items()}

    def look(_: Training) -> None:
        now = network.state_dict()
        moved.append({name for name in now if not torch.equal(now[name], before[name])})

    config = settings(5, 0.1, batch=4, head_steps=3, tuning_rate=0.05)
    proceed(Training(network, TASK, config, window=1), draw_batches(4, 32), on_step=look)
    assert all(not name.startswith("backbone") for step in moved[:3] for name in step)
    assert {name for name in names if name.startswith("head")} <= moved[2]
    convolutions = {name for name in names if name.startswith("backbone")} - set(norms)
    assert len(convolutions) >= 5
    assert len(norms) >= 10
    assert convolutions <= moved[4]
    assert not any(name.startswith("backbone") and name not in convolutions for name in moved[4])
    assert not any(module.training for module in network.modules())
    assert all(parameter.requires_grad for parameter in network.parameters())
