"""The verifier's sweeps as others see them: how far each is."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import BigInteger, cast, func, select

from shadowfault_api.store.schema import verifier_parts, verifier_sweeps

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from sqlalchemy.ext.asyncio import AsyncConnection


class SweepStanding(NamedTuple):
    """A sweep. `run_id` is the run that works on it, or did last; `rows` are those it has looked at."""

    entity_type: str
    run_id: str
    started_at: datetime
    due_at: datetime | None
    finished_at: datetime | None
    rows: int
    estimated_rows: int
    parts: int
    parts_ended: int
    updated_at: datetime

    @property
    def uncovered(self) -> float:
        """The share of the rows it has not looked at yet, by the estimate."""
        if self.finished_at is not None or self.parts == self.parts_ended:
            return 0.0
        # Where there are more rows than were estimated, some are left all the same.
        return 1.0 - self.rows / max(self.estimated_rows, self.rows + 1)


async def read_sweeps(connection: AsyncConnection) -> Sequence[SweepStanding]:
    """Read the sweeps there are: of each entity the last that is through, and the one that goes on."""
    part = verifier_parts.c
    query = (
        select(
            verifier_sweeps.c.entity_type,
            verifier_sweeps.c.run_id,
            verifier_sweeps.c.started_at,
            verifier_sweeps.c.due_at,
            verifier_sweeps.c.finished_at,
            cast(func.sum(part.rows_looked_at), BigInteger).label("rows"),
            verifier_sweeps.c.estimated_rows,
            func.count().label("parts"),
            func.count(part.ended_at).label("parts_ended"),
            func.max(part.updated_at).label("updated_at"),
        )
        .join(verifier_parts, part.sweep_id == verifier_sweeps.c.id)
        .group_by(verifier_sweeps.c.id)
    )
    return [SweepStanding(**row._asdict()) for row in await connection.execute(query)]
