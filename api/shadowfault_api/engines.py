"""The engines of one process: who has which connections, for how long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from shadowfault_api.store.urls import create_asynchronous_engine

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from shadowfault_api.settings import Settings

# Writes to the shadow are one batch at a time; the other connections are of calls left to time out.
_SHADOW_WRITES: Final = 4
_SHADOW_READS: Final = 8
# Of the time that the questions of a scrape have together, each may take half, and wait a tenth for a lock.
_QUESTION, _LOCK = 0.5, 0.1
_ACCOUNTS: Final = 2
_ACCOUNT_SECONDS: Final = 300.0


@dataclass(frozen=True)
class Engines:
    """Each use has a pool of its own, so that none waits for another.

    `requests`: what users ask, and the outbox. `counting`: what a scrape counts, which may take long.
    `accounting`: what an experiment came to, which may take longer. `shadow` is for writes, `shadow_reads`
    for reads in place of the primary.
    """

    requests: AsyncEngine
    counting: AsyncEngine
    accounting: AsyncEngine
    shadow: AsyncEngine
    shadow_reads: AsyncEngine

    @classmethod
    def of(cls, settings: Settings) -> Engines:
        """Build them; nothing is connected yet."""
        seconds = settings.database_timeout_seconds

        def primary(size: int, statement: float, lock: float | None = None) -> AsyncEngine:
            return _engine(settings.database_url.get_secret_value(), size, seconds, statement, lock)

        def shadow(size: int) -> AsyncEngine:
            url, timeout = settings.shadow_database_url.get_secret_value(), settings.shadow_timeout_seconds
            return _engine(url, size, timeout, timeout)

        return cls(
            requests=primary(settings.database_pool_size, seconds),
            counting=primary(1, seconds * _QUESTION, seconds * _LOCK),
            accounting=primary(_ACCOUNTS, _ACCOUNT_SECONDS, seconds),
            shadow=shadow(_SHADOW_WRITES),
            shadow_reads=shadow(_SHADOW_READS),
        )

    async def dispose_of_primary(self) -> None:
        """Let go of all connections to the primary; those to the shadow are `Shadow`'s to close."""
        for engine in (self.counting, self.accounting, self.requests):
            await engine.dispose()


def _engine(
    url: str, size: int, timeout_seconds: float, statement_seconds: float, lock_seconds: float | None = None
) -> AsyncEngine:
    return create_asynchronous_engine(
        url,
        timeout_seconds=timeout_seconds,
        statement_timeout_seconds=statement_seconds,
        lock_timeout_seconds=lock_seconds,
        pool_size=size,
        max_overflow=0,
        pool_timeout=timeout_seconds,
    )
