"""Which keys are to be repaired."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select

from shadowfault_api.evidence import EventType
from shadowfault_api.store.schema import discrepancies, evidence_records, job_runs
from shadowfault_api.verifier.errors import VerificationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy import Column, Connection, Row, Select

    from shadowfault_api.verifier.model import DiscrepancyType
    from shadowfault_api.verifier.side import Side

_IDS_AT_ONCE: Final = 500
# A run is dated by its machine, its evidence by the primary; the time only keeps the search short.
_CLOCKS_DIFFER: Final = timedelta(hours=1)
# The evidence that speaks of a shadow write to be repeated.
_ABOUT_WRITES: Final = frozenset(
    {
        EventType.SHADOW_WRITE_FAILURE.value,
        EventType.SHADOW_WRITE_DISCREPANCY.value,
        EventType.SHADOW_WRITE_DISCREPANCY_RESOLVED.value,
    }
)


class UnknownSelectionError(VerificationError):
    """Something that was chosen is not there, so nothing was repaired. `ids` names it."""

    def __init__(self, what: str, ids: Sequence[str]) -> None:
        self.ids = tuple(ids)
        super().__init__(f"nothing was repaired: there is no {what} with the id {', '.join(self.ids)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """What was chosen; several kinds are added up.

    Attributes:
        discrepancies: ids of discrepancies, open or not.
        evidence: ids of evidence records of a failure or a discrepancy.
        run: id of a verification: the discrepancies it entered.
        keys: ids of entities.
        discrepancy_type: all open discrepancies of this type.
        after: of all these, only ids of entities beyond this one: where an earlier repair reached its limit.
    """

    discrepancies: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    run: str | None = None
    keys: tuple[str, ...] = ()
    discrepancy_type: DiscrepancyType | None = None
    after: str = ""

    @property
    def empty(self) -> bool:
        """Whether nothing was chosen."""
        return not (
            self.discrepancies or self.evidence or self.run or self.keys or self.discrepancy_type is not None
        )


def chosen_keys(primary: Side, entity_type: str, selection: Selection, limit: int) -> list[str]:
    """Find the keys, each once, in their order; at most `limit` + 1: one more says that there are more.

    Raises:
        UnknownSelectionError: an id is not there.
        VerificationError: the primary does not answer.
    """
    keys = set(selection.keys)
    with primary.snapshot() as connection:
        rows = _by_id(connection, discrepancies.c.id, select(discrepancies), selection.discrepancies)
        keys |= _known("discrepancy", entity_type, selection.discrepancies, rows)
        records = select(evidence_records).where(evidence_records.c.event_type.in_(_ABOUT_WRITES))
        rows = _by_id(connection, evidence_records.c.id, records, selection.evidence)
        keys |= _known("evidence of a failure or a discrepancy", entity_type, selection.evidence, rows)
        if selection.run is not None:
            keys |= _of_run(connection, entity_type, selection.run)
        if selection.discrepancy_type is not None:
            query = (
                select(discrepancies.c.entity_id)
                .where(
                    discrepancies.c.entity_type == entity_type,
                    discrepancies.c.discrepancy_type == selection.discrepancy_type.value,
                    discrepancies.c.entity_id > selection.after,
                    discrepancies.c.resolved_at.is_(None),
                )
                .order_by(discrepancies.c.entity_id)
                .limit(limit + 1)
            )
            keys |= set(connection.execute(query).scalars())
    return sorted(key for key in keys if key > selection.after)[: limit + 1]


def _by_id(
    connection: Connection, column: Column[Any], query: Select[Any], ids: Sequence[str]
) -> Iterator[Row[Any]]:
    for start in range(0, len(ids), _IDS_AT_ONCE):
        yield from connection.execute(query.where(column.in_(ids[start : start + _IDS_AT_ONCE])))


def _known(what: str, entity_type: str, ids: Sequence[str], rows: Iterator[Row[Any]]) -> set[str]:
    found = {row.id: row.entity_id for row in rows if row.entity_type == entity_type}
    unknown = [one for one in dict.fromkeys(ids) if one not in found]
    if unknown:
        raise UnknownSelectionError(what, unknown)
    return set(found.values())


def _of_run(connection: Connection, entity_type: str, run: str) -> set[str]:
    started = connection.execute(select(job_runs.c.started_at).where(job_runs.c.id == run)).scalar()
    if started is None:
        raise UnknownSelectionError("run", [run])
    query = select(evidence_records.c.entity_id).where(
        evidence_records.c.event_type == EventType.SHADOW_WRITE_DISCREPANCY.value,
        evidence_records.c.occurred_at >= started - _CLOCKS_DIFFER,
        evidence_records.c.entity_type == entity_type,
        evidence_records.c.details["runId"].as_string() == run,
    )
    return set(connection.execute(query).scalars())
