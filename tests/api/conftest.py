"""Replicas of the service for one test."""

from __future__ import annotations

from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

from shadowfault_testing.service import Service, ServiceProcess, launch_service, running
from shadowfault_testing.tables import Pair, opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from pathlib import Path

    from shadowfault_testing.databases import DatabasePair


@pytest.fixture
async def start(database_pair: DatabasePair) -> AsyncIterator[Callable[..., Awaitable[Service]]]:
    """Start replicas over one pair of databases: `await start(chaos={...}, shadow_queue_size=4)`."""
    async with AsyncExitStack() as stack:

        async def start_one(**options: Any) -> Service:
            databases = options.pop("databases", database_pair)
            return await stack.enter_async_context(running(databases, **options))

        yield start_one


@pytest.fixture
async def service(start: Callable[..., Awaitable[Service]]) -> Service:
    """One replica without chaos."""
    return await start()


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Callable[..., ServiceProcess]]:
    """Start processes of the service: `launch(DATABASE_URL=..., CHAOS_ENABLED="true")`."""
    started: list[ServiceProcess] = []

    def launch_one(**variables: str) -> ServiceProcess:
        started.append(launch_service(tmp_path / f"service-{len(started)}.log", variables))
        return started[-1]

    yield launch_one
    for one in started:
        one.kill()


@pytest.fixture(
    params=[
        "sqlite",
        pytest.param("postgresql", marks=pytest.mark.postgres),
        pytest.param("mixed", marks=pytest.mark.postgres),
    ]
)
def pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Pair]:
    """Give two empty databases, of each pair of kinds of server."""
    server = None if request.param == "sqlite" else request.getfixturevalue("postgres_server")
    with opened(request.param, tmp_path, server) as found:
        yield found


@pytest.fixture
def things(pair: Pair) -> Pair:
    """Give the same with a table of every kind of column in each."""
    pair.create()
    return pair
