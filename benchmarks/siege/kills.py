"""Commands that are killed, told to stop once and twice, and left without room: nothing is lost or half there."""

import csv
import json
import random
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file

from benchmarks.siege.field import KILL, TERM, TRAIN, Attack, Ended, Faults, Field, command
from fastcutpaste.scoring.detector import Detector
from fastcutpaste.scoring.graph import Graph
from fastcutpaste.training.checkpoint import load_checkpoint

GAPS = (0.0, 0.001, 0.02, 0.2)  # seconds between two signals
_STATUSES = {0, 1, 3, 130, 128 + signal.SIGTERM, -signal.SIGTERM, -signal.SIGKILL}
_CHAIN = 8  # attacks on one training or night, before it is let end


class Kills:
    """Attack commands at random and see what is left of their files.

    Args:
        field: made by `make_field`.
        seed: of the chance.

    Attributes:
        tried: how often, by command, attack and what came of it.
        faults: what was wrong, in words.
    """

    def __init__(self, field: Field, seed: int = 0) -> None:
        self._field, self._chance = field, random.Random(seed)
        self.tried: Counter[tuple[str, str, str]] = Counter()
        self.faults = Faults()
        self._seconds: dict[str, float] = {}
        self._trained: Path | None = None
        self._night: list[dict[str, object]] = []
        self._attacks: dict[str, Callable[[], None]] = {
            "train": self._train, "predict": self._predict, "calibrate": self._calibrate, "evaluate": self._evaluate,
            "export": self._export,
        }  # fmt: skip

    @property
    def count(self) -> int:
        """Attacks made."""
        return sum(self.tried.values())

    def go_on(self, seconds: float, least: int) -> None:
        """Attack for so many seconds, and at least so many times."""
        begun = time.monotonic()
        while time.monotonic() - begun < seconds or self.count < least:
            for attack in self._attacks.values():
                attack()

    def _attempt(self, name: str, *arguments: object) -> Ended:
        """Attack a command once; the first time nothing befalls it, which tells how long it takes."""
        attack = self._draw(name) if name in self._seconds else Attack()
        ended = self._run(name, attack, *arguments)
        if attack.name == "nothing":
            self._seconds[name] = ended.seconds
            if ended.status not in (0, 3):
                self.faults.append(f"{name}: not a good end without an attack: {ended.err[-300:]}")
        return ended

    def _run(self, name: str, attack: Attack, *arguments: object) -> Ended:
        ended = command(self._field, attack, name, *arguments)
        wrong = [word for word in ("Traceback", "Exception", "Error: ", "dumped") if word in ended.err]
        came = "ended" if ended.status in (0, 3) else "cut"
        if ended.status not in _STATUSES:
            wrong.append("no end in time" if ended.status is None else f"status {ended.status}")
        if ended.status == 1 and attack.room is None:
            wrong.append("refused")
        if wrong:
            self.faults.append(f"{name}, {attack}: {', '.join(wrong)}: {ended.err[-1500:]}")
        if attack.name != "nothing":
            self.tried[name, attack.name, came] += 1
        return ended

    def _draw(self, name: str) -> Attack:
        """Draw an attack at a random time of a command, or at one of its writes."""
        after = self._chance.uniform(0.02, self._seconds[name])
        kind = self._chance.choice(("SIGKILL", "SIGKILL at a write", "SIGTERM", "SIGTERM twice", "full disk"))
        if kind == "SIGKILL at a write":
            most = 60 if name in ("train", "predict") else 16  # early ones oftener: what begins is the least tried
            return Attack(kind, (KILL,), write=int(most ** self._chance.random()))
        if kind == "full disk":
            return Attack(kind, room=self._chance.randint(20_000, 400_000))  # more than what people are told
        if kind == "SIGTERM twice":
            gap = self._chance.choice(GAPS)
            return Attack(f"SIGTERM twice in {gap * 1e3:g} ms", (TERM, TERM), after, gap=gap)
        return Attack(kind, (KILL if kind == "SIGKILL" else TERM,), after)

    def _check(self, name: str, folder: Path) -> None:
        for what in not_whole(folder):
            self.faults.append(f"{name}: {what}")

    def _train(self) -> None:
        """Attack one training until it is done; it has to end bit for bit as the one that nothing befell."""
        out = self._field.root / "trained"
        shutil.rmtree(out, ignore_errors=True)
        arguments = (self._field.data, "--out", out, *TRAIN, "--resume")
        for _ in range(_CHAIN):
            ended = self._attempt("train", *arguments)
            self._check("train", out)
            if ended.status == 0:
                break
        else:
            ended = self._run("train", Attack(), *arguments)
        if not (out / "detector.safetensors").exists():
            self.faults.append(f"train: status {ended.status}, and no detector: {ended.err[-1500:]}")
            return
        wanted, got = (load_file(folder / "detector.safetensors") for folder in (self._field.run, out))
        if list(wanted) != list(got) or not all(torch.equal(value, got[name]) for name, value in wanted.items()):
            self.faults.append("train: resumed, it did not end bit for bit as the run that nothing befell")
        if _losses(out) != _losses(self._field.run):
            self.faults.append("train: resumed, its log is not that of the run that nothing befell")
        self._leftovers("train", out)

    def _predict(self) -> None:
        """Attack a night of predictions until it is done; its lines have to be those of one that nothing befell."""
        out, name = self._field.root / "predicted", "predict"
        shutil.rmtree(out, ignore_errors=True)
        arguments = (self._field.run, self._field.night, "--out", out / "r.jsonl", "--report", out / "r.html",
                     "--resume", "--device", "cpu")  # fmt: skip
        for _ in range(_CHAIN):
            ended = self._attempt(name, *arguments)
            self._check(name, out)
            if ended.status == 3:
                break
        else:
            self._run(name, Attack(), *arguments)
        lines = [json.loads(line) for line in (out / "r.jsonl").read_text(encoding="utf-8").splitlines()]
        lines.sort(key=lambda line: str(line["image"]))
        self._night = self._night or lines
        if len(lines) != len(self._night) or not all(map(_alike, lines, self._night)):
            self.faults.append("predict: resumed, its lines are not those of a night that nothing befell")
        self._leftovers(name, out)

    def _calibrate(self) -> None:
        """Attack a calibration; the file has to have the old threshold or the new one."""
        run = self._field.root / "calibrated"
        if not run.exists():
            shutil.copytree(self._field.run, run)
        before, wanted = Detector.load(run / "detector.safetensors").threshold, self._chance.uniform(1, 9)
        self._attempt("calibrate", run, "--threshold", wanted, "--device", "cpu")
        self._check("calibrate", run)
        if Detector.load(run / "detector.safetensors").threshold not in (before, wanted):
            self.faults.append("calibrate: neither the old threshold nor the new one")

    def _evaluate(self) -> None:
        out = self._field.root / "evaluated"
        self._attempt("evaluate", self._field.run, self._field.data, "--out", out, "--device", "cpu")
        self._check("evaluate", out)

    def _export(self) -> None:
        out = self._field.root / "exported"
        self._attempt("export", self._field.run, "--out", out / "detector.onnx")
        self._check("export", out)

    def _leftovers(self, name: str, folder: Path) -> None:
        left = [path.name for path in folder.rglob(".*") if ".part" in path.name or path.name.startswith(".tmp")]
        if left:
            self.faults.append(f"{name}: left behind after it was done: {', '.join(left)}")


def not_whole(folder: Path) -> list[str]:
    """Name the files of a folder that are half there; what is hidden is being written."""
    found = []
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        try:
            _open(path)
        except Exception as error:  # whatever reads it may say
            found.append(f"{path.name} is not whole: {type(error).__name__}: {str(error)[:200]}")
    return found


def _open(path: Path) -> None:
    if path.name == "checkpoint.safetensors":
        load_checkpoint(path)
    elif path.suffix == ".safetensors":
        Detector.load(path)
    elif path.suffix == ".onnx":
        Graph(path)
    elif path.suffix == ".json":
        json.loads(path.read_text(encoding="utf-8"))
    elif path.suffix == ".png":
        with Image.open(path) as image:
            image.load()
    elif path.suffix == ".html" and not path.read_text(encoding="utf-8").rstrip().endswith("</html>"):
        raise ValueError("no end")
    elif path.suffix == ".jsonl":  # its last line may be cut, by a full disk, until it is gone on with
        for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
            json.loads(line)
    elif path.suffix == ".csv":
        with open(path, newline="", encoding="utf-8") as file:
            if len({len(row) for row in csv.reader(file)}) > 1:
                raise ValueError("rows of different lengths")


def _losses(run: Path) -> list[list[str]]:
    with open(run / "training.csv", newline="", encoding="utf-8") as file:
        return [row[:4] for row in csv.reader(file)]


def _alike(one: dict[str, object], other: dict[str, object]) -> bool:
    """Tell whether two results are the same but for the rounding of images that were scored beside others."""
    scores = [line.get("score") for line in (one, other)]
    close = all(isinstance(score, float) for score in scores) and abs(scores[0] / scores[1] - 1) < 1e-5  # type: ignore[operator]
    return one["image"] == other["image"] and (close or scores == [None, None])
