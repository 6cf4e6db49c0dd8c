"""A table of listings of any size, for benchmarks of the verifier."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import text

if TYPE_CHECKING:
    from sqlalchemy import Engine

_FILL: Final = """
    INSERT INTO listings (id, title, price, version, created_at, updated_at)
    SELECT '01890000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'), 'listing number ' || n,
        n % 10000, 1, now_, now_
    FROM generate_series(1, :rows) AS n, (SELECT timestamptz '2026-01-01' AS now_) AS moment
"""


def fill(engine: Engine, rows: int) -> None:
    """Write rows, the same in each database, with the statistics that a server has of a table at rest."""
    with engine.begin() as connection:
        connection.execute(text(_FILL), {"rows": rows})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("VACUUM ANALYZE listings"))
