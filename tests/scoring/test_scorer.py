"""What a detector does with each batch: no wait, results where they are wanted, NaN never taken for normal."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from recorder import SYNCING
from small_detector import KINDS, NAMES, PATCHES, SIZE, draw_images, make_fitted
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from fastcutpaste.networks.backbone import Network
from fastcutpaste.scoring.config import DetectorConfig
from fastcutpaste.scoring.dense import spread_scores
from fastcutpaste.scoring.density import density_from_state
from fastcutpaste.scoring.detector import Detector
from fastcutpaste.scoring.embedder import Embedder
from fastcutpaste.scoring.scorer import collect

on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class Places(TorchDispatchMode):
    """Record the ops that wait for a GPU, or touch a tensor that is not on one."""

    def __init__(self) -> None:
        super().__init__()
        self.count, self.strange = 0, list[str]()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        tensors = [leaf for leaf in tree_leaves((args, kwargs, made)) if isinstance(leaf, Tensor)]
        self.count += 1
        if name in SYNCING or any(tensor.device.type != "cuda" for tensor in tensors):
            self.strange.append(name)
        return made


def on_a_fake_gpu(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> Detector:
    """Give a detector of the same shapes on a GPU that need not be there; to be called with fake tensors alone."""
    monkeypatch.setattr(nn.Module, "to", lambda module, **_: module)  # swaps tensors, which fake ones cannot do
    for place in ("detector", "dense", "embedder"):  # asks the driver for memory
        monkeypatch.setattr(f"fastcutpaste.scoring.{place}.fitting_chunk", lambda *_: 128)
    made = [
        density_from_state({name: torch.zeros(each.shape) for name, each in density.state().items()})
        for density in (detector.density, *detector.area_densities)
        if density is not None
    ]
    network = Network(detector.network.config)
    return Detector(network, detector.config, made[0], 1.0, 0.0, None, made[1:], detector.brightness)


@pytest.mark.parametrize("method", ["localize", "score"])
def test_results_that_stay_on_the_gpu_are_not_waited_for(
    fitted: Detector, method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if method == "localize" and fitted.config.patch is None:
        pytest.skip("whole images have no maps")
    with FakeTensorMode(), torch.device("cuda"):
        there = on_a_fake_gpu(fitted, monkeypatch)
        monkeypatch.setattr(Embedder, "_pixels", 4 * SIZE[0] * SIZE[1])  # several batches
        images = torch.zeros(7, 3, *SIZE, dtype=torch.uint8)
        call = getattr(there, method)
        call(images, device="cuda")  # what is made once a size is copied there
        with Places() as places:
            result: Tensor = call(images, device=there.device)
    assert result.device.type == "cuda"
    assert result.shape == ((7, *SIZE) if method == "localize" else (7,))
    assert places.count > 50
    assert places.strange == []


def test_a_wait_is_seen(fitted: Detector) -> None:
    with FakeTensorMode(), Places() as places:
        torch.zeros(3, device="cuda").cpu()
    assert places.strange == ["_to_copy"]


@pytest.mark.parametrize("config", KINDS, ids=NAMES)
def test_an_image_with_a_pixel_that_is_not_finite_has_no_finite_score_and_leaves_the_others(
    config: DetectorConfig,
) -> None:
    detector = make_fitted(config)
    images = draw_images(3) / 255
    images[1, 2, 17, 30] = torch.nan
    results = detector._scorer(SIZE)(images)
    assert results[1].isnan().all()
    assert results[[0, 2]].isfinite().all()
    with pytest.raises(ValueError, match="score: images of finite pixels required, got NaN or infinity"):
        detector.score(images)
    assert not (results[1] > detector.threshold).any()  # so it has to be asked the other way round
    assert not (results[1] <= detector.threshold).any()


def test_maps_are_the_grids_scores_spread_over_the_pixels() -> None:
    detector = make_fitted(DetectorConfig(SIZE, 24, 8, border=True, areas=(32, 40)))
    images = draw_images(2)
    scorer = detector._scorer(SIZE)
    grids = scorer._grids(images)  # type: ignore[attr-defined]
    size = (SIZE[0] + 24, SIZE[1] + 24)
    spread = [spread_scores(grid, size, patch=side, stride=8) for grid, side in zip(grids, (24, 32, 40), strict=True)]
    torch.testing.assert_close(detector.localize(images), sum(spread)[:, 12:-12, 12:-12] / 3)  # type: ignore[index]


def test_scorers_of_few_sizes_are_kept_and_a_new_fit_makes_them_anew() -> None:
    detector = make_fitted()
    images = draw_images(14, seed=4)
    first = detector.score(images)
    assert detector._scorer(SIZE) is detector._scorer(SIZE)
    for side in range(24, 36):
        detector.localize(draw_images(1, size=(side, side)))
        assert len(detector._scorers) <= 4
    other = make_fitted().fit(images, images)
    detector.fit(images, images)
    assert torch.equal(detector.score(images), other.score(images))
    assert not torch.equal(detector.score(images), first)


def test_results_on_the_cpu_are_the_parts_one_behind_the_other() -> None:
    cpu = torch.device("cpu")
    parts = [torch.rand(count, 2, 3) for count in (2, 1, 3)]
    assert torch.equal(collect(iter(parts), (6, 2, 3), cpu, "cpu"), torch.cat(parts))
    assert collect(iter(parts[:1]), (2, 2, 3), cpu, cpu) is parts[0]
    assert collect([], (0, 2, 3), cpu, cpu).shape == (0, 2, 3)


@pytest.mark.parametrize("pinned", [True, False])
def test_results_of_a_gpu_are_copied_beside_its_work_into_one_place_and_waited_for_once(
    pinned: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stream that writes down what it is asked for; the parts are on the CPU, since no GPU need be there."""
    told: list[str] = []

    class Stream:
        def __init__(self, device: torch.device) -> None: ...

        def wait_stream(self, other: object) -> None:
            told.append("wait for the work")

        def synchronize(self) -> None:
            told.append("synchronize")

    @contextmanager
    def on(stream: Stream) -> Iterator[None]:
        told.append("on the copying stream")
        yield
        told.append("back")

    def make() -> Iterator[Tensor]:
        for part in parts:
            told.append("work")
            yield part

    empty = torch.empty

    def allocate(shape: tuple[int, ...], pin_memory: bool) -> Tensor:
        assert pin_memory == pinned
        return empty(shape)

    parts = [torch.rand(count, 2, 3) for count in (2, 1, 3)]
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch, "empty", allocate)
    monkeypatch.setattr(Tensor, "record_stream", lambda *_: told.append("keep"))
    monkeypatch.setattr("fastcutpaste.scoring.scorer._MOST_PINNED", 4 * 6 * 2 * 3 - (not pinned))
    whole = collect(make(), (6, 2, 3), torch.device("cuda"), "cpu")
    assert torch.equal(whole, torch.cat(parts))
    each = ["work", "wait for the work", "on the copying stream", "back", "keep"]
    assert told == [*each * 3, "synchronize"]


# With the real thing


@pytest.mark.gpu
@on_a_gpu
def test_maps_and_scores_are_the_same_wherever_they_are_wanted(
    fitted: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    detector = Detector(*fitted.optimized()._parts()).to("cuda")  # a copy: others look at `fitted`, too
    monkeypatch.setattr(Embedder, "_pixels", 4 * SIZE[0] * SIZE[1])  # several batches
    images = draw_images(23, seed=1)
    for form in (detector, detector.optimized()):
        for method in ("score", "localize")[: 1 if fitted.config.patch is None else 2]:
            for _ in range(3):  # pinned memory and graphs come again
                arrived = getattr(form, method)(images)
                stayed = getattr(form, method)(images.to("cuda"), device=detector.device)
                assert arrived.is_pinned()
                assert stayed.device.type == "cuda"
                torch.testing.assert_close(stayed.cpu(), arrived, rtol=0.01, atol=0.01 * float(arrived.abs().max()))
    spoilt = images / 255
    spoilt[9, 0, 3, 4] = torch.nan
    with pytest.raises(ValueError, match="score: images of finite pixels required"):
        detector.score(spoilt)
    assert detector.score(spoilt, device="cuda").isnan().cpu().tolist() == [i == 9 for i in range(23)]


@pytest.mark.gpu
@on_a_gpu
def test_results_that_stay_on_a_real_gpu_are_not_waited_for() -> None:
    detector = Detector(*make_fitted(PATCHES).optimized()._parts()).to("cuda")
    images = draw_images(5).to("cuda")
    for form in (detector, detector.optimized()):
        for _ in range(3):
            form.localize(images, device="cuda")
        torch.cuda.set_sync_debug_mode("error")
        try:
            form.localize(images, device="cuda")
            form.score(images, device=form.device)
        finally:
            torch.cuda.set_sync_debug_mode("default")
