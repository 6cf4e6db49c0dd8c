"""At its end the operator waits for nothing that does not end by itself."""

from __future__ import annotations

import asyncio

from shadowfault_operator.handlers import Watches
from shadowfault_operator.known import Known


async def test_what_waits_for_a_pause_is_ended_and_nothing_else() -> None:
    stopped = asyncio.Event()
    forever = asyncio.Event()
    waiter = asyncio.create_task(forever.wait(), name="pause-waiter for namespaces.v1")
    other = asyncio.create_task(forever.wait(), name="a restore")

    async def stopping() -> None:
        stopped.set()

    await Watches(Known(), lambda _key: None, stopping=stopping).cleanup()
    assert stopped.is_set()
    await asyncio.wait({waiter})
    assert waiter.cancelled()
    assert not other.done()
    other.cancel()
