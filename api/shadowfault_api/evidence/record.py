"""Evidence records: what happened, in nine fields and a hash, without personal data.

`content_hash` is the SHA-256, as 64 hex digits, of the record as canonical JSON (RFC 8785) with the members
id, occurredAt, controlId, category, eventType, eventOutcome, entityType, entityId, requestId and details.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final
from uuid import uuid4

import rfc8785

CONTROL_ID: Final = "CC-7.2"
CATEGORY: Final = "ProcessingIntegrity"

DetailValue = str | int | bool | None | Sequence[str]

# The only members `details` may have. None of them can hold what a user typed: names of fields, never their
# values; the class of an error and its SQLSTATE, never its message, for a database quotes the row in it.
DETAIL_FIELDS: Final = frozenset(
    {
        "attempt",
        "cause",
        "discrepancyId",
        "discrepancyType",
        "durationMs",
        "errorClass",
        "experiment",
        "experimentUid",
        "failureType",
        "fields",
        "firstSeenAt",
        "operation",
        "outboxId",
        "primaryVersion",
        "records",
        "resolvedAt",
        "runId",
        "shadowVersion",
        "sqlState",
        "version",
    }
)
_LONGEST_DETAIL: Final = 512
# What RFC 8785 can write without loss: numbers there are doubles.
_LARGEST_INTEGER: Final = 2**53 - 1


class EventType(StrEnum):
    """What a record is about. Each has one outcome."""

    SHADOW_WRITE_FAILURE = "SHADOW_WRITE_FAILURE"
    SHADOW_WRITE_DISCREPANCY = "SHADOW_WRITE_DISCREPANCY"
    SHADOW_WRITE_DISCREPANCY_RESOLVED = "SHADOW_WRITE_DISCREPANCY_RESOLVED"
    SHADOW_WRITE_REPAIR = "SHADOW_WRITE_REPAIR"
    EVIDENCE_PRUNED = "EVIDENCE_PRUNED"

    @property
    def outcome(self) -> str:
        """The value of `event_outcome`."""
        return _OUTCOMES[self]


_OUTCOMES: Final = {
    EventType.SHADOW_WRITE_FAILURE: "FAILURE",
    EventType.SHADOW_WRITE_DISCREPANCY: "DISCREPANCY",
    EventType.SHADOW_WRITE_DISCREPANCY_RESOLVED: "RESOLVED",
    EventType.SHADOW_WRITE_REPAIR: "REPAIRED",
    EventType.EVIDENCE_PRUNED: "PRUNED",
}


class EvidenceError(ValueError):
    """The details hold a member or a value that evidence does not take."""


@dataclass(frozen=True, slots=True)
class Subject:
    """What a record speaks of: an entity, and the request that touched it where there was one."""

    entity_type: str
    entity_id: str
    request_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidenceRecord:
    """One immutable record. `row()` is what goes into the table `evidence_records`."""

    id: str
    occurred_at: datetime
    event_type: EventType
    subject: Subject
    details: Mapping[str, DetailValue]

    def row(self) -> dict[str, Any]:
        """The columns of the table, `content_hash` among them."""
        row = {
            "id": self.id,
            "occurred_at": self.occurred_at,
            "control_id": CONTROL_ID,
            "category": CATEGORY,
            "event_type": self.event_type.value,
            "event_outcome": self.event_type.outcome,
            "entity_type": self.subject.entity_type,
            "entity_id": self.subject.entity_id,
            "request_id": self.subject.request_id,
            "details": dict(self.details),
        }
        return {**row, "content_hash": content_hash(row)}


def new_record(
    event_type: EventType,
    subject: Subject,
    details: Mapping[str, DetailValue],
    *,
    occurred_at: datetime | None = None,
) -> EvidenceRecord:
    """Build a record. Members of `details` that are None are left out.

    Raises:
        EvidenceError: a member is not in `DETAIL_FIELDS`, or a value is too long or not of a type allowed.
    """
    return EvidenceRecord(
        id=str(uuid4()),
        occurred_at=(occurred_at or datetime.now(UTC)).astimezone(UTC),
        event_type=event_type,
        subject=subject,
        details={name: _checked(name, value) for name, value in details.items() if value is not None},
    )


def content_hash(row: Mapping[str, Any]) -> str:
    """Hash a row of `evidence_records`, as written or as read back; its own `content_hash` plays no part."""
    return document_hash(document(row))


def document(row: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a row of `evidence_records` into the document that is hashed and exported."""
    return {
        "id": row["id"],
        "occurredAt": timestamp(row["occurred_at"]),
        "controlId": row["control_id"],
        "category": row["category"],
        "eventType": row["event_type"],
        "eventOutcome": row["event_outcome"],
        "entityType": row["entity_type"],
        "entityId": row["entity_id"],
        "requestId": row["request_id"],
        "details": row["details"],
    }


def document_hash(document: Mapping[str, Any]) -> str:
    """Hash a document: SHA-256 over RFC 8785, as 64 hex digits.

    Raises:
        ValueError: it holds what canonical JSON cannot: a number beyond 2^53, NaN, a lone surrogate.
    """
    return hashlib.sha256(rfc8785.dumps(dict(document))).hexdigest()


def timestamp(moment: datetime) -> str:
    """RFC 3339 in UTC with six decimals, always: the form the hash is made over."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _checked(name: str, value: DetailValue) -> DetailValue:
    if name not in DETAIL_FIELDS:
        raise EvidenceError(f"evidence has no detail field {name!r}: see DETAIL_FIELDS")
    if isinstance(value, str):
        return _short(name, value)
    if value is None or (isinstance(value, int) and abs(value) <= _LARGEST_INTEGER):
        return value
    if isinstance(value, list | tuple) and all(isinstance(item, str) for item in value):
        return [_short(name, item) for item in value]
    raise EvidenceError(f"detail field {name!r} takes text, an integer, a boolean or a list of texts")


def _short(name: str, value: str) -> str:
    if len(value) > _LONGEST_DETAIL:
        raise EvidenceError(f"detail field {name!r} is longer than {_LONGEST_DETAIL} characters")
    return value
