"""The loop around the reconciler ends when it is told to, whatever a pass is in the middle of."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from shadowfault_operator.clock import Clock
from shadowfault_operator.controller import Controller
from shadowfault_operator.errors import UnavailableError
from shadowfault_operator.known import Known
from shadowfault_operator.metrics import Metrics
from shadowfault_operator.model import Key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

KEY = Key("staging", "shadow")


@asynccontextmanager
async def running(work: Coroutine[Any, Any, Any]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def controller(reconcile: Any, *, workers: int = 1) -> Controller:
    async def nothing() -> list[Any]:
        return []

    known = Known()
    return Controller(
        reconciler=SimpleNamespace(reconcile=reconcile),  # type: ignore[arg-type]
        experiments=SimpleNamespace(list_all=nothing),  # type: ignore[arg-type]
        known=known,
        metrics=Metrics(known),
        clock=Clock(lambda: datetime.now(UTC)),
        workers=workers,
        resync_seconds=300,
    )


async def test_an_error_in_the_moment_of_the_end_does_not_keep_it_alive() -> None:
    begun = asyncio.Event()

    async def lost() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise UnavailableError("the connection went with the operator") from None

    async def reconcile(_: Key) -> None:
        await asyncio.gather(lost(), asyncio.sleep(0))

    work = controller(reconcile)
    task = asyncio.create_task(work.run())
    work.enqueue(KEY)
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(10):
            await task


async def test_the_end_of_an_outage_is_the_end_for_all() -> None:
    """One pass succeeds, and whatever waited for its next try is tried at once."""
    down, seen = True, []
    failed, done = asyncio.Event(), asyncio.Event()

    async def reconcile(key: Key) -> None:
        if down:
            failed.set()
            raise UnavailableError("refused")
        seen.append(key.name)
        if len(seen) == 3:
            done.set()

    work = controller(reconcile)
    keys = [Key("staging", name) for name in "abc"]
    for key in keys[1:]:
        # As if they had failed for long: their next try is far off.
        work._queue.retry(key, at_least=3600)
    work.enqueue(keys[0])
    async with running(work.run()), asyncio.timeout(10):
        await failed.wait()
        down = False
        await done.wait()
    assert sorted(seen) == ["a", "b", "c"]


async def test_without_watches_it_looks_by_itself() -> None:
    """Long before the next resync, and as long as that is so."""
    looks = 0
    third = asyncio.Event()

    async def count() -> list[Any]:
        nonlocal looks
        looks += 1
        if looks == 3:
            third.set()
        return []

    async def nothing(_key: Key) -> None:
        return None

    work = controller(nothing)
    work._experiments.list_all = count  # type: ignore[method-assign]
    watch = asyncio.create_task(asyncio.Event().wait(), name="watcher for chaosexperiments.v1alpha1.x@none")
    async with running(work.run()), asyncio.timeout(30):
        await asyncio.sleep(0)
        watch.cancel()
        await third.wait()


async def test_who_asks_for_patience_gets_it() -> None:
    """After `Retry-After` nothing is tried earlier, not even when others succeed."""
    refused, passed = asyncio.Event(), asyncio.Event()
    tries = []

    async def reconcile(key: Key) -> None:
        tries.append(key)
        if key == KEY:
            refused.set()
            raise UnavailableError("too many requests", retry_after=3600)
        passed.set()

    work = controller(reconcile)
    work.enqueue(KEY)
    other = Key("staging", "other")
    async with running(work.run()), asyncio.timeout(10):
        await refused.wait()
        for _ in range(3):
            work.enqueue(other)
            await passed.wait()
            passed.clear()
    assert tries == [KEY, other, other, other]
