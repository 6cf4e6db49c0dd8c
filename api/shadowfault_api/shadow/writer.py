"""The shadow writer: takes outbox entries once the user has the answer, and has them settled in order.

What it cannot take (queue full, breaker open, stopping) stays pending in the outbox, is counted, and is
taken up later by the sweeper of any replica.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from shadowfault_api.deadline import Deadline
from shadowfault_api.shadow.deferral import Deferral
from shadowfault_api.shadow.failures import classify

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shadowfault_api.entities import OutboxEntry
    from shadowfault_api.shadow.path import ShadowPath
    from shadowfault_api.shadow.settle import Settler

# Where there is no room for what is pending: a batch or two are through by then.
_ROOM_SECONDS: Final = 0.05
_RELEASE_SECONDS: Final = 1.0
_log: Final = structlog.get_logger("shadowfault.shadow")


@dataclass(frozen=True, slots=True, kw_only=True)
class WriterOptions:
    """Limits of the writer. `claim_seconds` is how long a row stays ours; begun later, it is left.

    `give_up_seconds`: how old a row may grow while the breaker is open before it is recorded as failed.
    """

    queue_size: int = 1000
    batch_size: int = 200
    batch_seconds: float = 0.05
    claim_seconds: float = 30.0
    sweep_seconds: float = 2.0
    give_up_seconds: float = 86400.0


@dataclass(frozen=True, slots=True)
class _Queued:
    entry: OutboxEntry
    # Monotonic seconds: begun later, another replica may already be at it.
    begin_before: float


class ShadowWriter:
    """One per process. `start` and `stop` belong to the event loop it runs on."""

    def __init__(
        self,
        path: ShadowPath,
        settler: Settler,
        options: WriterOptions,
    ) -> None:
        self.breaker = path.breaker
        self._path = path
        self._settler = settler
        self._options = options
        self._queue: asyncio.Queue[_Queued] = asyncio.Queue(options.queue_size)
        # Claimed, and then not taken over.
        self._unwanted: deque[_Queued] = deque(maxlen=options.queue_size)
        self._stopping = asyncio.Event()
        self._busy = False
        self._consumer: asyncio.Task[None] | None = None
        self._sweeper: asyncio.Task[None] | None = None

    @property
    def queue_depth(self) -> int:
        """How many entries wait in this process."""
        return self._queue.qsize()

    def claim_seconds(self) -> float | None:
        """For how long a row about to be written is to be ours; None where a submit would be deferred."""
        return None if self._refusal() else self._options.claim_seconds

    def submit(self, entry: OutboxEntry, *, claimed: bool = True) -> None:
        """Take over an entry whose transaction is committed, or leave it. Never waits, never raises.

        Where it is `claimed` and left, for the queue has filled since, the next sweep gives the claim up. One
        that is not claimed is left in any case, for another replica may take it.
        """
        if not claimed:
            self._count_deferred(entry, self._refusal() or Deferral.UNCLAIMED)
        elif not self._take(entry):
            self._unwanted.append(self._claimed(entry))

    def _take(self, entry: OutboxEntry) -> bool:
        reason = self._refusal()
        if reason:
            self._count_deferred(entry, reason)
            return False
        self._queue.put_nowait(self._claimed(entry))
        return True

    def _claimed(self, entry: OutboxEntry) -> _Queued:
        """Note until when an entry that was claimed just now is ours to begin with."""
        latest = self._options.claim_seconds - self._path.deadline.seconds
        return _Queued(entry, time.monotonic() + latest)

    async def start(self) -> None:
        """Reach the shadow, if it answers within the deadline, and begin. Without it the rows wait."""
        await self._probe()
        self._consumer = asyncio.create_task(self._consume())
        self._sweeper = asyncio.create_task(self._sweep())

    async def stop(self, grace_seconds: float) -> None:
        """Finish what is queued within `grace_seconds`; the rest stays in the outbox, for other replicas."""
        self._stopping.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_seconds):
                while self._busy or not self._queue.empty():  # noqa: ASYNC110 - once, at the end
                    await asyncio.sleep(0.01)
        # Idle now, or out of grace. A driver cancelled while it connects leaves its socket to the collector.
        for task in (self._consumer, self._sweeper):
            await _end(task, patience=1.0 if task is self._sweeper else 0.0)
        self._path.deadline.close()
        left = [self._queue.get_nowait() for _ in range(self._queue.qsize())]
        for item in left:
            self._count_deferred(item.entry, Deferral.STOPPING)
        left.extend(self._unwanted)
        await self._release(left)

    def _refusal(self) -> Deferral | None:
        if self._stopping.is_set():
            return Deferral.STOPPING
        if not self.breaker.closed:
            return Deferral.CIRCUIT_OPEN
        return Deferral.QUEUE_FULL if self._queue.full() else None

    def _count_deferred(self, entry: OutboxEntry, reason: Deferral) -> None:
        self._path.metrics.deferred.labels(entry.entity_type, entry.operation.value, reason.value).inc()

    async def _release(self, items: Sequence[_Queued]) -> None:
        """Give claims up, but for those that may have run out: such a row may be another replica's by now."""
        now = time.monotonic()
        ours = [item.entry for item in items if item.begin_before > now]
        if not ours:
            return
        with contextlib.suppress(Exception):  # the primary may be away: claims run out by themselves
            await Deadline(_RELEASE_SECONDS).run(self._path.outbox.release(ours))

    async def _consume(self) -> None:
        while True:
            first = await self._queue.get()
            self._busy = True
            try:
                batch = await self._batch(first)
                if batch:
                    begin_before = min(item.begin_before for item in batch)
                    left = await self._settler.settle([item.entry for item in batch], begin_before)
                    await self._leave([_Queued(entry, begin_before) for entry in left])
            except Exception as error:  # noqa: BLE001 - the one consumer must outlive any defect
                # The rows stay pending, and are taken up when their claim has run out.
                _log.error("shadow_batch_abandoned", error_class=type(error).__name__)
            finally:
                self._busy = False

    async def _batch(self, first: _Queued) -> list[_Queued]:
        """Collect for a moment: a batch costs the databases hardly more than a single write."""
        if not self._stopping.is_set():
            await asyncio.sleep(self._options.batch_seconds)
        queued = [first]
        while len(queued) < self._options.batch_size and not self._queue.empty():
            queued.append(self._queue.get_nowait())
        now = time.monotonic()
        for item in queued:
            if item.begin_before <= now:
                self._count_deferred(item.entry, Deferral.CLAIM_EXPIRED)
        return [item for item in queued if item.begin_before > now]

    async def _leave(self, items: Sequence[_Queued]) -> None:
        reason = Deferral.CLAIM_EXPIRED if self.breaker.closed else Deferral.CIRCUIT_OPEN
        for item in items:
            self._count_deferred(item.entry, reason)
        await self._release(items)

    async def _sweep(self) -> None:
        while not self._stopping.is_set():
            pause = self._options.sweep_seconds
            try:
                if self.breaker.begin_probe():
                    await self._probe()
                await self._release([self._unwanted.popleft() for _ in range(len(self._unwanted))])
                pause = await self._give_up() if self._given_up_on() else await self._take_pending()
            except Exception as error:  # noqa: BLE001 - the primary may be away; the outbox keeps
                _log.warning("outbox_sweep_delayed", error_class=type(error).__name__)
            if pause:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._stopping.wait(), pause)

    async def _take_pending(self) -> float:
        """Queue what nobody holds; half of the queue is kept for new writes.

        Returns:
            Seconds after which to look again: none where there may be more, few where there is no room.
        """
        if not self.breaker.closed:
            return self._options.sweep_seconds
        room = min(self._options.queue_size // 2 - self._queue.qsize(), self._options.batch_size)
        if room <= 0:
            return _ROOM_SECONDS
        entries = await self._path.outbox.claim(room)
        # The breaker may have opened meanwhile: they need not wait for the end of a claim nobody uses.
        await self._release([self._claimed(entry) for entry in entries if not self._take(entry)])
        if entries:
            _log.info("outbox_taken_up", rows=len(entries))
        return 0.0 if len(entries) == room else self._options.sweep_seconds

    def _given_up_on(self) -> bool:
        return not self.breaker.closed and self._options.give_up_seconds > 0

    async def _give_up(self) -> float:
        """Record as failed what has waited too long for the shadow; returns as `_take_pending` does.

        While it is pending the verifier takes it for in flight, and would not see a shadow that stays away.
        """
        size = self._options.batch_size
        entries = await self._path.outbox.claim(size, older_than_seconds=self._options.give_up_seconds)
        await self._settler.give_up(entries)
        return 0.0 if len(entries) == size else self._options.sweep_seconds

    async def _probe(self) -> None:
        """Ask the shadow for an answer. No entry is spent on it."""
        try:
            await self._path.deadline.run(self._path.shadow.prepare())
        except Exception as error:  # noqa: BLE001 - any error says the same: not now
            failure = classify(error)
            self.breaker.trip()
            _log.warning(
                "shadow_unreachable",
                failure_type=str(failure.failure_type),
                error_class=failure.error_class,
            )
        else:
            if not self.breaker.closed:
                _log.info("shadow_reachable")
            self.breaker.answered()


async def _end(task: asyncio.Task[None] | None, *, patience: float) -> None:
    if task is None:
        return
    await asyncio.wait({task}, timeout=patience)
    task.cancel()
    await asyncio.wait({task}, timeout=1.0)
