"""One heap and one task for all deadlines."""

from __future__ import annotations

import asyncio
import heapq
from contextlib import suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from shadowfault_operator.clock import Clock
    from shadowfault_operator.model import Key

# Seconds. A wall clock that was set ahead is noticed within this time.
_LONGEST_SLEEP: Final = 5.0
_JUMP: Final = 0.2


class Deadlines:
    """Calls `due` with each key at its time; a later `set` for a key replaces the earlier one.

    Times are given by the clock of each key and waited for by the steady one: a wall clock that is set back
    puts nothing off, one that is set ahead makes due what it has passed.
    """

    def __init__(self, due: Callable[[Key], None], clock: Clock) -> None:
        self._due = due
        self._clock = clock
        self._heap: list[tuple[float, Key, datetime]] = []
        self._current: dict[Key, datetime] = {}
        self._changed = asyncio.Event()
        self._offset = self._offset_now()

    def set(self, key: Key, when: datetime | None) -> None:
        """Set or, with None, clear the deadline of a key."""
        if when is None:
            self._current.pop(key, None)
            return
        if self._current.get(key) == when:
            return
        self._current[key] = when
        heapq.heappush(self._heap, (self._steadily(key, when), key, when))
        self._changed.set()

    async def run(self) -> None:
        """Watch the clock until cancelled."""
        while True:
            self.fire()
            self._changed.clear()
            pause = (
                min(_LONGEST_SLEEP, max(0.0, self._heap[0][0] - self._clock.steady())) if self._heap else None
            )
            # Not wait_for, which takes a cancellation for the event when both come at once (Python 3.11).
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._changed.wait()

    def fire(self) -> None:
        """Call `due` for each key whose time has come."""
        offset = self._offset_now()
        if offset > self._offset + _JUMP:
            self._heap = [
                (min(at, self._steadily(key, when)), key, when)
                for at, key, when in self._heap
                if self._current.get(key) == when
            ]
            heapq.heapify(self._heap)
        self._offset = offset
        while self._heap and self._heap[0][0] <= self._clock.steady():
            _, key, when = heapq.heappop(self._heap)
            if self._current.get(key) == when:
                del self._current[key]
                self._due(key)

    def _offset_now(self) -> float:
        return self._clock.wall().timestamp() - self._clock.steady()

    def _steadily(self, key: Key, when: datetime) -> float:
        return self._clock.steady() + (when - self._clock.now(key)).total_seconds()
