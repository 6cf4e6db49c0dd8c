"""A pause that the caller may cut short, and with it the whole run."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from shadowfault_api.verifier.errors import StoppedError

if TYPE_CHECKING:
    from threading import Event


def rest(seconds: float, stopping: Event | None, told: str) -> None:
    """Wait for so many seconds.

    Raises:
        StoppedError: `stopping` is set, now or meanwhile; with the message `told`.
    """
    if stopping is None:
        time.sleep(seconds)
    elif stopping.wait(seconds):
        raise StoppedError(told)
