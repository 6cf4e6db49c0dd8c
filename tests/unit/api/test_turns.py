"""Work on a batch does not keep the event loop to itself."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap

import pytest

from shadowfault_api.turns import in_daemon_thread, in_turns


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


async def test_a_thread_of_its_own_gives_what_the_work_gives() -> None:
    assert await in_daemon_thread(lambda: 42) == 42
    with pytest.raises(ZeroDivisionError):
        await in_daemon_thread(lambda: 1 // 0)


def test_the_end_of_a_process_does_not_wait_for_such_a_thread() -> None:
    program = textwrap.dedent(
        """
        import asyncio, threading
        from shadowfault_api.turns import in_daemon_thread

        async def main():
            begun = threading.Event()
            in_daemon_thread(lambda: (begun.set(), threading.Event().wait()))
            begun.wait()

        asyncio.run(main())
        """
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0
