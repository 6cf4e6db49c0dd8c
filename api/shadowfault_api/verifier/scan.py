"""Find the keys whose rows differ: digests of chunks on both sides at once, then a closer look where they do.

Spans partition each side by that side's own order, and the first and the last one are open-ended. So every
row of either store is in exactly one of them, and two rows that differ make two digests differ.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Final, Self

from shadowfault_api.verifier.course import Chunk, Course, edge_of
from shadowfault_api.verifier.errors import TooSlowError
from shadowfault_api.verifier.lanes import Lanes
from shadowfault_api.verifier.stores import Key, Span, Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import datetime

    from shadowfault_api.verifier.pace import Pace
    from shadowfault_api.verifier.stores import Changed, Store

_PARTS: Final = 16
# Rows that changed at about the same time, in one statement as an example, are not told apart by it.
_SHORTEST_WINDOW: Final = timedelta(milliseconds=10)


def _middle(window: Window, now: datetime) -> datetime | None:
    """Halve a window; None for one that is too short."""
    end = now if window.before is None else window.before
    return window.since + (end - window.since) / 2 if end - window.since > _SHORTEST_WINDOW else None


class Scanner:
    """Scans two stores.

    Attributes:
        leaf: rows of a span that is not cut again but looked at row by row, and keys given at a time.
    """

    def __init__(self, lanes: Lanes, pace: Pace, *, leaf: int, rest: Callable[[float], None]) -> None:
        """`rest` is called between two looks with the seconds to wait, and may raise to end the scan."""
        self._lanes = lanes
        self._pace = pace
        self._rest = rest
        self.leaf = leaf

    @classmethod
    @contextmanager
    def opened(
        cls, primary: Store, shadow: Store, pace: Pace, *, leaf: int, rest: Callable[[float], None]
    ) -> Iterator[Self]:
        """Make one with a thread for each side."""
        with Lanes.opened(primary, shadow) as lanes:
            yield cls(lanes, pace, leaf=leaf, rest=rest)

    def chunks(self, span: Span) -> Iterator[Chunk]:
        """Digest a span, chunk by chunk, in the order of the key.

        The next chunk is under way meanwhile: what differs in it may no longer do so when it is given.
        """
        return Course(self._lanes, span, self._pace, self._rest).chunks()

    def differing(self, chunk: Chunk) -> Iterator[list[Key]]:
        """Find the keys of a chunk whose rows are not the same, at most `leaf` at a time."""
        remaining = [chunk]
        while remaining:
            one = remaining.pop()
            self._rest(0.0)
            if one.rows <= self.leaf:
                yield from self._unequal(one.span)
            elif not (one.primary.rows and one.shadow.rows):
                for part in self._cut(one, self.leaf):
                    yield from self._unequal(part)
            else:
                spans = list(self._cut(one, -(-one.rows // _PARTS)))
                if one.span in spans:  # rows came or went meanwhile: what cannot be cut is read as it is
                    yield from self._unequal(one.span)
                    continue
                remaining.extend(part for part in map(self._digested, spans) if part.differs)

    def differing_of(self, keys: Sequence[Key]) -> list[Key]:
        """Find those of some keys whose rows are not the same."""
        here, there = self._lanes.both(lambda store: store.prints_of(keys))
        return [key for key in keys if here.get(key) != there.get(key)]

    def changed(self, since: datetime, now: datetime, page: int) -> Iterator[tuple[int, list[Key]]]:
        """Look at the rows that say that they changed at `since` or later, on either side.

        A window of time in which both sides digest alike holds the same rows; one that differs is halved, and
        in the end its keys are given, `page` at a time. Tombstones are no part of digests: their keys are
        given too.

        Returns:
            Rows found equal, and keys to look at.
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
            for store in (self._lanes.primary.store, self._lanes.shadow.store):
                yield from self._changed_of(store, window, page, dead=False)
        for store in (self._lanes.primary.store, self._lanes.shadow.store):
            yield from self._changed_of(store, Window(since), page, dead=True)

    def _alike(self, window: Window) -> tuple[int, bool]:
        """Digest a window on both sides; returns its rows, and whether they are the same."""
        began = time.monotonic()
        try:
            here, there = self._lanes.both(lambda store: store.digest_changed(window))
        except TooSlowError:
            return self.leaf + 1, False  # too many to be looked at one by one
        rows = max(here.rows, there.rows)
        self._rest(self._pace.pause(rows, time.monotonic() - began))
        return rows, here == there

    def _changed_of(
        self, store: Store, window: Window, page: int, *, dead: bool
    ) -> Iterator[tuple[int, list[Key]]]:
        after: Changed | None = None
        while True:
            began = time.monotonic()
            found = store.changed(window, after, page, dead=dead)
            if found:
                yield 0, [row.key for row in found]
            self._rest(self._pace.pause(len(found), time.monotonic() - began))
            if len(found) < page:
                return
            after = found[-1]

    def _digested(self, span: Span) -> Chunk:
        return Chunk(span, *self._lanes.both(lambda store: store.digest(span)))

    def _cut(self, chunk: Chunk, rows: int) -> Iterator[Span]:
        """Cut a chunk by the keys of the side that has more rows."""
        lane = self._lanes.primary if chunk.primary.rows >= chunk.shadow.rows else self._lanes.shadow
        after = chunk.span.after
        while (edge := lane.ask(edge_of(Span(after, chunk.span.upto), rows)).result()) is not None:
            yield Span(after, edge)
            after = edge
        yield Span(after, chunk.span.upto)

    def _unequal(self, span: Span) -> Iterator[list[Key]]:
        here, there = self._lanes.both(lambda store: store.prints(span))
        # Not by order: two servers may not agree on one.
        keys = iter([key for key in here.keys() | there.keys() if here.get(key) != there.get(key)])
        while found := list(islice(keys, self.leaf)):
            yield found
