"""The time an experiment is judged by: it may jump ahead, and puts nothing off by going back."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from datetime import datetime


class Clock:
    """The wall clock, or the time that has passed since a key was first asked for, whichever is later.

    Deadlines are wall-clock times, for they hold over restarts and in other processes. A clock that is set
    back would put them off; it does not, for an experiment that this process has seen before.
    """

    def __init__(self, wall: Callable[[], datetime], steady: Callable[[], float] = time.monotonic) -> None:
        self.wall = wall
        self.steady = steady
        self._anchors: dict[Hashable, tuple[datetime, float]] = {}

    def __len__(self) -> int:
        return len(self._anchors)

    def now(self, key: Hashable) -> datetime:
        """The time for that key."""
        wall = self.wall()
        since, then = self._anchors.setdefault(key, (wall, self.steady()))
        return max(wall, since + timedelta(seconds=self.steady() - then))

    def forget(self, key: Hashable) -> None:
        """There is no deadline for it any more."""
        self._anchors.pop(key, None)
