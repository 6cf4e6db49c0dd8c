"""Kopf logs a watch that has failed for good and goes on without it: blind, and healthy to look at.

It also ends the watch of a definition that is deleted, and may overlook that it has come back.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from shadowfault_operator.model import PLURAL

if TYPE_CHECKING:
    from collections.abc import Callable

_PERIOD: Final = 2.0
_NAME: Final = "watcher for "
_EXPERIMENTS: Final = f"{_NAME}{PLURAL}."


class BlindError(Exception):
    """A watch has failed; the process is to end and be started again."""


async def watch_the_watches(lost: Callable[[bool], None], period: float = _PERIOD) -> None:
    """Return never; `lost` is told each time whether no watch of the experiments is left of those there were.

    Raises:
        BlindError: one of kopf's watches ended by an error. One that was cancelled is not missed: its
            namespace or its resource has gone.
    """
    watched: set[asyncio.Task[object]] = set()
    ever = False
    while True:
        watched |= {task for task in asyncio.all_tasks() if task.get_name().startswith(_NAME)}
        alive = any(task.get_name().startswith(_EXPERIMENTS) and not task.done() for task in watched)
        ever |= alive
        lost(ever and not alive)
        for task in [task for task in watched if task.done()]:
            watched.discard(task)
            error = None if task.cancelled() else task.exception()
            if error is not None:
                raise BlindError(f"{task.get_name()} failed: {error}") from error
        await asyncio.sleep(period)
