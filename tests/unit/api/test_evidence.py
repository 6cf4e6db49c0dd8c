"""Evidence: what a record holds, what it refuses, and that its hash is what it says."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowfault_api.evidence import (
    DETAIL_FIELDS,
    EventType,
    EvidenceError,
    EvidenceRecord,
    Subject,
    content_hash,
    new_record,
)

MOMENT = datetime(2026, 1, 2, 3, 4, 5, 60, tzinfo=UTC)
SUBJECT = Subject("Listing", "01890000-0000-7000-8000-000000000000", "req-1")


def test_the_hash_is_sha256_over_canonical_json() -> None:
    record = EvidenceRecord(
        id="7b1c9d3e-0f7a-4c5e-9d0e-2f1a5b6c7d8e",
        occurred_at=MOMENT,
        event_type=EventType.SHADOW_WRITE_FAILURE,
        subject=SUBJECT,
        details={"operation": "create", "attempt": 0},
    )
    # Written out by hand, so that a change of the form shows: members sorted, no blanks.
    canonical = (
        '{"category":"ProcessingIntegrity","controlId":"CC-7.2","details":{"attempt":0,"operation":"create"},'
        '"entityId":"01890000-0000-7000-8000-000000000000","entityType":"Listing",'
        '"eventOutcome":"FAILURE","eventType":"SHADOW_WRITE_FAILURE",'
        '"id":"7b1c9d3e-0f7a-4c5e-9d0e-2f1a5b6c7d8e","occurredAt":"2026-01-02T03:04:05.000060Z",'
        '"requestId":"req-1"}'
    )
    assert record.row()["content_hash"] == hashlib.sha256(canonical.encode()).hexdigest()


def test_the_hash_does_not_depend_on_how_the_database_gives_a_row_back() -> None:
    row = new_record(
        EventType.SHADOW_WRITE_DISCREPANCY, SUBJECT, {"discrepancyType": "x", "version": 3}
    ).row()
    local = row["occurred_at"].astimezone(timezone(timedelta(hours=5, minutes=30)))
    reordered = dict(reversed(row["details"].items()))
    assert content_hash({**row, "occurred_at": local, "details": reordered}) == row["content_hash"]


@pytest.mark.parametrize(
    "column",
    ["id", "control_id", "category", "event_type", "event_outcome", "entity_type", "entity_id", "request_id"],
)
def test_every_column_is_under_the_hash(column: str) -> None:
    row = new_record(EventType.SHADOW_WRITE_FAILURE, SUBJECT, {"operation": "create"}).row()
    assert content_hash({**row, column: "changed"}) != row["content_hash"]
    assert content_hash(
        {**row, "occurred_at": row["occurred_at"] + timedelta(microseconds=1)}
    ) != content_hash(row)
    assert content_hash({**row, "details": {"operation": "delete"}}) != row["content_hash"]


@pytest.mark.parametrize(
    ("event_type", "outcome"),
    [
        ("SHADOW_WRITE_FAILURE", "FAILURE"),
        ("SHADOW_WRITE_DISCREPANCY", "DISCREPANCY"),
        ("SHADOW_WRITE_DISCREPANCY_RESOLVED", "RESOLVED"),
        ("EVIDENCE_PRUNED", "PRUNED"),
    ],
)
def test_each_event_has_its_outcome(event_type: str, outcome: str) -> None:
    row = new_record(EventType(event_type), SUBJECT, {}).row()
    assert (row["event_type"], row["event_outcome"]) == (event_type, outcome)
    assert (row["control_id"], row["category"]) == ("CC-7.2", "ProcessingIntegrity")


@pytest.mark.parametrize(
    "details",
    [
        {"title": "Jane Doe"},
        {"price": 1500},
        {"message": "Failing row contains (Jane Doe)"},
        {"operation": "x" * 513},
        {"fields": ["title", 1500]},
        {"fields": {"title": "Jane Doe"}},
        {"version": 1.5},
        {"version": 2**53},
        {"operation": {"nested": "Jane Doe"}},
    ],
)
def test_details_take_nothing_that_is_not_foreseen(details: Any) -> None:
    with pytest.raises(EvidenceError) as refused:
        new_record(EventType.SHADOW_WRITE_FAILURE, SUBJECT, details)
    assert "Jane" not in str(refused.value)


def test_details_that_are_none_are_left_out() -> None:
    record = new_record(EventType.SHADOW_WRITE_FAILURE, SUBJECT, {"experiment": None, "attempt": 0})
    assert record.row()["details"] == {"attempt": 0}


@given(
    st.dictionaries(
        st.sampled_from(sorted(DETAIL_FIELDS)),
        st.text(max_size=100)
        | st.integers(-(2**53) + 1, 2**53 - 1)
        | st.booleans()
        | st.lists(st.text(max_size=9)),
    )
)
def test_a_record_survives_json_with_its_hash(details: Any) -> None:
    row = new_record(EventType.SHADOW_WRITE_FAILURE, SUBJECT, details).row()
    assert content_hash({**row, "details": json.loads(json.dumps(row["details"]))}) == row["content_hash"]
