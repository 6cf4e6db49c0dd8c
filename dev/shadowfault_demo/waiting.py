"""Waiting for something to be observed, with a deadline and a reason when it does not come."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def until(what: str, observe: Callable[[], T | None], *, seconds: float, interval: float = 0.1) -> T:
    """Return the first truthy observation.

    Raises:
        TimeoutError: nothing truthy within `seconds`; names `what` and the last observation.
    """
    deadline = time.monotonic() + seconds
    while True:
        seen = observe()
        if seen:
            return seen
        if time.monotonic() >= deadline:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}; last seen: {seen!r}")
        time.sleep(interval)
