"""Queue, workers, deadlines and resync around the reconciler."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NoReturn

import structlog

from shadowfault_operator.deadlines import Deadlines
from shadowfault_operator.errors import ApiError, UnavailableError
from shadowfault_operator.reconcile import NotYetError, Reconciler
from shadowfault_operator.watchdog import watch_the_watches
from shadowfault_operator.workqueue import WorkQueue

if TYPE_CHECKING:
    from shadowfault_operator.clock import Clock
    from shadowfault_operator.known import Known
    from shadowfault_operator.metrics import Metrics
    from shadowfault_operator.model import Key
    from shadowfault_operator.ports import Experiments

_log = structlog.get_logger(__name__)
# Seconds between two tries of a look at everything that fails.
_FIRST_PAUSE: Final = 0.2
_LONGEST_PAUSE: Final = 5.0
# Seconds between two looks while no watch tells us of anything.
_BLIND_PAUSE: Final = 1.0


class Controller:
    """Works on keys: those that watches, deadlines and the resync put in."""

    def __init__(  # noqa: PLR0913 - parts that are made outside
        self,
        *,
        reconciler: Reconciler,
        experiments: Experiments,
        known: Known,
        metrics: Metrics,
        clock: Clock,
        workers: int,
        resync_seconds: float,
    ) -> None:
        self._reconciler = reconciler
        self._experiments = experiments
        self._known = known
        self._metrics = metrics
        self._workers = workers
        self._resync_seconds = resync_seconds
        self._queue: WorkQueue[Key] = WorkQueue()
        # Whether our watches of experiments are gone: the definition was deleted, and may be back.
        self._blind = False
        self._look_again = asyncio.Event()
        # Whether the API server could not be reached; the first pass that succeeds ends it for all.
        self._outage = False
        self._deadlines = Deadlines(self._queue.add, clock)

    def enqueue(self, key: Key) -> None:
        """Have the experiment looked at."""
        self._queue.add(key)

    def enqueue_late(self, key: Key) -> None:
        """Have the experiment looked at after all those that may have something in a target."""
        self._queue.add(key, late=True)

    @property
    def pressing(self) -> bool:
        """Whether an experiment waits for a worker that may have something in a target."""
        return self._queue.pressing

    def enqueue_all(self) -> None:
        """Have every experiment looked at that may need something done."""
        for key in self._known.unsettled():
            self._queue.add(key)

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._deadlines.run(), name="deadlines")
            group.create_task(self._resync(), name="resync")
            group.create_task(watch_the_watches(self._watches_lost), name="watchdog")
            for number in range(self._workers):
                group.create_task(self._work(), name=f"worker {number}")

    async def _work(self) -> NoReturn:
        while True:
            async with self._queue.next() as key:
                await self._one(key)
            _pass_on_cancellation()

    async def _one(self, key: Key) -> None:
        try:
            until = await self._reconciler.reconcile(key)
        except (NotYetError, ApiError, UnavailableError) as error:
            self._again(key, error)
            _log.warning("pass not finished, will be tried again", experiment=str(key), error=str(error))
        except Exception as error:  # noqa: BLE001 - one experiment that trips us up must not stop the others
            self._again(key, error)
            _log.exception("pass failed, will be tried again", experiment=str(key))
        else:
            self._queue.succeeded(key)
            self._deadlines.set(key, until)
            if self._outage:
                self._outage = False
                self._queue.hurry()

    def _again(self, key: Key, error: Exception) -> None:
        self._metrics.reconcile_errors.labels(type(error).__name__).inc()
        asked = _patience(error)
        # One that asks for patience is there, and what it refused is not to be hurried.
        self._outage |= isinstance(error, UnavailableError) and not asked
        self._queue.retry(key, at_least=asked)

    async def _resync(self) -> NoReturn:
        """Look at everything now and then: watches miss what happens between two of their connections."""
        pause = _FIRST_PAUSE
        while True:
            try:
                experiments = await self._experiments.list_all()
            except (ApiError, UnavailableError) as error:
                _log.warning("resync not done", error=str(error))
                await asyncio.sleep(max(pause, _patience(error)))
                pause = min(_LONGEST_PAUSE, pause * 2)
                continue
            pause = _FIRST_PAUSE
            for experiment in experiments:
                # Also one at rest: what it rests until may have changed while no watch told of it.
                if self._known.update(experiment):
                    self.enqueue(experiment.key)
            self._known.keep_only(experiment.key for experiment in experiments)
            self.enqueue_all()
            await self._until_next_look()

    def _watches_lost(self, lost: bool) -> None:
        if lost and not self._blind:
            _log.warning("no watch of the experiments is left; looking at them every second")
            self._look_again.set()
        self._blind = lost

    async def _until_next_look(self) -> None:
        self._look_again.clear()
        pause = min(_BLIND_PAUSE, self._resync_seconds) if self._blind else self._resync_seconds
        # Not wait_for, which takes a cancellation for the event when both come at once (Python 3.11).
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._look_again.wait()


def _patience(error: Exception) -> float:
    """The seconds for which the API server asks to be left alone."""
    return (error.retry_after or 0.0) if isinstance(error, UnavailableError) else 0.0


def _pass_on_cancellation() -> None:
    """Where a request fails in the moment of our end, `asyncio.gather` raises its error in place of ours."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
