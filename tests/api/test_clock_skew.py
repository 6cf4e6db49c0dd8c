"""Replicas whose clocks are wrong: on PostgreSQL all of them go by the database's."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta, tzinfo
from typing import TYPE_CHECKING

import pytest

from shadowfault_api.verifier import verify_stores
from shadowfault_testing.databases import postgresql_pair
from shadowfault_testing.service import running
from shadowfault_testing.stores import Stores

if TYPE_CHECKING:
    from collections.abc import Iterator

    from shadowfault_testing.databases import DatabasePair
    from shadowfault_testing.postgres import PostgresServer

pytestmark = pytest.mark.postgres

# What is old is given up, and what is claimed stays so for a while: an hour of skew would undo either.
HOUR = timedelta(hours=1)
OPTIONS = {"shadow_give_up_seconds": 1800.0, "shadow_claim_seconds": 600.0}


@pytest.fixture
def databases(postgres_server: PostgresServer) -> Iterator[DatabasePair]:
    with postgresql_pair(postgres_server) as pair:
        yield pair


@pytest.fixture(params=[HOUR, -HOUR], ids=["fast", "slow"])
def wrong_clock(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> timedelta:
    """Have this process's clock of the day be wrong, wherever the dual write looks at it."""
    skew: timedelta = request.param

    class Wrong(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            return datetime.now(tz) + skew

    for module in ("store.primary", "store.outbox", "shadow.settle", "accounts.store"):
        monkeypatch.setattr(f"shadowfault_api.{module}.datetime", Wrong)
    return skew


@pytest.mark.usefixtures("wrong_clock")
async def test_times_of_rows_are_those_of_the_database(databases: DatabasePair) -> None:
    async with running(databases) as service:
        listing = await service.create()
        path = f"/api/listings/{listing['id']}"
        changed = (await service.client.patch(path, json={"title": "New"})).json()
        (row,) = service.primary("SELECT now() AS now, * FROM listings")
        assert (row["now"] - row["created_at"]) < HOUR / 2
        assert row["created_at"] <= row["updated_at"] <= row["now"]
        assert datetime.fromisoformat(listing["createdAt"]) == row["created_at"]
        assert datetime.fromisoformat(changed["updatedAt"]) == row["updated_at"]
        await service.client.delete(path)
        await service.settled()
        (tombstone,) = service.shadow("SELECT now() AS now, * FROM listings")
        assert timedelta(0) <= tombstone["now"] - tombstone["deleted_at"] < HOUR / 2


@pytest.mark.usefixtures("wrong_clock")
async def test_nothing_is_given_up_early_and_no_claim_taken_over(databases: DatabasePair) -> None:
    async with running(databases, shadow_breaker_reset_seconds=3600.0, **OPTIONS) as service:
        # Written, claimed, and not made yet: the queue is held up.
        service.resources.writer._queue.put_nowait = lambda _item: None  # type: ignore[method-assign]
        await service.create()
        outbox = service.resources.writer._path.outbox
        assert await outbox.claim(10) == [], "another replica's claim holds"
        service.primary("UPDATE outbox SET claimed_until = NULL")
        assert await outbox.claim(10, older_than_seconds=OPTIONS["shadow_give_up_seconds"]) == []
        (entry,) = await outbox.claim(10)
        await outbox.release([entry])
    assert service.outbox("failed") == []


@pytest.mark.usefixtures("wrong_clock")
async def test_the_verifier_takes_what_is_in_flight_for_no_discrepancy(databases: DatabasePair) -> None:
    async with running(databases, shadow_breaker_reset_seconds=3600.0, **OPTIONS) as service:
        await service.create()
        await service.settled()
        service.resources.writer.breaker.trip()
        await service.create()
        with Stores.opened(databases) as stores:
            report = await asyncio.to_thread(verify_stores, stores.primary, stores.shadow)
        assert (report.open, report.in_flight) == (0, 1)
