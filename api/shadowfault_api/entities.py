"""The things the service speaks of, free of HTTP and SQL."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

if TYPE_CHECKING:
    from collections.abc import Mapping

LISTING: Final = "Listing"


class Operation(StrEnum):
    """What a write does to an entity; the `operation` of metrics, evidence and decisions."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Listing:
    """A listing as it is in a store. `version` counts its writes from 1."""

    id: str
    title: str
    price: Decimal
    version: int
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True, slots=True)
class OutboxEntry:
    """A shadow write that is to be made: a row of the outbox in state `pending`.

    `state` is the listing to write or, of a row that was read back, its payload; None for a delete.
    `created_at` is when the primary was written. `traceparent` (W3C Trace Context) is the request's, where
    requests are traced.
    """

    id: int
    entity_type: str
    entity_id: str
    operation: Operation
    version: int
    state: Listing | Mapping[str, Any] | None
    request_id: str | None
    request_id_given: bool
    created_at: datetime
    attempts: int = 0
    traceparent: str | None = None

    @property
    def decision_key(self) -> str | None:
        """The request id where the client chose it: it keys the injector's decision."""
        return self.request_id if self.request_id_given else None


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a write comes from: the request's id, whether the client chose it (then it keys the injector's
    decision), for how many seconds the outbox row is this process's own, and the trace it belongs to.
    """

    request_id: str | None = None
    request_id_given: bool = False
    claim_seconds: float | None = None
    traceparent: str | None = None

    @property
    def claimed(self) -> bool:
        """Whether the outbox row is this process's own."""
        return self.claim_seconds is not None


def payload_of(listing: Listing) -> dict[str, Any]:
    """Build the outbox payload of a listing: all of its state, so that a shadow write needs nothing else."""
    return {
        "title": listing.title,
        "price": str(listing.price),
        "createdAt": listing.created_at.isoformat(),
        "updatedAt": listing.updated_at.isoformat(),
    }


def shadow_row(entry: OutboxEntry) -> dict[str, Any]:
    """Build the shadow's row for an entry; a delete becomes a tombstone."""
    state = entry.state
    if state is None:
        return {
            "id": entry.entity_id,
            "title": None,
            "price": None,
            "version": entry.version,
            "created_at": None,
            "updated_at": entry.created_at,
            "deleted_at": entry.created_at,
        }
    if not isinstance(state, Listing):
        state = _listing_of(entry.entity_id, entry.version, state)
    return {
        "id": state.id,
        "title": state.title,
        "price": state.price,
        "version": state.version,
        "created_at": state.created_at,
        "updated_at": state.updated_at,
        "deleted_at": None,
    }


def _listing_of(listing_id: str, version: int, payload: Mapping[str, Any]) -> Listing:
    return Listing(
        listing_id,
        payload["title"],
        Decimal(payload["price"]),
        version,
        datetime.fromisoformat(payload["createdAt"]),
        datetime.fromisoformat(payload["updatedAt"]),
    )


def new_id() -> str:
    """Make a UUID of version 7 (RFC 9562): its text sorts by time, so a page of ids is a page in time."""
    milliseconds = time.time_ns() // 1_000_000
    value = (
        (milliseconds << 80)
        | (0x7 << 76)
        | (secrets.randbits(12) << 64)
        | (0b10 << 62)
        | secrets.randbits(62)
    )
    return str(UUID(int=value))
