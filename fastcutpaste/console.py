"""What people see while something runs: text and progress bars on stderr."""

from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

from rich.console import Console

Batch = TypeVar("Batch", bound=Sized)


class _People(Console):
    """Print a line as it is: a name in it is neither markup nor emoji, and steers no terminal.

    A line that cannot be written, to a full disk or a reader that left, is dropped: no work is worth less than its log.
    """

    def print(self, *objects: Any, **options: Any) -> None:
        shown = (_visible(one) if isinstance(one, str) else one for one in objects)
        with suppress(OSError):
            super().print(*shown, **options)

    def __exit__(self, *error: Any) -> None:  # the way of progress bars
        with suppress(OSError):
            super().__exit__(*error)


people = _People(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)  # a long path in one piece


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


def _visible(text: str) -> str:
    """Write out what would break a line or steer a terminal; a file's name may hold any of it."""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)
