"""The rows a repair reads and writes, and what it leaves on record."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import and_, delete, insert, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, StatementError

from shadowfault_api.evidence import EventType, Subject, new_record
from shadowfault_api.repair.decide import Outcome, Write
from shadowfault_api.store.schema import discrepancies, evidence_records, listings, outbox, shadow_listings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import Connection

    from shadowfault_api.verifier.model import Found
    from shadowfault_api.verifier.side import Side

ShadowRow = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Planned:
    """A write that is to be made. `row` is what the shadow gets."""

    found: Found
    write: Write
    row: ShadowRow


def planned(connection: Connection, found: Found, write: Write) -> Planned | Outcome:
    """Read what the shadow is to get, within a snapshot of the primary."""
    if write.tombstone:
        now = datetime.now(UTC)
        row: ShadowRow = dict.fromkeys(column.name for column in shadow_listings.columns)
        row |= {"id": found.key, "version": write.version, "updated_at": now, "deleted_at": now}
        return Planned(found, write, row)
    try:
        held = connection.execute(select(listings).where(listings.c.id == found.key)).mappings().first()
    except (ValueError, TypeError, ArithmeticError, DataError):
        # SQLite takes any value into any column, and PostgreSQL times that Python does not have.
        return Outcome.UNREADABLE
    if held is None or held["version"] != write.version:
        return Outcome.IN_FLIGHT  # written since it was looked at
    return Planned(found, write, {**held, "deleted_at": None})


def write_shadow(shadow: Side, writes: Sequence[Planned]) -> dict[str, Outcome]:
    """Write in one transaction; a row the shadow refuses does not harm the others.

    Raises:
        VerificationError: the shadow does not answer; nothing of this call was written, or all of it was.
    """
    outcomes: dict[str, Outcome] = {}
    with shadow.writing() as connection:
        for one in writes:
            try:
                with connection.begin_nested():
                    written = connection.execute(_statement(one, shadow.postgresql)).first()
            except (IntegrityError, DataError):
                outcomes[one.found.key] = Outcome.REFUSED
            except StatementError as error:
                if isinstance(error, DBAPIError):
                    raise
                outcomes[one.found.key] = Outcome.UNREADABLE  # not to be sent: a price that is no number
            else:
                outcomes[one.found.key] = Outcome.IN_FLIGHT if written is None else Outcome.REPAIRED
    return outcomes


def _statement(one: Planned, postgres: bool) -> Any:  # noqa: ANN401 - an Insert or an Update
    if one.write.expects is None:
        build: Any = postgresql.insert if postgres else sqlite.insert
        absent = build(shadow_listings).values(one.row).on_conflict_do_nothing(index_elements=["id"])
        return absent.returning(shadow_listings.c.id)
    values = {name: value for name, value in one.row.items() if name != "id"}
    return (
        update(shadow_listings)
        .where(shadow_listings.c.id == one.found.key, shadow_listings.c.version == one.write.expects)
        .values(values)
        .returning(shadow_listings.c.id)
    )


@dataclass(frozen=True, slots=True)
class Recorded:
    """Where evidence of repairs comes from: the entity type, the repair's id, the request it came by."""

    entity_type: str
    repair_id: str
    request_id: str | None = None

    def enter(self, primary: Side, made: Sequence[Planned]) -> None:
        """Enter evidence of each write, and remove the failures from the outbox that it made good.

        Raises:
            VerificationError: the primary does not answer.
        """
        if not made:
            return
        keys = [one.found.key for one in made]
        query = select(discrepancies.c.entity_id, discrepancies.c.id).where(
            discrepancies.c.entity_type == self.entity_type,
            discrepancies.c.entity_id.in_(keys),
            discrepancies.c.resolved_at.is_(None),
        )
        made_good = or_(
            *(
                and_(outbox.c.entity_id == one.found.key, outbox.c.version <= one.write.version)
                for one in made
            )
        )
        with primary.writing() as connection:
            known = {row.entity_id: row.id for row in connection.execute(query)}
            connection.execute(
                delete(outbox).where(
                    outbox.c.entity_type == self.entity_type, outbox.c.state == "failed", made_good
                )
            )
            connection.execute(insert(evidence_records), [self._evidence(one, known) for one in made])

    def _evidence(self, one: Planned, known: Mapping[str, str]) -> dict[str, Any]:
        found, seen = one.found, one.found.difference
        record = new_record(
            EventType.SHADOW_WRITE_REPAIR,
            Subject(self.entity_type, found.key, self.request_id),
            {
                "operation": "delete" if one.write.tombstone else "update",
                "version": one.write.version,
                "discrepancyId": known.get(found.key),
                "discrepancyType": seen.discrepancy_type.value,
                "cause": found.cause.name,
                "experiment": found.cause.experiment,
                "experimentUid": found.cause.experiment_uid,
                "fields": seen.fields or None,
                "primaryVersion": seen.primary_version,
                "shadowVersion": seen.shadow_version,
                "runId": self.repair_id,
            },
        )
        return record.row()
