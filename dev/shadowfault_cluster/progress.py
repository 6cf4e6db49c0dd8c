"""Showing a person that a long build is alive: a bar on a terminal, else a line every few seconds."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, Self

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from rich.console import Console

_LINE_SECONDS = 5.0


class Reporter(Protocol):
    """What a build tells its progress to."""

    def say(self, message: str) -> None:
        """Tell of something that happened once."""

    def step(self, what: str, done: int, total: int | None) -> None:
        """Tell where a long step stands; called very often. `total` None: not known yet."""


@dataclass
class LineReporter:
    """Whole lines to a callback, at most one each five seconds from a long step."""

    write: Callable[[str], None]
    clock: Callable[[], float] = time.monotonic
    _began: float | None = None
    _last: float = field(default=0.0)
    _what: str = ""

    def say(self, message: str) -> None:
        """Write it at once."""
        self.write(message)

    def step(self, what: str, done: int, total: int | None) -> None:
        """Write it if the step is new or the last line is old."""
        now = self.clock()
        if self._began is None:
            self._began = now
        if what == self._what and now - self._last < _LINE_SECONDS:
            return
        self._what, self._last = what, now
        count = f"{done}" if total is None else f"{done}/{total}"
        minutes, seconds = divmod(int(now - self._began), 60)
        self.write(f"{what}: {count} ({minutes}m{seconds:02d}s)")


class BarReporter:
    """A live bar with the time elapsed; a context manager."""

    def __init__(self, console: Console) -> None:
        """Draw on `console`."""
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("", visible=False, total=None)

    def say(self, message: str) -> None:
        """Print it above the bar."""
        self._progress.console.print(message, markup=False, highlight=False)

    def step(self, what: str, done: int, total: int | None) -> None:
        """Move the bar."""
        self._progress.update(self._task, description=what, completed=done, total=total, visible=True)

    def __enter__(self) -> Self:
        """Start drawing."""
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop drawing."""
        self._progress.stop()
