"""How far a run is, told while it runs: a log line now and then, or a bar on a terminal."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

import structlog

if TYPE_CHECKING:
    from collections.abc import Iterator

_log: Final = structlog.get_logger("shadowfault.verifier")
_LOG_EVERY_SECONDS: Final = 10.0


class Standing(NamedTuple):
    """Rows looked at by this run, of roughly so many it is to look at, in so many seconds."""

    rows: int
    estimated: int
    seconds: float


# Gives, for as long as a run goes on, what is to be called after each chunk.
Reporter = Callable[[str], AbstractContextManager[Callable[[Standing], None]]]


@contextmanager
def log_progress(run_id: str) -> Iterator[Callable[[Standing], None]]:
    """Log a line about every ten seconds; a short run logs none."""
    logged = time.monotonic()

    def tell(standing: Standing) -> None:
        nonlocal logged
        if time.monotonic() - logged < _LOG_EVERY_SECONDS:
            return
        logged = time.monotonic()
        _log.info(
            "verifier_progress",
            run_id=run_id,
            rows=standing.rows,
            estimated_rows=standing.estimated,
            seconds=round(standing.seconds, 1),
        )

    yield tell


@contextmanager
def bar_progress(_run_id: str) -> Iterator[Callable[[Standing], None]]:
    """Draw a bar on stderr, and take it away at the end."""
    # Here and not above: only a terminal needs it.
    from rich.console import Console  # noqa: PLC0415
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn  # noqa: PLC0415

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("rows"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("looking", total=None)
        yield lambda standing: progress.update(
            task, completed=standing.rows, total=max(standing.estimated, standing.rows)
        )
