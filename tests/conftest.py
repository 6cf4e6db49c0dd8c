"""Fixtures that several test folders share. What only one needs belongs to that one."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
import structlog
from hypothesis import HealthCheck, settings

from shadowfault_testing.databases import DatabasePair, postgresql_pair, sqlite_pair
from shadowfault_testing.postgres import PostgresServer
from shadowfault_testing.stores import Stores

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


# How long an example takes says something of the machine and nothing of the code.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


# What a test that fails shows. structlog's own tracebacks are drawn in a sixth of a second each.
_LOG = [
    structlog.contextvars.merge_contextvars,
    structlog.processors.add_log_level,
    structlog.processors.TimeStamper(fmt="%H:%M:%S.%f"),
    structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
]


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """What a test sets up for logging goes with it: its stream is closed by the next one.

    A logger that a module keeps must not keep the configuration it was first used under: a later test that
    captures log lines would see none.
    """
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    configure = structlog.configure
    configure(processors=_LOG)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            structlog, "configure", lambda **given: configure(**given | {"cache_logger_on_first_use": False})
        )
        yield
    for handler in list(root.handlers):
        # None of pytest's own, which come and go with the phases of a test.
        if type(handler) is logging.StreamHandler and handler not in before:
            root.removeHandler(handler)
    root.setLevel(level)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One PostgreSQL server for the whole run, on a free loopback port."""
    with PostgresServer.start() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """Give the URL of a fresh, empty PostgreSQL database."""
    with postgres_server.borrowed_database() as name:
        yield postgres_server.url(name)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def database_pair(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[DatabasePair]:
    """Give fresh, empty databases, primary and shadow; the test runs once on each kind of database."""
    if request.param == "sqlite":
        yield sqlite_pair(tmp_path)
        return
    with postgresql_pair(request.getfixturevalue("postgres_server")) as pair:
        yield pair


@pytest.fixture
def stores(database_pair: DatabasePair) -> Iterator[Stores]:
    """Give the same pair with its tables, and ways to put rows into them."""
    with Stores.opened(database_pair) as opened:
        yield opened
