"""What people see while something runs: text and progress bars on stderr."""

from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import Any, TypeVar

from rich.console import Console

people = Console(stderr=True, highlight=False, soft_wrap=True)  # a long path stays in one piece
Batch = TypeVar("Batch", bound=Sized)


def show_progress(batches: Iterable[Batch], total: int, what: str) -> Iterator[Batch]:
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
