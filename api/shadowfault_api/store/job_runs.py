"""The table `job_runs`: what ran, when, and what came of it. It outlives the process that ran it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import insert, select, text, update

from shadowfault_api.entities import new_id
from shadowfault_api.store.schema import job_runs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Row

    from shadowfault_api.store.primary import Primary

# A run this old that never finished belongs to a process that died.
STALE_AFTER: Final = timedelta(hours=1)
_LOCK_KEY: Final = 5_274_118_904


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
            .where(
                job_runs.c.job == job,
                job_runs.c.state == "running",
                job_runs.c.started_at > now - STALE_AFTER,
            )
            .order_by(job_runs.c.started_at)
            .limit(1)
        )
        async with self._primary.writing() as connection:
            if self._primary.postgresql:
                # Two replicas must not both find nothing; on SQLite the writer's lock does this.
                await connection.execute(text(f"SELECT pg_advisory_xact_lock({_LOCK_KEY})"))
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

    async def get(self, job: str, run_id: str) -> Row[Any] | None:
        """Read one run."""
        query = select(job_runs).where(job_runs.c.job == job, job_runs.c.id == run_id)
        async with self._primary.reader.connect() as connection:
            return (await connection.execute(query)).first()

    async def latest(self, job: str, limit: int) -> Sequence[Row[Any]]:
        """Read the last runs, newest first."""
        query = (
            select(job_runs)
            .where(job_runs.c.job == job)
            .order_by(job_runs.c.started_at.desc(), job_runs.c.id.desc())
            .limit(limit)
        )
        async with self._primary.reader.connect() as connection:
            return (await connection.execute(query)).all()
