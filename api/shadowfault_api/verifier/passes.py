"""One pass over the stores: which rows it looks at, in which order, and what is stored on the way."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Final

import structlog

from shadowfault_api.verifier import sweep_store
from shadowfault_api.verifier.changes import Changes
from shadowfault_api.verifier.clock import Clock
from shadowfault_api.verifier.examine import Examiner
from shadowfault_api.verifier.lanes import Lanes
from shadowfault_api.verifier.options import Mode
from shadowfault_api.verifier.readers import PrimaryReader, ShadowReader
from shadowfault_api.verifier.recorder import Recorder
from shadowfault_api.verifier.report import SweepNote, VerifierReport
from shadowfault_api.verifier.settle import Settler, names
from shadowfault_api.verifier.stores import Key, Span
from shadowfault_api.verifier.stores.opening import open_stores
from shadowfault_api.verifier.sweep import Tally, rows_due
from shadowfault_api.verifier.sweeping import Sweeper
from shadowfault_api.verifier.tables import LISTINGS, SHADOW_LISTINGS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from sqlalchemy import Connection

    from shadowfault_api.verifier.model import Entity
    from shadowfault_api.verifier.options import VerifierOptions
    from shadowfault_api.verifier.side import Side
    from shadowfault_api.verifier.stores import Store
    from shadowfault_api.verifier.sweep import Sweep

_log: Final = structlog.get_logger("shadowfault.verifier")
# An incremental pass asks for the keys of so many chunks at a time: nothing is digested yet.
_PAGE: Final = 5
# Keys an incremental pass remembers, so as not to look twice at a row that changed on both sides.
_REMEMBERED_KEYS: Final = 100_000
# Open discrepancies it looks at again, those not looked at for longest: its cost must not grow with them.
_MOST_KNOWN: Final = 10_000


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a pass leaves: its report, and what the next incremental one begins with, where it knows."""

    report: VerifierReport
    watermark: datetime | None


class Pass:
    """One run's look at the stores. The caller holds the verifier's lock."""

    def __init__(
        self, primary: Side, shadow: Side, entity: Entity, run_id: str, options: VerifierOptions
    ) -> None:
        here, there, _ = open_stores(
            (primary, LISTINGS), (shadow, SHADOW_LISTINGS), portable=options.portable
        )
        self.clock = Clock.of(primary)
        self.started_at = self.clock.now()
        self._primary = primary
        self._stores = (here, there)
        self._recorder = Recorder(primary, entity.entity_type, run_id, self.clock.now)
        examiner = Examiner(PrimaryReader(primary, entity, here), ShadowReader(shadow, entity, there), entity)
        self._settler = Settler(examiner, self._recorder, entity, run_id)
        self.sweeper = Sweeper(primary, self._stores, self._settler, self.clock, run_id, options)
        self._entity = entity
        self._run_id = run_id
        self._options = options

    def run(self) -> Outcome:
        """Make the pass that the options ask for.

        Raises:
            VerificationError: it did not come to its end; how far it came is stored.
        """
        if self._options.incremental:
            with self._primary.snapshot() as connection:
                since, then = self._watermarks(connection)
            if since is not None:
                return self._incremental(since, then)
        return self._full()

    def changes(self) -> Outcome | None:
        """Look at what changed, and at no piece of a sweep; None where there has been no whole sweep."""
        with self._primary.snapshot() as connection:
            since, then = self._watermarks(connection)
            sweep = sweep_store.last_through(connection, self._entity.entity_type)
        if since is None or sweep is None:
            return None
        tally, changed = self._changed(since, self.started_at)
        return self._reported(sweep, tally, changed, then, resumed=False)

    def estimate(self) -> int:
        """Tell roughly how many rows there are, by the side that has more."""
        return max(self._sizes)

    def cut(self, parts: int, estimated: int) -> list[Span | None]:
        """Cut the keys into parts of about as many rows; None for those too few rows leave without any."""
        store = self._stores[self._sizes.index(max(self._sizes))]
        return list(_cut(store, parts, math.ceil(estimated / parts)))

    def finish(self, sweep: Sweep) -> None:
        """Enter the end of a sweep that is through."""
        with self._primary.writing() as connection:
            sweep_store.finish(connection, sweep, self.clock.now())

    def report(  # noqa: PLR0913 - by name
        self,
        mode: Mode,
        sweep: SweepNote,
        tally: Tally,
        *,
        started_at: datetime,
        counted_since: datetime,
        changed_keys: int | None = None,
    ) -> VerifierReport:
        """Settle what is on record and was not met, count what is open, and report."""
        tally.add(
            self._settler.settle_known(
                started_at,
                counted_since,
                self._options.page,
                lambda: self._options.rest(0.0),
                most=None if mode is Mode.FULL else _MOST_KNOWN,
            )
        )
        left = self._recorder.count_open()
        return VerifierReport(
            run_id=self._run_id,
            entity_type=self._entity.entity_type,
            mode=mode,
            sweep=sweep,
            changed_keys=changed_keys,
            started_at=started_at,
            finished_at=self.clock.now(),
            scanned_primary=tally.primary,
            scanned_shadow=tally.shadow,
            in_flight=tally.in_flight,
            new=tally.new,
            persisting=tally.persisting,
            resolved=tally.resolved,
            open=left.total,
            unexplained=left.unexplained,
            by_type=left.by_type,
            by_cause=left.by_cause,
            scan_seconds=tally.scan_seconds,
            recheck_seconds=tally.recheck_seconds,
        )

    @cached_property
    def _sizes(self) -> list[int]:
        """Roughly the rows of each store; asked for once, for some count to tell."""
        return [store.estimate() for store in self._stores]

    def _watermarks(self, connection: Connection) -> tuple[datetime | None, datetime]:
        """Tell what this pass may begin with, and the next one; to be asked before anything is looked at."""
        entity_type = self._entity.entity_type
        since = sweep_store.watermark(connection, entity_type)
        if since is not None:
            since = min(since, self.started_at)  # a clock may have been ahead
        return since, sweep_store.next_watermark(connection, entity_type, self.started_at)

    def _full(self) -> Outcome:
        # A first pass that is asked to be incremental goes on where it stopped: a big table may take several.
        resuming = self._options.resume or self._options.incremental
        sweep, resumed = self._sweep(resuming=resuming)
        if self._options.resume:
            _log.info(
                "sweep_resumed" if resumed else "no_sweep_to_resume",
                run_id=self._run_id,
                sweep_id=sweep.id,
                rows=sweep.tally.rows,
                estimated_rows=sweep.estimated,
            )
        self.sweeper.go_through(sweep, list(sweep.left), None, sweep.started_at)
        tally = sweep.tally
        if resumed:
            # What it passed may have changed since, and it may have begun long ago.
            tally.add(self._changed(sweep.watermark, sweep.started_at)[0])
        self.finish(sweep)
        report = self.report(
            Mode.FULL,
            SweepNote.of(sweep, resumed=resumed),
            tally,
            started_at=self.started_at,
            counted_since=sweep.started_at,
        )
        return Outcome(report, None)

    def _incremental(self, since: datetime, watermark: datetime) -> Outcome:
        tally, changed = self._changed(since, self.started_at)
        sweep, resumed = self._sweep(resuming=True)
        quota = rows_due(sweep, self.started_at, self._options.full_every)
        tally.add(self.sweeper.go_through(sweep, list(sweep.left), quota, self.started_at))
        if sweep.through:
            self.finish(sweep)
            self._begin()  # at once, so that it is through in time
        return self._reported(sweep, tally, changed, watermark, resumed=resumed)

    def _reported(
        self, sweep: Sweep, tally: Tally, changed: int, watermark: datetime, *, resumed: bool
    ) -> Outcome:
        report = self.report(
            Mode.INCREMENTAL,
            SweepNote.of(sweep, resumed=resumed),
            tally,
            started_at=self.started_at,
            counted_since=self.started_at,
            changed_keys=changed,
        )
        return Outcome(report, watermark)

    def _sweep(self, *, resuming: bool) -> tuple[Sweep, bool]:
        """Take up the sweep that is going on, or begin one; returns whether it was taken up."""
        if resuming:
            with self._primary.snapshot() as connection:
                sweep = sweep_store.going_on(connection, self._entity.entity_type)
            if sweep is not None and sweep.started_at <= self.started_at:
                estimated = self.estimate()
                with self._primary.writing() as connection:
                    due_at = self._options.due(sweep.started_at)
                    sweep_store.adopt(connection, sweep, self._run_id, estimated, due_at)
                return sweep, True
        return self._begin(), False

    def _begin(self) -> Sweep:
        estimated, now = self.estimate(), self.clock.now()
        with self._primary.writing() as connection:
            return sweep_store.begin(
                connection,
                self._entity.entity_type,
                self._run_id,
                [Span()],
                started_at=now,
                estimated=estimated,
                due_at=self._options.due(now),
            )

    def _changed(self, since: datetime, counted_since: datetime) -> tuple[Tally, int]:
        """Look at the keys that say they changed, and at those whose shadow write failed."""
        tally, looked_at = Tally(), 0
        seen: set[Key] = set()
        mark = time.monotonic()
        with Lanes.opened(*self._stores) as lanes:
            changes = Changes(
                lanes=lanes,
                leaf=self._options.page,
                page=self._options.page if self._options.rows_per_second else _PAGE * self._options.page,
                rest=self._options.rest,
            )
            for equal, page in self._candidates(changes, since):
                looked_at += equal
                keys = [key for key in page if key not in seen]
                if len(seen) < _REMEMBERED_KEYS:
                    seen.update(keys)
                looked_at += len(keys)
                suspects = iter(changes.differing(keys))
                while some := list(islice(suspects, self._options.page)):
                    tally.add(self._settler.settle(names(some), counted_since))
        tally.scan_seconds = time.monotonic() - mark - tally.recheck_seconds
        return tally, looked_at

    def _candidates(self, changes: Changes, since: datetime) -> Iterator[tuple[int, list[Key]]]:
        """Give rows found equal, and keys to look at."""
        yield from changes.since(since - self._options.overlap, self.started_at)
        after = 0
        while True:
            with self._primary.snapshot() as connection:
                rows = sweep_store.failed_keys(
                    connection, self._entity.entity_type, after, self._options.page
                )
            if not rows:
                return
            yield 0, list(dict.fromkeys((row.entity_id,) for row in rows))
            after = rows[-1].id
            self._options.rest(0.0)


def _cut(store: Store, parts: int, rows: int) -> Iterator[Span | None]:
    after: Key | None = None
    for number in range(1, parts + 1):
        edge = store.boundary(Span(after), rows) if number < parts and rows else None
        yield Span(after, edge)
        if edge is None:
            yield from [None] * (parts - number)
            return
        after = edge
