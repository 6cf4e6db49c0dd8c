"""Find the keys to look at among rows that say they changed: digests of windows of time on both sides.

A window in which both sides digest alike holds the same rows. One that differs is halved, and in the end its
keys are given. Tombstones are no part of digests: their keys are given too.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from shadowfault_api.verifier.errors import TooSlowError
from shadowfault_api.verifier.stores import Changed, Key, Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from shadowfault_api.verifier.lanes import Lane, Lanes
    from shadowfault_api.verifier.stores import Store

# Rows that changed at about the same time, in one statement as an example, are not told apart by it.
_SHORTEST_WINDOW: Final = timedelta(milliseconds=10)


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """The rows of two stores that say that they changed.

    Attributes:
        lanes: the two stores.
        leaf: rows of a window that is not halved again.
        page: keys given at a time.
        rest: called between two looks with the seconds to wait; it may raise to end the scan.
    """

    lanes: Lanes
    leaf: int
    page: int
    rest: Callable[[float], None]

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
            for lane in self.lanes:
                yield from self._keys(lane, window, dead=False)
        for lane in self.lanes:
            yield from self._keys(lane, Window(since), dead=True)

    def differing(self, keys: Sequence[Key]) -> list[Key]:
        """Find those of some keys whose rows are not the same."""
        if not keys:
            return []
        here, there = self.lanes.both(lambda store: store.prints_of(keys))
        return [key for key in keys if here.get(key) != there.get(key)]

    def _alike(self, window: Window) -> tuple[int, bool]:
        """Digest a window on both sides; returns its rows, and whether they are the same."""
        try:
            here, there = self.lanes.both(lambda store: store.digest_changed(window))
        except TooSlowError:
            return self.leaf + 1, False  # too many to be looked at one by one
        rows = max(here.rows, there.rows)
        self.rest(0.0)
        return rows, here == there

    def _keys(self, lane: Lane, window: Window, *, dead: bool) -> Iterator[tuple[int, list[Key]]]:
        after: Changed | None = None
        while True:
            found = lane.ask(_page_of(window, after, self.page, dead=dead)).result()
            if found:
                yield 0, [row.key for row in found]
            self.rest(0.0)
            if len(found) < self.page:
                return
            after = found[-1]


def _page_of(
    window: Window, after: Changed | None, limit: int, *, dead: bool
) -> Callable[[Store], list[Changed]]:
    return lambda store: store.changed(window, after, limit, dead=dead)


def _middle(window: Window, now: datetime) -> datetime | None:
    """Halve a window; None for one that is too short."""
    end = now if window.before is None else window.before
    return window.since + (end - window.since) / 2 if end - window.since > _SHORTEST_WINDOW else None
