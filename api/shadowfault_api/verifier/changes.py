"""Find the keys to look at among rows that say they changed: digests of windows of time on both sides.

A window in which both sides digest alike holds the same rows. One that differs is halved, and in the end its
keys are given. Tombstones are no part of digests: their keys are given too.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from shadowfault_api.verifier.errors import TooSlowError
from shadowfault_api.verifier.stores import Changed, Key, Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Executor
    from datetime import datetime

    from shadowfault_api.verifier.pace import Pace
    from shadowfault_api.verifier.stores import Store

# Rows that changed at about the same time, in one statement as an example, are not told apart by it.
_SHORTEST_WINDOW: Final = timedelta(milliseconds=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """The rows of two stores that say that they changed.

    Attributes:
        leaf: rows of a window that is not halved again.
        page: keys given at a time.
        rest: called between two looks with the seconds to wait; it may raise to end the scan.
        pool: two threads, for both sides at once.
    """

    primary: Store
    shadow: Store
    pace: Pace
    leaf: int
    page: int
    rest: Callable[[float], None]
    pool: Executor

    def since(self, since: datetime, now: datetime) -> Iterator[tuple[int, list[Key]]]:
        """Look at those that changed at `since` or later, on either side.

        Returns:
            Rows found equal, and keys to look at; a key may be given twice.
        """
        windows = [Window(since)]
        while windows:
            window = windows.pop()
            rows, alike = self._alike(window)
            if alike:
                yield rows, []
                continue
            middle = None if rows <= self.leaf else _middle(window, now)
            if middle is not None:  # the earlier half first: what changes meanwhile moves to the later one
                windows += [Window(middle, window.before), Window(window.since, middle)]
                continue
            for store in (self.primary, self.shadow):
                yield from self._keys(store, window, dead=False)
        for store in (self.primary, self.shadow):
            yield from self._keys(store, Window(since), dead=True)

    def _alike(self, window: Window) -> tuple[int, bool]:
        """Digest a window on both sides; returns its rows, and whether they are the same."""
        began = time.monotonic()
        futures = [self.pool.submit(store.digest_changed, window) for store in (self.primary, self.shadow)]
        for future in futures:  # both have ended before anything else is asked
            future.exception()
        try:
            here, there = (future.result() for future in futures)
        except TooSlowError:
            return self.leaf + 1, False  # too many to be looked at one by one
        rows = max(here.rows, there.rows)
        self.rest(self.pace.pause(rows, time.monotonic() - began))
        return rows, here == there

    def _keys(self, store: Store, window: Window, *, dead: bool) -> Iterator[tuple[int, list[Key]]]:
        after: Changed | None = None
        while True:
            began = time.monotonic()
            found = store.changed(window, after, self.page, dead=dead)
            if found:
                yield 0, [row.key for row in found]
            self.rest(self.pace.pause(len(found), time.monotonic() - began))
            if len(found) < self.page:
                return
            after = found[-1]


def _middle(window: Window, now: datetime) -> datetime | None:
    """Halve a window; None for one that is too short."""
    end = now if window.before is None else window.before
    return window.since + (end - window.since) / 2 if end - window.since > _SHORTEST_WINDOW else None
