"""Taking up what is pending costs as much as what is taken, however much is pending."""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event, insert, literal
from sqlalchemy.dialects import postgresql

from shadowfault_api.store.outbox import Outbox
from shadowfault_api.store.primary import Primary
from shadowfault_api.store.schema import outbox
from shadowfault_api.store.urls import create_asynchronous_engine
from shadowfault_testing.databases import postgresql_pair
from shadowfault_testing.stores import Stores

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from sqlalchemy.ext.asyncio import AsyncEngine

    from shadowfault_testing.postgres import PostgresServer

PAGE = 10
DAY = 86400.0
YOUNG = datetime.now(UTC)
OLD = YOUNG - timedelta(days=2)
HELD = YOUNG + timedelta(hours=1)


@asynccontextmanager
async def opened(stores: Stores) -> AsyncIterator[Outbox]:
    engine = create_asynchronous_engine(stores.pair.primary)
    try:
        yield Outbox(Primary(engine), claim_seconds=30, page_size=PAGE)
    finally:
        await engine.dispose()


@contextmanager
def counted(engine: AsyncEngine) -> Iterator[list[str]]:
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.lstrip().startswith(("SELECT", "UPDATE")):
            statements.append(statement)

    event.listen(engine.sync_engine, "before_cursor_execute", note)
    yield statements
    event.remove(engine.sync_engine, "before_cursor_execute", note)


def fill(stores: Stores, number: int, created_at: datetime, claimed_until: datetime | None = None) -> None:
    rows = [
        {
            "entity_type": "Listing",
            "entity_id": f"{n:036}",
            "operation": "create",
            "version": 1,
            "created_at": created_at,
            "claimed_until": claimed_until,
        }
        for n in range(number)
    ]
    with stores.primary.begin() as connection:
        connection.execute(insert(outbox), rows)


@pytest.mark.parametrize("pending", [2 * PAGE, 30 * PAGE])
async def test_a_look_for_what_to_give_up_ends_where_rows_are_too_young(stores: Stores, pending: int) -> None:
    fill(stores, pending, YOUNG)
    async with opened(stores) as box:
        with counted(box.primary.engine) as statements:
            assert await box.claim(PAGE, older_than_seconds=DAY) == []
    assert len(statements) == 1


@pytest.mark.parametrize("pending", [2 * PAGE, 30 * PAGE])
async def test_a_claim_takes_the_oldest_and_reads_no_more(stores: Stores, pending: int) -> None:
    fill(stores, pending, YOUNG)
    async with opened(stores) as box:
        with counted(box.primary.engine) as statements:
            ids = [entry.id for entry in await box.claim(PAGE)]
    assert ids == [row.id for row in stores.rows(outbox)][:PAGE]
    assert len(statements) == 2  # the look, and the claim


async def test_rows_that_are_held_hide_none_behind_them(stores: Stores) -> None:
    fill(stores, 3 * PAGE, OLD, HELD)
    fill(stores, 2, OLD)
    fill(stores, PAGE, OLD, HELD)
    fill(stores, 1, OLD)
    fill(stores, 1, YOUNG)
    free = [row.id for row in stores.rows(outbox) if row.claimed_until is None]
    async with opened(stores) as box:
        assert [entry.id for entry in await box.claim(PAGE, older_than_seconds=DAY)] == free[:-1]
        assert [entry.id for entry in await box.claim(PAGE)] == free[-1:]


async def test_to_take_one_row_behind_many_that_are_held_takes_few_looks(stores: Stores) -> None:
    fill(stores, 3 * PAGE, OLD, HELD)
    fill(stores, 1, OLD)
    async with opened(stores) as box:
        with counted(box.primary.engine) as statements:
            assert len(await box.claim(1)) == 1
    assert len(statements) == 4 + 1  # a page each, and the claim


async def test_who_is_overtaken_by_another_replica_takes_what_comes_next(stores: Stores) -> None:
    fill(stores, 2 * PAGE, OLD)
    first, second = (
        [row.id for row in stores.rows(outbox)][:PAGE],
        [row.id for row in stores.rows(outbox)][PAGE:],
    )
    async with opened(stores) as box, opened(stores) as other:
        look = box._find_free

        async def overtaken(*args: Any) -> Any:
            found = await look(*args)
            if found == first:
                assert [entry.id for entry in await other.claim(PAGE)] == first
            return found

        box._find_free = overtaken  # type: ignore[method-assign]
        assert [entry.id for entry in await box.claim(PAGE)] == second


@pytest.mark.postgres
@pytest.mark.parametrize("analyzed", [False, True])
def test_postgresql_reads_a_page_of_pending_rows_by_the_index(
    postgres_server: PostgresServer, analyzed: bool
) -> None:
    with postgresql_pair(postgres_server) as pair, Stores.opened(pair) as stores:
        fill(stores, 3000, YOUNG, HELD)
        with stores.primary.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            if analyzed:
                connection.exec_driver_sql("VACUUM ANALYZE outbox")
            # Only its dialect and its clock are asked for.
            box = Outbox(Primary(create_asynchronous_engine(pair.primary)), claim_seconds=30)
            query = box.page_of_pending(1000, PAGE, literal(True))
            compiled = query.compile(
                dialect=postgresql.dialect(),
                compile_kwargs={"literal_binds": True},  # type: ignore[no-untyped-call]
            )
            explained = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {compiled}").scalar_one()
    nodes = list(_nodes(explained[0]["Plan"]))
    assert "Sort" not in {node["Node Type"] for node in nodes}
    for node in nodes:
        assert node["Actual Rows"] <= PAGE
        assert not node.get("Rows Removed by Filter")


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for inner in plan.get("Plans", ()):
        yield from _nodes(inner)
