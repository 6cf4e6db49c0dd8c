"""Find the keys whose rows differ: digests of chunks on both sides at once, then a closer look where they do.

Spans partition each side by that side's own order, and the first and the last one are open-ended. So every
row of either store is in exactly one of them, and two rows that differ make two digests differ.
"""

from __future__ import annotations

from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Final, Self

from shadowfault_api.verifier.course import Chunk, Course
from shadowfault_api.verifier.lanes import Lanes
from shadowfault_api.verifier.stores import Key, Span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from shadowfault_api.verifier.pace import Pace
    from shadowfault_api.verifier.stores import Store

_PARTS: Final = 16


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

    def chunks(self, span: Span, rows: int | None = None) -> Iterator[Chunk]:
        """Digest a span, chunk by chunk, in the order of the key; `rows` is how many one side has there.

        The next chunk is under way meanwhile: what differs in it may no longer do so when it is given.
        """
        return Course(self._lanes, span, self._pace, self._rest, rows).chunks()

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
                # Where its rows went meanwhile it was not cut, and is looked at anew: the other side may have
                # all of them still.
                remaining.extend(part for part in map(self._digested, spans) if part.differs)

    def _digested(self, span: Span) -> Chunk:
        return Chunk(span, *self._lanes.both(lambda store: store.digest(span)))

    def _cut(self, chunk: Chunk, rows: int) -> Iterator[Span]:
        """Cut a chunk by the keys of the side that has more rows."""
        lane = self._lanes.primary if chunk.primary.rows >= chunk.shadow.rows else self._lanes.shadow
        after = chunk.span.after
        while (edge := lane.ask(_boundary_of(Span(after, chunk.span.upto), rows)).result()) is not None:
            yield Span(after, edge)
            after = edge
        yield Span(after, chunk.span.upto)

    def _unequal(self, span: Span) -> Iterator[list[Key]]:
        here, there = self._lanes.both(lambda store: store.prints(span))
        # Not by order: two servers may not agree on one.
        keys = iter([key for key in here.keys() | there.keys() if here.get(key) != there.get(key)])
        while found := list(islice(keys, self.leaf)):
            yield found


def _boundary_of(span: Span, rows: int) -> Callable[[Store], Key | None]:
    return lambda store: store.boundary(span, rows)
