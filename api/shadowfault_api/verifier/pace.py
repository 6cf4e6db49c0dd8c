"""How much to ask of the databases at a time, and how long to wait after it."""

from __future__ import annotations

from dataclasses import dataclass
from threading import Lock
from time import monotonic
from typing import Final

# A first chunk is over in a moment, and says well enough how much larger the next one may be.
_GROWTH: Final = 16.0
_SHRINKAGE: Final = 4.0
# Chunks under way behind the one that is waited for, where each takes its time.
_AHEAD: Final = 3


@dataclass(frozen=True, slots=True)
class Pace:
    """Limits of a scan.

    Attributes:
        first: rows of the first chunk.
        least: rows of the smallest chunk.
        most: rows of the largest chunk.
        target_seconds: how long a chunk should take.
        rows_per_second: rows of one side read in a second at most; None for no limit.
    """

    first: int = 10_000
    least: int = 1_000
    most: int = 5_000_000
    target_seconds: float = 0.5
    rows_per_second: float | None = None

    @property
    def limited(self) -> bool:
        """Whether a limit of rows holds."""
        return self.rows_per_second is not None

    def ahead(self, seconds: float) -> int:
        """Tell how many chunks may be under way behind the one that is waited for.

        Several, so that a side that is slow for a moment does not hold up the other; one as long as chunks
        take far less than they should, for their size was chosen before that was known. None under a limit,
        which counts that one.

        Args:
            seconds: how long the last chunk took.
        """
        if self.limited:
            return 0
        return min(_AHEAD, max(1, round(_AHEAD * seconds / self.target_seconds)))

    def start(self) -> int:
        """Give the size of the first chunk."""
        return self._kept(self.first)

    def next_size(self, size: int, seconds: float) -> int:
        """Give the size of the chunk after one of `size` rows that took so long."""
        factor = self.target_seconds / seconds if seconds > 0 else _GROWTH
        return self._kept(round(size * min(max(factor, 1 / _SHRINKAGE), _GROWTH)))

    def smaller(self, size: int) -> int | None:
        """Give the size to try after one was too slow; None where there is no smaller one."""
        return max(round(size / _SHRINKAGE), 1) if size > 1 else None

    def _kept(self, size: int) -> int:
        most = self.most
        if self.rows_per_second is not None:
            # A limit holds within each second or so, not only over the whole run.
            most = min(most, max(1, round(self.rows_per_second * self.target_seconds)))
        return max(min(size, most), min(self.least, most))


class Budget:
    """Rows of one side that were read, whatever for, and how long to wait for it. Threads may share it."""

    def __init__(self, rows_per_second: float | None = None) -> None:
        """`rows_per_second`: at most so many; None for no limit."""
        self._rows_per_second = rows_per_second
        self._paid_at = 0.0
        self._lock = Lock()

    def charge(self, rows: int) -> None:
        """Note rows that were read."""
        if self._rows_per_second is not None:
            with self._lock:
                self._paid_at = max(self._paid_at, monotonic()) + rows / self._rows_per_second

    def wait(self) -> float:
        """Tell how long to wait before more is read, in seconds."""
        return max(0.0, self._paid_at - monotonic()) if self._rows_per_second is not None else 0.0
