"""Checkpoints: a training run on disk, whole or not there, that can run no code when it is read.

One safetensors file holds the state of a `Training` and, as JSON, what it was made with and from; a checksum over all
of it tells a damaged file from a whole one.
"""

import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from fastcutpaste.files import read_json
from fastcutpaste.scoring.tensors import checksum, save_tensors
from fastcutpaste.training.loop import Training

FORMAT = 2  # of the file; raised when older versions could no longer read it
_KEY = "fastcutpaste-checkpoint"
_PATIENCE = 3.0  # seconds in which a second signal is the same wish
_WISHES = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]  # not on Windows
Facts = dict[str, Any]


def save_checkpoint(path: Path, state: dict[str, Tensor], facts: Facts) -> None:
    """Write a state and what it was made with; a file there before stays whole until the new one is.

    Args:
        path: a .safetensors file.
        state: from `Training.state`, on any device.
        facts: what JSON can hold.

    Raises:
        OSError: no room, no leave to write; the earlier file is as it was.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    about: Facts = {"format": FORMAT, "facts": facts}
    save_tensors(
        path, tensors, {_KEY: json.dumps(about | {"checksum": checksum(tensors, json.dumps(about, sort_keys=True))})}
    )


def load_checkpoint(path: Path) -> tuple[dict[str, Tensor], Facts]:
    """Read a checkpoint.

    Returns:
        The state, on the CPU, and the facts.

    Raises:
        ValueError: not a whole checkpoint of this format; nothing of it is used.
    """
    try:
        with safe_open(path, "pt") as file:
            about = read_json((file.metadata() or {})[_KEY])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        claimed = about.pop("checksum")
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path}: a whole checkpoint required, got a damaged or another file ({reason})") from error
    if about.get("format") != FORMAT:
        raise ValueError(f"{path}: a checkpoint of format {FORMAT} required, got {about.get('format')}")
    if claimed != checksum(tensors, json.dumps(about, sort_keys=True)):
        raise ValueError(f"{path}: a whole checkpoint required, got a damaged one (its checksum is another)")
    facts: Facts = about["facts"]
    return tensors, facts


def differences(before: Facts, now: Facts, prefix: str = "") -> list[str]:
    """Name what differs between two sets of facts: "batch: 24 before, 32 now"."""
    found = []
    for name in dict.fromkeys([*before, *now]):
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            found += differences(old, new, f"{prefix}{name}.")
        elif json.loads(json.dumps(old)) != json.loads(json.dumps(new)):
            found.append(f"{prefix}{name}: {old} before, {new} now")
    return found


class Stopped(Exception):
    """Training was told to stop by a signal, and its state is saved."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number


@dataclass
class Keeper:
    """Save a training run every so often, at its end, and when a signal asks to stop.

    Attributes:
        path: the checkpoint.
        facts: what the run is made with and from.
        minutes: most minutes between two checkpoints.
        steps: most steps between two, besides; None: no such limit.
        stop: the signal that came, 0 for none; set by `heeding`.
    """

    path: Path
    facts: Facts
    minutes: float = 1.0
    steps: int | None = None
    stop: int = 0

    def __post_init__(self) -> None:
        if not self.minutes > 0 or (self.steps is not None and self.steps < 1):
            raise ValueError(f"checkpoints: above 0 minutes and at least 1 step between two required, got "
                             f"{self.minutes} and {self.steps}")  # fmt: skip
        self._saved_at, self._saved_step = time.monotonic(), -1
        self._writer = ThreadPoolExecutor(1, "checkpoint")  # which the end of the program waits for
        self._writing: Future[None] | None = None

    def __call__(self, training: Training) -> None:
        """Save if it is time; called after each step.

        The state is copied aside and written by a thread while training goes on; after the last step and after a
        signal it is waited for. Several processes agree on it, and only where a report makes them wait for each other
        anyway.

        Raises:
            Stopped: a signal came; the state is saved.
            FloatingPointError: the state is not finite; the checkpoint before it stays.
            OSError: this one or the one before could not be written.
        """
        if self._writing is not None and self._writing.done():
            self.wait()
        if self._saved_step < 0:
            self._saved_step = training.step - 1
        done = training.step == training.config.steps
        alone = training.fabric.world_size == 1
        if not alone and not done and training.step % training.window:
            return
        overdue = (time.monotonic() - self._saved_at) / 60 >= self.minutes
        enough = self.steps is not None and training.step - self._saved_step >= self.steps
        wishes = torch.tensor([float(overdue or enough or done or self.stop > 0), float(self.stop)])
        if not alone:
            wishes = _largest(training, wishes)
        if wishes[0]:
            state = training.state()
            self.wait()
            if training.fabric.is_global_zero:
                aside = {name: value.detach().clone() for name, value in state.items()}
                self._writing = self._writer.submit(save_checkpoint, self.path, aside, self.facts)
            if done or wishes[1]:
                self.wait()
            self._saved_at, self._saved_step = time.monotonic(), training.step
        if wishes[1]:
            number = int(wishes[1])
            name = signal.Signals(number).name
            raise Stopped(f"stopped by {name} at step {training.step}; saved in {self.path}", number)

    def wait(self) -> None:
        """Wait until what is being written is on disk.

        Raises:
            OSError: it could not be; the earlier file is as it was.
        """
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()

    @contextmanager
    def heeding(self) -> Iterator[None]:
        """Take SIGINT, SIGTERM and SIGHUP as a wish to stop after the step.

        One that follows within 3 seconds is the same wish: batch systems, containers and `timeout` send two, to the
        process and to its group. One that comes later is obeyed at once.
        """
        before = {number: signal.getsignal(number) for number in _WISHES}
        heard = 0.0

        def note(number: int, _: object) -> None:
            nonlocal heard
            now = time.monotonic()
            if not self.stop:
                self.stop, heard = number, now
                name = signal.Signals(number).name
                told = f"{name}: stops after this step, and saves; once more in {_PATIENCE:g} s or later: at once\n"
                os.write(2, told.encode(errors="backslashreplace"))  # whatever is being printed just now
            elif now - heard >= _PATIENCE:
                signal.signal(number, before[signal.Signals(number)])
                signal.raise_signal(number)

        for number in before:
            signal.signal(number, note)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _largest(training: Training, values: Tensor) -> Tensor:
    gathered = training.fabric.all_gather(values.to(training.device))
    return gathered.amax(0).cpu()  # type: ignore[union-attr]
