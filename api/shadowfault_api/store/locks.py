"""The verifier's lock as others see it: whether a verifier works on this primary right now."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING, Final

from sqlalchemy import text

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

# Keys of advisory locks: any constants, each another. The first is held while migrations run, the second
# while a run is entered in `job_runs`, the third by a verifier (by shards together, shared), the fourth
# while records are sealed, the fifth while a shard joins a run or leaves it.
MIGRATION_LOCK_KEY: Final = 5_274_118_903
JOB_RUNS_LOCK_KEY: Final = 5_274_118_904
VERIFIER_LOCK_KEY: Final = 5_274_118_905
SEALER_LOCK_KEY: Final = 5_274_118_906
SHARDS_LOCK_KEY: Final = 5_274_118_907
# With the number of a part: the lock of the shard that works on it.
PART_LOCK_CLASS: Final = 527_411_890
# On SQLite: the lock file is the database's name and this.
VERIFIER_LOCK_SUFFIX: Final = "-verify.lock"
# How pg_locks shows an advisory lock with one key of 64 bits.
_HELD: Final = text(
    "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1"
    " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND classid = :high AND objid = :low)"
).bindparams(high=VERIFIER_LOCK_KEY >> 32, low=VERIFIER_LOCK_KEY & 0xFFFFFFFF)


async def verifier_works(connection: AsyncConnection) -> bool:
    """Tell whether a verifier holds its lock, or one of its shards; it is gone with the process that held it.

    A shard that failed and is yet to be started again holds none. If no other works meanwhile its run seems
    dead, and lives again with it.
    """
    if connection.dialect.name == "postgresql":
        return bool((await connection.execute(_HELD)).scalar_one())
    return _is_locked(f"{connection.engine.url.database}{VERIFIER_LOCK_SUFFIX}")


def _is_locked(path: str) -> bool:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    except OSError:
        return True  # another user's: better a dead run that seems alive than a live one called dead
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
