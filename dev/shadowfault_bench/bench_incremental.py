"""An incremental pass on a quarter-hour's schedule, 0.1 % of the rows changed, against a full pass.

Both are measured from the call to the report, on two PostgreSQL databases of one local server. What is in an
incremental pass here:

- the rows that changed in the quarter of an hour since the last pass, 0.1 % of all, on both sides alike, and
  a third more, which changed in the overlap of five minutes that each pass goes back beyond it;
- the piece of the rotating sweep that is due in a quarter of an hour where it is to be through in a day: one
  row in 96;
- the checks and the self-test at the start, the lock, and the end that is entered.

No row differs, and nothing is on record: what is open is looked at again by each pass of either kind.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from sqlalchemy import func, select, text, update

from shadowfault_api.store.schema import discrepancy_checks, verifier_parts, verifier_sweeps
from shadowfault_api.verifier import Mode, VerifierOptions, verify_stores
from shadowfault_bench.harness import Bound, seconds
from shadowfault_bench.listings import fill
from shadowfault_testing.databases import postgresql_pair
from shadowfault_testing.postgres import PostgresServer
from shadowfault_testing.stores import Stores

if TYPE_CHECKING:
    from shadowfault_bench.harness import Bench

_ROWS: Final = 2_000_000
_EVERY: Final = timedelta(minutes=15)
_OPTIONS: Final = VerifierOptions(mode=Mode.INCREMENTAL)
# What changes in the time since the last pass and in the overlap, per row that changes in the former.
_WINDOW: Final = (_EVERY + _OPTIONS.overlap) / _EVERY
_GOING_ON: Final = verifier_sweeps.c.finished_at.is_(None)
_OF_THIS_SWEEP: Final = verifier_parts.c.sweep_id.in_(select(verifier_sweeps.c.id).where(_GOING_ON))
# Rows all over the table; those of the round before are as of long ago again.
_CHANGE: Final = """
    WITH wanted AS (
        SELECT '01890000-0000-7000-8000-' || lpad(to_hex(place), 12, '0') AS id, n
        FROM generate_series(1, :changed) AS n,
            LATERAL (SELECT 1 + (n::bigint * 7919 + :round) % :rows) AS _(place)
    )
    UPDATE listings SET version = version + 1, updated_at = :now - n * CAST(:step AS interval)
    FROM wanted WHERE listings.id = wanted.id
"""
_CHANGED_BEFORE: Final = "UPDATE listings SET updated_at = '2026-01-01' WHERE updated_at > '2026-01-01'"


def run(bench: Bench) -> None:
    """Measure on a PostgreSQL server of its own."""
    rows = bench.size(_ROWS, least=10_000)
    changed = round(rows / 1000 * _WINDOW)
    bench.say(f"a PostgreSQL server with twice {rows} rows")
    with PostgresServer.start() as server, postgresql_pair(server) as pair, Stores.opened(pair) as stores:
        for engine in (stores.primary, stores.shadow):
            fill(engine, rows)
        rounds = iter(range(1, 1000))

        def full() -> float:
            return seconds(lambda: _full(stores, rows))

        def incremental() -> float:
            verify_stores(stores.primary, stores.shadow, options=_OPTIONS)  # the pass before
            _quarter_of_an_hour_later(stores, rows, changed, next(rounds))
            return seconds(lambda: _incremental(stores, rows, changed))

        full()
        bench.ratio(
            f"incremental / full pass, {rows} rows a side, 0.1 % changed",
            incremental,
            full,
            Bound("at most", 0.05),
        )


def _full(stores: Stores, rows: int) -> None:
    report = verify_stores(stores.primary, stores.shadow)
    assert report.clean
    assert (report.scanned_primary, report.scanned_shadow) == (rows, rows)


def _incremental(stores: Stores, rows: int, changed: int) -> None:
    report = verify_stores(stores.primary, stores.shadow, options=_OPTIONS)
    assert report.clean
    assert report.changed_keys == changed
    assert report.scanned_primary >= rows * (_EVERY / _OPTIONS.full_every) * 0.99


def _quarter_of_an_hour_later(stores: Stores, rows: int, changed: int, number: int) -> None:
    """Change rows, and set back what the pass before has entered, instead of waiting."""
    now = datetime.now(UTC)
    step = _EVERY * _WINDOW / (changed + 1)
    for engine in (stores.primary, stores.shadow):
        with engine.begin() as connection:
            connection.execute(text(_CHANGED_BEFORE))
            values = {"rows": rows, "changed": changed, "round": number, "now": now, "step": step}
            done = connection.execute(text(_CHANGE), values)
            assert done.rowcount == changed
    with stores.primary.begin() as connection:
        for table in (discrepancy_checks, verifier_sweeps):
            connection.execute(update(table).values(watermark=now - _EVERY))
        # The sweep is where it should be by the pass before.
        ahead = connection.execute(select(func.sum(verifier_parts.c.rows_looked_at)).where(_OF_THIS_SWEEP))
        begun = now - _EVERY - _OPTIONS.full_every * (int(ahead.scalar_one()) / rows)
        connection.execute(update(verifier_sweeps).where(_GOING_ON).values(started_at=begun))
