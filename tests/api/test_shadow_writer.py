"""The writer and the outbox, step by step: who holds a row, for how long, and what becomes of the rest."""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from sqlalchemy import create_engine, exc, insert, make_url, select, text, update

from shadowfault_api.entities import Operation, Origin, OutboxEntry
from shadowfault_api.shadow.settle import Outcome, Settler
from shadowfault_api.shadow.writer import ShadowWriter, WriterOptions, _Queued
from shadowfault_api.store.outbox import FailedWrite, Failure, Outbox
from shadowfault_api.store.primary import Primary
from shadowfault_api.store.schema import outbox
from shadowfault_api.store.shadow import Shadow
from shadowfault_api.store.urls import create_asynchronous_engine
from shadowfault_testing.databases import postgresql_pair
from shadowfault_testing.service import running, until
from shadowfault_testing.stores import Stores

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence

    from shadowfault_api.shadow.path import ShadowPath
    from shadowfault_testing.databases import DatabasePair
    from shadowfault_testing.postgres import PostgresServer
    from shadowfault_testing.service import Service

    Start = Callable[..., Awaitable[Service]]

NOW = datetime.now(UTC)


async def still(start: Start, **options: Any) -> Service:
    """Start a service that takes nothing up by itself, and asks no open breaker."""
    service = await start(**options)
    sweeper = service.resources.writer._sweeper
    assert sweeper is not None
    sweeper.cancel()
    await asyncio.wait({sweeper})
    return service


@asynccontextmanager
async def still_running(pair: DatabasePair) -> AsyncIterator[Service]:
    """Give the same over databases that are there."""
    async with AsyncExitStack() as stack:

        async def start_one(**options: Any) -> Service:
            return await stack.enter_async_context(running(pair, **options))

        yield await still(start_one)


def path_of(service: Service) -> ShadowPath:
    return service.resources.writer._path


async def entries_of(service: Service, count: int, claim_seconds: float | None) -> list[OutboxEntry]:
    """Write listings whose shadow writes nobody was told of."""
    return [
        (
            await service.resources.listings.create(
                f"Listing {n}", Decimal(n), Origin(claim_seconds=claim_seconds)
            )
        )[1]
        for n in range(count)
    ]


def second_writer(service: Service, **options: Any) -> ShadowWriter:
    """Build a writer over the same stores that nothing runs."""
    path = path_of(service)
    return ShadowWriter(path, Settler(path, None), WriterOptions(**options))


async def test_what_is_begun_after_its_claim_is_left_to_others(start: Start) -> None:
    service = await still(start)
    (entry,) = await entries_of(service, 1, 3600.0)
    settler = Settler(path_of(service), None)
    assert list(await settler.settle([entry], begin_before=0.0)) == [entry]
    service.resources.writer._queue.put_nowait(_Queued(entry, 0.0))

    async def counted() -> bool:
        return await service.metric("shadow_writes_deferred_total", reason="claim_expired") == 1

    await until(counted)
    assert service.shadow_listings() == {}
    (row,) = service.outbox("pending")
    assert row["id"] == entry.id


async def test_of_the_queue_half_is_kept_for_new_writes(start: Start) -> None:
    service = await still(start)
    await entries_of(service, 8, None)
    writer = second_writer(service, queue_size=10, batch_size=3)
    assert await writer._take_pending() == 0.0, "there may be more"
    assert writer.queue_depth == 3
    await writer._take_pending()
    assert writer.queue_depth == 5
    assert 0 < await writer._take_pending() < writer._options.sweep_seconds, "no room: soon again"
    assert writer.queue_depth == 5
    assert len([row for row in service.outbox("pending") if row["claimed_until"] is None]) == 3


async def test_what_was_claimed_as_the_breaker_opened_is_given_back(start: Start) -> None:
    service = await still(start)
    await entries_of(service, 3, None)
    writer = second_writer(service)
    claim = path_of(service).outbox.claim

    async def claim_and_trip(limit: int) -> Sequence[OutboxEntry]:
        found = await claim(limit)
        writer.breaker.trip()
        return found

    path_of(service).outbox.claim = claim_and_trip  # type: ignore[method-assign, assignment]
    await writer._take_pending()
    assert writer.queue_depth == 0
    assert [row["claimed_until"] for row in service.outbox("pending")] == [None] * 3


async def test_a_claim_the_writer_has_no_use_for_is_given_up_before_it_runs_out(start: Start) -> None:
    service = await start(shadow_breaker_reset_seconds=0.05)
    writer = service.resources.writer
    (entry,) = await entries_of(service, 1, 3600.0)
    writer.breaker.trip()  # after the claim was asked for, and before the entry was handed over
    writer.submit(entry)
    await service.settled()
    assert set(service.shadow_listings()) == {entry.entity_id}


@pytest.mark.parametrize("give_up_seconds", [3600.0, 0.0])
async def test_what_waited_too_long_for_the_breaker_is_a_failure_on_record(
    start: Start, give_up_seconds: float
) -> None:
    service = await start(shadow_give_up_seconds=give_up_seconds, shadow_breaker_reset_seconds=3600.0)
    service.resources.writer.breaker.trip()
    old, young = await entries_of(service, 2, None)
    with Stores.opened(service.databases) as stores, stores.primary.begin() as connection:
        two_hours_ago = datetime.now(UTC) - timedelta(hours=2)
        connection.execute(update(outbox).where(outbox.c.id == old.id).values(created_at=two_hours_ago))
    if not give_up_seconds:
        writer = second_writer(service, give_up_seconds=give_up_seconds)
        assert not writer._given_up_on()
        return
    await until(lambda: service.outbox("failed"))
    (failed,) = service.outbox("failed")
    assert (failed["id"], failed["failure_type"]) == (old.id, "circuit_open")
    assert [row["id"] for row in service.outbox("pending")] == [young.id]
    (record,) = service.evidence()
    assert (record["entity_id"], record["details"]["failureType"]) == (old.entity_id, "circuit_open")
    assert await service.metric("shadow_write_failures_total", failure_type="circuit_open") == 1


async def test_while_the_breaker_is_open_no_read_is_tried_at_the_shadow(start: Start) -> None:
    service = await still(start, chaos={"scope": "reads", "fail_rate": "1"})
    (entry,) = await entries_of(service, 1, None)
    await path_of(service).shadow.apply([entry])
    url = f"/api/listings/{entry.entity_id}"
    assert (await service.client.get(url)).status_code == 200
    service.resources.writer.breaker.trip()
    answer = await service.client.get(url)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")


async def test_a_shadow_that_answers_and_takes_no_writes_costs_one_write_a_probe(start: Start) -> None:
    service = await start(shadow_breaker_reset_seconds=3600.0, shadow_sweep_seconds=0.05)
    shadow, breaker = path_of(service).shadow, service.resources.writer.breaker
    apply, tried = shadow.apply, []

    async def full(entries: Sequence[OutboxEntry]) -> Sequence[OutboxEntry]:
        tried.append(len(entries))
        raise exc.OperationalError("INSERT", None, Exception("full"))

    shadow.apply = full  # type: ignore[method-assign]
    breaker.trip()
    await entries_of(service, 20, None)
    for probes in (1, 2):
        breaker._opened_at = -math.inf
        await until(lambda probes=probes: len(service.outbox("failed")) == probes and not breaker.closed)
    assert tried == [1, 1]
    shadow.apply = apply  # type: ignore[method-assign]
    breaker._opened_at = -math.inf
    await service.settled()
    assert len(service.shadow_listings()) == 18


async def test_probation_ends_though_most_writes_are_made_to_fail(start: Start) -> None:
    """An injected fault says nothing of the shadow: it must not keep batches small."""
    service = await still(start, chaos={"fail_rate": "0.9", "seed": "s"})
    breaker = service.resources.writer.breaker
    breaker.trip()
    breaker._opened_at = -math.inf
    assert breaker.begin_probe()
    breaker.answered()
    entries = await entries_of(service, 60, 3600.0)
    settler = service.resources.writer._settler
    assert await settler.settle(entries) == []
    assert not breaker.on_probation
    assert len(service.shadow_listings()) == 60 - len(service.outbox("failed"))
    assert {row["failure_type"] for row in service.outbox("failed")} == {"injected"}


async def test_a_claim_that_ran_out_is_not_given_up_for_it_may_be_anothers(start: Start) -> None:
    service = await still(start)
    writer = second_writer(service, claim_seconds=60.0)
    kept, lost = await entries_of(service, 2, 60.0)
    late = _Queued(lost, time.monotonic() - 1)
    await writer._release([_Queued(kept, time.monotonic() + 1), late])
    assert {row["id"]: row["claimed_until"] is None for row in service.outbox("pending")} == {
        kept.id: True,
        lost.id: False,
    }


async def test_what_nobody_claimed_is_left_also_where_it_could_be_taken_by_now(start: Start) -> None:
    service = await still(start)
    writer = service.resources.writer
    (entry,) = await entries_of(service, 1, None)  # the breaker was open then
    writer.submit(entry, claimed=False)
    assert writer.queue_depth == 0
    assert await service.metric("shadow_writes_deferred_total", reason="unclaimed") == 1
    await writer._take_pending()
    await service.settled()
    assert set(service.shadow_listings()) == {entry.entity_id}


async def test_an_empty_shadow_in_the_place_of_the_one_before_is_migrated(start: Start) -> None:
    service = await start(shadow_breaker_failures=1)
    first = await service.create()
    await service.settled()
    if service.databases.backend == "sqlite":
        for table in ("listings", "alembic_version"):
            service.shadow(f"DROP TABLE {table}")
    else:
        service.shadow("DROP SCHEMA public CASCADE")
        service.shadow("CREATE SCHEMA public")
    lost = await service.create()
    await service.settled()
    (row,) = service.outbox("failed")
    assert (row["entity_id"], row["failure_type"]) == (lost["id"], "unavailable")

    async def written_again() -> bool:
        made = await service.create()
        await service.settled()
        return made["id"] not in {row["entity_id"] for row in service.outbox("failed")}

    await until(written_again)
    assert first["id"] not in service.shadow_listings(), "the verifier's business, and `repair`'s"


async def test_reads_that_wait_for_the_shadow_hold_up_no_write(start: Start) -> None:
    service = await start()
    async with AsyncExitStack() as reads:
        reader = path_of(service).shadow._reads
        for _ in range(reader.pool.size()):  # type: ignore[attr-defined]
            await reads.enter_async_context(reader.connect())
        created = await service.create()
        await service.settled()
        assert set(service.shadow_listings()) == {created["id"]}


@pytest.fixture
def databases(postgres_server: PostgresServer) -> Iterator[DatabasePair]:
    with postgresql_pair(postgres_server) as pair:
        yield pair


@asynccontextmanager
async def boxed(pair: DatabasePair, pending: int) -> AsyncIterator[tuple[Outbox, list[OutboxEntry]]]:
    """Open an outbox with rows, whose statements wait for no lock for long."""
    with Stores.opened(pair) as stores, stores.primary.begin() as connection:
        values = {"entity_type": "Listing", "operation": "create", "version": 2, "created_at": NOW}
        rows = [{**values, "entity_id": f"{n:036}"} for n in range(pending)]
        connection.execute(insert(outbox), rows)
        ids = connection.execute(select(outbox.c.id).order_by(outbox.c.id)).scalars().all()
    entries = [
        OutboxEntry(number, "Listing", f"{n:036}", Operation.CREATE, 2, None, None, False, NOW)
        for n, number in enumerate(ids)
    ]
    engine = create_asynchronous_engine(pair.primary, statement_timeout_seconds=20)
    try:
        yield Outbox(Primary(engine), claim_seconds=60), entries
    finally:
        await engine.dispose()


@pytest.mark.postgres
async def test_a_claim_passes_over_what_another_replica_is_claiming(databases: DatabasePair) -> None:
    other = create_engine(make_url(databases.primary).set(drivername="postgresql+psycopg"))
    async with boxed(databases, 3) as (box, entries):
        with other.begin() as connection:
            connection.execute(
                text("UPDATE outbox SET claimed_until = now() + interval '1 hour' WHERE id = :id"),
                {"id": entries[0].id},
            )
            claimed = await box.claim(10)
        assert [entry.id for entry in claimed] == [entry.id for entry in entries[1:]]
    other.dispose()


@pytest.mark.postgres
async def test_rows_are_locked_in_their_order_before_any_is_changed(databases: DatabasePair) -> None:
    other = create_engine(make_url(databases.primary).set(drivername="postgresql+psycopg"))
    watching = other.execution_options(isolation_level="AUTOCOMMIT")
    waiting = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    lock = text("SELECT id FROM outbox WHERE id = :id FOR UPDATE NOWAIT")

    def is_waiting() -> bool:
        with watching.connect() as connection:
            return bool(connection.execute(waiting).scalar_one())

    async with boxed(databases, 2) as (box, (first, second)):
        failed = [FailedWrite(second, Failure("timeout")), FailedWrite(first, Failure("constraint"))]
        with other.begin() as connection:
            connection.execute(lock, {"id": first.id})
            recording = asyncio.create_task(box.record([], failed))
            await until(is_waiting)
            with other.begin() as third:
                assert third.execute(lock, {"id": second.id}).scalar_one() == second.id
        assert len((await recording).failed) == 2
    other.dispose()


@pytest.mark.postgres
async def test_the_shadow_ends_a_statement_by_itself_after_the_deadline(databases: DatabasePair) -> None:
    async with running(databases, shadow_timeout_seconds=3.0) as service:
        shadow = path_of(service).shadow
        for engine in (shadow._engine, shadow._reads):
            async with engine.connect() as connection:
                assert (await connection.execute(text("SHOW statement_timeout"))).scalar_one() == "3s"


@pytest.mark.postgres
async def test_a_row_that_row_level_security_refuses_fails_alone(databases: DatabasePair) -> None:
    async with still_running(databases) as service:
        service.shadow("ALTER TABLE listings ENABLE ROW LEVEL SECURITY")
        service.shadow("CREATE POLICY picky ON listings USING (true) WITH CHECK (title <> 'Listing 2')")
        service.shadow("CREATE ROLE picky_writer LOGIN PASSWORD 'x'")
        try:
            service.shadow("GRANT ALL ON listings TO picky_writer")
            url = make_url(databases.shadow).set(username="picky_writer", password="x")
            engine = create_asynchronous_engine(url)
            shadow = Shadow(url, engine, engine, migrate_timeout_seconds=5)
            settler = Settler(replace(path_of(service), shadow=shadow), None)
            entries = await entries_of(service, 8, 3600.0)
            assert await settler.settle(entries) == []
            await engine.dispose()
            (failed,) = service.outbox("failed")
            assert (failed["entity_id"], failed["failure_type"]) == (entries[2].entity_id, "unavailable")
            assert service.resources.writer.breaker.closed
        finally:
            service.shadow("DROP OWNED BY picky_writer")
            service.shadow("DROP ROLE picky_writer")


@pytest.mark.postgres
async def test_what_the_primary_does_not_let_us_record_holds_up_no_other(databases: DatabasePair) -> None:
    """As where a role was not granted what a migration brought."""
    async with still_running(databases) as service:
        good, bad = await entries_of(service, 2, 3600.0)
        record = path_of(service).outbox.record

        async def denied(written: Sequence[OutboxEntry], failed: Sequence[FailedWrite]) -> Any:
            if failed:
                raise exc.ProgrammingError("INSERT", None, psycopg.errors.InsufficientPrivilege())
            return await record(written, failed)

        path_of(service).outbox.record = denied  # type: ignore[method-assign]
        await Settler(path_of(service), None).record(
            Outcome(written=[good], failed=[FailedWrite(bad, Failure("timeout"))])
        )
        assert [row["id"] for row in service.outbox("pending")] == [bad.id]
        assert await service.metric("shadow_writes_deferred_total", reason="record_refused") == 1


@pytest.mark.postgres
async def test_where_the_primary_refuses_everything_the_rest_is_left_as_it_is(
    databases: DatabasePair,
) -> None:
    async with still_running(databases) as service:
        entries = await entries_of(service, 100, 3600.0)
        asked: list[int] = []

        async def denied(written: Sequence[OutboxEntry], failed: Sequence[FailedWrite]) -> Any:
            asked.append(len(written) + len(failed))
            raise exc.ProgrammingError("DELETE", None, psycopg.errors.InsufficientPrivilege())

        record = path_of(service).outbox.record
        path_of(service).outbox.record = denied  # type: ignore[method-assign]
        settler = Settler(path_of(service), None)
        await settler.record(Outcome(written=entries))
        assert len(asked) < 30
        assert len(service.outbox("pending")) == 100
        assert await service.metric("shadow_writes_deferred_total", reason="record_refused") == 100

        path_of(service).outbox.record = record  # type: ignore[method-assign]
        await settler.record(Outcome(written=entries))
        assert service.outbox("pending") == []
