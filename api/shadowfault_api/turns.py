"""Long work beside an event loop: in pieces on it, or in a thread that holds up nothing."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

_T = TypeVar("_T")


async def in_turns(items: Iterable[_T], *, at_once: int = 20) -> AsyncIterator[_T]:
    """Go through `items`, and let what waits for the loop have its turn after every `at_once` of them."""
    for number, item in enumerate(items, 1):
        yield item
        if number % at_once == 0:
            await asyncio.sleep(0)


def in_daemon_thread(work: Callable[[], _T]) -> asyncio.Future[_T]:
    """Run `work` in a thread of its own, which the end of the process does not wait for.

    The loop's own threads are joined at its end, however long that takes.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[_T] = loop.create_future()

    def tell(settle: Callable[[], None]) -> None:
        if not future.done():
            settle()

    def run() -> None:
        try:
            result = work()
        except BaseException as error:  # noqa: BLE001 - whoever waits is told
            settle = partial(future.set_exception, error)
        else:
            settle = partial(future.set_result, result)
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            loop.call_soon_threadsafe(tell, settle)

    Thread(target=run, name="shadowfault-daemon", daemon=True).start()
    return future
