"""The figures of the database that a scrape shows: read once for all who ask, seldom where it takes long."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final

import structlog

from shadowfault_api.deadline import Deadline

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from shadowfault_api.metrics import DatabaseFigures, Metrics

    Read = Callable[[DatabaseFigures], AsyncIterator[tuple[DatabaseFigures, bool]]]

_log: Final = structlog.get_logger("shadowfault.metrics")
# A scrape is answered with old figures rather than late.
_PATIENCE_SECONDS: Final = 1.0
# What failed for a moment is not to look old for long.
_LONGEST_REST_AFTER_FAILURE: Final = 15.0


class Refresh:
    """Reads the figures into `metrics.database`, one read at a time.

    Args:
        read: reads them, from those before; gives those there are by then and whether the last could be read.
        deadline_seconds: of one read.
        patience_seconds: how long a scrape waits for it.
        clock: monotonic seconds.

    Attributes:
        rest: how many times the length of a read passes before the next: reading takes a tenth of the time.
    """

    def __init__(
        self,
        read: Read,
        metrics: Metrics,
        *,
        deadline_seconds: float,
        patience_seconds: float = _PATIENCE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._metrics = metrics
        self._deadline = Deadline(deadline_seconds)
        self._patience = patience_seconds
        self._clock = clock
        self.rest = 9.0
        self._due = clock()
        self._reading: asyncio.Task[None] | None = None

    async def refresh(self) -> None:
        """Have new figures where they are due, or wait a moment for them. Never raises for the database."""
        if self._reading is None or self._reading.done():
            if self._clock() < self._due:
                return
            self._reading = asyncio.create_task(self._refresh())
        _, waiting = await asyncio.wait({self._reading}, timeout=self._patience)
        if waiting:
            self._metrics.refresh_failures.inc()

    async def close(self) -> None:
        """End the read at hand."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait({self._reading}, timeout=0.5)
        self._deadline.close()

    async def _refresh(self) -> None:
        began = self._clock()
        try:
            whole = await self._deadline.run(self._ask())
        except Exception as error:  # noqa: BLE001 - old figures, and a count that says so, beat no metrics
            _log.warning("metrics_not_refreshed", error_class=type(error).__name__)
            whole = False
        rest = (self._clock() - began) * self.rest
        if not whole:
            rest = min(rest, _LONGEST_REST_AFTER_FAILURE)
            self._metrics.refresh_failures.inc()
        self._due = self._clock() + rest

    async def _ask(self) -> bool:
        """Read; tells whether every question had an answer."""
        whole = True
        async for figures, answered in self._read(self._metrics.database):
            self._metrics.database = figures
            whole = whole and answered
        return whole
