"""Work on a GPU recorded once as a CUDA graph and replayed: one launch instead of hundreds."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_MOST_GRAPHS = 4  # each holds the memory of its work


class Replayed:
    """Call a function of one tensor on a GPU: the first time of a shape as it is, from the second on by a CUDA graph.

    So a shape that comes once, such as the last batch's, costs no recording. Of more than 4 shapes the further ones are
    called as they are. Where recording fails, a warning says why, and all go on as they are. Not for several threads or
    streams at a time: they would share the memory that a graph works in.

    Args:
        function: of a tensor on any device to one on `device`; its work depends on the shape and type alone, and it
            waits for nothing.
        device: a GPU.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], device: torch.device) -> None:
        self._function, self._device = function, device
        self._graphs: dict[tuple[torch.Size, torch.dtype], _Graph | None] = {}  # None: seen once
        self._failed = False

    @torch.no_grad()
    def __call__(self, given: Tensor) -> Tensor:
        """Give what the function makes, in memory of its own."""
        kind = given.shape, given.dtype
        if self._failed or (kind not in self._graphs and len(self._graphs) >= _MOST_GRAPHS):
            return self._function(given)
        if kind not in self._graphs:
            self._graphs[kind] = None
            return self._function(given)
        graph = self._graphs[kind]
        if graph is None:
            try:
                graph = self._graphs[kind] = _Graph(self._function, given, self._device)
            except RuntimeError as error:
                self._failed, self._graphs = True, {}
                reason = (str(error) or type(error).__name__).splitlines()[0]
                warnings.warn(f"scoring: no CUDA graph of {tuple(given.shape)}, so each step is launched: {reason}",
                              stacklevel=2)  # fmt: skip
                return self._function(given)
        return graph.replay(given)


class _Graph:
    """Hold one recording, what it reads and what it writes."""

    def __init__(self, function: Callable[[Tensor], Tensor], given: Tensor, device: torch.device) -> None:
        self._graph = torch.cuda.CUDAGraph()
        self._given = torch.empty_like(given, device=device).copy_(given)
        stream, caller = torch.cuda.Stream(device), torch.cuda.current_stream(device)  # type: ignore[no-untyped-call]
        stream.wait_stream(caller)
        with torch.cuda.stream(stream):
            function(self._given)  # libraries make now what they need on a new stream
        caller.wait_stream(stream)
        # The caller's stream is named so that it is current again after a recording that fails.
        with _generator_kept(device), torch.cuda.stream(caller), torch.cuda.graph(
            self._graph, stream=stream, capture_error_mode="thread_local"  # others may load the next images
        ):  # fmt: skip
            self._made = function(self._given)

    def replay(self, given: Tensor) -> Tensor:
        self._given.copy_(given, non_blocking=True)
        self._graph.replay()
        return self._made.clone()


@contextmanager
def _generator_kept(device: torch.device) -> Iterator[None]:
    """Let the device's default generator draw on after a recording that fails: torch leaves it as if in one.

    Every draw after it would end with "Offset increment outside graph capture encountered unexpectedly".
    """
    index = torch.cuda.current_device() if device.index is None else device.index
    generator = torch.cuda.default_generators[index]
    seed_and_offset = generator.get_state()
    try:
        yield
    except BaseException:
        generator.graphsafe_set_state(torch.Generator(device).graphsafe_get_state())  # a state of no recording
        generator.set_state(seed_and_offset)
        raise
