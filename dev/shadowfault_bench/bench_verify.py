"""The verifier on two PostgreSQL servers that hold the same 2 000 000 rows of 8 columns, against other ways.

All are measured in one run, in turn, on one machine: the two servers, which keep the table in their buffers,
and whoever compares share its cores. Keys grow as those of the service do; the tables are freshly vacuumed.
There are two tables, each with a text key, text, numeric, bigint, two timestamps with zone, boolean, and one
column more: in `plain` it is another text, in `documents` a jsonb. Measured is `differing_keys`, from the
first connection to the last chunk, with its self-test. Against it stand

- one side's own full hash scan: the same digest over the whole table of one server in one statement, on one
  core. It is the least that anybody must read who reads each row of a side;
- the same with PostgreSQL's bare `hash_record_extended` over the row, for which 1 and 4294967296 are alike,
  as jsonb 1 and 1.0 are: without a bound, to tell what the better digest costs;
- reladiff and data-diff, through their Python interface and without the start of their interpreter, with the
  settings that were the fastest on 2 cores: 1, 2 and 4 connections a server and bisection factors of 2, 8,
  16, 32 (the default) and 128 were tried at full size; the threshold matters only where rows differ.

Beside the ratio of times stands that of the CPU time both servers spent, which other work on the machine
hardly moves: where cores are short, whoever opens more connections gets more of them.

Before that each has to find a row that was changed; while measured, each has to find nothing.
"""

from __future__ import annotations

import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import psutil
from sqlalchemy import text

from shadowfault_api.store.urls import create_sync_engine
from shadowfault_api.verifier.describe import describe_pair
from shadowfault_api.verifier.differences import differing_keys
from shadowfault_api.verifier.side import Side
from shadowfault_api.verifier.stores import Span
from shadowfault_api.verifier.stores.opening import open_stores
from shadowfault_bench.diff_tools import DiffTool, ToolsUnavailableError, tools_python
from shadowfault_bench.harness import Bound, seconds
from shadowfault_testing.postgres import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from shadowfault_bench.harness import Bench

_ROWS: Final = 2_000_000
_KEY: Final = "id"
_COLUMNS: Final = ("title", "price", "version", "created_at", "updated_at", "active", "more")
_CREATE: Final = """
    CREATE TABLE {table} (
        id text PRIMARY KEY, title text NOT NULL, price numeric(12, 2) NOT NULL, version bigint NOT NULL,
        created_at timestamptz NOT NULL, updated_at timestamptz NOT NULL, active boolean NOT NULL,
        more {type}
    )
"""
_FILL: Final = """
    INSERT INTO {table}
    SELECT '01890000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'), 'listing number ' || n,
        (n % 100000) / 100.0, 1 + n % 7, timestamptz '2026-01-01' + n * interval '1 second',
        timestamptz '2026-01-01' + n * interval '1.5 seconds', n % 3 = 0, {more}
    FROM generate_series(1, :rows) AS n
"""
_PLANT: Final = "UPDATE {table} SET version = version + :step WHERE id = :id"
_BARE_SCAN: Final = f"""
    SELECT count(*), sum(hash_record_extended(ROW({_KEY}, {", ".join(_COLUMNS)}), 1)::numeric) FROM {{table}}
"""


@dataclass(frozen=True, slots=True)
class _Table:
    """What the eighth column is: its type, and the expression of its value in row number `n`."""

    name: str
    type: str
    more: str

    def sql(self, template: str) -> str:
        return template.format(table=self.name, type=self.type, more=self.more)


_TABLES: Final = (
    _Table("plain", "text", "'category ' || n % 1000"),
    _Table(
        "documents",
        "jsonb",
        "jsonb_build_object('tags', jsonb_build_array('a', n % 10), 'stock', n % 1000)",
    ),
)
# Committed at once, for VACUUM marks only pages whose rows it knows to be committed.
_SETTINGS: Final = {"synchronous_commit": "on", "shared_buffers": "1GB"}
_STATEMENT_SECONDS: Final = 600.0
# By then a server's process of a closed connection has ended: none is counted twice.
_ENDING_SECONDS: Final = 0.3
_TOOLS: Final = (
    (DiffTool("reladiff", "reladiff", threads=4, factor=8), Bound("at least", 5)),
    (DiffTool("data-diff", "data_diff", threads=4, factor=32), Bound("at least", 8)),
)


def run(bench: Bench) -> None:
    """Measure on two PostgreSQL servers of its own."""
    rows = bench.size(_ROWS, least=1000)
    for table in _TABLES:
        bench.say(f"two PostgreSQL servers with {rows} rows each of {table.name}")
        with (
            PostgresServer.start(settings=_SETTINGS) as here,
            PostgresServer.start(settings=_SETTINGS) as there,
        ):
            urls = [server.url(server.create_database()) for server in (here, there)]
            for url in urls:
                _fill(url, table, rows)
            _measure(bench, _Measured(table, urls, rows, _Meter((here, there))))


@dataclass(frozen=True, slots=True)
class _Measured:
    table: _Table
    urls: Sequence[str]
    rows: int
    meter: _Meter


def _measure(bench: Bench, measured: _Measured) -> None:
    with _planted(measured) as key:
        assert _verify(measured)[1] == [key]
    _measure_scans(bench, measured)
    try:
        python = tools_python()
    except ToolsUnavailableError as error:
        bench.say(f"NOT MEASURED: reladiff and data-diff cannot be installed here: {error}")
        return
    for tool, bound in _TOOLS:
        _measure_tool(bench, tool, bound, python, measured)


def _measure_scans(bench: Bench, measured: _Measured) -> None:
    table, rows = measured.table, measured.rows
    with _sides(measured.urls) as sides:
        store, _, _ = open_stores(*_tables(sides, table))

        def digest() -> None:
            assert store.digest(Span()).rows == rows

        bench.ratio(
            f"{table.name}: verification / one side's own hash scan, {rows} rows a side",
            lambda: _clean(measured),
            lambda: seconds(digest),
            Bound("at most", 1.3),
        )
        bench.ratio(
            f"{table.name}: verification / one side's scan with the bare hash_record_extended",
            lambda: _clean(measured),
            lambda: seconds(lambda: _bare_scan(sides[0], table, rows)),
        )


def _measure_tool(bench: Bench, tool: DiffTool, bound: Bound, python: Path, measured: _Measured) -> None:
    def compare() -> dict[str, Any]:
        return tool.compare(python, measured.urls, measured.table.name, _KEY, _COLUMNS)

    with _planted(measured) as key:
        found = compare()
        assert found["keys"] == [key], f"{tool.name} found {found['keys']}"

    def clean() -> float:
        answer = compare()
        assert answer["keys"] == []
        return float(answer["seconds"])

    table = measured.table.name
    how = f"{tool.threads} threads, factor {tool.factor}"
    name = f"{table}: {tool.name} {found['version']} ({how}) / verification"
    theirs, ours = measured.meter.metered(clean), measured.meter.metered(lambda: _clean(measured))
    bench.ratio(name, theirs, ours, bound)
    spent = [one / other for one, other in zip(theirs.spent, ours.spent, strict=True)]
    bench.figure(f"{table}: {tool.name} / verification, CPU time of both servers", spent, "x")


class _Meter:
    """Reads the CPU time of servers, of sessions that have ended too."""

    def __init__(self, servers: Sequence[PostgresServer]) -> None:
        self._processes = [psutil.Process(server.pid) for server in servers]

    def metered(self, work: Callable[[], float]) -> _Metered:
        return _Metered(work, self)

    def seconds(self) -> float:
        time.sleep(_ENDING_SECONDS)
        total = 0.0
        for process in self._processes:
            for child in process.children():
                with suppress(psutil.NoSuchProcess):
                    times = child.cpu_times()
                    total += times.user + times.system
            times = process.cpu_times()
            total += times.children_user + times.children_system
        return total


class _Metered:
    """A measurement, and what the servers spent each time."""

    def __init__(self, work: Callable[[], float], meter: _Meter) -> None:
        self._work = work
        self._meter = meter
        self.spent: list[float] = []

    def __call__(self) -> float:
        before = self._meter.seconds()
        taken = self._work()
        self.spent.append(self._meter.seconds() - before)
        return taken


def _clean(measured: _Measured) -> float:
    taken, found = _verify(measured)
    assert found == []
    return taken


def _verify(measured: _Measured) -> tuple[float, list[str]]:
    found: list[str] = []

    def verify() -> None:
        with _sides(measured.urls) as sides:
            for keys in differing_keys(*_tables(sides, measured.table)):
                found.extend(str(key[0]) for key in keys)

    return seconds(verify), found


@contextmanager
def _sides(urls: Sequence[str]) -> Iterator[tuple[Side, Side]]:
    engines = [create_sync_engine(url) for url in urls]
    try:
        yield Side("primary", engines[0], _STATEMENT_SECONDS), Side("shadow", engines[1], _STATEMENT_SECONDS)
    finally:
        for engine in engines:
            engine.dispose()


def _tables(sides: tuple[Side, Side], table: _Table) -> Any:  # noqa: ANN401 - two pairs of a side and its table
    return tuple(zip(sides, describe_pair(*sides, table.name), strict=True))


def _fill(url: str, table: _Table, rows: int) -> None:
    engine = create_sync_engine(url)
    with engine.begin() as connection:
        connection.execute(text(table.sql(_CREATE)))
        connection.execute(text(table.sql(_FILL)), {"rows": rows})
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"VACUUM ANALYZE {table.name}"))
    engine.dispose()


@contextmanager
def _planted(measured: _Measured) -> Iterator[str]:
    """Change a row in the middle, and change it back."""
    key = f"01890000-0000-7000-8000-{measured.rows // 2:012x}"
    engine = create_sync_engine(measured.urls[1])
    plant = text(measured.table.sql(_PLANT))
    for step in (1, -1):
        with engine.begin() as connection:
            assert connection.execute(plant, {"id": key, "step": step}).rowcount == 1
        if step == 1:
            yield key
    engine.dispose()


def _bare_scan(side: Side, table: _Table, rows: int) -> None:
    # Its settings are the verifier's: one core, and nothing compiled, which would take longer here.
    with side.snapshot() as connection:
        query = table.sql(_BARE_SCAN).replace("%", "%%")
        assert connection.exec_driver_sql(query).one()[0] == rows
