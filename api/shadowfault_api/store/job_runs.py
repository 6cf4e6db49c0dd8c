"""The table `job_runs`: what ran, when, and what came of it. It outlives the process that ran it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import insert, select, text, update

from shadowfault_api.entities import new_id
from shadowfault_api.store.locks import JOB_RUNS_LOCK_KEY, verifier_works
from shadowfault_api.store.schema import job_runs
from shadowfault_api.store.sweeps import read_sweeps

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Row, Select

    from shadowfault_api.store.primary import Primary
    from shadowfault_api.store.sweeps import SweepStanding

# A run is entered before its process takes the verifier's lock. Older, and the lock is free: it died.
_GRACE: Final = timedelta(minutes=1)
_ABANDONED: Final = {"error": "Abandoned"}


class Run(NamedTuple):
    """A run as it is to be shown: one whose process died has failed, also before that is entered.

    `sweep` is what a run that goes on works on, once it has begun with it.
    """

    id: str
    trigger: str
    state: str
    started_at: datetime
    finished_at: datetime | None
    result: dict[str, Any] | None
    sweep: SweepStanding | None = None


class JobRuns:
    """Runs of jobs, over all replicas and the CronJob."""

    def __init__(self, primary: Primary) -> None:
        self._primary = primary

    async def begin(self, job: str, trigger: str) -> tuple[str, bool]:
        """Enter a run, unless one is going on.

        Returns:
            The id of the run, and whether it is a new one.
        """
        now = datetime.now(UTC)
        query = (
            select(job_runs.c.id)
            .where(job_runs.c.job == job, job_runs.c.state == "running")
            .order_by(job_runs.c.started_at)
            .limit(1)
        )
        async with self._primary.writing() as connection:
            if self._primary.postgresql:
                # Two replicas must not both find nothing; on SQLite the writer's lock does this.
                await connection.execute(text(f"SELECT pg_advisory_xact_lock({JOB_RUNS_LOCK_KEY})"))
            if not await verifier_works(connection):
                await connection.execute(
                    update(job_runs)
                    .where(
                        job_runs.c.job == job,
                        job_runs.c.state == "running",
                        job_runs.c.started_at < now - _GRACE,
                    )
                    .values(state="failed", finished_at=now, result=_ABANDONED)
                )
            running = (await connection.execute(query)).scalar_one_or_none()
            if running is not None:
                return running, False
            run_id = new_id()
            await connection.execute(
                insert(job_runs).values(id=run_id, job=job, trigger=trigger, state="running", started_at=now)
            )
        return run_id, True

    async def finish(self, run_id: str, *, succeeded: bool, result: dict[str, Any]) -> None:
        """Enter the end of a run, unless it is entered already."""
        async with self._primary.writing() as connection:
            await connection.execute(
                update(job_runs)
                .where(job_runs.c.id == run_id, job_runs.c.state == "running")
                .values(
                    state="succeeded" if succeeded else "failed", finished_at=datetime.now(UTC), result=result
                )
            )

    async def get(self, job: str, run_id: str) -> Run | None:
        """Read one run."""
        query = select(job_runs).where(job_runs.c.job == job, job_runs.c.id == run_id)
        return next(iter(await self._read(query)), None)

    async def latest(self, job: str, limit: int) -> Sequence[Run]:
        """Read the last runs, newest first."""
        query = (
            select(job_runs)
            .where(job_runs.c.job == job)
            .order_by(job_runs.c.started_at.desc(), job_runs.c.id.desc())
            .limit(limit)
        )
        return await self._read(query)

    async def _read(self, query: Select[Any]) -> Sequence[Run]:
        async with self._primary.reader.connect() as connection:
            # In this order: a run that ends between the two looks is seen to have ended.
            works = await verifier_works(connection)
            rows = (await connection.execute(query)).all()
            running = any(row.state == "running" for row in rows)
            sweeps = await read_sweeps(connection) if running else ()
        by_run = {sweep.run_id: sweep for sweep in sweeps}
        latest_dead = None if works else datetime.now(UTC) - _GRACE
        return [_run(row, latest_dead, by_run.get(row.id)) for row in rows]


def _run(row: Row[Any], latest_dead: datetime | None, sweep: SweepStanding | None) -> Run:
    dead = row.state == "running" and latest_dead is not None and row.started_at < latest_dead
    return Run(
        row.id,
        row.trigger,
        "failed" if dead else row.state,
        row.started_at,
        row.finished_at,
        _ABANDONED if dead else row.result,
        sweep if row.state == "running" and not dead else None,
    )
