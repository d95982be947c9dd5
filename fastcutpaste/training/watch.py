"""What is seen of a training while it runs: progress, a log as CSV and for TensorBoard, where a step's time goes."""

import csv
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.profiler import ProfilerActivity, profile, schedule

from fastcutpaste.console import people
from fastcutpaste.files import naming, written_whole
from fastcutpaste.training.loop import Report, Training
from fastcutpaste.training.step import TrainConfig

LOG_FILE = "training.csv"
_COLUMNS = (*Report._fields, "images_per_s")
_PARTS = ("data", "augment and forward", "backward", "update")  # of a step, as `train` names them


class Watch:
    """Show the reports of a training and keep them: `with Watch(…) as watch: … watch.report(report)`.

    The log holds one row a report, each on disk at once. Going on from a step drops the rows after it, which training
    writes again. TensorBoard's events are written beside it where TensorBoard is installed.

    Args:
        folder: where the log is kept.
        config: steps and batch.
        classes: what the pretext task multiplies the images by.
        start: the step training goes on from.
    """

    def __init__(self, folder: Path, config: TrainConfig, classes: int, start: int = 0) -> None:
        self._path, self._config, self._images = folder / LOG_FILE, config, config.batch * classes
        self._start, self._step, self._since = start, start, time.perf_counter()
        _cut_log(self._path, start)
        self._board = _tensorboard(folder / "tensorboard", start)
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        self._progress = Progress(*columns, console=people)
        self._bar = self._progress.add_task("training", total=config.steps, completed=start)

    def __enter__(self) -> "Watch":
        self._progress.start()
        return self

    def report(self, report: Report) -> None:
        """Show and keep one report."""
        now = time.perf_counter()
        speed = (report.step - self._step) * self._images / (now - self._since)
        self._step, self._since = report.step, now
        text = f"training  loss {report.loss:.3f}  accuracy {report.accuracy:.2f}  {speed:,.0f} images/s"
        self._progress.update(self._bar, completed=report.step, description=text)
        if not people.is_terminal and report.step % (20 * max(1, self._config.steps // 200)) == 0:
            people.print(f"{text}  {report.step}/{self._config.steps}")  # ten lines: a log shows no moving bar
        with naming(self._path), open(self._path, "a", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerow([*report, round(speed, 1)])
        if self._board is not None:
            for name, value in zip(_COLUMNS[1:], (*report[1:], speed), strict=True):
                self._board.add_scalar(f"training/{name}", value, report.step)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
        if self._board is not None:
            self._board.close()


class StepProfile:
    """Measure where the time of a few steps goes: called after each step, as `proceed` calls `on_step`.

    Steps 6 and 7 warm the profiler up, 8 to 12 are measured. Written are `trace.json`, for Perfetto or
    chrome://tracing, and `summary.txt`, one table.

    Args:
        folder: where both files go.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._steps = folder, 5
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
        self._profile = profile(
            activities=activities,
            schedule=schedule(wait=5, warmup=2, active=self._steps, repeat=1),
            on_trace_ready=self._write,
        )

    def __enter__(self) -> "StepProfile":
        self._profile.start()
        return self

    def __call__(self, training: Training) -> None:
        self._profile.step()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._profile.stop()
        if not (self._folder / "summary.txt").exists():
            people.print("profile: at least 12 steps required, training ended before")

    def _write(self, measured: profile) -> None:
        measured.export_chrome_trace(str(self._folder / "trace.json"))
        events = measured.key_averages()  # a part's host and device times come as two events, where there is a GPU
        rows = [
            (part, sum(e.cpu_time_total for e in of_part), sum(e.device_time_total for e in of_part))
            for part in _PARTS
            if (of_part := [event for event in events if event.key == part])
        ]
        operators = [
            event
            for event in events
            if event.key.startswith("aten::") or (event.self_device_time_total and not event.is_user_annotation)
        ]
        operators.sort(key=lambda event: -(event.self_device_time_total or event.self_cpu_time_total))
        rows += [("  " + e.key, e.self_cpu_time_total, e.self_device_time_total) for e in operators[:12]]
        lines = [f"{'ms a step':44}{'host':>10}{'device':>10}"]
        lines += [f"{name[:43]:44}{host / 1e3 / self._steps:10.2f}{device / 1e3 / self._steps:10.2f}"
                  for name, host, device in rows]  # fmt: skip
        (self._folder / "summary.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        for line in lines:
            people.print(line)


def _cut_log(path: Path, step: int) -> None:
    """Keep the rows of a log up to a step, or begin it."""
    kept: list[list[str]] = []
    if step and path.is_file():
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))[1:]
        kept = [row for row in rows if len(row) == len(_COLUMNS) and int(row[0]) <= step]  # the last may be half a row
    with written_whole(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([_COLUMNS, *kept])


def _tensorboard(folder: Path, step: int) -> Any:
    """Give a writer of TensorBoard's events; None where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1 if step else None)
