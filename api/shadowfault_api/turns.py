"""Long work on the event loop, in pieces: what waits for the loop meanwhile gets its turn."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

_T = TypeVar("_T")


async def in_turns(items: Iterable[_T], *, at_once: int = 20) -> AsyncIterator[_T]:
    """Go through `items`, and let the loop go on after every `at_once` of them."""
    for number, item in enumerate(items, 1):
        yield item
        if number % at_once == 0:
            await asyncio.sleep(0)
