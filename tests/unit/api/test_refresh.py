"""Figures for scrapes: one read for all who ask, rest after a long one, old ones rather than none."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from shadowfault_api.metrics import DatabaseFigures, Metrics
from shadowfault_api.refresh import Refresh

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Database:
    """Counts how often it is read; a read takes `seconds` by the clock, or until it is let go."""

    def __init__(self) -> None:
        self.now = 100.0
        self.seconds = 2.0
        self.reads = 0
        self.failed = False
        self.error: Exception | None = None
        self.flowing = asyncio.Event()
        self.flowing.set()

    def clock(self) -> float:
        return self.now

    async def read(self, before: DatabaseFigures) -> AsyncIterator[tuple[DatabaseFigures, bool]]:
        self.reads += 1
        yield replace(before, outbox={"pending": self.reads}), True
        await self.flowing.wait()
        self.now += self.seconds
        if self.error is not None:
            raise self.error
        yield replace(before, outbox={"pending": self.reads}, unsealed_evidence=self.reads), not self.failed


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def refresh(database: Database, metrics: Metrics) -> Refresh:
    return Refresh(database.read, metrics, deadline_seconds=30, clock=database.clock)


def failures(metrics: Metrics) -> float:
    return metrics.registry.get_sample_value("metrics_refresh_failures_total") or 0.0


async def test_who_asks_at_once_shares_one_read(
    refresh: Refresh, database: Database, metrics: Metrics
) -> None:
    database.flowing.clear()
    asking = [asyncio.create_task(refresh.refresh()) for _ in range(5)]
    await asyncio.sleep(0)
    database.flowing.set()
    await asyncio.gather(*asking)
    assert (database.reads, metrics.database.unsealed_evidence) == (1, 1)


async def test_after_a_read_nine_times_its_length_is_rest(
    refresh: Refresh, database: Database, metrics: Metrics
) -> None:
    await refresh.refresh()
    database.now += 9 * database.seconds - 0.1
    await refresh.refresh()
    assert metrics.database.unsealed_evidence == 1
    database.now += 0.2
    await refresh.refresh()
    assert metrics.database.unsealed_evidence == 2
    assert failures(metrics) == 0


async def test_figures_that_cannot_be_read_stay_as_they_were_and_are_counted(
    refresh: Refresh, database: Database, metrics: Metrics
) -> None:
    await refresh.refresh()
    database.now += 1000
    database.error = OSError()
    await refresh.refresh()
    assert (metrics.database.unsealed_evidence, failures(metrics)) == (1, 1)
    assert metrics.database.outbox == {"pending": 2}, "what was read before the failure is new"
    database.now += 1000
    database.error, database.failed = None, True
    await refresh.refresh()
    assert (metrics.database.unsealed_evidence, failures(metrics)) == (3, 2)


async def test_a_scrape_does_not_wait_for_a_database_that_hangs(database: Database, metrics: Metrics) -> None:
    refresh = Refresh(
        database.read, metrics, deadline_seconds=30, patience_seconds=0.01, clock=database.clock
    )
    database.flowing.clear()
    await refresh.refresh()
    assert failures(metrics) == 1
    await refresh.refresh()
    assert (database.reads, failures(metrics)) == (1, 2), "no second read beside the one that hangs"
    assert metrics.database.outbox == {"pending": 1}, "what it has answered already is shown"
    await refresh.close()


async def test_a_read_that_hangs_ends_at_its_deadline(database: Database, metrics: Metrics) -> None:
    refresh = Refresh(database.read, metrics, deadline_seconds=0.01, clock=database.clock)
    database.flowing.clear()
    await refresh.refresh()
    database.flowing.set()
    await refresh.refresh()
    assert (database.reads, metrics.database.unsealed_evidence) == (2, 2)


async def test_after_a_failure_that_took_long_the_rest_is_short(
    refresh: Refresh, database: Database, metrics: Metrics
) -> None:
    database.seconds = 10.0
    database.error = OSError()
    await refresh.refresh()
    database.error = None
    database.now += 15.1
    await refresh.refresh()
    assert metrics.database.unsealed_evidence == 2
