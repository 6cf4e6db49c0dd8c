"""Evidence records inserted by 16 writers, while they are sealed and without.

Both are the migrated tables, in two databases of one PostgreSQL server with fsync on; a writer inserts one
record, commits, and goes on to the next. Beside one of them `shadowfault evidence seal --watch` seals, in a
process of its own. It has to keep up: what is left when the last record is in is shown, and in the end all is
sealed and the verification finds nothing amiss, which is not timed.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from statistics import harmonic_mean
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import sql

from shadowfault_api.entities import LISTING, new_id
from shadowfault_api.evidence import EventType, Subject, new_record
from shadowfault_api.evidence.audit import verify_database
from shadowfault_api.evidence.verification import Expectations
from shadowfault_api.store.migrate import Database, migrate
from shadowfault_api.store.schema import evidence_records
from shadowfault_api.store.urls import create_sync_engine
from shadowfault_bench.harness import Bound
from shadowfault_testing.postgres import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Engine

    from shadowfault_bench.harness import Bench

_RECORDS: Final = 20_000
_SLICES: Final = 8
_WRITERS: Final = 16
_COLUMNS: Final = tuple(column.name for column in evidence_records.columns)
_INSERT: Final = sql.SQL("INSERT INTO evidence_records ({}) VALUES ({})").format(
    sql.SQL(", ").join(map(sql.Identifier, _COLUMNS)), sql.SQL(", ").join(sql.Placeholder() * len(_COLUMNS))
)
_UNSEALED: Final = """
    SELECT count(*) FROM evidence_records AS record WHERE NOT EXISTS (
      SELECT FROM evidence_leaves WHERE record_id = record.id AND occurred_at = record.occurred_at)
"""
_DEADLINE_SECONDS: Final = 60.0


def run(bench: Bench) -> None:
    """Measure on a PostgreSQL server of its own."""
    records = bench.size(_RECORDS // _SLICES, least=_WRITERS)
    with PostgresServer.start(fsync=True) as server:
        plain, sealed = (server.url(server.create_database()) for _ in range(2))
        for url in (plain, sealed):
            migrate(url, Database.PRIMARY)
            asyncio.run(_insert(url, _rows(_WRITERS)))
        left: list[float] = []
        engine = create_sync_engine(sealed)
        try:
            with _sealing(sealed):
                _until_all_is_sealed(sealed)
                bench.paired(
                    f"inserts, sealed / plain, {records * _SLICES} records, {_WRITERS} writers",
                    lambda: _by_turns(plain, sealed, records, left),
                    Bound("at least", 0.9),
                )
            bench.figure("not sealed yet at the last insert", left, "records")
            _check(engine, _WRITERS + records * _SLICES * bench.rounds)
        finally:
            engine.dispose()


def _by_turns(plain: str, sealed: str, records: int, left: list[float]) -> tuple[float, float]:
    """In short slices, so that a busy machine slows both; the mean rates, sealed and plain."""
    rates = [
        (_rate_while_sealing(sealed, records, left), asyncio.run(_insert(plain, _rows(records))))
        for _ in range(_SLICES)
    ]
    return harmonic_mean(rate for rate, _ in rates), harmonic_mean(rate for _, rate in rates)


def _rate_while_sealing(url: str, records: int, left: list[float]) -> float:
    rate = asyncio.run(_insert(url, _rows(records)))
    left.append(float(_unsealed(url)))
    _until_all_is_sealed(url)  # the plain inserts that come next must not pay for it
    return rate


def _rows(number: int) -> list[list[Any]]:
    """Build records as a failed shadow write leaves them: no part of what is timed."""
    rows = []
    for outbox_id in range(number):
        record = new_record(
            EventType.SHADOW_WRITE_FAILURE,
            Subject(LISTING, new_id(), f"request-{outbox_id}"),
            {
                "operation": "create",
                "version": 1,
                "attempt": 0,
                "outboxId": outbox_id,
                "failureType": "injected",
                "experiment": "bench/evidence",
            },
        ).row()
        rows.append([json.dumps(record[name]) if name == "details" else record[name] for name in _COLUMNS])
    return rows


async def _insert(url: str, rows: list[list[Any]]) -> float:
    """Insert with all writers at once; returns records a second."""
    connections = [await psycopg.AsyncConnection.connect(url, autocommit=True) for _ in range(_WRITERS)]
    left = iter(rows)

    async def write(connection: psycopg.AsyncConnection) -> None:
        async with connection.cursor() as cursor:
            for row in left:
                await cursor.execute(_INSERT, row, prepare=True)

    try:
        began = time.perf_counter()
        await asyncio.gather(*(write(connection) for connection in connections))
        return len(rows) / (time.perf_counter() - began)
    finally:
        for connection in connections:
            await connection.close()


@contextmanager
def _sealing(url: str) -> Iterator[None]:
    command = [sys.executable, "-m", "shadowfault_cli", "evidence", "seal", "--watch"]
    environment = {"PATH": os.environ["PATH"], "DATABASE_URL": url}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        process.terminate()
        process.wait(_DEADLINE_SECONDS)


def _unsealed(url: str) -> int:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute(_UNSEALED).fetchone()
    assert row is not None
    return int(row[0])


def _until_all_is_sealed(url: str) -> None:
    give_up = time.monotonic() + _DEADLINE_SECONDS
    while _unsealed(url):
        if time.monotonic() > give_up:
            raise TimeoutError("evidence is not sealed")
        time.sleep(0.1)


def _check(engine: Engine, records: int) -> None:
    """A fast insert of what is not sealed, or not whole, would be no figure."""
    report = verify_database(engine, Expectations())
    if not report.intact or (report.records, report.unsealed) != (records, 0):
        raise RuntimeError(f"the evidence is not whole: {report.as_dict()}")
