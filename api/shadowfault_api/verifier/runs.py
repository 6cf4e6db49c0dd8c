"""The verifier's own rows: its entry in `job_runs`, and when the entity was last checked."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from sqlalchemy import insert, select, update
from sqlalchemy.dialects import postgresql, sqlite

from shadowfault_api.entities import new_id
from shadowfault_api.store.schema import discrepancy_checks, job_runs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import Connection

    from shadowfault_api.verifier.side import Side

Trigger = Literal["schedule", "admin", "cli"]

JOB: Final = "shadow-discrepancy-verifier"
# The admin job enters its run and then waits for the lock; older and not ours, it belongs to a dead process.
_ABANDONED_AFTER: Final = timedelta(minutes=1)


def begin(primary: Side, trigger: Trigger, run_id: str | None) -> str:
    """Enter a run, or take over the one the caller entered; call it while holding the lock.

    No other verification runs then, so a run that still says so was abandoned, and is entered as failed.
    """
    ours = run_id or new_id()
    with primary.writing() as connection:
        abandon_others(connection, ours)
        if run_id is None:
            enter(connection, ours, trigger, datetime.now(UTC))
    return ours


def abandon_others(connection: Connection, ours: str) -> None:
    """Enter as failed what says that it runs and cannot."""
    now = datetime.now(UTC)
    connection.execute(
        update(job_runs)
        .where(
            job_runs.c.job == JOB,
            job_runs.c.state == "running",
            job_runs.c.id != ours,
            job_runs.c.started_at < now - _ABANDONED_AFTER,
        )
        .values(state="failed", finished_at=now, result={"error": "Abandoned"})
    )


def enter(
    connection: Connection,
    run_id: str,
    trigger: Trigger,
    started_at: datetime,
    result: Mapping[str, Any] | None = None,
) -> None:
    """Enter a run that goes on, with what is known of its result."""
    values = {
        "id": run_id,
        "job": JOB,
        "trigger": trigger,
        "state": "running",
        "started_at": started_at,
        "result": result,
    }
    connection.execute(insert(job_runs).values(values))


class Entry(NamedTuple):
    """A run as it is entered."""

    state: str
    started_at: datetime
    result: dict[str, Any] | None


def entry(connection: Connection, run_id: str) -> Entry | None:
    """Read how a run is entered."""
    query = select(job_runs.c.state, job_runs.c.started_at, job_runs.c.result)
    row = connection.execute(query.where(job_runs.c.job == JOB, job_runs.c.id == run_id)).first()
    return None if row is None else Entry(*row)


def reopen(connection: Connection, run_id: str) -> None:
    """Enter that a run goes on which was taken for dead."""
    connection.execute(
        update(job_runs)
        .where(job_runs.c.id == run_id, job_runs.c.state == "failed")
        .values(state="running", finished_at=None, result=None)
    )


def succeed(
    connection: Connection,
    run_id: str,
    entity_type: str,
    result: Mapping[str, Any],
    watermark: datetime | None = None,
) -> None:
    """Enter the end of a complete verification, the time of the check, and what the next pass begins with."""
    now = datetime.now(UTC)
    build: Any = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    known = {"last_check_at": now} | ({} if watermark is None else {"watermark": watermark})
    checked = build(discrepancy_checks).values(entity_type=entity_type, **known)
    connection.execute(checked.on_conflict_do_update(index_elements=["entity_type"], set_=known))
    connection.execute(_ended(run_id, "succeeded", result, now))


def fail(primary: Side, run_id: str, error: BaseException) -> None:
    """Enter a verification that could not be completed."""
    with primary.writing() as connection:
        connection.execute(_ended(run_id, "failed", {"error": type(error).__name__}, datetime.now(UTC)))


def _ended(run_id: str, state: str, result: Mapping[str, Any], now: datetime) -> Any:  # noqa: ANN401 - an Update
    return (
        update(job_runs)
        .where(job_runs.c.id == run_id, job_runs.c.state == "running")
        .values(state=state, finished_at=now, result=dict(result))
    )
