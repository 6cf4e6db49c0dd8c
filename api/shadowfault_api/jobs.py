"""The background jobs of the service: what there is, what ran, run now, run every so often."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import TYPE_CHECKING, Any, Final

import structlog

from shadowfault_api.deadline import Grace
from shadowfault_api.logs import describe_exception
from shadowfault_api.schedule import next_after

if TYPE_CHECKING:
    from shadowfault_api.store.job_runs import JobRuns, Run
    from shadowfault_api.store.sweeps import SweepStanding

VERIFIER: Final = "shadow-discrepancy-verifier"
VERIFIER_SCHEDULE: Final = "*/15 * * * *"
_LAST_RUNS: Final = 10
_log: Final = structlog.get_logger("shadowfault.jobs")

# Runs one verification in the calling thread, for the id of a run that is entered already and what started
# it, until it is through or the event is set; returns its result.
Verification = Callable[[str, str, Event], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Job:
    """A job as it is listed. `every` is its interval in this process, None where something else starts it."""

    name: str
    description: str
    schedule: str
    every: timedelta | None


class UnknownJobError(Exception):
    """There is no such job, or no such run of it."""


class Jobs:
    """The one job there is, and its runs. A run is one thread at most, however often it is asked for."""

    def __init__(
        self,
        runs: JobRuns,
        verification: Verification,
        interval_seconds: float,
        schedule: str = VERIFIER_SCHEDULE,
        stopping: Event | None = None,
    ) -> None:
        """`interval_seconds` above 0 has this process start it; else `schedule` says when a CronJob does.

        Once `stopping` is set what runs ends, and its sweep is left for the next run to go on with.
        """
        every = timedelta(seconds=interval_seconds) if interval_seconds else None
        self._runs = runs
        self._verification = verification
        self._stopping = stopping or Event()
        self._job = Job(
            VERIFIER,
            "Compares primary and shadow and records every discrepancy.",
            f"every {interval_seconds:g} s" if every else schedule,
            every,
        )
        self._next_run_at: datetime | None = None
        self._ticker: asyncio.Task[None] | None = None
        self._running: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin the schedule, where there is one in this process."""
        if self._job.every is not None:
            self._ticker = asyncio.create_task(self._tick(self._job.every))

    async def stop(self, grace_seconds: float) -> None:
        """End the schedule and what runs, and wait a while for it: a thread would hold up the process."""
        self._stopping.set()
        grace = Grace(grace_seconds)
        if self._ticker is not None:
            # Awaited: it may be in the middle of a statement, on a connection that is about to be closed.
            self._ticker.cancel()
            await asyncio.wait({self._ticker}, timeout=grace.left())
        await self.wait(grace.left())

    async def wait(self, seconds: float) -> None:
        """Wait for what runs, so long at most."""
        if self._running:
            await asyncio.wait(self._running, timeout=seconds)

    async def describe(self) -> dict[str, Any]:
        """Describe the job for the list."""
        rows = await self._runs.latest(self._job.name, _LAST_RUNS)
        return {
            "name": self._job.name,
            "description": self._job.description,
            "schedule": self._job.schedule,
            "scheduledBy": "CronJob" if self._job.every is None else "process",
            "running": any(row.state == "running" for row in rows),
            "lastRuns": [run_document(row) for row in rows],
            "nextRunAt": _timestamp(self._next_run()),
        }

    def _next_run(self) -> datetime | None:
        if self._job.every is not None:
            return self._next_run_at
        try:
            return next_after(self._job.schedule, datetime.now(UTC))
        except ValueError:  # Kubernetes takes notations of its own: no reason not to serve
            return None

    async def trigger(self, name: str, trigger: str = "admin") -> tuple[str, bool]:
        """Start a run, unless one is going on; returns its id and whether it is new.

        Raises:
            UnknownJobError: there is no such job.
        """
        self._require(name)
        run_id, new = await self._runs.begin(name, trigger)
        if new:
            task = asyncio.create_task(self._run(run_id, trigger))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        return run_id, new

    async def run(self, name: str, run_id: str) -> dict[str, Any]:
        """Describe one run.

        Raises:
            UnknownJobError: there is no such job or run.
        """
        self._require(name)
        row = await self._runs.get(name, run_id)
        if row is None:
            raise UnknownJobError
        return run_document(row)

    def _require(self, name: str) -> None:
        if name != self._job.name:
            raise UnknownJobError

    async def _run(self, run_id: str, trigger: str) -> None:
        try:
            result = await asyncio.to_thread(self._verification, run_id, trigger, self._stopping)
        except Exception as error:  # noqa: BLE001 - a run that fails is a result, kept with the run
            _log.error("job_failed", job=self._job.name, run_id=run_id, **describe_exception(error))
            await self._finish(run_id, succeeded=False, result={"errorClass": type(error).__name__})
        else:
            await self._finish(run_id, succeeded=True, result=result)

    async def _finish(self, run_id: str, *, succeeded: bool, result: dict[str, Any]) -> None:
        with contextlib.suppress(Exception):  # the primary is away: the run stays `running` until stale
            await self._runs.finish(run_id, succeeded=succeeded, result=result)

    async def _tick(self, every: timedelta) -> None:
        while True:
            self._next_run_at = datetime.now(UTC) + every
            await asyncio.sleep(every.total_seconds())
            with contextlib.suppress(Exception):  # the primary is away: there is a next time
                await self.trigger(self._job.name, "schedule")


def run_document(row: Run) -> dict[str, Any]:
    """Describe a run for people and programs; times are RFC 3339 in UTC, the duration is in seconds."""
    seconds = (row.finished_at - row.started_at).total_seconds() if row.finished_at else None
    return {
        "id": row.id,
        "trigger": row.trigger,
        "state": row.state,
        "startedAt": _timestamp(row.started_at),
        "finishedAt": _timestamp(row.finished_at),
        "durationSeconds": seconds,
        "progress": None if row.sweep is None else _progress(row.sweep),
        "result": row.result,
    }


def _progress(sweep: SweepStanding) -> dict[str, Any]:
    return {
        "sweepStartedAt": _timestamp(sweep.started_at),
        "rows": sweep.rows,
        "estimatedRows": sweep.estimated_rows,
        "parts": sweep.parts,
        "partsEnded": sweep.parts_ended,
        "updatedAt": _timestamp(sweep.updated_at),
    }


def _timestamp(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat().replace("+00:00", "Z")
