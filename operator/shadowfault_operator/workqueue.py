"""A queue of keys, as controllers have it: each waits at most once and has one worker at a time."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Hashable

K = TypeVar("K", bound="Hashable")

_FIRST_DELAY: Final = 0.2
_LONGEST_DELAY: Final = 5.0


class WorkQueue(Generic[K]):
    """Keys to work on. A key added while it is being worked on comes again afterwards."""

    def __init__(self) -> None:
        self._waiting: asyncio.Queue[K] = asyncio.Queue()
        self._queued: set[K] = set()
        self._working: set[K] = set()
        self._again: set[K] = set()
        self._failures: dict[K, int] = {}
        self._delayed: dict[K, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        return len(self._queued) + len(self._working)

    def add(self, key: K) -> None:
        """Have the key worked on as soon as a worker is free."""
        delayed = self._delayed.pop(key, None)
        if delayed is not None:
            delayed.cancel()
        if key in self._working:
            self._again.add(key)
        elif key not in self._queued:
            self._queued.add(key)
            self._waiting.put_nowait(key)

    def retry(self, key: K, at_least: float = 0.0) -> float:
        """Have it worked on after a pause that doubles with each failure in a row; returns the seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        delay = max(at_least, min(_LONGEST_DELAY, _FIRST_DELAY * 2.0 ** min(failures, 16)))
        if key not in self._delayed:
            self._delayed[key] = asyncio.get_running_loop().call_later(delay, self._due, key)
        return delay

    def succeeded(self, key: K) -> None:
        """Forget the failures of the key."""
        self._failures.pop(key, None)

    def hurry(self) -> None:
        """What waits for its next try is tried now: what they all failed of is over."""
        for key in tuple(self._delayed):
            self.add(key)

    @asynccontextmanager
    async def next(self) -> AsyncIterator[K]:
        """The next key, held until the block is left."""
        key = await self._waiting.get()
        self._queued.discard(key)
        self._working.add(key)
        try:
            yield key
        finally:
            self._working.discard(key)
            if key in self._again:
                self._again.discard(key)
                self.add(key)

    def _due(self, key: K) -> None:
        self._delayed.pop(key, None)
        self.add(key)
