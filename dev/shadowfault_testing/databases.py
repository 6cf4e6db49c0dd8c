"""Fresh primary and shadow databases for one test."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from shadowfault_testing.postgres import PostgresServer


@dataclass(frozen=True, slots=True)
class DatabasePair:
    """The URLs of two empty databases, as DATABASE_URL and SHADOW_DATABASE_URL take them."""

    primary: str
    shadow: str
    backend: str

    def environment(self) -> dict[str, str]:
        """Return the variables that point a process of ours at the pair."""
        return {"DATABASE_URL": self.primary, "SHADOW_DATABASE_URL": self.shadow}


def sqlite_pair(directory: Path) -> DatabasePair:
    """Name two SQLite files in `directory`; whoever connects first creates them."""
    return DatabasePair(
        f"sqlite:///{directory / 'primary.db'}", f"sqlite:///{directory / 'shadow.db'}", "sqlite"
    )


@contextmanager
def postgresql_pair(server: PostgresServer) -> Iterator[DatabasePair]:
    """Lend two empty databases."""
    with server.borrowed_database() as primary, server.borrowed_database() as shadow:
        yield DatabasePair(server.url(primary), server.url(shadow), "postgresql")
