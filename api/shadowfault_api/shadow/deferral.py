"""Why a shadow write is left in the outbox for later."""

from __future__ import annotations

from enum import StrEnum


class Deferral(StrEnum):
    """The label `reason` of `shadow_writes_deferred_total`. None of them loses a write."""

    QUEUE_FULL = "queue_full"
    # The breaker is open, or opened while the entry waited.
    CIRCUIT_OPEN = "circuit_open"
    # Another replica may be at it by now.
    CLAIM_EXPIRED = "claim_expired"
    # It could not be taken as the request began, so nobody has claimed it; by now it could be.
    UNCLAIMED = "unclaimed"
    STOPPING = "stopping"
    # The shadow has it, or has refused it, and the primary refuses to record that.
    RECORD_REFUSED = "record_refused"
