"""Progress of a long job on stderr. Imports nothing that takes seconds: it is shown before the rest is imported."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

SECONDS_BETWEEN_LINES = 30  # where there is no terminal to draw a bar on


class Bar:
    """Progress on stderr: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False)
        columns = (TextColumn("{task.description:<50.50}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self.bar = Progress(*columns, console=self.console, transient=True) if self.console.is_terminal and not quiet else None
        self.task = self.bar.add_task("starting", total=None) if self.bar else None
        self.spoke = time.monotonic()

    def __enter__(self) -> Self:
        if self.bar:
            self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.bar:
            self.bar.stop()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Take the bar off the screen, so that something else can be printed."""
        if self.bar:
            self.bar.stop()
        try:
            yield
        finally:
            if self.bar:
                self.bar.start()

    def show(self, what: str, done: int, planned: int) -> None:
        """Say what is being done, and how many group measurements of those planned are."""
        if self.bar is not None and self.task is not None:
            self.bar.update(self.task, description=what, completed=done, total=planned)
        elif time.monotonic() - self.spoke > SECONDS_BETWEEN_LINES:
            self.spoke = time.monotonic()
            self.console.print(f"{done} of {planned}: {what}", markup=False)
