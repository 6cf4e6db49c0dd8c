"""Find the keys whose rows differ: digests of chunks on both sides at once, then a closer look where they do.

Spans partition each side by that side's own order, and the first and the last one are open-ended. So every
row of either store is in exactly one of them, and two rows that differ make two digests differ.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final, Self, TypeVar

from shadowfault_api.verifier.errors import TooSlowError
from shadowfault_api.verifier.stores import Digest, Key, Span

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from shadowfault_api.verifier.pace import Pace
    from shadowfault_api.verifier.stores import Store

_T = TypeVar("_T")
_PARTS: Final = 16


@dataclass(frozen=True, slots=True)
class Chunk:
    """A span and its digests."""

    span: Span
    primary: Digest
    shadow: Digest

    @property
    def differs(self) -> bool:
        """Whether a row of it does."""
        return self.primary != self.shadow

    @property
    def rows(self) -> int:
        """Rows of the side that has more."""
        return max(self.primary.rows, self.shadow.rows)


class Scanner:
    """Scans two stores.

    Attributes:
        leaf: rows of a span that is not cut again but looked at row by row, and keys given at a time.
    """

    def __init__(  # noqa: PLR0913 - by name
        self,
        primary: Store,
        shadow: Store,
        pace: Pace,
        *,
        leaf: int,
        rest: Callable[[float], None],
        pool: ThreadPoolExecutor,
    ) -> None:
        """`rest` is called between two looks with the seconds to wait, and may raise to end the scan."""
        self._primary = primary
        self._shadow = shadow
        self._pace = pace
        self._rest = rest
        self._pool = pool
        self.leaf = leaf

    @classmethod
    @contextmanager
    def opened(
        cls, primary: Store, shadow: Store, pace: Pace, *, leaf: int, rest: Callable[[float], None]
    ) -> Iterator[Self]:
        """Make one with a thread for each side."""
        with ThreadPoolExecutor(2, "verifier") as pool:
            yield cls(primary, shadow, pace, leaf=leaf, rest=rest, pool=pool)

    def chunks(self, span: Span) -> Iterator[Chunk]:
        """Digest a span, chunk by chunk, in the order of the key."""
        after, size, leaders = span.after, self._pace.start(), (self._primary, self._shadow)
        while True:
            began = time.monotonic()
            try:
                upto = self._edge(Span(after, span.upto), size, leaders)
                chunk = self._digested(Span(after, upto))
            except TooSlowError:
                # The side that sets the edges may have few rows where the other has very many.
                leaders = leaders[::-1]
                smaller = self._pace.smaller(size)
                if smaller is None:
                    raise
                size = smaller
                self._rest(0.0)
                continue
            yield chunk
            seconds = time.monotonic() - began
            self._rest(self._pace.pause(chunk.rows, seconds))
            if upto == span.upto:
                return
            after, size = upto, self._pace.next_size(size, seconds)

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
        here, there = self._both(lambda store: store.prints_of(keys))
        return [key for key in keys if here.get(key) != there.get(key)]

    def _edge(self, span: Span, size: int, leaders: Sequence[Store]) -> Key | None:
        for store in leaders:
            found = store.boundary(span, size)
            if found is not None:
                return found
        return span.upto

    def _digested(self, span: Span) -> Chunk:
        return Chunk(span, *self._both(lambda store: store.digest(span)))

    def _cut(self, chunk: Chunk, rows: int) -> Iterator[Span]:
        """Cut a chunk by the keys of the side that has more rows."""
        store = self._primary if chunk.primary.rows >= chunk.shadow.rows else self._shadow
        after = chunk.span.after
        while (edge := store.boundary(Span(after, chunk.span.upto), rows)) is not None:
            yield Span(after, edge)
            after = edge
        yield Span(after, chunk.span.upto)

    def _unequal(self, span: Span) -> Iterator[list[Key]]:
        here, there = self._both(lambda store: store.prints(span))
        # Not by order: two servers may not agree on one.
        keys = iter([key for key in here.keys() | there.keys() if here.get(key) != there.get(key)])
        while found := list(islice(keys, self.leaf)):
            yield found

    def _both(self, look: Callable[[Store], _T]) -> tuple[_T, _T]:
        """Look at both sides at once."""
        futures = [self._pool.submit(look, store) for store in (self._primary, self._shadow)]
        here, there = (future.exception() or future for future in futures)  # both have ended
        for outcome in (here, there):
            if isinstance(outcome, BaseException):
                raise outcome
        return futures[0].result(), futures[1].result()
