"""A shadow that is down, hung, locked or picky: no request fails, and no write is lost."""

from __future__ import annotations

import asyncio
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import make_url

from shadowfault_testing.databases import DatabasePair
from shadowfault_testing.proxy import TcpProxy
from shadowfault_testing.service import query, running, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

    from shadowfault_testing.service import Service

    Start = Callable[..., Awaitable[Service]]


# Where the shadow does not answer, a test waits for the deadline.
IMPATIENT = {"shadow_timeout_seconds": 0.5, "shadow_claim_seconds": 1.5}


class FlakyShadow:
    """A pair of databases whose shadow can be taken away."""

    def __init__(self, databases: DatabasePair, proxy: TcpProxy | None) -> None:
        self.real = databases
        self._proxy = proxy
        self._lock: sqlite3.Connection | None = None
        self.databases = databases
        if proxy is not None:
            through = make_url(databases.shadow).set(port=proxy.port)
            self.databases = DatabasePair(
                databases.primary, through.render_as_string(hide_password=False), databases.backend
            )

    async def hang(self) -> None:
        """PostgreSQL stops answering; SQLite is locked by another process that does not let go."""
        if self._proxy is not None:
            self._proxy.hang()
            return
        self._lock = sqlite3.connect(make_url(self.real.shadow).database or "", isolation_level=None)
        self._lock.execute("BEGIN EXCLUSIVE")

    async def go_down(self) -> None:
        """PostgreSQL refuses connections; of SQLite the table is away."""
        if self._proxy is not None:
            await self._proxy.down()
            return
        query(self.real.shadow, "ALTER TABLE listings RENAME TO away")

    async def recover(self) -> None:
        """Answer again."""
        if self._proxy is not None:
            await self._proxy.up()
        elif self._lock is not None:
            self._lock.rollback()
            self._lock.close()
        else:
            query(self.real.shadow, "ALTER TABLE away RENAME TO listings")

    async def close(self) -> None:
        """Leave nothing behind."""
        if self._proxy is not None:
            await self._proxy.down()


@pytest.fixture
async def flaky(database_pair: DatabasePair) -> AsyncIterator[FlakyShadow]:
    proxy = None
    if database_pair.backend == "postgresql":
        proxy = TcpProxy(make_url(database_pair.shadow).port or 0)
        await proxy.up()
    flaky = FlakyShadow(database_pair, proxy)
    yield flaky
    await flaky.close()


async def _create(service: Service, count: int) -> list[str]:
    """Create listings; each must be answered with 201."""
    return [(await service.create(f"Listing {n}"))["id"] for n in range(count)]


async def _everything_is_accounted_for(service: Service, ids: list[str], databases: DatabasePair) -> None:
    """Each listing is in the shadow, or recorded as failed with evidence."""
    await service.settled()
    direct = type(service)(service.app, service.client, databases)
    written = set(direct.shadow_listings())
    failed = {row["entity_id"] for row in service.outbox("failed")}
    assert written | failed >= set(ids)
    assert failed == {row["entity_id"] for row in service.evidence()}


@pytest.mark.parametrize("outage", ["hang", "go_down"])
async def test_a_shadow_that_goes_away_costs_no_request_and_loses_no_write(
    flaky: FlakyShadow, outage: str
) -> None:
    async with running(flaky.databases, **IMPATIENT) as service:
        before = await _create(service, 3)
        await service.settled()
        await getattr(flaky, outage)()

        during: list[str] = []

        async def breaker_is_open() -> bool:
            during.extend(await _create(service, 3))
            return await service.metric("shadow_breaker_state", state="open") == 1

        await until(breaker_is_open)
        during += await _create(service, 5)
        assert (await service.client.get("/ready")).status_code == 200
        assert await service.metric("shadow_writes_deferred_total", reason="circuit_open") >= 5
        assert len(service.outbox("pending")) >= 5

        await flaky.recover()
        await _everything_is_accounted_for(service, before + during, flaky.real)
        assert {row["failure_type"] for row in service.outbox("failed")} <= {"timeout", "unavailable"}

        async def shadowed_again() -> bool:
            # On a busy machine a healthy shadow can miss this short deadline too.
            (one,) = await _create(service, 1)
            await service.settled()
            return one not in {row["entity_id"] for row in service.outbox("failed")}

        await until(shadowed_again)


async def test_a_service_starts_without_its_shadow_and_catches_up(tmp_path: Path) -> None:
    folder = tmp_path / "not-there-yet"
    databases = DatabasePair(
        f"sqlite:///{tmp_path / 'primary.db'}", f"sqlite:///{folder / 'shadow.db'}", "sqlite"
    )
    async with running(databases) as service:
        created = await _create(service, 5)
        assert (await service.client.get("/ready")).status_code == 200
        assert [row["entity_id"] for row in service.outbox("pending")] == created
        assert (await service.client.get("/health")).json()["shadow"]["breaker"] == "open"
        folder.mkdir()
        await service.settled()
        assert sorted(service.shadow_listings()) == sorted(created)
        assert service.outbox("failed") == []


@pytest.mark.postgres
async def test_a_service_starts_while_its_shadow_hangs(postgres_url: str, tmp_path: Path) -> None:
    async with TcpProxy(make_url(postgres_url).port or 0) as proxy:
        proxy.hang()
        shadow = make_url(postgres_url).set(port=proxy.port).render_as_string(hide_password=False)
        databases = DatabasePair(f"sqlite:///{tmp_path / 'primary.db'}", shadow, "postgresql")
        async with running(databases, **IMPATIENT) as service:
            created = await _create(service, 5)
            assert len(service.outbox("pending")) == 5
            await proxy.up()
            await service.settled()
            direct = type(service)(service.app, service.client, DatabasePair("", postgres_url, ""))
            assert sorted(direct.shadow_listings()) == sorted(created)


async def test_a_row_the_shadow_refuses_fails_alone(start: Start) -> None:
    service = await start(shadow_batch_seconds=0.2)
    if service.databases.backend == "sqlite":
        service.shadow(
            "CREATE TRIGGER picky BEFORE INSERT ON listings WHEN NEW.title = 'Refused'"
            " BEGIN SELECT RAISE(ABORT, 'CHECK constraint failed: Refused'); END"
        )
    else:
        service.shadow("ALTER TABLE listings ADD CONSTRAINT picky CHECK (title <> 'Refused')")
    one, refused, two = await asyncio.gather(*(service.create(title) for title in ("One", "Refused", "Two")))
    await service.settled()
    assert set(service.shadow_listings()) == {one["id"], two["id"]}
    (row,) = service.outbox("failed")
    assert (row["entity_id"], row["failure_type"]) == (refused["id"], "constraint")
    (evidence,) = service.evidence()
    assert "Refused" not in str(evidence)
    assert evidence["details"]["errorClass"] in {"IntegrityError", "CheckViolation"}
    assert await service.metric("shadow_breaker_state", state="closed") == 1


async def test_what_the_queue_cannot_take_waits_in_the_outbox_and_is_counted(start: Start) -> None:
    service = await start(
        shadow_queue_size=2,
        shadow_batch_size=1,
        shadow_batch_seconds=0.05,
        shadow_timeout_seconds=1.0,
        shadow_claim_seconds=2.5,
    )
    created = [one["id"] for one in await asyncio.gather(*(service.create() for _ in range(30)))]
    deferred = await service.metric("shadow_writes_deferred_total", reason="queue_full")
    assert deferred > 0
    await service.settled()
    assert sorted(service.shadow_listings()) == sorted(created)
    assert service.outbox("failed") == []


async def test_pending_rows_of_a_dead_replica_are_taken_over_once_its_claim_ran_out(start: Start) -> None:
    service = await start()
    listing = await service.create()
    await service.settled()
    row: dict[str, Any] = {
        "entity_id": listing["id"],
        "payload": '{"title": "Left behind", "price": "2.50",'
        ' "createdAt": "2026-01-01T00:00:00+00:00", "updatedAt": "2026-01-01T00:00:00+00:00"}',
        "at": "2026-01-01 00:00:00.000000",
    }
    service.primary(
        "INSERT INTO outbox (entity_type, entity_id, operation, version, payload, created_at, claimed_until)"
        " VALUES ('Listing', :entity_id, 'update', 2, :payload, :at, :at)",
        **row,
    )
    await service.settled()
    assert service.shadow_listings()[listing["id"]][0] == "Left behind"


async def test_a_graceful_stop_settles_what_is_queued(database_pair: DatabasePair) -> None:
    async with running(database_pair, shadow_batch_seconds=0.5) as service:
        created = [one["id"] for one in await asyncio.gather(*(service.create() for _ in range(10)))]
        assert service.outbox("pending")
    assert service.outbox("pending") == []
    assert sorted(service.shadow_listings()) == sorted(created)


async def test_a_stop_without_time_leaves_the_rest_to_other_replicas(database_pair: DatabasePair) -> None:
    async with running(
        database_pair,
        shadow_batch_seconds=1,
        shadow_batch_size=1,
        shadow_timeout_seconds=1,
        shadow_claim_seconds=3,
        shutdown_grace_seconds=0,
    ) as service:
        created = [one["id"] for one in await asyncio.gather(*(service.create() for _ in range(10)))]
    unclaimed = [row for row in service.outbox("pending") if row["claimed_until"] is None]
    assert len(unclaimed) >= len(created) - 1  # all but the one it was at
    async with running(database_pair) as service:
        await service.settled()
        assert sorted(service.shadow_listings()) == sorted(created)
