"""Several processes that share one run: the pods of an Indexed Job, each with a part of the keys.

Whoever comes first enters the run and cuts the keys; the others read where their part is. Whoever ends last
puts the parts together. Both are decided under one lock, in one transaction. A shard that fails enters no end
of the run: it is started again, and goes on from its part's cursor.

Where passes are incremental, shards share the sweep when it is due. Until then the one that comes first looks
at what changed, and the others have nothing to do.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, Final, TypeVar

from sqlalchemy import text

from shadowfault_api.store.locks import SHARDS_LOCK_KEY
from shadowfault_api.verifier import runs, sweep_store
from shadowfault_api.verifier.errors import AlreadyRunningError, ShardError
from shadowfault_api.verifier.lock import PartLocks, shared
from shadowfault_api.verifier.model import LISTING_ENTITY
from shadowfault_api.verifier.options import Mode, VerifierOptions
from shadowfault_api.verifier.passes import Pass
from shadowfault_api.verifier.report import ShardReport, SweepNote
from shadowfault_api.verifier.run import Database, sides_of, watched

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from sqlalchemy import Connection

    from shadowfault_api.verifier.report import VerifierReport
    from shadowfault_api.verifier.side import Side
    from shadowfault_api.verifier.sweep import Sweep

_T = TypeVar("_T")
_LOOK_SECONDS: Final = 0.2
# The session of a pod that was killed may outlive it by so much.
_PREDECESSOR_SECONDS: Final = 30.0
MOST_SHARDS: Final = 100
# How a run is entered that one shard makes alone.
_ALONE: Final = {"mode": Mode.INCREMENTAL.value}


@dataclass(frozen=True, slots=True)
class Shard:
    """Which part of which run.

    Attributes:
        number: from 0.
        count: how many there are.
        run_id: the same for all of them, and no other run's.
    """

    number: int
    count: int
    run_id: str

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            ValueError: saying what.
        """
        if not 1 <= self.count <= MOST_SHARDS:
            raise ValueError(f"shards must be from 1 to {MOST_SHARDS}")
        if not 0 <= self.number < self.count:
            raise ValueError(f"of {self.count} shards there is no number {self.number}: they begin with 0")
        if not 1 <= len(self.run_id) <= 36:
            raise ValueError("the id of a run has 1 to 36 characters")


class _Step(Enum):
    ALONE = auto()
    SWEEP = auto()
    MERGE = auto()
    NOTHING = auto()
    WAIT = auto()


def verify_shard(
    primary: Database,
    shadow: Database,
    shard: Shard,
    *,
    trigger: runs.Trigger = "cli",
    options: VerifierOptions | None = None,
) -> ShardReport | VerifierReport:
    """Do one part of a pass. Blocks: run it in a thread.

    Returns:
        What this shard did; of the one that ends last, the report of all of them together.

    Raises:
        VerificationError: its part was not looked at to the end; start it again, and it goes on.
    """
    chosen = options or VerifierOptions()
    with sides_of(primary, shadow, chosen) as sides:
        if not sides[0].postgresql:
            raise ShardError("shards need PostgreSQL as the primary: SQLite has no locks that are shared")
        with shared(sides[0]) as locks:
            chosen = watched(chosen, locks, sides)
            return _Sharded(sides, locks, shard, trigger, chosen).run()


class _Sharded:
    def __init__(
        self,
        sides: tuple[Side, Side],
        locks: PartLocks,
        shard: Shard,
        trigger: runs.Trigger,
        options: VerifierOptions,
    ) -> None:
        self._primary = sides[0]
        self._locks = locks
        self._shard = shard
        self._trigger = trigger
        self._options = options
        self._pass = Pass(*sides, LISTING_ENTITY, shard.run_id, options)

    def run(self) -> ShardReport | VerifierReport:
        step, sweep = self._joined()
        tally = None
        if step is _Step.ALONE:
            return self._alone()
        if step is _Step.SWEEP and sweep is not None:
            part = sweep.parts[self._shard.number]
            self._pass.sweeper.go_through(sweep, [part], None, sweep.started_at)
            tally = part.tally
            step, sweep = self._together(self._leave)
        if step is _Step.MERGE and sweep is not None:
            return self._merged(sweep)
        return ShardReport(
            run_id=self._shard.run_id,
            entity_type=LISTING_ENTITY.entity_type,
            shard=self._shard.number,
            shards=self._shard.count,
            tally=tally,
        )

    def _joined(self) -> tuple[_Step, Sweep | None]:
        give_up = time.monotonic() + _PREDECESSOR_SECONDS
        while True:
            step, sweep = self._together(self._join)
            if step is not _Step.WAIT:
                return step, sweep
            if time.monotonic() > give_up:
                raise AlreadyRunningError(
                    f"shard {self._shard.number} of run {self._shard.run_id} is at work already"
                )
            self._options.rest(_LOOK_SECONDS)

    def _join(self, connection: Connection) -> tuple[_Step, Sweep | None]:
        """Find the part of this shard, or make the parts."""
        entry = runs.entry(connection, self._shard.run_id)
        if entry is None:
            sweep = self._begin(connection)
            if sweep is None:
                return _Step.ALONE, None
        elif entry.state == "succeeded":
            return _Step.NOTHING, None
        elif entry.result == _ALONE:
            return _Step.ALONE if self._locks.claim(PartLocks.ALONE) else _Step.NOTHING, None
        else:
            sweep = sweep_store.of_run(connection, self._shard.run_id)
        if sweep is None:
            raise ShardError(f"run {self._shard.run_id} is over: another verification has begun since")
        return self._place(connection, sweep)

    def _place(self, connection: Connection, sweep: Sweep) -> tuple[_Step, Sweep | None]:
        """Find out what there is to do for this shard."""
        if len(sweep.parts) != self._shard.count:
            raise ShardError(f"run {self._shard.run_id} has {len(sweep.parts)} shards")
        if sweep.through:
            return self._to_merge(connection, sweep)
        if sweep.parts[self._shard.number].ended:
            return _Step.NOTHING, None
        if not self._locks.claim(self._shard.number):
            return _Step.WAIT, None
        runs.reopen(connection, self._shard.run_id)
        return _Step.SWEEP, sweep

    def _begin(self, connection: Connection) -> Sweep | None:
        """Enter the run and its parts; None where there is no sweep to be shared."""
        if self._locks.others_work():
            raise AlreadyRunningError(
                f"shards of another verification of {self._primary.described()} are at work: wait for them"
            )
        runs.abandon_others(connection, self._shard.run_id)
        now = self._pass.clock.now()
        if not self._is_due(connection, now):
            runs.enter(connection, self._shard.run_id, self._trigger, now, _ALONE)
            self._locks.claim(PartLocks.ALONE)
            return None
        runs.enter(connection, self._shard.run_id, self._trigger, now)
        estimated = self._pass.estimate()
        due_at = self._options.due(now)
        left = sweep_store.going_on(connection, LISTING_ENTITY.entity_type)
        if self._options.incremental and left is not None and len(left.parts) == self._shard.count:
            # Of a run that was given up: it goes on, or a table too big for one run would never be through.
            sweep_store.adopt(connection, left, self._shard.run_id, estimated, due_at)
            return left
        return sweep_store.begin(
            connection,
            LISTING_ENTITY.entity_type,
            self._shard.run_id,
            self._pass.cut(self._shard.count, estimated),
            started_at=now,
            estimated=estimated,
            due_at=due_at,
        )

    def _is_due(self, connection: Connection, now: datetime) -> bool:
        if not self._options.incremental:
            return True
        last = sweep_store.last_through(connection, LISTING_ENTITY.entity_type)
        return last is None or now - last.started_at >= self._options.full_every

    def _alone(self) -> VerifierReport:
        outcome = self._pass.changes()
        if outcome is None:
            raise ShardError("the last sweep is gone: start the run again")
        report = outcome.report
        with self._primary.writing() as connection:
            runs.reopen(connection, self._shard.run_id)
            runs.succeed(
                connection, self._shard.run_id, report.entity_type, report.as_dict(), outcome.watermark
            )
        return report

    def _leave(self, connection: Connection) -> tuple[_Step, Sweep | None]:
        """Find out whether this shard was the last."""
        sweep = sweep_store.of_run(connection, self._shard.run_id)
        if sweep is None or not sweep.through:
            return _Step.NOTHING, None
        return self._to_merge(connection, sweep)

    def _to_merge(self, connection: Connection, sweep: Sweep) -> tuple[_Step, Sweep | None]:
        if not self._locks.claim(PartLocks.MERGE):
            return _Step.NOTHING, None
        # Asked under that lock: another shard may have merged, and ended, since this one finished its part.
        entry = runs.entry(connection, self._shard.run_id)
        if entry is not None and entry.state == "succeeded":
            return _Step.NOTHING, None
        runs.reopen(connection, self._shard.run_id)
        return _Step.MERGE, sweep

    def _merged(self, sweep: Sweep) -> VerifierReport:
        with self._primary.snapshot() as connection:
            entry = runs.entry(connection, self._shard.run_id)
        began = sweep.started_at if entry is None else entry.started_at
        report = self._pass.report(
            Mode.FULL,
            SweepNote.of(sweep, resumed=began > sweep.started_at),
            sweep.tally,
            started_at=began,
            counted_since=sweep.started_at,
        )
        with self._primary.writing() as connection:
            sweep_store.finish(connection, sweep, self._pass.clock.now())
            runs.succeed(connection, self._shard.run_id, report.entity_type, report.as_dict())
        return report

    def _together(self, work: Callable[[Connection], _T]) -> _T:
        """Do something in a transaction, one shard at a time; whoever cuts the keys may take a while."""
        lock = text(f"SELECT pg_try_advisory_xact_lock({SHARDS_LOCK_KEY})")
        while True:
            with self._primary.writing() as connection:
                if connection.execute(lock).scalar_one():
                    return work(connection)
            self._options.rest(_LOOK_SECONDS)
