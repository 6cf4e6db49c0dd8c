"""One verifier at a time for a primary database, or the shards of one run.

On PostgreSQL a session-level advisory lock, on SQLite `flock` on a file beside the database: both are gone
with the process that held them, however it ended, so no lease has to run out. Two at once would do no harm
beyond double work; records are entered under row locks and a unique index.

A pooler that shares server sessions between clients (PgBouncer in transaction mode) does not keep the lock:
give the verifier a direct URL.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from shadowfault_api.store.locks import PART_LOCK_CLASS, VERIFIER_LOCK_KEY, VERIFIER_LOCK_SUFFIX
from shadowfault_api.verifier.errors import AlreadyRunningError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sqlalchemy import Connection

    from shadowfault_api.verifier.side import Side


# Whoever looks whether the file is locked holds it for a moment (`locks.verifier_works`).
_LOOKS: Final = 3
_LOOK_SECONDS: Final = 0.05
_HEARTBEAT_SECONDS: Final = 5.0
_ALIVE: Final = text("SELECT 1")
# The session is idle for as long as the run takes. The setting is new in PostgreSQL 14.
_FOREVER: Final = text(
    "SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'idle_session_timeout'"
)


class Held:
    """A lock that is held, as far as anybody knows."""

    def __init__(self, primary: Side, connection: Connection | None = None) -> None:
        self._primary = primary
        self._connection = connection
        self._look_at = time.monotonic() + _HEARTBEAT_SECONDS

    def check(self) -> None:
        """Look whether the session that holds it is alive, now and then; not to be called by two threads.

        Raises:
            UnreachableError: it is not, and another verification may be at work.
        """
        if self._connection is None or time.monotonic() < self._look_at:
            return
        try:
            self._connection.execute(_ALIVE)
        except SQLAlchemyError:
            raise UnreachableError(
                f"the session that held the verifier's lock of {self._primary.described()} ended: another "
                "verification may have begun; run it again"
            ) from None
        self._look_at = time.monotonic() + _HEARTBEAT_SECONDS


@contextmanager
def exclusive(primary: Side) -> Iterator[Held]:
    """Hold the lock of this primary.

    Raises:
        AlreadyRunningError: another verifier holds it.
    """
    if primary.postgresql:
        with _advisory_lock(primary) as connection:
            yield Held(primary, connection)
    else:
        with _file_lock(primary):
            yield Held(primary)


def _refused(primary: Side) -> AlreadyRunningError:
    return AlreadyRunningError(
        f"another verification of {primary.described()} is going on: wait for it, see GET /api/admin/jobs"
    )


class PartLocks(Held):
    """The locks of parts, in the session that holds the verifier's lock for a shard."""

    # Those of whoever puts the parts together, and of whoever makes a pass alone: no part has such a number.
    MERGE: Final = 2**31 - 1
    ALONE: Final = 2**31 - 2

    def __init__(self, primary: Side, connection: Connection) -> None:
        super().__init__(primary, connection)
        self._session = connection

    def claim(self, number: int) -> bool:
        """Take the lock of a part, unless another session has it."""
        query = text(f"SELECT pg_try_advisory_lock({PART_LOCK_CLASS}, :number)")
        return bool(self._session.execute(query, {"number": number}).scalar_one())

    def others_work(self) -> bool:
        """Tell whether another session has one."""
        return bool(self._session.execute(_OTHERS).scalar_one())


# How pg_locks shows an advisory lock with two keys of 32 bits.
_OTHERS: Final = text(
    "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 2"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND classid = :class AND pid <> pg_backend_pid())"
).bindparams(**{"class": PART_LOCK_CLASS})


@contextmanager
def shared(primary: Side) -> Iterator[PartLocks]:
    """Hold the lock of this primary together with other shards; on PostgreSQL only.

    Raises:
        AlreadyRunningError: a verifier without shards holds it.
    """
    with _advisory_lock(primary, "_shared") as connection:
        try:
            yield PartLocks(primary, connection)
        except SQLAlchemyError as error:
            raise UnreachableError(f"cannot lock {primary.described()}: {type(error).__name__}") from None


@contextmanager
def _advisory_lock(primary: Side, kind: str = "") -> Iterator[Connection]:
    with ExitStack() as stack:
        try:
            connection = stack.enter_context(primary.engine.connect())
            connection.execution_options(isolation_level="AUTOCOMMIT")
            stack.callback(_unlock, connection)
            connection.execute(_FOREVER)
            ours = connection.execute(
                text(f"SELECT pg_try_advisory_lock{kind}({VERIFIER_LOCK_KEY})")
            ).scalar_one()
        except SQLAlchemyError as error:
            raise UnreachableError(f"cannot lock {primary.described()}: {type(error).__name__}") from None
        if not ours:
            raise _refused(primary)
        yield connection


def _unlock(connection: Connection) -> None:
    """Unlock now: the server notices the end of a session a moment later, and the next run may be sooner.

    Where that fails the session does not go back to the pool, and its end unlocks.
    """
    try:
        connection.execute(text("SELECT pg_advisory_unlock_all()"))
    except SQLAlchemyError:
        connection.invalidate()


@contextmanager
def _file_lock(primary: Side) -> Iterator[None]:
    """Lock a file of its own: to close a second descriptor of the database file drops SQLite's locks."""
    path = Path(f"{primary.engine.url.database}{VERIFIER_LOCK_SUFFIX}")
    descriptor = _locked(path)
    for _ in range(_LOOKS):
        if descriptor is not None:
            break
        time.sleep(_LOOK_SECONDS)
        descriptor = _locked(path)
    if descriptor is None:
        raise _refused(primary)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # while it is locked: whoever waits on the old file looks again
        os.close(descriptor)


def _locked(path: Path) -> int | None:
    while True:
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UnreachableError(f"cannot create the lock {path}: {error.strerror}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        try:
            if path.stat().st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        except FileNotFoundError:
            pass
        os.close(descriptor)  # its last holder removed it between our open and our lock
