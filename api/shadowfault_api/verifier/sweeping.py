"""Going through the rows of a sweep, part by part from its cursor: what differs is settled, then it moves."""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from shadowfault_api.verifier import sweep_store
from shadowfault_api.verifier.errors import TooSlowError, VerificationError
from shadowfault_api.verifier.progress import Standing
from shadowfault_api.verifier.scan import Scanner
from shadowfault_api.verifier.settle import names
from shadowfault_api.verifier.stores import Span
from shadowfault_api.verifier.sweep import Tally

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from shadowfault_api.verifier.clock import Clock
    from shadowfault_api.verifier.course import Chunk
    from shadowfault_api.verifier.options import VerifierOptions
    from shadowfault_api.verifier.pace import Pace
    from shadowfault_api.verifier.settle import Settler
    from shadowfault_api.verifier.side import Side
    from shadowfault_api.verifier.stores import Store
    from shadowfault_api.verifier.sweep import Part, Sweep

# A cursor is stored this often: what a run that is killed has to do again.
_SAVE_EVERY_SECONDS: Final = 1.0
# A piece of a sweep up to so many first digests is looked at in one.
_FIRST_DIGESTS: Final = 5


@dataclass(frozen=True, slots=True)
class Sweeper:
    """Goes through parts of sweeps for one run; `primary` is where their cursors are stored."""

    primary: Side
    stores: tuple[Store, Store]
    settler: Settler
    clock: Clock
    run_id: str
    options: VerifierOptions

    def go_through(
        self, sweep: Sweep, parts: list[Part], quota: int | None, counted_since: datetime
    ) -> Tally:
        """Look at the rows of some parts of a sweep, from their cursors on; returns what this run counted.

        Args:
            quota: rows after which it is enough; None looks at all that are left.
            counted_since: discrepancies seen since then are in the count already.
        """
        done = Tally()
        # The share of the estimate that these parts are.
        estimated = sum(max(0, sweep.estimated // len(sweep.parts) - part.tally.rows) for part in parts)
        began = time.monotonic()
        leaf, pause = self.options.page, self.options.rest
        with (
            Scanner.opened(*self.stores, self._pace(quota), leaf=leaf, rest=pause) as scanner,
            self.options.progress(self.run_id) as tell,
            self._journal(sweep, parts) as stored,
        ):
            for part in parts:
                span, rows = (part.rest, None) if quota is None else self._piece(part.rest, quota - done.rows)
                for chunk, tally in self._settled(scanner.chunks(span, rows), scanner, counted_since):
                    part.advance(chunk.span.upto, tally)
                    done.add(tally)
                    stored(chunk.differs)
                    tell(Standing(done.rows, quota or estimated, time.monotonic() - began))
                    if quota is not None and done.rows >= quota:
                        return done
        return done

    def _piece(self, span: Span, rows: int) -> tuple[Span, int | None]:
        """Cut off so many rows, one small chunk at least: a scan may begin with what comes after.

        Returns:
            The piece, and how many rows it holds, where that is known.
        """
        rows = max(rows, self.options.pace.least)
        try:
            edge = self.stores[0].boundary(span, rows)
        except TooSlowError:  # so many that it is no matter where exactly they end
            return span, None
        return (span, None) if edge is None else (Span(span.after, edge), rows)

    def _settled(
        self, chunks: Iterator[Chunk], scanner: Scanner, counted_since: datetime
    ) -> Iterator[tuple[Chunk, Tally]]:
        """Settle what differs in some chunks."""
        mark = time.monotonic()
        for chunk in chunks:
            tally = Tally(primary=chunk.primary.rows, shadow=chunk.shadow.rows, rows=chunk.rows)
            if chunk.differs:
                for keys in scanner.differing(chunk):
                    tally.add(self.settler.settle(names(keys), counted_since))
            now = time.monotonic()
            tally.scan_seconds, mark = now - mark - tally.recheck_seconds, now
            yield chunk, tally

    def _pace(self, quota: int | None) -> Pace:
        pace = self.options.pace
        if quota is None:
            return pace
        # Not much more in the end than it is to look at.
        first = max(1, min(_FIRST_DIGESTS * pace.first, quota))
        return replace(pace, first=first, most=max(pace.least, first, min(pace.most, quota // 4)))

    @contextmanager
    def _journal(self, sweep: Sweep, parts: list[Part]) -> Iterator[Callable[[bool], None]]:
        """Give what stores the cursors: about once a second, at once if told so, and however it ends."""
        saved = time.monotonic()

        def save() -> None:
            with self.primary.writing() as connection:
                sweep_store.save(connection, sweep, parts, self.clock.now())

        def moved(urgent: bool) -> None:
            nonlocal saved
            if urgent or time.monotonic() - saved >= _SAVE_EVERY_SECONDS:
                save()
                saved = time.monotonic()

        try:
            yield moved
        except BaseException:
            with suppress(VerificationError):  # the primary is away: the cursor stays where it was stored
                save()
            raise
        save()
