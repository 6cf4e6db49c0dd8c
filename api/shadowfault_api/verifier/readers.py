"""What the verifier reads of the two stores, each look in a short snapshot of its own."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select

from shadowfault_api.evidence import EventType
from shadowfault_api.store.schema import evidence_records, outbox
from shadowfault_api.verifier.model import VERSION, Entity, FailedShadowWrite, Observation, StoredRow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection, Row

    from shadowfault_api.verifier.side import Side
    from shadowfault_api.verifier.stores import Store

_FAILURE: Final = EventType.SHADOW_WRITE_FAILURE.value
_REPAIR: Final = EventType.SHADOW_WRITE_REPAIR.value
_RESOLVED: Final = EventType.SHADOW_WRITE_DISCREPANCY_RESOLVED.value


@dataclass(frozen=True, slots=True)
class PrimaryLook:
    """Keys in one snapshot of the primary; `failures` are oldest first."""

    observations: dict[str, Observation]
    failures: dict[str, list[FailedShadowWrite]]


class PrimaryReader:
    """The primary store of an entity, its outbox and its evidence."""

    def __init__(self, side: Side, entity: Entity, store: Store) -> None:
        self._side = side
        self._entity = entity
        self._store = store
        self._version = entity.fields.index(VERSION)

    def look(self, keys: Sequence[str]) -> PrimaryLook:
        """Read rows and outbox of some keys, as of one instant."""
        query = (
            select(outbox)
            .where(outbox.c.entity_type == self._entity.entity_type, outbox.c.entity_id.in_(keys))
            .order_by(outbox.c.id)
        )
        with self._side.snapshot() as connection:
            rows = _stored(self._store, connection, keys, self._version)
            entries = connection.execute(query).all()
        pending = {entry.entity_id for entry in entries if entry.state == "pending"}
        failures: defaultdict[str, list[FailedShadowWrite]] = defaultdict(list)
        for entry in entries:
            if entry.state == "failed":
                failures[entry.entity_id].append(_failed_entry(entry))
        return PrimaryLook({key: Observation(rows.get(key), key in pending) for key in keys}, failures)

    def recorded_failures(self, keys: Sequence[str]) -> dict[str, list[FailedShadowWrite]]:
        """Read failures of some keys from evidence, oldest first: what the outbox no longer holds.

        Without those that a repair has made good, or that the shadow was seen to hold since: what is lost
        after that has another cause.
        """
        query = (
            select(evidence_records)
            .where(
                evidence_records.c.event_type.in_((_FAILURE, _REPAIR, _RESOLVED)),
                evidence_records.c.entity_type == self._entity.entity_type,
                evidence_records.c.entity_id.in_(keys),
            )
            .order_by(evidence_records.c.occurred_at, evidence_records.c.id)
        )
        failures: defaultdict[str, list[FailedShadowWrite]] = defaultdict(list)
        held: dict[str, int] = {}
        with self._side.snapshot() as connection:
            for record in connection.execute(query):
                key = record.entity_id
                if record.event_type == _FAILURE:
                    failures[key].append(_failed_evidence(record))
                else:
                    name = "version" if record.event_type == _REPAIR else "shadowVersion"
                    held[key] = max(held.get(key, 0), record.details.get(name) or 0)
        # By version, not by time: the clocks of those who write differ.
        return {
            key: [one for one in some if one.version > held.get(key, 0)] for key, some in failures.items()
        }

    def all_failures(self, keys: Sequence[str]) -> dict[str, list[FailedShadowWrite]]:
        """Read failures of some keys from evidence and the outbox: all that is known to have failed."""
        failures = self.recorded_failures(keys)
        for key, more in self.look(keys).failures.items():
            failures.setdefault(key, []).extend(more)
        return failures


class ShadowReader:
    """The shadow store of an entity."""

    def __init__(self, side: Side, entity: Entity, store: Store) -> None:
        self._side = side
        self._store = store
        self._version = entity.fields.index(VERSION)

    def get(self, keys: Sequence[str]) -> dict[str, StoredRow]:
        """Read some rows as of one instant, tombstones included."""
        with self._side.snapshot() as connection:
            return _stored(self._store, connection, keys, self._version)


def _stored(store: Store, connection: Connection, keys: Sequence[str], version: int) -> dict[str, StoredRow]:
    rows = store.get(connection, [(key,) for key in keys])
    found = {}
    for (key,), row in rows.items():
        held = row.values[version] or ""
        # A tombstone has a key and a version; whatever else it holds plays no part.
        values = row.values if row.live else ()
        name = str(key)
        # SQLite holds a version that is no number too; it is then a mismatch of that column.
        found[name] = StoredRow(name, int(held) if held.isdecimal() else 0, values, not row.live)
    return found


def _failed_entry(entry: Row[Any]) -> FailedShadowWrite:
    return FailedShadowWrite(
        entry.operation,
        entry.version,
        entry.failure_type,
        entry.experiment,
        entry.experiment_uid,
        entry.request_id,
    )


def _failed_evidence(record: Row[Any]) -> FailedShadowWrite:
    details = record.details
    return FailedShadowWrite(
        details.get("operation", ""),
        details.get("version", 0),
        details.get("failureType"),
        details.get("experiment"),
        details.get("experimentUid"),
        record.request_id,
    )
