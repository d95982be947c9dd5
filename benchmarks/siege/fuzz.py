"""Damaged files of every kind that is read: refused in words or read for what they are; none runs code or hangs."""

import io
import json
import multiprocessing.connection
import random
import resource
import shutil
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file

from benchmarks.siege.damage import damaged
from benchmarks.siege.field import PROCESSES, Attack, Faults, Field, command, draw
from fastcutpaste.cli import main
from fastcutpaste.console import people
from fastcutpaste.images.decode import load_images
from fastcutpaste.images.folders import ImageSet, load_masks
from fastcutpaste.scoring.detector import Detector
from fastcutpaste.scoring.graph import Graph
from fastcutpaste.training.checkpoint import load_checkpoint, save_checkpoint

LIMIT = 120.0  # seconds a file may take, on a machine that does other work too
MEMORY = 16 << 30  # bytes of addresses a process may have
RESULTS = ("refused", "read as before", "read as something else", "fault")
_CODE = {"os.system", "subprocess.Popen", "os.exec", "os.posix_spawn", "pickle.find_class", "socket.connect"}
_REFUSALS = (ValueError, OSError, ImportError, MemoryError)  # what the command line says in one line
Judged = tuple[str, str]  # what came of a file, and what was said


class Fuzz:
    """Damage files at random and see what reading them comes to.

    Args:
        field: made by `make_field`.
        seed: of the chance.

    Attributes:
        tried: how often, by kind of file, way of damage and what came of it: "refused", "read as before", "read as
            something else", "fault".
        faults: what was wrong, in words, with the file's name, which is kept.
    """

    def __init__(self, field: Field, seed: int = 0) -> None:
        self._chance, self._folder = random.Random(seed), field.root / "fuzzed"
        self._folder.mkdir()
        self._sources = make_sources(field)
        self.tried: Counter[tuple[str, str, str]] = Counter()
        self.faults = Faults()

    @property
    def count(self) -> int:
        """Files tried."""
        return sum(self.tried.values())

    def go_on(self, seconds: float, least: int) -> None:
        """Try files for so many seconds, and at least so many, in processes that are replaced when they fail."""
        begun = time.monotonic()
        while time.monotonic() - begun < seconds or self.count < least:
            here, there = PROCESSES.Pipe()
            process = PROCESSES.Process(target=_judge_all, args=(there, self._folder, self._sources), daemon=True)
            process.start()
            there.close()
            try:
                while process.is_alive() and (time.monotonic() - begun < seconds or self.count < least):
                    if not self._try(here):
                        break
            finally:
                process.kill()
                process.join()

    def _try(self, judge: multiprocessing.connection.Connection) -> bool:
        """Damage one file and have it judged; tell whether the judge lives on."""
        kind = self._chance.choice(list(self._sources))
        source = self._sources[kind]
        way, data = damaged(source.read_bytes(), source.suffix, self._chance)
        path = self._folder / f"damaged-{kind}{source.suffix}"
        path.write_bytes(data)
        judge.send((kind, path))
        try:
            came, said = judge.recv() if judge.poll(LIMIT) else ("fault", f"no end in {LIMIT:g} s")
        except (EOFError, ConnectionError):
            came, said = "fault", "the process died"
        if came == "fault":
            kept = path.with_name(f"fault-{len(self.faults)}-{path.name}")
            path.rename(kept)
            self.faults.append(f"{kind}, {way}: {said} ({kept})")
        self.tried[kind, way, came] += 1
        return not (came == "fault" and said in ("the process died", f"no end in {LIMIT:g} s"))


def make_sources(field: Field) -> dict[str, Path]:
    """Write one whole file of each kind that is to be damaged."""
    folder = field.root / "whole"
    folder.mkdir()
    made = {name: folder / f"{name}{suffix}" for name, suffix in (
        ("detector", ".safetensors"), ("checkpoint", ".safetensors"), ("graph", ".onnx"), ("results", ".jsonl"),
        ("ensemble", ".json"), ("mask", ".png"))}  # fmt: skip
    shutil.copy(field.run / "detector.safetensors", made["detector"])
    shutil.copy(field.data / "ground_truth/scratch/2_mask.png", made["mask"])
    save_checkpoint(made["checkpoint"], load_file(made["detector"]), {"settings": {"batch": 2}, "data": {"images": 9}})
    about = {"detectors": ["detector.safetensors"] * 2, "scales": [[1.0, 3.0], [1.0, 2.5]], "threshold": 1.0}
    made["ensemble"].write_text(json.dumps(about), encoding="utf-8")
    for arguments in (("export", field.run, "--out", made["graph"]),
                      ("predict", field.run, field.night, "--out", made["results"], "--device", "cpu")):  # fmt: skip
        ended = command(field, Attack(), *arguments)
        if ended.status not in (0, 3):
            raise RuntimeError(f"siege: a whole {arguments[0]} required, got: {ended.err[-2000:]}")
    for suffix in ("png", "jpg", "tif", "bmp", "gif", "webp"):
        made[f"image, {suffix}"] = draw(folder / f"image.{suffix}", 7)
    made["image, png of 16 bits"] = folder / "deep.png"
    Image.fromarray(np.arange(48 * 64, dtype=np.uint16).reshape(48, 64)).save(made["image, png of 16 bits"])
    return made


def _judge_all(connection: multiprocessing.connection.Connection, folder: Path, sources: dict[str, Path]) -> None:
    """Judge the files that come, in a process of its own."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    run: list[str] = []
    sys.addaudithook(lambda event, _: run.append(event) if event in _CODE else None)
    readers, known = _readers(folder, sources), {}
    while True:
        kind, path = connection.recv()
        run.clear()
        if kind not in known:
            known[kind] = readers[kind](sources[kind])
        try:
            found = readers[kind](path)
            came = ("read as before" if _same(found, known[kind]) else "read as something else"), ""
        except _REFUSALS as error:
            came = "refused", str(error)
        except Exception as error:  # what the command line would end with a traceback for
            came = "fault", f"{type(error).__name__}: {str(error)[:300]}"
        connection.send(came if not run else ("fault", f"ran {', '.join(run)}"))


def _readers(folder: Path, sources: dict[str, Path]) -> dict[str, Callable[[Path], Any]]:
    """Give what reads each kind of file, down to what is done with it."""
    image, page = load_images([sources["image, png"]], (48, 64)).pixels, folder / "report.html"

    def detector(path: Path) -> Any:
        found = Detector.load(path)
        score = float(found.score(image)[0])
        if not np.isfinite(score):
            raise AssertionError(f"a score of {score} and a decision by it")
        return score, found.threshold, _command(path, "predict", path, sources["image, png"], "--report", page)

    def graph(path: Path) -> Any:
        found = Graph(path)
        said = _command(path, "predict", path, sources["image, png"], "--report", page)
        return found.score(image[0].numpy())[0], found.threshold, said

    def checkpoint(path: Path) -> Any:
        tensors, facts = load_checkpoint(path)
        return sum(float(value.double().sum()) for value in tensors.values()), facts

    def results(path: Path) -> Any:
        return _command(path, "predict", sources["detector"], sources["image, png"], "--out", path, "--resume")

    def ensemble(path: Path) -> Any:
        run = folder / "ensemble"
        run.mkdir(exist_ok=True)
        shutil.copy(sources["detector"], run)
        shutil.copy(path, run / "ensemble.json")
        return _command(path, "predict", run, sources["image, png"])

    def mask(path: Path) -> Any:
        return load_masks(ImageSet((sources["image, png"],), ("scratch",), (path,)), [(48, 64)])[0]

    def pixels(path: Path) -> Any:
        return load_images([path], (48, 64)).pixels

    return {"detector": detector, "graph": graph, "checkpoint": checkpoint, "results": results, "ensemble": ensemble,
            "mask": mask} | {kind: pixels for kind in sources if kind.startswith("image")}  # fmt: skip


def _command(path: Path, *arguments: object) -> str:
    """Be the command line, in this process.

    Raises:
        ValueError: it refused, in one line.
        AssertionError: it ended otherwise than well or with a refusal.
    """
    out, people.file = io.StringIO(), io.StringIO()
    sys.argv = ["fastcutpaste", *map(str, arguments), "--device", "cpu"]
    status: Any = 0
    with redirect_stdout(out):
        try:
            main()
        except SystemExit as end:
            status = end.code
    said = people.file.getvalue()
    if status == 1 and said.startswith("error: ") and said.count("\n") == 1:
        raise ValueError(said)
    if status != 0:
        raise AssertionError(f"status {status}: {said[-300:]}")
    json.loads(out.getvalue(), parse_constant=_no_number)
    return out.getvalue().replace(str(path), "")


def _no_number(text: str) -> None:
    raise AssertionError(f"JSON required, which knows no {text}")


def _same(one: Any, other: Any) -> bool:
    return bool(torch.equal(one, other)) if isinstance(one, torch.Tensor) else bool(one == other)
