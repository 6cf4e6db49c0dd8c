"""A throw-away PostgreSQL server on a free loopback port, gone with the process that started it."""

from __future__ import annotations

import contextlib
import itertools
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

import psycopg
from psycopg import sql

from shadowfault_testing.postgres_install import (
    PostgresUnavailableError,
    ServerFolder,
    find_binaries,
    make_folder,
    reachable_binaries,
    unprivileged_account,
)

if TYPE_CHECKING:
    import pwd
    from collections.abc import Iterator, Mapping, Sequence

_LAUNCHER: Final = Path(__file__).with_name("launch.py")
_START_SECONDS: Final = 30.0
_STOP_SECONDS: Final = 10.0
_PORT_ATTEMPTS: Final = 5
_SOCKET_PATH_LIMIT: Final = 90
_USER: Final = "shadowfault"
# Durability costs a test minutes and gives it nothing; `fsync=True` is for benchmarks.
_UNSAFE_AND_FAST: Final = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


_END_OTHER_SESSIONS: Final = """
    SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


class PostgresServer:
    """One server with its own data folder, password and port. Use as a context manager.

    The server gets SIGQUIT when the *thread* that started it ends, however that happens: start it in the main
    thread. PostgreSQL refuses to run as root, so for root it runs as `postgres` or `nobody`.
    """

    def __init__(self, folder: ServerFolder, binaries: Path, account: pwd.struct_passwd | None) -> None:
        """For `start`; nothing runs yet."""
        self.directory: Final = folder.path
        self._folder: Final = folder
        self.binaries: Final = binaries
        self._account: Final = account
        self._password: Final = secrets.token_hex(16)
        self._names: Final = itertools.count(1)
        self._spare: Final[list[str]] = []
        self._settings: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @classmethod
    def start(
        cls, *, fsync: bool = False, settings: Mapping[str, str] | None = None, binaries: Path | None = None
    ) -> Self:
        """Create the data folder and start the server; returns when it answers.

        Args:
            fsync: keep PostgreSQL's durability, for benchmarks.
            settings: further `postgresql.conf` settings.
            binaries: the folder of `postgres`; found by `find_binaries` otherwise.

        Raises:
            PostgresUnavailableError: no binaries, or it did not start; the message holds the log's end.
        """
        found = binaries or find_binaries()
        account = unprivileged_account()
        folder = make_folder(account)
        try:
            server = cls(folder, reachable_binaries(found, folder.path, account), account)
            server._settings = {**({} if fsync else _UNSAFE_AND_FAST), **(settings or {})}
            server._initialise()
            server._start_on_a_free_port()
        except BaseException:
            folder.remove()
            raise
        return server

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """The server's process id while it runs."""
        return self._process.pid if self._process is not None else None

    def url(self, database: str = "postgres") -> str:
        """Return the `postgresql://` URL of a database, password included."""
        return f"postgresql://{_USER}:{self._password}@127.0.0.1:{self.port}/{database}"

    def create_database(self, name: str | None = None, *, template: str | None = None) -> str:
        """Create a database and return its name.

        `template`: the database to copy; nobody may be connected to it.
        """
        created = name or f"test_{next(self._names)}"
        statement = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(created))
        if template is not None:
            statement += sql.SQL(" TEMPLATE {}").format(sql.Identifier(template))
        self._execute(statement)
        return created

    def drop_database(self, name: str) -> None:
        """Drop a database, ending the connections to it."""
        self._execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    @contextlib.contextmanager
    def borrowed_database(self) -> Iterator[str]:
        """Lend a database with nothing in it, and empty it again at the end, whoever is still connected.

        It takes a tenth of the time of CREATE and DROP DATABASE, for no checkpoint is forced.
        """
        name = self._spare.pop() if self._spare else self.create_database()
        yield name
        with psycopg.connect(self.url(name), autocommit=True) as connection:
            connection.execute(_END_OTHER_SESSIONS)
            connection.execute("DROP SCHEMA public CASCADE")
            connection.execute("CREATE SCHEMA public")
            connection.execute("GRANT USAGE ON SCHEMA public TO PUBLIC")  # as in a new database
        self._spare.append(name)

    def stop(self, *, immediately: bool = False) -> None:
        """Stop the server and keep its data. `immediately` is a crash: what was not on disk is lost."""
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGQUIT if immediately else signal.SIGINT)
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGQUIT)
            process.wait(_STOP_SECONDS)

    def restart(self, *, immediately: bool = False) -> None:
        """Stop and start again, on the same port with the same data."""
        self.stop(immediately=immediately)
        self._launch()

    def close(self) -> None:
        """Stop the server and remove its data."""
        try:
            self.stop()
        finally:
            self._folder.remove()

    def _execute(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(statement)

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    @property
    def _log(self) -> Path:
        return self.directory / "server.log"

    def _command(self, program: str, *arguments: str) -> list[str]:
        uid, gid = (self._account.pw_uid, self._account.pw_gid) if self._account is not None else (-1, -1)
        launcher = [sys.executable, "-I", "-S", str(_LAUNCHER), str(os.getpid()), str(uid), str(gid)]
        return [*launcher, str(self.binaries / program), *arguments]

    def _environment(self) -> dict[str, str]:
        # PG* of the person's shell (PGHOST, PGDATA, ...) must not steer this server.
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_"))}
        return {**kept, "HOME": str(self.directory), "LC_ALL": "C", "TZ": "UTC"}

    def _initialise(self) -> None:
        password_file = self.directory / "password"
        password_file.write_text(self._password)
        self._give(password_file)
        # Locale C: the test of the text order sets another collation itself.
        arguments = [
            "--no-sync",
            "--encoding=UTF8",
            "--locale=C",
            f"--username={_USER}",
            "--auth=scram-sha-256",
        ]
        result = subprocess.run(  # noqa: S603 - our own arguments
            self._command("initdb", *arguments, f"--pwfile={password_file}", f"--pgdata={self._data}"),
            capture_output=True,
            text=True,
            check=False,
            cwd=self.directory,
            env=self._environment(),
        )
        password_file.unlink()
        if result.returncode != 0:
            output = (result.stderr or result.stdout).strip()
            raise PostgresUnavailableError(f"{self.binaries}/initdb failed: {output}")

    def _give(self, path: Path) -> None:
        path.chmod(0o700 if path.is_dir() else 0o600)
        if self._account is not None:
            os.chown(path, self._account.pw_uid, self._account.pw_gid)

    def _start_on_a_free_port(self) -> None:
        for attempt in range(1, _PORT_ATTEMPTS + 1):
            self.port = _free_port()
            try:
                self._launch()
            except PostgresUnavailableError as error:
                # Somebody took the port between our look and the server's bind.
                if "in use" not in str(error) or attempt == _PORT_ATTEMPTS:
                    raise
            else:
                return

    def _launch(self) -> None:
        socket_folder = str(self.directory) if len(str(self.directory)) < _SOCKET_PATH_LIMIT else ""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": socket_folder,
            "timezone": "UTC",
            "max_connections": "200",
            **self._settings,
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own arguments
                self._command("postgres", "-D", str(self._data), *options),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                env=self._environment(),
                start_new_session=True,  # Ctrl-C ends the tests, and they end the server
            )
        try:
            self._wait_until_ready(self._process)
        except BaseException:
            self.stop(immediately=True)
            raise

    def _wait_until_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if process.poll() is not None:
                break
            if self._is_ready(process.pid):
                return
            time.sleep(0.02)
        log = self._log.read_text(errors="replace")[-2000:].strip()
        raise PostgresUnavailableError(f"{self.binaries}/postgres did not start: {log or 'no log'}")

    def _is_ready(self, pid: int) -> bool:
        """What `pg_ctl start` waits for: line 1 of postmaster.pid is the server, line 8 says ready."""
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[0].strip() == str(pid) and lines[7].strip() == "ready"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _main(arguments: Sequence[str]) -> int:
    """Run a server until end of input, for a look by hand: prints its URL."""
    with PostgresServer.start(fsync="--fsync" in arguments) as server:
        print(server.url(), flush=True)  # noqa: T201 - that is what it is for
        sys.stdin.read()
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
