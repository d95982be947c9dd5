"""The field of a siege: images, a run that nothing befell, and commands in processes of their own."""

import contextlib
import json
import multiprocessing
import os
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from fastcutpaste.cli import main

LIMIT = 300.0  # seconds in which a command has to end, on a machine that does other work too
TRAIN = ("--size", "48x64", "--crop", "24", "--stride", "12", "--steps", "30", "--batch", "2", "--precision", "fp32",
         "--backbone", "patchnet", "--device", "cpu", "--save-steps", "1")  # fmt: skip
PROCESSES = multiprocessing.get_context("forkserver")  # an import of torch takes seconds, a fork a moment
PROCESSES.set_forkserver_preload(
    [*(f"fastcutpaste.cli.{name}" for name in ("train", "evaluate", "predict", "calibrate", "export")),
     "fastcutpaste.reports.pictures", "torch._inductor.cudagraph_trees", "torch.onnx", "onnxruntime"]
)  # fmt: skip
_WRITES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree", "os.truncate"}


class Field(NamedTuple):
    """Hold the folders of a siege: of images, of those to be scored, and of a run that is whole."""

    root: Path
    data: Path
    night: Path
    run: Path


class Faults(list[str]):
    """What was wrong, in words; each is said when it is found, for a siege that comes to no end."""

    def append(self, fault: str) -> None:
        print(f"fault: {fault}", file=sys.stderr, flush=True)
        super().append(fault)


class Ended(NamedTuple):
    """Hold how a command ended: status, that of a signal negative, None beyond the limit; both texts; seconds."""

    status: int | None
    out: str
    err: str
    seconds: float


class Attack(NamedTuple):
    """Say what befalls a command.

    signals: sent one after another.
    after: seconds from its start to the first signal; None: at a write, or never.
    write: the number of the write into the field at which it sends itself the signal.
    gap: seconds from one signal to the next.
    room: bytes that a file may have, as on a full disk.
    """

    name: str = "nothing"
    signals: tuple[int, ...] = ()
    after: float | None = None
    write: int | None = None
    gap: float = 0.0
    room: int | None = None


def make_field(root: Path) -> Field:
    """Draw images, some of them broken, and train a detector on them that nothing befalls."""
    data, night = root / "data", root / "night"
    for i in range(12):
        draw(data / f"train/good/{i:02d}.png", i)
    for i, kind in enumerate(("good", "good", "scratch", "scratch")):
        draw(data / f"test/{kind}/{i}.png", 50 + i)
    for i in (2, 3):
        mask = np.zeros((48, 64), np.uint8)
        mask[10:20, 20:40] = 255
        path = data / f"ground_truth/scratch/{i}_mask.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(path)
    for i in range(60):
        path = draw(night / f"{i:02d}.png", 100 + i)
        if i % 20 == 7:
            path.write_bytes(path.read_bytes()[:500])
    field = Field(root, data, night, root / "run")
    ended = command(field, Attack(), "train", data, "--out", field.run, *TRAIN)
    if ended.status != 0:
        raise RuntimeError(f"siege: a training without trouble required, got: {ended.err[-2000:]}")
    return field


def draw(path: Path, seed: int, size: tuple[int, int] = (48, 64)) -> Path:
    """Write an RGB image of faint noise on grey, (height, width) of so many pixels."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).normal(128, 20, (*size, 3)).clip(0, 255).astype(np.uint8)
    Image.fromarray(noise).save(path)
    return path


def command(field: Field, attack: Attack, *arguments: Any) -> Ended:
    """Run a command under an attack, in a process of its own."""
    texts = [field.root / "out", field.root / "err"]
    told = [str(argument) for argument in arguments]
    process = PROCESSES.Process(target=_be_command, args=(field, attack, told, texts), daemon=True)
    begun = time.perf_counter()
    process.start()
    if attack.after is not None:
        process.join(attack.after)
        for number in attack.signals:
            if process.is_alive() and process.pid is not None:
                with contextlib.suppress(ProcessLookupError):  # it may end between the look and the signal
                    os.kill(process.pid, number)
                time.sleep(attack.gap)
    process.join(LIMIT)
    status = process.exitcode
    if status is None:
        process.kill()
        process.join()
    out, err = (text.read_text(encoding="utf-8", errors="replace") if text.exists() else "" for text in texts)
    return Ended(status, out, err, time.perf_counter() - begun)


def _be_command(field: Field, attack: Attack, arguments: list[str], texts: list[Path]) -> None:
    for number, text in enumerate(texts, 1):
        os.dup2(os.open(text, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    if attack.room is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (attack.room, attack.room))
    if attack.write is not None:
        _signal_at_write(str(field.root), attack.write, attack.signals[0])
    sys.argv = ["fastcutpaste", *arguments]
    main()


def _signal_at_write(root: str, which: int, number: int) -> None:
    """Send this process a signal at its n-th opening for writing, renaming or removing of a file below a folder."""
    count = 0

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        opens = event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        if (opens or event in _WRITES) and str(arguments[0]).startswith(root):
            count += 1
            if count == which:
                os.kill(os.getpid(), number)

    sys.addaudithook(look)


def last_json(text: str) -> Any:
    """Give the object on the last line of what a command wrote; None where it wrote none."""
    lines = text.splitlines()
    return json.loads(lines[-1]) if lines else None


KILL = signal.SIGKILL
TERM = signal.SIGTERM
