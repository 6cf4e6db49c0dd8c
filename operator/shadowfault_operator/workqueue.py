"""A queue of keys, as controllers have it: each waits at most once and has one worker at a time."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Hashable

K = TypeVar("K", bound="Hashable")

_FIRST_DELAY: Final = 0.2
_LONGEST_DELAY: Final = 5.0


@dataclass(frozen=True, slots=True, order=True)
class _Turn(Generic[K]):
    late: bool
    number: int
    key: K = field(compare=False)


class WorkQueue(Generic[K]):
    """Keys to work on. A key added while it is being worked on comes again afterwards."""

    def __init__(self) -> None:
        # What waits, with when it came; those that may wait come after all others.
        self._waiting: asyncio.PriorityQueue[_Turn[K]] = asyncio.PriorityQueue()
        self._turns = itertools.count()
        # Keys in the queue, and whether they may wait.
        self._queued: dict[K, bool] = {}
        self._working: set[K] = set()
        self._again: dict[K, bool] = {}
        self._failures: dict[K, int] = {}
        self._delayed: dict[K, asyncio.TimerHandle] = {}

    def __len__(self) -> int:
        return len(self._queued) + len(self._working)

    @property
    def pressing(self) -> bool:
        """Whether a key waits that is not a late one."""
        return not all(self._queued.values())

    def add(self, key: K, *, late: bool = False) -> None:
        """Have the key worked on as soon as a worker is free; if `late`, one that nobody else waits for."""
        delayed = self._delayed.pop(key, None)
        if delayed is not None:
            delayed.cancel()
        if key in self._working:
            self._again[key] = late and self._again.get(key, True)
        elif key not in self._queued or (self._queued[key] and not late):
            # One that waits late and is added again has two turns, of which the second finds nothing.
            self._queued[key] = late
            self._waiting.put_nowait(_Turn(late, next(self._turns), key))

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
        key = (await self._waiting.get()).key
        while key not in self._queued:
            key = (await self._waiting.get()).key
        del self._queued[key]
        self._working.add(key)
        try:
            yield key
        finally:
            self._working.discard(key)
            if key in self._again:
                self.add(key, late=self._again.pop(key))

    def _due(self, key: K) -> None:
        self._delayed.pop(key, None)
        self.add(key)
