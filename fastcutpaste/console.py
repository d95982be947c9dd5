"""What people see while something runs: text and progress bars on stderr."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from torch import Tensor

people = Console(stderr=True, highlight=False, soft_wrap=True)  # a long path stays in one piece


def show_progress(batches: "Iterable[Tensor]", total: int, what: str) -> "Iterator[Tensor]":
    """Pass batches on and show a bar that counts their images."""
    with _bar(what, total) as advance:
        for batch in batches:
            yield batch
            advance(len(batch))


@contextmanager
def _bar(what: str, total: int) -> Iterator[Any]:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=people) as progress:
        bar = progress.add_task(what, total=total)
        yield lambda count: progress.advance(bar, count)
