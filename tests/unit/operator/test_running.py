"""The parts that keep the operator going: queue, deadlines, index, watchdog."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from shadowfault_operator.clock import Clock
from shadowfault_operator.deadlines import Deadlines
from shadowfault_operator.known import Known
from shadowfault_operator.model import Key, Phase, Status
from shadowfault_operator.watchdog import BlindError, watch_the_watches
from shadowfault_operator.workqueue import WorkQueue

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

A, B = Key("ns", "a"), Key("ns", "b")


@asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_a_key_waits_once_and_comes_again_when_added_meanwhile() -> None:
    queue: WorkQueue[Key] = WorkQueue()
    for key in (A, B, A, A):
        queue.add(key)
    assert len(queue) == 2
    async with queue.next() as first:
        queue.add(first)
        async with queue.next() as second:
            assert (first, second) == (A, B)
            assert len(queue) == 2
    async with queue.next() as again:
        assert again == A
    assert len(queue) == 0


async def test_one_key_is_never_worked_on_twice_at_a_time() -> None:
    queue: WorkQueue[Key] = WorkQueue()
    at_once, most, done = 0, 0, 0

    async def work() -> None:
        nonlocal at_once, most, done
        while done < 20:
            async with queue.next() as key:
                at_once += 1
                most = max(most, at_once)
                queue.add(key)
                await asyncio.sleep(0)
                at_once -= 1
                done += 1

    queue.add(A)
    tasks = [asyncio.create_task(work()) for _ in range(4)]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (most, done >= 20) == (1, True)


async def test_pauses_grow_with_failures_and_an_addition_cuts_them_short() -> None:
    queue: WorkQueue[Key] = WorkQueue()
    assert [queue.retry(A) for _ in range(7)] == [0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]
    assert queue.retry(A, at_least=30) == 30
    queue.succeeded(A)
    assert queue.retry(A) == 0.2
    queue.add(A)
    async with asyncio.timeout(0.1), queue.next() as key:
        assert key == A


async def test_deadlines_fire_once_in_order_and_the_last_one_set_counts() -> None:
    fired: list[Key] = []
    rang = asyncio.Event()

    def due(key: Key) -> None:
        fired.append(key)
        if len(fired) == 2:
            rang.set()

    clock = [datetime(2026, 3, 1, tzinfo=UTC)]
    deadlines = Deadlines(due, Clock(lambda: clock[0]))
    async with running(deadlines.run()):
        deadlines.set(A, clock[0] + timedelta(hours=1))
        deadlines.set(A, clock[0] + timedelta(hours=3))
        deadlines.set(B, clock[0] + timedelta(hours=2))
        deadlines.set(Key("ns", "c"), clock[0] + timedelta(hours=1))
        deadlines.set(Key("ns", "c"), None)
        await asyncio.sleep(0)
        assert fired == []
        # The clock jumps; the next change makes it look, as the longest sleep would.
        clock[0] += timedelta(hours=4)
        deadlines.set(Key("ns", "d"), clock[0] + timedelta(hours=1))
        async with asyncio.timeout(5):
            await rang.wait()
    assert fired == [B, A]


def test_the_index_knows_rivals_and_who_is_unsettled(scene: Any) -> None:
    known = Known()
    mine = scene.experiment()
    other = replace(mine, key=replace(mine.key, name="other"), uid="other", resource_version="9")
    done = replace(other, key=replace(mine.key, name="done"), uid="done").with_status(
        Status(phase=Phase.FINISHED)
    )
    for experiment in (mine, other, done):
        assert known.update(experiment)
    assert [rival.name for rival in known.rivals(mine)] == ["other"]
    target = Key("staging", "api")
    assert sorted(key.name for key in known.unsettled_on(target)) == ["other", "shadow"]
    assert known.unsettled_in("elsewhere") == []
    assert known.phases()[Phase.FINISHED] == 1
    known.forget(other.key, "an earlier one of that name")
    assert known.rivals(mine)
    known.keep_only([mine.key])
    assert (known.rivals(mine), len(known)) == ((), 1)


def test_the_index_goes_by_versions_and_not_by_arrival(scene: Any) -> None:
    known = Known()
    later = replace(scene.experiment(), resource_version="10")
    assert known.update(later)
    assert not known.update(later)
    assert not known.update(replace(later, resource_version="9"))
    assert known.update(replace(later, resource_version="1", uid="recreated"))


@pytest.mark.parametrize("failing", [True, False])
async def test_a_watch_that_fails_is_noticed_and_one_that_is_cancelled_is_not_missed(failing: bool) -> None:
    async def watch() -> None:
        await asyncio.sleep(0)
        if failing:
            raise RuntimeError("410 of another kind")
        raise asyncio.CancelledError

    task = asyncio.create_task(watch(), name="watcher for deployments.v1.apps@none")
    if failing:
        with pytest.raises(BlindError, match="410 of another kind"):
            await watch_the_watches(lambda _: None, period=0.0)
    else:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await watch_the_watches(lambda _: None, period=0.0)
    assert task.done()


async def test_the_loss_of_every_watch_of_the_experiments_is_told_until_there_is_one_again() -> None:
    told: list[bool] = []
    changed, rounds = asyncio.Event(), asyncio.Semaphore(0)

    def lost(now: bool) -> None:
        rounds.release()
        if not told or told[-1] != now:
            told.append(now)
            changed.set()

    async def until_told() -> None:
        await changed.wait()
        changed.clear()

    def watch(what: str) -> asyncio.Task[object]:
        return asyncio.create_task(asyncio.Event().wait(), name=f"watcher for {what}@none")

    other = watch("deployments.v1.apps")
    dog = asyncio.create_task(watch_the_watches(lost, period=0.0))
    async with asyncio.timeout(10):
        await until_told()
        first = watch("chaosexperiments.v1alpha1.chaos.shadowfault.dev")
        while not rounds.locked():  # those before there was a watch
            await rounds.acquire()
        await rounds.acquire()
        first.cancel()
        await until_told()
        second = watch("chaosexperiments.v1alpha1.chaos.shadowfault.dev")
        await until_told()
    assert told == [False, True, False]
    for task in (other, second, dog):
        task.cancel()
