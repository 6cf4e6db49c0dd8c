"""One verifier at a time: also between processes, and after one of them was killed; never on a replica."""

from __future__ import annotations

import subprocess
import sys
from contextlib import AbstractContextManager, nullcontext
from threading import Lock, Thread
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import text

from shadowfault_api.store.schema import job_runs, verifier_sweeps
from shadowfault_api.store.urls import create_sync_engine
from shadowfault_api.verifier import VerificationError, VerifierOptions, lock, verify_stores
from shadowfault_api.verifier.checks import check_databases
from shadowfault_api.verifier.errors import AlreadyRunningError
from shadowfault_api.verifier.lock import exclusive
from shadowfault_api.verifier.side import Side
from shadowfault_testing.databases import DatabasePair
from shadowfault_testing.postgres import PostgresServer
from shadowfault_testing.stores import Stores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
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


class _Once:
    """Does something when the first chunk of a run is through."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work: Callable[[], object] | None = work

    def __call__(self, _run_id: str) -> AbstractContextManager[Callable[[object], None]]:
        return nullcontext(self._told)

    def _told(self, _standing: object) -> None:
        work, self._work = self._work, None
        if work is not None:
            work()


def _end_the_lock(stores: Stores) -> None:
    with stores.primary.connect() as connection:
        query = (
            "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1"
            " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
        )
        assert connection.execute(text(query)).all() == [(True,)]


@pytest.mark.postgres
@pytest.mark.parametrize("database_pair", ["postgresql"], indirect=True)
def test_a_run_whose_lock_is_gone_ends(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "_HEARTBEAT_SECONDS", 0.0)
    stores.put_both("a")
    options = VerifierOptions(progress=_Once(lambda: _end_the_lock(stores)))
    with pytest.raises(VerificationError, match=r"session that held the verifier's lock .* ended"):
        verify_stores(stores.primary, stores.shadow, options=options)


@pytest.mark.postgres
@pytest.mark.parametrize("database_pair", ["postgresql"], indirect=True)
def test_a_run_that_was_overtaken_takes_nothing_from_the_other(stores: Stores) -> None:
    """Before its next look at the lock."""
    stores.put_both("a")

    def another() -> None:
        _end_the_lock(stores)
        assert verify_stores(stores.primary, stores.shadow).clean

    options = VerifierOptions(progress=_Once(another))
    with pytest.raises(VerificationError, match="another verification has begun since"):
        verify_stores(stores.primary, stores.shadow, options=options)
    (sweep,) = stores.rows(verifier_sweeps)
    assert sweep.finished_at is not None
    assert sorted(run.state for run in stores.rows(job_runs)) == ["failed", "succeeded"]


@pytest.mark.postgres
@pytest.mark.parametrize("database_pair", ["postgresql"], indirect=True)
def test_the_session_of_the_lock_may_be_idle_for_long(stores: Stores) -> None:
    name = stores.primary.url.database
    with stores.primary.begin() as connection:
        version = connection.execute(text("SELECT current_setting('server_version_num')::int")).scalar_one()
        if version < 140_000:
            pytest.skip("idle_session_timeout is new in PostgreSQL 14")
        connection.execute(text(f"ALTER DATABASE {name} SET idle_session_timeout = '10min'"))
    stores.primary.dispose()
    try:
        with lock.exclusive(Side("primary", stores.primary, 5.0)) as held:
            assert held._connection is not None
            query = text("SELECT current_setting('idle_session_timeout')")
            assert held._connection.execute(query).scalar_one() == "0"
    finally:
        with stores.primary.begin() as connection:
            connection.execute(text(f"ALTER DATABASE {name} RESET idle_session_timeout"))


@pytest.mark.postgres
@pytest.mark.parametrize("database_pair", ["postgresql"], indirect=True)
def test_the_lock_goes_with_the_run_and_not_with_the_pool(stores: Stores) -> None:
    """The caller's engine keeps its connections: none of them may keep the lock."""
    verify_stores(stores.primary, stores.shadow)
    with stores.primary.connect() as connection:
        query = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'")
        assert connection.execute(query).scalar_one() == 0
