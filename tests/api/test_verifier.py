"""The verifier on real databases: what it finds, records once, explains, resolves and leaves out."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import timedelta
from decimal import Decimal
from threading import Event
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from sqlalchemy import text

from shadowfault_api.evidence import EventType, content_hash
from shadowfault_api.store.schema import discrepancies, discrepancy_checks, evidence_records, job_runs
from shadowfault_api.verifier import VerificationError, VerifierOptions, VerifierReport, verify_stores
from shadowfault_api.verifier.errors import AlreadyRunningError
from shadowfault_api.verifier.lock import exclusive
from shadowfault_api.verifier.side import Side
from shadowfault_testing.stores import NOW

if TYPE_CHECKING:
    from pathlib import Path

    from shadowfault_testing.stores import Stores

FOUND = EventType.SHADOW_WRITE_DISCREPANCY
RESOLVED = EventType.SHADOW_WRITE_DISCREPANCY_RESOLVED
FAULT = {"failure_type": "injected", "experiment": "staging/ten", "experiment_uid": "uid-1"}


def key() -> str:
    return str(uuid4())


def verify(stores: Stores, chunk_size: int = 1000) -> VerifierReport:
    return verify_stores(stores.primary, stores.shadow, options=VerifierOptions(chunk_size=chunk_size))


def test_equal_stores_are_clean(stores: Stores) -> None:
    for _ in range(5):
        stores.put_both(key())
    report = verify(stores, chunk_size=2)
    assert report.clean
    assert (report.scanned_primary, report.scanned_shadow) == (5, 5)
    assert not stores.rows(evidence_records)


def test_empty_stores_are_clean(stores: Stores) -> None:
    assert verify(stores).clean


def test_each_type_is_found_and_recorded_once(stores: Stores) -> None:
    missing, stray, changed, buried = key(), key(), key(), key()
    stores.put(missing)
    stores.shadow_put(stray)
    stores.put_both(changed)
    stores.shadow_change(changed, title="another", price=Decimal("11.00"))
    stores.put(buried)
    stores.tombstone(buried, version=1)
    stores.put_both(key())
    expected = {
        missing: ("missing_in_shadow", "unexplained"),
        stray: ("missing_in_primary", "unexplained"),
        changed: ("data_mismatch", "unexplained"),
        buried: ("missing_in_shadow", "unexplained"),
    }
    first = verify(stores, chunk_size=1)
    assert stores.open_discrepancies() == expected
    assert (first.new, first.persisting, first.open, first.unexplained) == (4, 0, 4, 4)
    assert first.by_type == {"data_mismatch": 1, "missing_in_primary": 1, "missing_in_shadow": 2}

    second = verify(stores)
    assert stores.open_discrepancies() == expected
    assert (second.new, second.persisting, second.resolved, second.open) == (0, 4, 0, 4)
    assert len(stores.evidence(FOUND)) == 4


def test_a_tombstone_and_nothing_are_equal(stores: Stores) -> None:
    stores.tombstone(key(), version=2)
    report = verify(stores)
    assert report.clean
    assert report.scanned_shadow == 0


def test_evidence_tells_which_columns_and_never_their_values(stores: Stores) -> None:
    changed = key()
    stores.put_both(changed, title="PERSON GREEN", price=Decimal("8154711.99"), version=7)
    stores.shadow_change(changed, title="PERSON BLUE", version=6)
    report = verify(stores)
    (record,) = stores.evidence(FOUND)
    (row,) = stores.rows(discrepancies)
    assert record.details == {
        "discrepancyId": row.id,
        "discrepancyType": "data_mismatch",
        "cause": "unexplained",
        "fields": ["title", "version"],
        "primaryVersion": 7,
        "shadowVersion": 6,
        "runId": report.run_id,
    }
    assert (record.entity_type, record.entity_id, record.event_outcome) == ("Listing", changed, "DISCREPANCY")
    assert record.content_hash == content_hash(record._mapping)
    everything = repr([tuple(row) for row in [*stores.rows(evidence_records), *stores.rows(job_runs)]])
    assert not any(secret in everything for secret in ("PERSON", "8154711"))


def test_an_injected_fault_is_the_cause_with_its_experiment_and_request(stores: Stores) -> None:
    missing = key()
    stores.put(missing)
    stores.entry(missing, "create", 1, state="failed", request_id="request-1", **FAULT)
    report = verify(stores)
    assert report.by_cause == {"injected": 1}
    assert report.unexplained == 0
    (record,) = stores.evidence(FOUND)
    assert record.request_id == "request-1"
    assert record.details["cause"] == "injected"
    assert record.details["experiment"] == "staging/ten"
    assert record.details["experimentUid"] == "uid-1"
    (row,) = stores.rows(discrepancies)
    assert (row.cause, row.experiment, row.experiment_uid) == ("injected", "staging/ten", "uid-1")


@pytest.mark.parametrize("failure_type", ["timeout", "unavailable", "constraint", "unknown"])
def test_a_real_failure_is_the_cause(stores: Stores, failure_type: str) -> None:
    stale = key()
    stores.put_both(stale)
    stores.change(stale, version=2, price=Decimal(12))
    stores.entry(stale, "update", 2, state="failed", failure_type=failure_type)
    assert verify(stores).by_cause == {failure_type: 1}


def test_a_failed_delete_explains_what_it_left(stores: Stores) -> None:
    left = key()
    stores.shadow_put(left, version=3)
    stores.entry(left, "delete", 4, state="failed", **FAULT)
    verify(stores)
    assert stores.open_discrepancies() == {left: ("missing_in_primary", "injected")}


def test_evidence_explains_what_the_outbox_no_longer_holds(stores: Stores) -> None:
    missing = key()
    stores.put(missing)
    stores.failure_evidence(
        missing,
        "request-2",
        operation="create",
        version=1,
        failureType="injected",
        experiment="staging/ten",
        experimentUid="uid-1",
    )
    verify(stores)
    (record,) = stores.evidence(FOUND)
    assert (record.details["cause"], record.request_id) == ("injected", "request-2")


def test_a_failure_of_another_version_explains_nothing(stores: Stores) -> None:
    missing = key()
    stores.put(missing, version=2)
    stores.entry(missing, "create", 1, state="failed", **FAULT)
    stores.failure_evidence(missing, operation="create", version=1, failureType="injected")
    assert verify(stores).unexplained == 1


def test_in_flight_keys_are_left_out_until_they_settle(stores: Stores) -> None:
    flying, deleted = key(), key()
    stores.put(flying)
    stores.entry(flying, "create", 1)
    stores.shadow_put(deleted)
    stores.entry(deleted, "delete", 2)
    report = verify(stores, chunk_size=1)
    assert report.clean
    assert report.in_flight == 2
    assert not stores.rows(discrepancies)
    stores.settle(flying)
    stores.settle(deleted)
    assert verify(stores).open == 2


def test_a_pending_write_of_another_entity_type_is_not_in_flight(stores: Stores) -> None:
    missing = key()
    stores.put(missing)
    stores.entry(missing, "create", 1, entity_type="Other")
    assert verify(stores).open == 1


@pytest.mark.parametrize("how", ["repaired", "deleted on both sides", "tombstone came"])
def test_what_is_gone_is_resolved_with_evidence(stores: Stores, how: str) -> None:
    subject = key()
    if how == "tombstone came":
        stores.shadow_put(subject)
    else:
        stores.put(subject)
    verify(stores)
    (found,) = stores.evidence(FOUND)
    if how == "repaired":
        stores.shadow_put(subject)
    elif how == "deleted on both sides":
        stores.remove(subject)
    else:
        stores.shadow_remove(subject)
        stores.tombstone(subject, version=2)
    report = verify(stores)
    assert (report.resolved, report.open) == (1, 0)
    (row,) = stores.rows(discrepancies)
    (record,) = stores.evidence(RESOLVED)
    assert row.resolved_at == record.occurred_at
    assert record.details["discrepancyId"] == row.id == found.details["discrepancyId"]
    assert record.event_outcome == "RESOLVED"
    assert verify(stores).resolved == 0


def test_one_that_comes_back_is_new(stores: Stores) -> None:
    subject = key()
    stores.put(subject)
    verify(stores)
    stores.shadow_put(subject)
    verify(stores)
    stores.shadow_remove(subject)
    assert verify(stores).new == 1
    assert len(stores.evidence(FOUND)) == 2
    assert len(stores.rows(discrepancies)) == 2


def test_another_type_is_new_and_takes_the_place(stores: Stores) -> None:
    subject = key()
    stores.put_both(subject)
    stores.shadow_change(subject, title="another")
    verify(stores)
    stores.shadow_remove(subject)
    report = verify(stores)
    assert (report.new, report.resolved, report.open) == (1, 0, 1)
    assert stores.open_discrepancies() == {subject: ("missing_in_shadow", "unexplained")}
    assert [record.details["discrepancyType"] for record in stores.evidence(FOUND)] == [
        "data_mismatch",
        "missing_in_shadow",
    ]
    assert not stores.evidence(RESOLVED)


def test_a_known_one_stays_open_while_its_key_is_in_flight(stores: Stores) -> None:
    subject = key()
    stores.put(subject)
    verify(stores)
    stores.entry(subject, "update", 2)
    report = verify(stores)
    assert (report.open, report.persisting, report.resolved, report.in_flight) == (1, 0, 0, 1)


def test_last_seen_moves_and_first_seen_stays(stores: Stores) -> None:
    stores.put(key())
    verify(stores)
    (before,) = stores.rows(discrepancies)
    verify(stores)
    (after,) = stores.rows(discrepancies)
    assert after.first_seen_at == before.first_seen_at
    assert after.last_seen_at > before.last_seen_at


def test_one_last_seen_by_a_clock_ahead_is_resolved_all_the_same(stores: Stores) -> None:
    subject = key()
    stores.put(subject)
    verify(stores)
    with stores.primary.begin() as connection:
        ahead = NOW + timedelta(days=40_000)
        connection.execute(discrepancies.update().values(last_seen_at=ahead))
    stores.shadow_put(subject)
    assert verify(stores).resolved == 1


def test_the_run_and_the_time_of_the_check_are_entered(stores: Stores) -> None:
    stores.put(key())
    report = verify(stores)
    (run,) = stores.rows(job_runs)
    assert (run.id, run.job, run.trigger, run.state) == (
        report.run_id,
        "shadow-discrepancy-verifier",
        "cli",
        "succeeded",
    )
    assert run.result == report.as_dict()
    (check,) = stores.rows(discrepancy_checks)
    assert check.entity_type == "Listing"
    verify(stores)
    (later,) = stores.rows(discrepancy_checks)
    assert later.last_check_at > check.last_check_at


def test_a_run_of_the_caller_is_taken_over(stores: Stores) -> None:
    row = {"id": "run-1", "job": "shadow-discrepancy-verifier", "trigger": "admin", "state": "running"}
    with stores.primary.begin() as connection:
        connection.execute(job_runs.insert(), [{**row, "started_at": NOW}])
    report = verify_stores(stores.pair.primary, stores.pair.shadow, trigger="admin", run_id="run-1")
    assert report.run_id == "run-1"
    (run,) = stores.rows(job_runs)
    assert (run.state, run.trigger) == ("succeeded", "admin")


def test_an_abandoned_run_is_entered_as_failed(stores: Stores) -> None:
    row = {"id": "dead", "job": "shadow-discrepancy-verifier", "trigger": "schedule", "state": "running"}
    with stores.primary.begin() as connection:
        connection.execute(job_runs.insert(), [{**row, "started_at": NOW}])
    verify(stores)
    states = {run.id: run.state for run in stores.rows(job_runs)}
    assert states.pop("dead") == "failed"
    assert list(states.values()) == ["succeeded"]


def test_a_run_that_is_stopped_is_failed_and_moves_no_check(stores: Stores) -> None:
    stopping = Event()
    stopping.set()
    with pytest.raises(VerificationError, match="stopped before its end"):
        verify_stores(stores.primary, stores.shadow, options=VerifierOptions(stopping=stopping))
    (run,) = stores.rows(job_runs)
    assert (run.state, run.result) == ("failed", {"error": "StoppedError"})
    assert not stores.rows(discrepancy_checks)


def test_a_schema_that_is_not_this_versions_is_no_comparison(stores: Stores) -> None:
    with stores.shadow.begin() as connection:
        connection.execute(text("ALTER TABLE listings RENAME COLUMN price TO cost"))
    with pytest.raises(VerificationError, match=r"shadow database .* lacks a table or a column.*migrations"):
        verify(stores)
    assert not stores.rows(job_runs)


@pytest.mark.postgres
@pytest.mark.parametrize("database_pair", ["postgresql"], indirect=True)
def test_a_statement_has_a_limit(stores: Stores) -> None:
    limited = VerifierOptions(statement_seconds=0.2)
    with stores.shadow.begin() as connection:
        connection.execute(text("LOCK TABLE listings IN ACCESS EXCLUSIVE MODE"))
        with pytest.raises(VerificationError, match=r"shadow database .* longer than 0.2 s"):
            verify_stores(stores.primary, stores.shadow, options=limited)


def test_a_scan_can_write_nothing(stores: Stores) -> None:
    side = Side("shadow", stores.shadow, 5.0)
    with pytest.raises(VerificationError), side.snapshot() as connection:
        connection.execute(text("DELETE FROM listings"))
    stores.shadow_put(key())  # and the connection is given back as it was


def test_one_verifier_at_a_time(stores: Stores) -> None:
    with exclusive(Side("primary", stores.primary, 5.0)):
        with pytest.raises(AlreadyRunningError, match="another verification"):
            verify_stores(stores.pair.primary, stores.pair.shadow)
        assert not stores.rows(job_runs)
    assert verify(stores).clean


UNICODE_KEYS = ["", " ", "A", "a", "Z", "z", "-", "_a", "é", "e\u0301", "\uffff", "\U0001f600", "ß", "I", "ı"]


@pytest.mark.parametrize("chunk_size", [1, 2, 100])
def test_any_text_is_a_key_in_the_same_order_on_both_sides(stores: Stores, chunk_size: int) -> None:
    for one in UNICODE_KEYS:
        stores.put_both(one)
    stores.shadow_remove("é")
    stores.remove("Z")
    report = verify(stores, chunk_size=chunk_size)
    assert {name: kind for name, (kind, _) in stores.open_discrepancies().items()} == {
        "é": "missing_in_shadow",
        "Z": "missing_in_primary",
    }
    assert report.scanned_primary == report.scanned_shadow == len(UNICODE_KEYS) - 1


@pytest.mark.postgres
@pytest.mark.parametrize("database_pair", ["postgresql"], indirect=True)
def test_a_linguistic_collation_on_one_side_changes_nothing(stores: Stores) -> None:
    """It puts a before B, é before f, and looks past punctuation."""
    with stores.primary.begin() as connection:
        known = connection.execute(text("SELECT 1 FROM pg_collation WHERE collname = 'en-x-icu'")).first()
        if known is None:
            pytest.skip("this PostgreSQL was built without ICU")
        connection.execute(text('ALTER TABLE listings ALTER id TYPE varchar(36) COLLATE "en-x-icu"'))
    for one in UNICODE_KEYS:
        stores.put_both(one)
    stores.shadow_remove("é")
    verify(stores, chunk_size=3)
    assert stores.open_discrepancies() == {"é": ("missing_in_shadow", "unexplained")}


@pytest.mark.parametrize(
    ("field", "here", "there"),
    [
        ("title", "x", "X"),
        ("title", "", " "),
        ("title", "None", "null"),
        ("title", "é", "e\u0301"),
        ("title", "a\nb", "a\r\nb"),
        ("price", Decimal("0.00"), Decimal("0.01")),
        ("price", Decimal("9999999999.99"), Decimal("9999999999.98")),
        ("created_at", NOW, NOW + timedelta(microseconds=1)),
        ("updated_at", NOW, NOW - timedelta(microseconds=1)),
        ("version", 1, 2),
    ],
)
def test_the_smallest_difference_is_one(stores: Stores, field: str, here: object, there: object) -> None:
    subject = key()
    stores.put(subject, **{field: here})
    stores.shadow_put(subject, **{field: there})
    verify(stores)
    (record,) = stores.evidence(FOUND)
    assert record.details["fields"] == [field]


@pytest.mark.parametrize(
    ("stored", "equal"),
    [("10", True), ("10.0", True), ("10.000", True), ("10.001", False), ("ten", False), ("NaN", False)],
)
@pytest.mark.parametrize("database_pair", ["sqlite"], indirect=True)
def test_prices_compare_as_the_numbers_stored(stores: Stores, stored: str, equal: bool) -> None:
    """The service reads cents; SQLite stores what it is given, and the verifier sees that."""
    subject = key()
    stores.put_both(subject, price=Decimal(10))
    with stores.shadow.begin() as connection:
        connection.execute(text("UPDATE listings SET price = :stored"), {"stored": stored})
    assert verify(stores).clean is equal


@pytest.mark.parametrize("database_pair", ["sqlite"], indirect=True)
def test_a_time_that_is_none_is_a_mismatch_and_no_crash(stores: Stores) -> None:
    stores.put_both(key())
    with stores.shadow.begin() as connection:
        connection.execute(text("UPDATE listings SET updated_at = 'yesterday'"))
    verify(stores)
    (record,) = stores.evidence(FOUND)
    assert record.details["fields"] == ["updated_at"]


@pytest.mark.parametrize("database_pair", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("held", "problem"),
    [("x'7a7a'", "is bytes"), (f"'{'z' * 300}'", "has 300 characters"), ("'z' || char(0)", "holds a NUL")],
)
def test_a_key_that_no_listing_can_have_is_told_and_never_equal(
    stores: Stores, held: str, problem: str
) -> None:
    stores.put_both("a")
    with stores.shadow.begin() as connection:
        connection.exec_driver_sql(
            f"INSERT INTO listings SELECT {held}, title, price, version, created_at, "
            "updated_at, deleted_at FROM listings"
        )
    with pytest.raises(VerificationError, match=problem):
        verify(stores)


@pytest.mark.parametrize("database_pair", ["sqlite"], indirect=True)
def test_a_text_that_is_not_utf8_is_told(stores: Stores) -> None:
    stores.put_both("a")
    with stores.shadow.begin() as connection:
        connection.exec_driver_sql("UPDATE listings SET title = CAST(x'ff' AS TEXT)")
    with pytest.raises(VerificationError, match="not UTF-8"):
        verify(stores)


@pytest.mark.parametrize("database_pair", ["sqlite"], indirect=True)
def test_a_file_in_another_encoding_is_refused(stores: Stores, tmp_path: Path) -> None:
    """Its keys are in another order than those of the other side: a scan might not end."""
    other = tmp_path / "utf16.db"
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("PRAGMA encoding = 'UTF-16le'")
        connection.execute("CREATE TABLE t (x)")
    with pytest.raises(VerificationError, match="UTF-16le"):
        verify_stores(stores.primary, f"sqlite:///{other}")
