"""A primary that is locked, slow or hung: a request ends with a clear answer, and so does the process."""

from __future__ import annotations

import asyncio
import signal
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import httpx
import pytest
from sqlalchemy import create_engine, make_url, text

from shadowfault_api.store.urls import create_asynchronous_engine
from shadowfault_testing.databases import DatabasePair, postgresql_pair
from shadowfault_testing.proxy import TcpProxy
from shadowfault_testing.service import DEADLINE_SECONDS, ServiceProcess, running, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from shadowfault_testing.postgres import PostgresServer

    Launch = Callable[..., ServiceProcess]

pytestmark = pytest.mark.postgres


@pytest.fixture
def databases(postgres_server: PostgresServer) -> Iterator[DatabasePair]:
    with postgresql_pair(postgres_server) as pair:
        yield pair


async def test_a_write_waits_for_a_lock_no_longer_than_the_limit(databases: DatabasePair) -> None:
    async with running(databases, database_timeout_seconds=0.5) as service:
        listing = await service.create()
        path = f"/api/listings/{listing['id']}"
        engine = create_engine(make_url(databases.primary).set(drivername="postgresql+psycopg"))
        try:
            with engine.begin() as other:
                other.execute(text("SELECT * FROM listings FOR UPDATE"))
                answer = await service.client.patch(path, json={"title": "Later"})
                assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        finally:
            engine.dispose()
        assert (await service.client.get(path)).json()["title"] == "Test", "nothing was written"
        assert (await service.client.patch(path, json={"title": "Later"})).status_code == 200


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ("", {"statement_timeout": "3s", "lock_timeout": "3s"}),
        ("-c statement_timeout=1000", {"statement_timeout": "1s", "lock_timeout": "3s"}),
        ("-c lock_timeout=60000", {"statement_timeout": "3s", "lock_timeout": "3s"}),
        ("-c extra_float_digits=0", {"statement_timeout": "3s", "extra_float_digits": "0"}),
    ],
)
async def test_the_shorter_limit_holds_and_options_of_the_url_stay(
    postgres_url: str, options: str, expected: dict[str, str]
) -> None:
    url = make_url(postgres_url)
    if options:
        url = url.update_query_dict({"options": options})
    engine = create_asynchronous_engine(url, statement_timeout_seconds=3)
    try:
        async with engine.connect() as connection:
            found = {name: (await connection.execute(text(f"SHOW {name}"))).scalar_one() for name in expected}
            await connection.rollback()
            again = (await connection.execute(text("SHOW statement_timeout"))).scalar_one()
    finally:
        await engine.dispose()
    assert found == expected
    assert again == expected["statement_timeout"], "a rollback takes the limit away"


async def test_a_scrape_waits_for_no_request_and_no_request_for_a_scrape(databases: DatabasePair) -> None:
    async with running(databases, database_pool_size=2, database_timeout_seconds=5.0) as service:
        await service.create()
        await service.settled()
        async with AsyncExitStack() as requests:
            for _ in range(2):
                await requests.enter_async_context(service.resources.primary.engine.connect())
            failures = await service.metric("metrics_refresh_failures_total")
            assert await service.metric("evidence_last_seal_timestamp_seconds") == 0
            assert await service.metric("metrics_refresh_failures_total") == failures


async def test_what_cannot_be_counted_hides_nothing_else(databases: DatabasePair) -> None:
    async with running(databases, evidence_seal_seconds=0) as service:
        await service.create()
        await service.settled()
        assert await service.metric("shadow_outbox_rows") == 0
        failures = await service.metric("metrics_refresh_failures_total")
        service.primary("ALTER TABLE discrepancies RENAME TO away")
        service.primary(
            "INSERT INTO outbox (entity_type, entity_id, operation, version, created_at, state)"
            " VALUES ('Listing', 'a', 'create', 1, now(), 'failed')"
        )
        assert await service.metric("shadow_outbox_rows", state="failed") == 1
        assert await service.metric("metrics_refresh_failures_total") > failures


async def test_told_to_end_while_the_primary_hangs_it_answers_who_waits_and_ends(
    databases: DatabasePair, launch: Launch
) -> None:
    async with TcpProxy(make_url(databases.primary).port or 0) as proxy:
        through = make_url(databases.primary).set(port=proxy.port).render_as_string(hide_password=False)
        process = launch(
            DATABASE_URL=through,
            SHADOW_DATABASE_URL=databases.shadow,
            DATABASE_TIMEOUT_SECONDS=f"{DEADLINE_SECONDS}",
            SHUTDOWN_GRACE_SECONDS="2",
        )
        url = await asyncio.to_thread(lambda: process.url)
        async with httpx.AsyncClient(base_url=url, timeout=DEADLINE_SECONDS, trust_env=False) as client:
            body = {"title": "Test", "price": 1}
            assert (await client.post("/api/listings", json=body)).status_code == 201
            proxy.hang()
            waiting = asyncio.create_task(client.post("/api/listings", json=body))

            async def not_ready() -> bool:
                return (await client.get("/ready")).status_code == 503

            await until(not_ready)
            process.process.send_signal(signal.SIGTERM)
            answer = await waiting
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert await asyncio.to_thread(process.process.wait, DEADLINE_SECONDS) == 0
    # It is a request like others: logged, and before the process counts for the last time.
    events = [(line["event"], line.get("status"), line.get("method")) for line in process.lines()]
    assert ("request", 503, "POST") in events
    assert events.index(("request", 503, "POST")) < events.index(
        ("Application shutdown complete.", None, None)
    )
    assert not any("Exception in ASGI" in event for event, _, _ in events)


async def test_a_figure_that_waits_for_a_lock_hides_no_other(databases: DatabasePair) -> None:
    async with running(databases, database_timeout_seconds=6.0, evidence_seal_seconds=0) as service:
        service.primary(
            "INSERT INTO outbox (entity_type, entity_id, operation, version, created_at, state)"
            " VALUES ('Listing', 'a', 'create', 1, now(), 'failed')"
        )
        engine = create_engine(make_url(databases.primary).set(drivername="postgresql+psycopg"))
        try:
            with engine.begin() as other:
                other.execute(text("LOCK TABLE discrepancies IN ACCESS EXCLUSIVE MODE"))

                async def shown() -> bool:
                    return await service.metric("shadow_outbox_rows", state="failed") == 1

                await until(shown)
        finally:
            engine.dispose()


async def test_what_is_answered_with_503_at_the_end_is_not_committed_later(
    databases: DatabasePair, launch: Launch
) -> None:
    """A client that tries again, as it is asked to, would have made two."""
    process = launch(**databases.environment(), SHUTDOWN_GRACE_SECONDS="2")
    url = await asyncio.to_thread(lambda: process.url)
    engine = create_engine(make_url(databases.primary).set(drivername="postgresql+psycopg"))
    waiting = text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
    try:
        with engine.begin() as holder:
            holder.execute(text("LOCK TABLE listings IN ACCESS EXCLUSIVE MODE"))
            async with httpx.AsyncClient(base_url=url, timeout=DEADLINE_SECONDS, trust_env=False) as client:
                body = {"title": "Test", "price": 1}
                posts = [asyncio.create_task(client.post("/api/listings", json=body)) for _ in range(3)]

                def all_wait() -> bool:
                    with engine.connect() as connection:
                        return int(connection.execute(waiting).scalar_one()) == len(posts)

                await until(lambda: asyncio.to_thread(all_wait))
                process.process.send_signal(signal.SIGTERM)
                answers = [(await post).status_code for post in posts]
            assert await asyncio.to_thread(process.process.wait, DEADLINE_SECONDS) == 0
        assert answers == [503] * len(posts)
        with engine.connect() as connection:
            assert connection.execute(text("SELECT count(*) FROM listings")).scalar_one() == 0
    finally:
        engine.dispose()
