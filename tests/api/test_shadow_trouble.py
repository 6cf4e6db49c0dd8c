"""A shadow that answers, but is slow or full: it says so itself, by what a PostgreSQL server would say."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import create_engine

from shadowfault_api.shadow.breaker import BreakerState
from shadowfault_testing.databases import postgresql_pair
from shadowfault_testing.service import query, running, until

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


def refuse_row(service: Service, title: str) -> None:
    """Have the shadow refuse rows of a title, by a trigger that says no more than that."""
    service.shadow(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        f" IF NEW.title = '{title}' THEN RAISE EXCEPTION 'not this one'; END IF; RETURN NEW; END $$"
    )
    service.shadow("CREATE TRIGGER refuse BEFORE INSERT ON listings FOR EACH ROW EXECUTE FUNCTION refuse()")


async def test_a_row_that_a_trigger_refuses_fails_alone(postgres_server: PostgresServer) -> None:
    with postgresql_pair(postgres_server) as pair:
        async with running(pair, shadow_batch_size=50, shadow_batch_seconds=0.2) as service:
            refuse_row(service, "Listing 3")
            created = await create(service, 10)
            await service.settled()
            assert sorted(service.shadow_listings()) == sorted({*created} - {created[3]})
            (failed,) = service.outbox("failed")
            assert (failed["entity_id"], failed["failure_type"]) == (created[3], "constraint")
            assert await service.metric("shadow_breaker_state", state="closed") == 1


async def test_an_outcome_the_primary_refuses_holds_up_no_other(postgres_server: PostgresServer) -> None:
    """It stays pending: nothing is lost, and nothing waits for it."""
    with postgresql_pair(postgres_server) as pair:
        async with running(pair, shadow_batch_size=50, shadow_batch_seconds=0.2) as service:
            service.primary(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                " IF OLD.entity_id = (SELECT id FROM listings WHERE title = 'Listing 3')"
                " THEN RAISE EXCEPTION 'not this one'; END IF; RETURN OLD; END $$"
            )
            service.primary(
                "CREATE TRIGGER refuse BEFORE DELETE ON outbox FOR EACH ROW EXECUTE FUNCTION refuse()"
            )
            created = await create(service, 10)
            await until(lambda: len(service.outbox("pending")) == 1)
            assert service.outbox("pending")[0]["entity_id"] == created[3]
            assert sorted(service.shadow_listings()) == sorted(created)
            later = await create(service, 1)
            await until(lambda: later[0] in service.shadow_listings())
            assert await service.metric("shadow_writes_deferred_total", reason="record_refused") >= 1


async def test_what_is_pending_is_taken_up_in_one_go_and_not_by_the_beat_of_the_sweep(
    postgres_server: PostgresServer,
) -> None:
    """Ten minutes of an outage are as many rows; the next sweep is an hour away."""
    with postgresql_pair(postgres_server) as pair:
        async with running(pair, chaos=None, shadow_breaker_reset_seconds=3600.0) as service:
            service.resources.writer.breaker.trip()
            created = await create(service, 60)
        # What a replica held that is gone: its claims have run out.
        query(pair.primary, "UPDATE outbox SET claimed_until = NULL")
        async with running(
            pair, shadow_queue_size=8, shadow_batch_size=4, shadow_sweep_seconds=3600.0
        ) as service:
            await until(lambda: len(service.shadow_listings()) == len(created))
