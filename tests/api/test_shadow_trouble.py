"""A shadow that answers, but is slow or full: it says so itself, by what a PostgreSQL server would say."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import create_engine

from shadowfault_api.shadow.breaker import BreakerState
from shadowfault_testing.databases import postgresql_pair
from shadowfault_testing.service import running, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from sqlalchemy import Engine

    from shadowfault_testing.postgres import PostgresServer
    from shadowfault_testing.service import Service

pytestmark = pytest.mark.postgres

# A transaction that writes waits for the holder of a lock: slow for exactly as long as the test wants.
SLOW = "PERFORM pg_advisory_xact_lock(42)"
FULL = "RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'"


@asynccontextmanager
async def served(server: PostgresServer, **options: float) -> AsyncIterator[Service]:
    """A replica that writes one at a time, and asks an open breaker only when a test says so."""
    options |= {"shadow_breaker_reset_seconds": 3600.0, "shadow_batch_size": 1}
    with postgresql_pair(server) as pair:
        async with running(pair, **options) as service:
            yield service


def trouble(service: Service, body: str) -> None:
    """Have every statement that writes listings run into it first."""
    service.shadow(
        f"CREATE FUNCTION trouble() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body}; RETURN NULL; END $$"
    )
    service.shadow(
        "CREATE TRIGGER trouble BEFORE INSERT OR UPDATE ON listings"
        " FOR EACH STATEMENT EXECUTE FUNCTION trouble()"
    )


@contextmanager
def held(engine: Engine) -> Iterator[None]:
    """Hold the lock the slow shadow waits for."""
    with engine.connect() as connection, connection.begin():
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(42)")
        yield


def probe_is_due(service: Service) -> None:
    """Once, and not for another hour."""
    service.resources.writer.breaker._opened_at = -math.inf


async def create(service: Service, count: int) -> list[str]:
    return [(await service.create(f"Listing {n}"))["id"] for n in range(count)]


async def test_while_the_shadow_is_slow_users_are_answered_and_no_write_fails(
    postgres_server: PostgresServer,
) -> None:
    patient = {"shadow_timeout_seconds": 30.0, "shadow_claim_seconds": 70.0}
    async with served(postgres_server, **patient) as service:
        trouble(service, SLOW)
        engine = create_engine(service.databases.shadow)
        try:
            with held(engine):
                created = await create(service, 20)
                assert service.shadow_listings() == {}, "answered before the shadow had anything"
                assert len(service.outbox("pending")) == 20
            await service.settled()
        finally:
            engine.dispose()
        assert sorted(service.shadow_listings()) == sorted(created)
        assert service.outbox("failed") == []
        assert await service.metric("shadow_breaker_state", state="closed") == 1


async def test_a_full_shadow_costs_no_request_and_is_written_to_when_it_has_room_again(
    postgres_server: PostgresServer,
) -> None:
    async with served(postgres_server) as service:
        trouble(service, FULL)
        created: list[str] = []

        async def breaker_is_open() -> bool:
            created.extend(await create(service, 3))
            return await service.metric("shadow_breaker_state", state="open") == 1

        await until(breaker_is_open)
        created += await create(service, 5)
        lost = service.resources.settings.shadow_breaker_failures
        await until(lambda: len(service.outbox("failed")) == lost)
        assert {row["failure_type"] for row in service.outbox("failed")} == {"unavailable"}
        assert {row["details"]["sqlState"] for row in service.evidence()} == {"53100"}

        # It answers the probe, being there; that costs one write, and the others go on waiting.
        probe_is_due(service)
        breaker = service.resources.writer.breaker
        await until(lambda: len(service.outbox("failed")) > lost and breaker.state is BreakerState.OPEN)
        assert len(service.outbox("failed")) == lost + 1
        assert len(service.outbox("pending")) >= 4

        service.shadow("DROP TRIGGER trouble ON listings")
        probe_is_due(service)
        await service.settled()
        failed = {row["entity_id"] for row in service.outbox("failed")}
        assert (len(failed), failed) == (lost + 1, {row["entity_id"] for row in service.evidence()})
        assert set(service.shadow_listings()) == set(created) - failed
