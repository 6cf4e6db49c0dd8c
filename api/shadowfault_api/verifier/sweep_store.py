"""The tables of sweeps and of what incremental passes begin with, all on the primary."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import and_, delete, func, insert, select, update

from shadowfault_api.entities import new_id
from shadowfault_api.store.schema import discrepancy_checks, outbox, verifier_parts, verifier_sweeps
from shadowfault_api.verifier.errors import LostError
from shadowfault_api.verifier.stores import Span
from shadowfault_api.verifier.sweep import Part, Sweep, Tally, key_document, key_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from sqlalchemy import ColumnElement, Connection, Row

_TAKEN_OVER: Final = "another verification has begun since, and has the sweep: run this one again"


def going_on(connection: Connection, entity_type: str) -> Sweep | None:
    """Read the sweep that is not through."""
    mine = verifier_sweeps.c.entity_type == entity_type
    return _one(connection, mine & verifier_sweeps.c.finished_at.is_(None))


def last_through(connection: Connection, entity_type: str) -> Sweep | None:
    """Read the last sweep that is through."""
    mine = verifier_sweeps.c.entity_type == entity_type
    return _one(connection, mine & verifier_sweeps.c.finished_at.is_not(None))


def of_run(connection: Connection, run_id: str) -> Sweep | None:
    """Read the sweep a run works on, or worked on last."""
    return _one(connection, verifier_sweeps.c.run_id == run_id)


def begin(  # noqa: PLR0913 - by name
    connection: Connection,
    entity_type: str,
    run_id: str,
    spans: Sequence[Span | None],
    *,
    started_at: datetime,
    estimated: int,
    due_at: datetime | None = None,
) -> Sweep:
    """Enter a sweep, one part for each of the spans; None is a part without a key. One that is going on ends.

    Call it while holding the verifier's lock.
    """
    unfinished = select(verifier_sweeps.c.id).where(
        verifier_sweeps.c.entity_type == entity_type, verifier_sweeps.c.finished_at.is_(None)
    )
    _forget(connection, unfinished)
    watermark = next_watermark(connection, entity_type, started_at)
    parts = [Part(number, span or Span(), ended=span is None) for number, span in enumerate(spans)]
    sweep = Sweep(new_id(), entity_type, run_id, started_at, watermark, estimated, due_at, parts)
    values = {
        "id": sweep.id,
        "entity_type": entity_type,
        "run_id": run_id,
        "started_at": started_at,
        "watermark": watermark,
        "estimated_rows": estimated,
        "due_at": due_at,
    }
    connection.execute(insert(verifier_sweeps).values(values))
    rows = [
        {
            "sweep_id": sweep.id,
            "number": part.number,
            "after_key": key_document(part.span.after),
            "upto_key": key_document(part.span.upto),
            **_state(part, started_at),
        }
        for part in parts
    ]
    connection.execute(insert(verifier_parts), rows)
    return sweep


def adopt(connection: Connection, sweep: Sweep, run_id: str, estimated: int, due_at: datetime | None) -> None:
    """Note which run works on a sweep now, and what it knows better."""
    sweep.run_id, sweep.estimated, sweep.due_at = run_id, estimated, sweep.due_at or due_at
    connection.execute(
        update(verifier_sweeps)
        .where(verifier_sweeps.c.id == sweep.id)
        .values(run_id=run_id, estimated_rows=estimated, due_at=sweep.due_at)
    )


def save(connection: Connection, sweep: Sweep, parts: Iterable[Part], now: datetime) -> None:
    """Store how far parts are.

    Raises:
        LostError: another run works on the sweep.
    """
    # Nobody takes it up, or begins another, while we write.
    ours = select(verifier_sweeps.c.id).where(_of(sweep)).with_for_update(read=True)
    if connection.execute(ours).first() is None:
        raise LostError(_TAKEN_OVER)
    for part in parts:
        connection.execute(
            update(verifier_parts)
            .where(verifier_parts.c.sweep_id == sweep.id, verifier_parts.c.number == part.number)
            .values(_state(part, now))
        )


def finish(connection: Connection, sweep: Sweep, now: datetime) -> None:
    """Enter the end of a sweep that is through, and forget those that were through before it.

    Raises:
        LostError: another run works on the sweep.
    """
    ended = connection.execute(update(verifier_sweeps).where(_of(sweep)).values(finished_at=now))
    if ended.rowcount == 0:
        raise LostError(_TAKEN_OVER)
    earlier = select(verifier_sweeps.c.id).where(
        verifier_sweeps.c.entity_type == sweep.entity_type,
        verifier_sweeps.c.id != sweep.id,
        verifier_sweeps.c.finished_at.is_not(None),
    )
    _forget(connection, earlier)


def _of(sweep: Sweep) -> ColumnElement[bool]:
    return and_(verifier_sweeps.c.id == sweep.id, verifier_sweeps.c.run_id == sweep.run_id)


def watermark(connection: Connection, entity_type: str) -> datetime | None:
    """Read what an incremental pass may begin with; None where there has been no whole sweep.

    Whatever changed before it, by its own account, has been looked at since it changed.
    """
    swept = select(func.max(verifier_sweeps.c.watermark)).where(
        verifier_sweeps.c.entity_type == entity_type, verifier_sweeps.c.finished_at.is_not(None)
    )
    passed = select(discrepancy_checks.c.watermark).where(discrepancy_checks.c.entity_type == entity_type)
    found = connection.execute(select(swept.scalar_subquery(), passed.scalar_subquery())).one()
    return max((moment for moment in found if moment is not None), default=None)


def next_watermark(connection: Connection, entity_type: str, now: datetime) -> datetime:
    """Tell what the pass after one that begins now may begin with.

    What is in flight now is left out by this one, and its row may not change again: the next one begins with
    the oldest of these.
    """
    oldest = select(func.min(outbox.c.created_at)).where(
        outbox.c.state == "pending", outbox.c.entity_type == entity_type
    )
    return min(now, connection.execute(oldest).scalar() or now)


def failed_keys(connection: Connection, entity_type: str, after: int, limit: int) -> Sequence[Row[int, str]]:
    """Read keys whose shadow write failed, as (row of the outbox, key), beyond a row of the outbox."""
    query = (
        select(outbox.c.id, outbox.c.entity_id)
        .where(outbox.c.state == "failed", outbox.c.entity_type == entity_type, outbox.c.id > after)
        .order_by(outbox.c.id)
        .limit(limit)
    )
    return connection.execute(query).all()


def _forget(connection: Connection, sweeps: Any) -> None:  # noqa: ANN401 - a Select of ids
    connection.execute(delete(verifier_parts).where(verifier_parts.c.sweep_id.in_(sweeps)))
    connection.execute(delete(verifier_sweeps).where(verifier_sweeps.c.id.in_(sweeps)))


def _state(part: Part, now: datetime) -> dict[str, Any]:
    tally = part.tally
    return {
        "cursor_key": key_document(part.cursor),
        "rows_primary": tally.primary,
        "rows_shadow": tally.shadow,
        "rows_looked_at": tally.rows,
        "in_flight": tally.in_flight,
        "found_new": tally.new,
        "persisting": tally.persisting,
        "resolved": tally.resolved,
        "scan_seconds": tally.scan_seconds,
        "recheck_seconds": tally.recheck_seconds,
        "updated_at": now,
        "ended_at": now if part.ended else None,
    }


def _one(connection: Connection, where: ColumnElement[bool]) -> Sweep | None:
    row = connection.execute(select(verifier_sweeps).where(where)).first()
    if row is None:
        return None
    query = (
        select(verifier_parts).where(verifier_parts.c.sweep_id == row.id).order_by(verifier_parts.c.number)
    )
    return Sweep(
        row.id,
        row.entity_type,
        row.run_id,
        row.started_at,
        row.watermark,
        row.estimated_rows,
        row.due_at,
        [_part(part) for part in connection.execute(query)],
    )


def _part(row: Row[Any]) -> Part:
    return Part(
        row.number,
        Span(key_of(row.after_key), key_of(row.upto_key)),
        key_of(row.cursor_key),
        Tally(
            primary=row.rows_primary,
            shadow=row.rows_shadow,
            rows=row.rows_looked_at,
            in_flight=row.in_flight,
            new=row.found_new,
            persisting=row.persisting,
            resolved=row.resolved,
            scan_seconds=row.scan_seconds,
            recheck_seconds=row.recheck_seconds,
        ),
        ended=row.ended_at is not None,
    )
