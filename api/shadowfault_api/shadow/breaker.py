"""A circuit breaker: after some failures in a row the other side is left alone, then asked by one probe."""

from __future__ import annotations

import time
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class BreakerState(StrEnum):
    """Closed lets calls pass; open lets none; half_open waits for the answer of one probe."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class CircuitBreaker:
    """Counts failures in a row. For use from one event loop.

    Args:
        failures: how many in a row open it.
        reset_seconds: how long it stays open before a probe is due.
        clock: monotonic seconds.
    """

    def __init__(
        self, failures: int, reset_seconds: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._threshold = failures
        self._reset = reset_seconds
        self._clock = clock
        self._failures = 0
        self._opened_at = 0.0
        # Closed by an answer, and no call has worked since: the next failure opens it.
        self.on_probation = False
        self.state = BreakerState.CLOSED

    @property
    def closed(self) -> bool:
        """Whether ordinary calls may pass."""
        return self.state is BreakerState.CLOSED

    def begin_probe(self) -> bool:
        """Claim the one probe, when it is due; whoever gets True must report `answered` or `failed`."""
        if self.state is not BreakerState.OPEN or self._clock() - self._opened_at < self._reset:
            return False
        self.state = BreakerState.HALF_OPEN
        return True

    def succeeded(self) -> None:
        """Report a call that worked. A late answer of an older call does not close an open breaker."""
        if self.state is not BreakerState.OPEN:
            self._failures = 0
            self.on_probation = False
            self.state = BreakerState.CLOSED

    def answered(self) -> None:
        """Report a probe that was answered: calls pass again, and the first that fails opens it at once.

        The other side may answer and take no writes: it is full, or read-only.
        """
        if not self.closed:
            self._failures = self._threshold - 1
            self.on_probation = True
            self.state = BreakerState.CLOSED

    def failed(self) -> None:
        """Report a call that did not."""
        self._failures += 1
        if self.state is BreakerState.HALF_OPEN or self._failures >= self._threshold:
            self.trip()

    def trip(self) -> None:
        """Open at once, however few the failures."""
        self.state = BreakerState.OPEN
        self.on_probation = False
        self._opened_at = self._clock()
