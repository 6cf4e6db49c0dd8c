"""One verification, from the first page to the report."""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import structlog
from sqlalchemy import URL, Engine

from shadowfault_api.store.urls import create_sync_engine
from shadowfault_api.verifier import runs
from shadowfault_api.verifier.checks import check_databases
from shadowfault_api.verifier.errors import VerificationError
from shadowfault_api.verifier.examine import Examiner
from shadowfault_api.verifier.lock import exclusive
from shadowfault_api.verifier.model import (
    LISTING_ENTITY,
    Cause,
    Entity,
    Found,
)
from shadowfault_api.verifier.pace import Pace
from shadowfault_api.verifier.readers import PrimaryReader, ShadowReader
from shadowfault_api.verifier.recorder import Recorder
from shadowfault_api.verifier.report import VerifierReport
from shadowfault_api.verifier.scan import Scanner
from shadowfault_api.verifier.side import Side
from shadowfault_api.verifier.stopping import rest
from shadowfault_api.verifier.stores import Key, Span
from shadowfault_api.verifier.stores.opening import open_stores
from shadowfault_api.verifier.tables import LISTINGS, SHADOW_LISTINGS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from threading import Event

Database = Engine | URL | str

_log: Final = structlog.get_logger("shadowfault.verifier")
# Evidence has all of them; the log only shows that there are.
_LOGGED_DISCREPANCIES: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierOptions:
    """Sizes and limits.

    Attributes:
        chunk_size: rows of each side looked at one by one where digests differ, and keys in one recheck.
        digest_rows: rows in the first digest; later ones are as large as `Pace.target_seconds` allows.
        rows_per_second: limit of rows read of a side; None for none.
        portable: use the portable digest even where the servers' own would do.
        statement_seconds: limit of a statement.
        connect_seconds: wait for a connection, or on SQLite for another writer.
        stopping: set it from another thread to have the run end, with StoppedError.
    """

    chunk_size: int = 1000
    digest_rows: int = 10_000
    rows_per_second: float | None = None
    portable: bool = False
    statement_seconds: float = 30.0
    connect_seconds: float = 5.0
    stopping: Event | None = None

    @property
    def pace(self) -> Pace:
        """How much to ask of the databases at a time."""
        return Pace(
            first=self.digest_rows,
            least=min(self.digest_rows, self.chunk_size),
            rows_per_second=self.rows_per_second,
        )

    def __post_init__(self) -> None:
        """Refuse what cannot work.

        Raises:
            ValueError: naming the option.
        """
        # SQLite takes 32766 parameters in a statement; a recheck has one for each key.
        if not 1 <= self.chunk_size <= 10_000:
            raise ValueError("chunk size must be from 1 to 10000")
        if self.digest_rows < 1:
            raise ValueError("rows of a digest must be at least 1")
        if self.rows_per_second is not None and not self.rows_per_second >= 1:
            raise ValueError("rows per second must be at least 1")
        if not 0 < self.statement_seconds <= 3600:
            raise ValueError("statement timeout must be above 0 and at most 3600 seconds")


def verify_stores(
    primary: Database,
    shadow: Database,
    *,
    trigger: runs.Trigger = "cli",
    run_id: str | None = None,
    options: VerifierOptions | None = None,
) -> VerifierReport:
    """Compare the stores, record what is new and what is resolved, and report. Blocks: run it in a thread.

    Args:
        primary: URL or synchronous engine of the primary server itself, not of a replica.
        shadow: URL or synchronous engine of the shadow; likewise.
        trigger: what started it, for `job_runs`.
        run_id: the run, where the caller has entered it in `job_runs`; entered here otherwise.
        options: sizes and limits.

    Raises:
        VerificationError: the stores could not be compared to the end; what was recorded until then is true.
        DatabaseUrlError: a URL is not one of a database this service runs on.
    """
    chosen = options or VerifierOptions()
    with ExitStack() as stack:
        sides = [
            Side(
                name,
                stack.enter_context(engine_of(database, chosen.connect_seconds)),
                chosen.statement_seconds,
            )
            for name, database in (("primary", primary), ("shadow", shadow))
        ]
        check_databases(*sides)
        stack.enter_context(exclusive(sides[0]))
        ours = runs.begin(sides[0], trigger, run_id)
        try:
            report = _Verification(sides[0], sides[1], LISTING_ENTITY, ours, chosen).run()
            runs.succeed(sides[0], ours, report.entity_type, report.as_dict())
        except BaseException as error:
            with suppress(
                VerificationError
            ):  # the primary is away: the next run enters this one as abandoned
                runs.fail(sides[0], ours, error)
            raise
    return report


@dataclass(slots=True)
class _Tally:
    primary: int = 0
    shadow: int = 0
    in_flight: int = 0
    new: int = 0
    persisting: int = 0
    resolved: int = 0
    recheck_seconds: float = 0.0


class _Verification:
    def __init__(
        self, primary: Side, shadow: Side, entity: Entity, run_id: str, options: VerifierOptions
    ) -> None:
        here, there, self._method = open_stores(
            (primary, LISTINGS), (shadow, SHADOW_LISTINGS), portable=options.portable
        )
        self._stores = (here, there)
        self._examiner = Examiner(
            PrimaryReader(primary, entity, here), ShadowReader(shadow, entity, there), entity
        )
        self._recorder = Recorder(primary, entity.entity_type, run_id)
        self._entity = entity
        self._run_id = run_id
        self._options = options
        self._tally = _Tally()

    def run(self) -> VerifierReport:
        started_at, began = datetime.now(UTC), time.monotonic()
        with Scanner.opened(
            *self._stores, self._options.pace, leaf=self._options.chunk_size, rest=self._rest
        ) as scanner:
            self._sweep(scanner, Span())
        scanned = time.monotonic() - began - self._tally.recheck_seconds
        self._settle_known(started_at)
        left = self._recorder.count_open()
        tally = self._tally
        return VerifierReport(
            run_id=self._run_id,
            entity_type=self._entity.entity_type,
            started_at=started_at,
            finished_at=datetime.now(UTC),
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
            scan_seconds=scanned,
            recheck_seconds=tally.recheck_seconds,
        )

    def _sweep(self, scanner: Scanner, span: Span) -> None:
        for chunk in scanner.chunks(span):
            self._tally.primary += chunk.primary.rows
            self._tally.shadow += chunk.shadow.rows
            if chunk.differs:
                for keys in scanner.differing(chunk):
                    self._tally.in_flight += self._settle(_names(keys))

    def _rest(self, seconds: float) -> None:
        """Wait, and end the run where the caller asks for it."""
        rest(seconds, self._options.stopping, "the verification was stopped before its end")

    def _settle_known(self, started_at: datetime) -> None:
        """Look at what is on record and was not met in the scan: it is gone, or in flight."""
        after: str | None = None
        while known := self._recorder.open_unseen(started_at, after, self._options.chunk_size):
            self._rest(0.0)
            self._settle([item.key for item in known])
            after = known[-1].id

    def _settle(self, keys: Sequence[str]) -> int:
        """Judge keys and record the judgements; returns how many were left out."""
        began = time.monotonic()
        judged = self._examiner.judge(keys)
        entered = self._recorder.record(judged.found, judged.equal)
        tally = self._tally
        tally.new += len(entered.new)
        tally.persisting += len(entered.persisting)
        tally.resolved += len(entered.resolved)
        self._log_new(entered.new, logged=tally.new - len(entered.new))
        tally.recheck_seconds += time.monotonic() - began
        return len(judged.in_flight)

    def _log_new(self, new: Iterable[Found], *, logged: int) -> None:
        for number, item in enumerate(new, logged):
            if number >= _LOGGED_DISCREPANCIES:
                return
            _log.warning(
                "discrepancy_found",
                run_id=self._run_id,
                entity_type=self._entity.entity_type,
                entity_id=item.key,
                discrepancy_type=item.difference.discrepancy_type.value,
                fields=list(item.difference.fields),
                **_cause_fields(item.cause),
            )


def _names(keys: Iterable[Key]) -> list[str]:
    """The keys as the outbox and the evidence have them."""
    return [str(key[0]) for key in keys]


def _cause_fields(cause: Cause) -> dict[str, str | None]:
    return {
        "cause": cause.name,
        "experiment": cause.experiment,
        "experiment_uid": cause.experiment_uid,
        "requestId": cause.request_id,
    }


@contextmanager
def engine_of(database: Database, connect_seconds: float) -> Iterator[Engine]:
    """Make the engine of a database, and let go of it; an engine that is given stays the caller's."""
    if isinstance(database, Engine):
        yield database
        return
    engine = create_sync_engine(database, timeout_seconds=connect_seconds)
    try:
        yield engine
    finally:
        engine.dispose()
