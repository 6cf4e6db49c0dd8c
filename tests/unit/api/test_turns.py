"""Work on a batch does not keep the event loop to itself."""

from __future__ import annotations

import asyncio

import pytest

from shadowfault_api.turns import in_turns


@pytest.mark.parametrize(("items", "turns"), [(0, 0), (19, 0), (20, 1), (200, 10)])
async def test_others_get_a_turn_after_every_twenty(items: int, turns: int) -> None:
    taken = 0

    async def others() -> None:
        nonlocal taken
        while True:
            await asyncio.sleep(0)
            taken += 1

    task = asyncio.create_task(others())
    await asyncio.sleep(0)  # it waits for its first turn
    assert [item async for item in in_turns(range(items))] == list(range(items))
    assert taken == turns
    task.cancel()
