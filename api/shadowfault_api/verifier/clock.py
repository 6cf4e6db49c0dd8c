"""The primary's clock, read once and carried on by counting seconds: all pods of a run tell the same time.

What a run compares with its own beginning (when was this discrepancy last seen?) may have been written by
another pod; and a machine's clock may be set while it runs.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Self

from sqlalchemy import text

if TYPE_CHECKING:
    from shadowfault_api.verifier.side import Side


class Clock:
    """Tells the time, in UTC."""

    def __init__(self, now: datetime) -> None:
        """Begin at `now`."""
        self._base = now
        self._began = time.monotonic()

    @classmethod
    def of(cls, side: Side) -> Self:
        """Ask a database; SQLite has no clock but this machine's."""
        if not side.postgresql:
            return cls(datetime.now(UTC))
        with side.snapshot() as connection:
            moment: datetime = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
        return cls(moment.astimezone(UTC))

    def now(self) -> datetime:
        """Tell the time."""
        return self._base + timedelta(seconds=time.monotonic() - self._began)
