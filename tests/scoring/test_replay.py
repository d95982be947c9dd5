"""Work recorded once and replayed: the same results whatever came before, and as it was where recording fails."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
import torch
from small_detector import SIZE, draw_images
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from fastcutpaste.scoring.detector import Detector
from fastcutpaste.scoring.replay import Replayed
from fastcutpaste.scoring.replay import _generator_kept as generator_kept  # before a fixture takes it away

CPU = torch.device("cpu")
on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class Recording(TorchDispatchMode):
    """Stand in for a CUDA graph: note every op with the memory it reads and writes, and do it again on the same."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        self.steps.append((func, args, kwargs or {}, made))
        return made

    def replay(self) -> None:
        with torch.inference_mode():
            for func, args, kwargs, made in self.steps:
                again = func(*args, **kwargs)
                if isinstance(made, Tensor):
                    made.copy_(again)


class Stream:
    """Stand in for a stream: everything on it is done at once."""

    def __init__(self, device: object = None) -> None: ...

    def wait_stream(self, other: object) -> None: ...


@pytest.fixture
def recordings(monkeypatch: pytest.MonkeyPatch) -> list[Recording]:
    """Let a CPU record and replay; gives what was recorded."""
    found: list[Recording] = []

    def make() -> Recording:
        found.append(Recording())
        return found[-1]

    monkeypatch.setattr(torch.cuda, "CUDAGraph", make)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "graph", lambda graph, **_: graph)
    monkeypatch.setattr("fastcutpaste.scoring.replay._generator_kept", lambda _: nullcontext())
    monkeypatch.setattr("fastcutpaste.op.checks._NUMPY_TYPES", ())  # which no dispatch mode sees
    return found


def test_a_shape_is_recorded_when_it_comes_again_and_results_are_memory_of_their_own(
    recordings: list[Recording],
) -> None:
    calls: list[tuple[int, ...]] = []

    def double(given: Tensor) -> Tensor:
        calls.append(tuple(given.shape))
        return 2 * given

    replayed = Replayed(double, CPU)
    given = [torch.rand(3, 2) for _ in range(4)]
    made = [replayed(each) for each in given]
    assert calls == [(3, 2)] * 3  # as it is; to warm up; recorded
    for one, other in zip(given, made, strict=True):
        assert torch.equal(other, 2 * one)
    replayed(torch.rand(1, 2))
    assert len(recordings) == 1
    assert torch.equal(replayed(torch.ones(1, 2)), torch.full((1, 2), 2.0))
    assert replayed(torch.ones(1, 2, dtype=torch.uint8)).dtype == torch.uint8
    assert len(recordings) == 2
    assert torch.equal(replayed(given[0]), made[0])


def test_no_more_than_four_shapes_are_recorded(recordings: list[Recording]) -> None:
    replayed = Replayed(torch.neg, CPU)
    for _ in range(3):
        for count in range(1, 8):
            assert torch.equal(replayed(torch.ones(count)), -torch.ones(count))
    assert len(recordings) == 4


def test_where_recording_fails_all_goes_on_as_it_was_and_a_warning_says_why(
    recordings: list[Recording], monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def failing(graph: object, **_: object) -> Iterator[None]:
        yield
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(torch.cuda, "graph", failing)
    replayed = Replayed(torch.neg, CPU)
    replayed(torch.ones(3, 2))
    with pytest.warns(UserWarning, match=r"no CUDA graph of \(3, 2\).*: operation not permitted when .* capturing$"):
        assert torch.equal(replayed(torch.ones(3, 2)), -torch.ones(3, 2))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            assert torch.equal(replayed(torch.ones(4, 2)), -torch.ones(4, 2))
    assert len(recordings) == 1


def test_a_detectors_work_replayed_is_that_of_each_batch(fitted: Detector, recordings: list[Recording]) -> None:
    fast = fitted.optimized()
    replayed = Replayed(fast._scorer(SIZE), CPU)
    batches = [draw_images(3, seed) for seed in range(5)]
    made = [replayed(batch) for batch in batches]
    assert len(recordings) == 1
    for batch, result in zip(batches, made, strict=True):
        torch.testing.assert_close(result, fast._scorer(SIZE)(batch))
    assert not torch.equal(made[-1], made[-2])


@pytest.mark.parametrize("fails", [False, True])
def test_a_generator_gets_another_state_after_a_recording_that_fails(
    fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[object] = []

    class Generator:
        def __init__(self, device: object = None) -> None: ...

        def get_state(self) -> str:
            return "seed and offset"

        def graphsafe_get_state(self) -> str:
            return "another"

        def graphsafe_set_state(self, state: str) -> None:
            done.append(state)

        def set_state(self, state: str) -> None:
            done.append(state)

    monkeypatch.setattr(torch.cuda, "default_generators", (Generator(), None))
    monkeypatch.setattr(torch, "Generator", Generator)
    recording = generator_kept(torch.device("cuda", 0))
    with pytest.raises(RuntimeError, match="recorded") if fails else nullcontext(), recording:
        if fails:
            raise RuntimeError("not recorded")
    assert done == (["another", "seed and offset"] if fails else [])


# With the real thing


@pytest.mark.gpu
@on_a_gpu
def test_an_optimized_detector_replays_graphs_and_scores_as_the_other(
    fitted: Detector, recwarn: pytest.WarningsRecorder
) -> None:
    detector = Detector(*fitted.optimized()._parts()).to("cuda")  # a copy: others look at `fitted`, too
    fast = detector.optimized()
    fast.score(draw_images(5, 0))
    [replayed] = fast._scorers.values()
    assert isinstance(replayed, Replayed)
    for seed in range(4):
        images = draw_images(5, seed).to("cuda")
        made = replayed._function(images).cpu()
        wanted = made.flatten(1).amax(1) if made.ndim > 1 else made
        for given in (images, images.cpu()):
            torch.testing.assert_close(fast.score(given), wanted)
        true, features = detector._embedder.embed(images), fast._embedder.embed(images)
        assert (features - true).norm() < 0.03 * true.norm()  # bfloat16, rounded at another place
    assert replayed._graphs
    assert None not in replayed._graphs.values()
    assert not any("no CUDA graph of" in str(warned.message) for warned in recwarn)


@pytest.mark.gpu
@on_a_gpu
def test_on_a_gpu_too_work_that_cannot_be_recorded_goes_on(recwarn: pytest.WarningsRecorder) -> None:
    waiting: Callable[[Tensor], Tensor] = lambda given: given * float(given.sum())  # noqa: E731
    replayed, before = Replayed(waiting, torch.device("cuda")), torch.cuda.current_stream()
    for _ in range(3):
        assert torch.equal(replayed(torch.ones(3, device="cuda")).cpu(), torch.full((3,), 3.0))
    assert sum("no CUDA graph of" in str(warned.message) for warned in recwarn) == 1
    assert torch.cuda.current_stream() == before


@pytest.mark.gpu
@on_a_gpu
def test_random_numbers_go_on_after_a_recording_that_fails() -> None:
    waiting: Callable[[Tensor], Tensor] = lambda given: given * float(given.sum())  # noqa: E731
    torch.manual_seed(0)
    wanted = [torch.rand(3, device="cuda") for _ in range(2)]
    torch.manual_seed(0)
    drawn, replayed = [torch.rand(3, device="cuda")], Replayed(waiting, torch.device("cuda"))
    replayed(torch.ones(3, device="cuda"))
    with pytest.warns(UserWarning, match="no CUDA graph of"):
        replayed(torch.ones(3, device="cuda"))
    assert torch.equal(torch.stack([*drawn, torch.rand(3, device="cuda")]), torch.stack(wanted))
    assert float(torch.ones(3, device="cuda").sum()) == 3
