"""One verifier at a time: also between processes, and after one of them was killed; never on a replica."""

from __future__ import annotations

import subprocess
import sys
from threading import Lock, Thread
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from shadowfault_api.store.urls import create_sync_engine
from shadowfault_api.verifier import VerificationError, verify_stores
from shadowfault_api.verifier.checks import check_databases
from shadowfault_api.verifier.errors import AlreadyRunningError
from shadowfault_api.verifier.lock import exclusive
from shadowfault_api.verifier.side import Side
from shadowfault_testing.databases import DatabasePair
from shadowfault_testing.postgres import PostgresServer
from shadowfault_testing.stores import Stores

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_HOLDER = """
import sys
from shadowfault_api.store.urls import create_sync_engine
from shadowfault_api.verifier.lock import exclusive
from shadowfault_api.verifier.side import Side
with exclusive(Side("primary", create_sync_engine(sys.argv[1]), 5.0)):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(stores: Stores) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock."""
    with subprocess.Popen(
        [sys.executable, "-c", _HOLDER, stores.pair.primary],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_killed_holder_blocks_nobody(stores: Stores, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(AlreadyRunningError):
        verify_stores(stores.primary, stores.shadow)
    holder.kill()
    holder.wait()
    verified = False
    while not verified:  # PostgreSQL notices the death of a client a moment later; the test has a time limit
        try:
            verified = verify_stores(stores.primary, stores.shadow).clean
        except AlreadyRunningError:
            continue


def test_the_lock_file_comes_and_goes_and_still_excludes(tmp_path: Path) -> None:
    """Removing the file while others open it is where such locks break."""
    side = Side("primary", create_sync_engine(f"sqlite:///{tmp_path / 'primary.db'}"), 5.0)
    inside, together, held = Lock(), [], [0]

    def contend() -> None:
        for _ in range(300):
            try:
                with exclusive(side):
                    if not inside.acquire(blocking=False):
                        together.append(1)
                        continue
                    held[0] += 1
                    inside.release()
            except AlreadyRunningError:
                continue

    threads = [Thread(target=contend) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert together == []
    assert held[0] > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.postgres
@pytest.mark.parametrize("replica", ["primary", "shadow"])
def test_a_replica_is_refused_for_it_lags(replica: str, postgres_url: str) -> None:
    with PostgresServer.start() as lagging:
        here, there = postgres_url, lagging.url(lagging.create_database())
        pair = DatabasePair(there, here, "") if replica == "primary" else DatabasePair(here, there, "")
        with Stores.opened(pair) as stores:
            check_databases(Side("primary", stores.primary, 5.0), Side("shadow", stores.shadow, 5.0))
        lagging.stop()
        (lagging.directory / "data" / "standby.signal").touch()
        lagging.restart()
        with pytest.raises(VerificationError, match=f"the {replica} database .* is a replica in recovery"):
            verify_stores(pair.primary, pair.shadow)


@pytest.mark.postgres
@pytest.mark.parametrize("database_pair", ["postgresql"], indirect=True)
def test_the_lock_goes_with_the_run_and_not_with_the_pool(stores: Stores) -> None:
    """The caller's engine keeps its connections: none of them may keep the lock."""
    verify_stores(stores.primary, stores.shadow)
    with stores.primary.connect() as connection:
        query = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
        assert connection.execute(query).scalar_one() == 0
