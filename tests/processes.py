"""Processes that tests start, forked from one that has imported the package: an import of torch takes seconds."""

import contextlib
import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastcutpaste.cli import main

# Windows has no fork; there each process imports for itself.
PROCESSES = multiprocessing.get_context("forkserver" if sys.platform != "win32" else "spawn")
PROCESSES.set_forkserver_preload(
    [*(f"fastcutpaste.cli.{name}" for name in ("train", "evaluate", "predict")), "torch._inductor.cudagraph_trees"]
)


class Started:
    """A process that calls a function in a folder of its own, where its output goes to files.

    Args:
        folder: made for it; holds `out` and `err`.
        call: the function, of a module that can be imported, and its
        arguments: what can be pickled.
        environment: variables it has besides.
    """

    def __init__(self, folder: Path, call: Callable[..., object], *arguments: Any, **environment: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.process = PROCESSES.Process(target=_work, args=(folder, call, arguments, environment), daemon=True)
        self.process.start()

    def send(self, number: int) -> None:
        """Send a signal, which one that has ended meanwhile does not need."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.process.pid, number)

    def status(self, seconds: float = 120) -> int | None:
        """Wait for its end; give its exit status, that of a signal negative, or None if it still runs."""
        self.process.join(seconds)
        return self.process.exitcode

    def said(self, where: str = "err") -> str:
        return (self.folder / where).read_text() if (self.folder / where).exists() else ""

    def succeed(self, seconds: float = 300) -> "Started":
        """Wait for its end, which has to be a good one."""
        assert self.status(seconds) == 0, self.said()
        return self


def start_command(folder: Path, *arguments: object, **environment: str) -> Started:
    """Start the command line in a process of its own."""
    return Started(folder, run_command, [str(argument) for argument in arguments], **environment)


def start_two(folder: Path, call: Callable[..., object], *arguments: Any) -> list[Started]:
    """Start two processes that Fabric takes for two devices, as torchrun would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "NODE_RANK": "0", "WORLD_SIZE": "2"}
    return [Started(folder / rank, call, *arguments, LOCAL_RANK=rank, **group) for rank in ("0", "1")]


def run_command(arguments: list[str]) -> None:
    """Be the command line, in a process that was started for it."""
    sys.argv = ["fastcutpaste", *arguments]
    main()


def _work(folder: Path, call: Callable[..., object], arguments: tuple[Any, ...], environment: dict[str, str]) -> None:
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.environ.update(environment)
    call(*arguments)
