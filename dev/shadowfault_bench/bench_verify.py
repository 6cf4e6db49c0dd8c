"""A verification of two PostgreSQL databases that are equal, against one side's own hash over all its rows.

Both databases are on one local server, on this machine: the two sides share its cores. Other tools are not
measured here. Ids grow as those of the service do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import text

from shadowfault_api.verifier import verify_stores
from shadowfault_bench.harness import Bound, seconds
from shadowfault_testing.databases import postgresql_pair
from shadowfault_testing.postgres import PostgresServer
from shadowfault_testing.stores import Stores

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from shadowfault_bench.harness import Bench

_ROWS: Final = 200_000
_FILL: Final = """
    INSERT INTO listings (id, title, price, version, created_at, updated_at)
    SELECT '01890000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'), 'listing number ' || n,
        n % 10000, 1, now_, now_
    FROM generate_series(1, :rows) AS n, (SELECT timestamptz '2026-01-01' AS now_) AS moment
"""
_SCAN: Final = """
    SELECT count(*),
        sum(hash_record_extended(ROW(id, title, price, version, created_at, updated_at), 1)::numeric)
    FROM listings
"""


def run(bench: Bench) -> None:
    """Measure on a PostgreSQL server of its own."""
    rows = bench.size(_ROWS, least=1000)
    bench.say(f"a PostgreSQL server with twice {rows} rows")
    with PostgresServer.start() as server, postgresql_pair(server) as pair, Stores.opened(pair) as stores:
        for engine in (stores.primary, stores.shadow):
            _fill(engine, rows)

        def verify() -> float:
            report = verify_stores(stores.primary, stores.shadow)
            assert report.clean
            assert (report.scanned_primary, report.scanned_shadow) == (rows, rows)
            return report.duration_seconds

        bench.ratio(
            f"verification / one side's hash scan, {rows} rows a side",
            verify,
            lambda: seconds(lambda: _scan(stores.primary, rows)),
            Bound("at most", 1.3),
        )


def _fill(engine: Engine, rows: int) -> None:
    with engine.begin() as connection:
        connection.execute(text(_FILL), {"rows": rows})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE listings"))


def _scan(engine: Engine, rows: int) -> None:
    with engine.begin() as connection:
        # As the verifier: one core of a server for one look.
        connection.execute(text("SET LOCAL max_parallel_workers_per_gather = 0"))
        assert connection.execute(text(_SCAN)).one()[0] == rows
