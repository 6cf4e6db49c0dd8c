"""Limits of time: one that steps share, and one that holds against a driver that is slow to be cancelled."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

_T = TypeVar("_T")
_MOMENT: Final = 0.5


class Grace:
    """Seconds that steps, one after the other, have between them."""

    def __init__(self, seconds: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._end = clock() + seconds

    def left(self) -> float:
        """Give what is left of them, and a moment where nothing is: most steps need no more."""
        return max(_MOMENT, self._end - self._clock())


class Deadline:
    """Runs calls for at most `seconds`; what overruns is cancelled and left to end by itself."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._abandoned: set[asyncio.Task[Any]] = set()

    async def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Return what `work` returns.

        Raises:
            TimeoutError: it took longer. psycopg, for one, waits up to 10 s for a cancelled query to end.
        """
        task = asyncio.create_task(work)
        try:
            done, _ = await asyncio.wait({task}, timeout=self.seconds)
        except asyncio.CancelledError:
            self._abandon(task)
            raise
        if not done:
            self._abandon(task)
            raise TimeoutError
        return task.result()

    def close(self) -> None:
        """Cancel once more what was left behind: a driver that waits for its cancellation then gives up."""
        for task in self._abandoned:
            task.cancel()

    def _abandon(self, task: asyncio.Task[Any]) -> None:
        task.cancel()
        self._abandoned.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._abandoned.discard(task)
        if not task.cancelled():
            task.exception()  # retrieved, so that asyncio does not log it
