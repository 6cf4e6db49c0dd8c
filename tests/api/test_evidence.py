"""Evidence in both kinds of database: sealed, guarded, verified, exported, pruned."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import insert
from sqlalchemy.exc import DatabaseError
from typer.testing import CliRunner

from shadowfault_api.evidence import EventType, Subject, new_record, retention
from shadowfault_api.evidence.audit import Selection, export_lines, verify_database
from shadowfault_api.evidence.cli import app
from shadowfault_api.evidence.document import verify_lines
from shadowfault_api.evidence.retention import RetentionError, prune
from shadowfault_api.evidence.sealer import Sealer
from shadowfault_api.evidence.verification import Expectations
from shadowfault_api.store.schema import evidence_records
from shadowfault_testing.evidence import Known, insert_known, intact_by_the_example, rehashed
from shadowfault_testing.service import query, running, until

if TYPE_CHECKING:
    from pathlib import Path

    from shadowfault_api.evidence.report import Report
    from shadowfault_testing.databases import DatabasePair
    from shadowfault_testing.stores import Stores

runner = CliRunner()
EVERYTHING = Selection()
MARCH = datetime(2026, 3, 1, tzinfo=UTC)
APRIL = datetime(2026, 4, 1, tzinfo=UTC)


def seal(stores: Stores, *numbers: int, batch: int = 10_000) -> None:
    """Write known records, and seal them."""
    if numbers:
        with stores.primary.begin() as connection:
            insert_known(connection, numbers)
    Sealer(stores.primary, None, largest_batch=batch).seal_all()


def record_id(number: int) -> str:
    return str(Known(number).row()["id"])


def verified(stores: Stores) -> Report:
    """The verdict on the database, and the same on its export."""
    report = verify_database(stores.primary, Expectations())
    exported = verify_lines(export_lines(stores.primary, EVERYTHING), Expectations())
    assert exported.intact == report.intact
    assert intact_by_the_example(export_lines(stores.primary, EVERYTHING)) == report.intact
    assert {f.record for f in exported.findings} == {f.record for f in report.findings}
    return report


def unguarded(stores: Stores, *statements: str) -> None:
    """Do what only who owns the database can: switch the guards off, and change what is there."""
    tables = ("evidence_records", "evidence_seals", "evidence_leaves")
    if stores.pair.backend == "postgresql":
        triggers = [f"ALTER TABLE {table} DISABLE TRIGGER USER" for table in tables]
    else:
        names = query(stores.pair.primary, "SELECT name FROM sqlite_master WHERE type = 'trigger'")
        triggers = [f"DROP TRIGGER {row['name']}" for row in names if row["name"].startswith("evidence_")]
    with stores.primary.begin() as connection:
        for statement in (*triggers, *statements):
            connection.exec_driver_sql(statement)


def test_what_was_sealed_is_intact_and_nothing_is_sealed_twice(stores: Stores) -> None:
    seal(stores, 1, 2, 3, 4, 5, batch=2)
    seal(stores, 6)
    seal(stores)
    with stores.primary.begin() as connection:
        insert_known(connection, [7])
    report = verified(stores)
    assert report.findings == []
    assert (report.seals, report.records, report.unsealed) == (4, 6, 1)
    chain = query(stores.pair.primary, "SELECT prev, head FROM evidence_seals ORDER BY number")
    assert [row["prev"] for row in chain] == ["0" * 64, *(row["head"] for row in chain[:-1])]


def _forged(number: int) -> str:
    """An UPDATE that also puts the record's own hash right."""
    row = rehashed({**Known(number).row(), "request_id": "another"})
    return (
        f"UPDATE evidence_records SET request_id = 'another', content_hash = '{row['content_hash']}' "
        f"WHERE id = '{row['id']}'"
    )


TAMPERINGS: dict[str, tuple[str, set[str], int | None]] = {
    "changed": (
        f"UPDATE evidence_records SET request_id = 'x' WHERE id = '{record_id(3)}'",
        {record_id(3)},
        2,
    ),
    "forged": (_forged(3), {record_id(3)}, 2),
    "removed": (f"DELETE FROM evidence_records WHERE id = '{record_id(3)}'", {record_id(3)}, 2),
    "removed with its leaf": (f"DELETE FROM evidence_leaves WHERE record_id = '{record_id(3)}'", set(), 2),
    "seal changed": (
        "UPDATE evidence_seals SET sealed_at = '2026-01-01 00:00:00' WHERE number = 2",
        set(),
        2,
    ),
    "seal removed": ("DELETE FROM evidence_seals WHERE number = 2", {record_id(3), record_id(4)}, 2),
    "reordered": (
        "UPDATE evidence_leaves SET leaf_index = 1 - leaf_index + 10 WHERE seal_number = 2",
        set(),
        2,
    ),
}


@pytest.mark.parametrize("tampering", TAMPERINGS)
def test_what_is_changed_past_the_guards_is_found_and_named(stores: Stores, tampering: str) -> None:
    statement, records, number = TAMPERINGS[tampering]
    seal(stores, 1, 2, 3, 4, 5, 6, batch=2)
    assert verified(stores).intact
    unguarded(stores, statement)
    report = verify_database(stores.primary, Expectations())
    exported = verify_lines(export_lines(stores.primary, EVERYTHING), Expectations())
    assert not report.intact
    assert not exported.intact
    assert not intact_by_the_example(export_lines(stores.primary, EVERYTHING))
    assert records <= {finding.record for finding in report.findings}
    assert number in {finding.seal for finding in report.findings}


def test_a_record_moved_in_with_a_leaf_is_found(stores: Stores) -> None:
    seal(stores, 1, 2)
    row = Known(9).row()
    leaf = f"1, 2, '{row['id']}', '2026-01-02 03:04:14', '{row['content_hash']}'"
    unguarded(
        stores,
        "INSERT INTO evidence_leaves (seal_number, leaf_index, record_id, occurred_at, content_hash) "
        f"VALUES ({leaf})",
    )
    kinds = [finding.kind for finding in verify_database(stores.primary, Expectations()).findings]
    assert "record_inserted" in kinds


@pytest.mark.parametrize("table", ["evidence_records", "evidence_seals", "evidence_leaves"])
@pytest.mark.parametrize("statement", ["UPDATE {} SET {} = {}", "DELETE FROM {}", "TRUNCATE {}"])
def test_the_guards_refuse_even_the_owner(stores: Stores, table: str, statement: str) -> None:
    if statement.startswith("TRUNCATE") and stores.pair.backend == "sqlite":
        statement = "DELETE FROM {} WHERE 1 = 1"
    seal(stores, 1)
    column = "head" if table == "evidence_seals" else "content_hash"
    with pytest.raises(DatabaseError, match="append-only"), stores.primary.begin() as connection:
        connection.exec_driver_sql(statement.format(table, column, column))


def prepared(stores: Stores, *months: str) -> None:
    """Make partitions for months long gone."""
    if stores.pair.backend == "postgresql":
        for month in months:
            query(stores.pair.primary, f"SELECT evidence_prepare_month('{month}-01')")


def insert_at(stores: Stores, number: int, at: datetime) -> None:
    with stores.primary.begin() as connection:
        connection.execute(insert(evidence_records), [rehashed({**Known(number).row(), "occurred_at": at})])


def test_pruned_months_leave_a_chain_that_is_intact(stores: Stores) -> None:
    prepared(stores, "2026-01", "2026-03", "2026-04")
    seal(stores, 1, 2, 3, batch=2)
    insert_at(stores, 50, MARCH)
    with pytest.raises(RetentionError, match="2026-03 has 1 records that are not sealed"):
        prune(stores.primary, APRIL, now=APRIL)
    # January went before that, in a transaction of its own, and is not counted again.
    seal(stores)
    assert [(m.name, m.records) for m in prune(stores.primary, APRIL, dry_run=True, now=APRIL)] == [
        ("2026-03", 1)
    ]
    assert [(m.name, m.records) for m in prune(stores.primary, APRIL, now=APRIL)] == [("2026-03", 1)]
    report = verified(stores)
    assert report.findings == []
    assert (report.pruned, report.seals) == (4, 3)
    # What says that January and March are gone goes with April, so it is said again.
    seal(stores)
    may = datetime(2026, 5, 2, tzinfo=UTC)
    assert [(m.name, m.records) for m in prune(stores.primary, may, now=may)] == [("2026-04", 2)]
    seal(stores)
    report = verified(stores)
    assert report.findings == []
    assert report.pruned == 6


def test_a_month_that_is_not_over_is_not_pruned(stores: Stores) -> None:
    prepared(stores, "2026-01")
    seal(stores, 1)
    assert prune(stores.primary, APRIL, now=datetime(2026, 1, 20, tzinfo=UTC)) == []


def test_a_record_too_many_gone_is_found_beside_what_was_pruned(stores: Stores) -> None:
    prepared(stores, "2026-01", "2026-03")
    seal(stores, 1, 2)
    insert_at(stores, 50, MARCH)
    seal(stores)
    prune(stores.primary, MARCH, now=APRIL)
    unguarded(stores, f"DELETE FROM evidence_records WHERE id = '{record_id(50)}'")
    assert {f.record for f in verify_database(stores.primary, Expectations()).findings} == {record_id(50)}


def said_to_be_pruned(stores: Stores, records: Any, at: datetime, month: str = "2026-01") -> None:
    """Write what only a pruning writes."""
    row = new_record(
        EventType.EVIDENCE_PRUNED, Subject("EvidenceRecord", month), {"records": records}, occurred_at=at
    ).row()
    with stores.primary.begin() as connection:
        connection.execute(insert(evidence_records), [row])


@pytest.mark.parametrize("sealed", [True, False])
def test_one_record_of_a_month_cannot_be_said_to_have_been_pruned(stores: Stores, sealed: bool) -> None:
    seal(stores, 1, 2, 3, 4, batch=2)
    said_to_be_pruned(stores, 1, APRIL)
    if sealed:
        seal(stores)
    unguarded(stores, f"DELETE FROM evidence_records WHERE id = '{record_id(3)}'")
    report = verified(stores)
    assert [finding.record for finding in report.findings] == [record_id(3)]
    assert "pruning takes all of 2026-01" in report.findings[0].message


@pytest.mark.parametrize(
    ("records", "at"), [(0, APRIL), (-1, APRIL), (True, APRIL), (1, datetime(2026, 1, 31, tzinfo=UTC))]
)
def test_what_no_pruning_says_is_found(stores: Stores, records: Any, at: datetime) -> None:
    said_to_be_pruned(stores, records, at)
    assert [finding.kind for finding in verified(stores).findings] == ["record_forged"]


def test_what_says_so_before_the_records_were_sealed_is_found(stores: Stores) -> None:
    said_to_be_pruned(stores, 2, APRIL)
    seal(stores)
    seal(stores, 1, 2)
    unguarded(stores, "DELETE FROM evidence_records WHERE event_type = 'SHADOW_WRITE_FAILURE'")
    assert {f.record for f in verified(stores).findings} == {record_id(1), record_id(2)}


def test_an_export_that_begins_within_a_pruned_month_is_intact_and_says_so(stores: Stores) -> None:
    prepared(stores, "2026-01")
    seal(stores, 1, 2)
    insert_at(stores, 3, datetime(2026, 1, 20, tzinfo=UTC))
    seal(stores)
    prune(stores.primary, MARCH, now=APRIL)
    seal(stores)
    selection = Selection(since=datetime(2026, 1, 15, tzinfo=UTC))
    lines = list(export_lines(stores.primary, selection))
    report = verify_lines(lines, Expectations())
    assert (report.findings, report.pruned, report.first) == ([], 1, 2)
    assert intact_by_the_example(lines)
    only = Selection(datetime(2026, 1, 15, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC))
    part = list(export_lines(stores.primary, only))
    report = verify_lines(part, Expectations())
    assert (report.findings, report.pruned, report.unaccounted) == ([], 0, 1)
    assert intact_by_the_example(part)


def test_a_seal_of_a_number_there_cannot_be_is_found(stores: Stores) -> None:
    seal(stores, 1)
    unguarded(stores, "UPDATE evidence_seals SET number = -5", "UPDATE evidence_leaves SET seal_number = -5")
    kinds = {finding.kind for finding in verify_database(stores.primary, Expectations()).findings}
    assert "seal_changed" in kinds


@pytest.mark.postgres
@pytest.mark.parametrize("database_pair", ["postgresql"], indirect=True)
def test_pruning_waits_for_nobody_for_long_and_tells_what_it_did(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "_ATTEMPTS", 2)
    monkeypatch.setattr(retention, "_PAUSE_SECONDS", 0.0)
    prepared(stores, "2026-01", "2026-03")
    seal(stores, 1)
    insert_at(stores, 50, MARCH)
    seal(stores)
    with stores.primary.begin() as reader:
        reader.exec_driver_sql("SELECT count(*) FROM evidence_records_2026_03")
        reader.exec_driver_sql("LOCK TABLE evidence_records_2026_03 IN ROW EXCLUSIVE MODE")
        with pytest.raises(RetentionError, match="somebody reads evidence all the time") as error:
            prune(stores.primary, APRIL, now=APRIL)
        assert [month.name for month in error.value.removed] == ["2026-01"]
    assert [month.name for month in prune(stores.primary, APRIL, now=APRIL)] == ["2026-03"]


def test_the_guards_are_back_after_pruning(stores: Stores) -> None:
    prepared(stores, "2026-01")
    seal(stores, 1)
    prune(stores.primary, MARCH, now=APRIL)
    with pytest.raises(DatabaseError, match="append-only"), stores.primary.begin() as connection:
        connection.exec_driver_sql("DELETE FROM evidence_records")


def test_the_documented_queries_work_as_written(stores: Stores) -> None:
    seal(stores, 1, 2)
    for event_type, count in (("SHADOW_WRITE_FAILURE", 2), ("SHADOW_WRITE_DISCREPANCY", 0)):
        found = query(
            stores.pair.primary,
            f"SELECT * FROM evidence_records WHERE event_type = '{event_type}' "
            "ORDER BY occurred_at DESC LIMIT 50;",
        )
        assert len(found) == count


def test_the_commands_from_seal_to_a_verified_file(stores: Stores, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization as out  # noqa: PLC0415 - beside its use
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey  # noqa: PLC0415

    key = Ed25519PrivateKey.generate()
    private, public, file = tmp_path / "key.pem", tmp_path / "pub.pem", tmp_path / "evidence.jsonl"
    private.write_bytes(key.private_bytes(out.Encoding.PEM, out.PrivateFormat.PKCS8, out.NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(out.Encoding.PEM, out.PublicFormat.SubjectPublicKeyInfo))
    environment = {"DATABASE_URL": stores.pair.primary, "EVIDENCE_SIGNING_KEY_FILE": str(private)}

    def run(*arguments: str) -> Any:
        return runner.invoke(app, list(arguments), env=environment)

    with stores.primary.begin() as connection:
        insert_known(connection, [1, 2, 3])
    assert run("seal").stdout.strip() == "sealed 3 records in 1 seals (signed)"
    report = json.loads(run("verify", "--public-key", str(public), "-o", "json").stdout)
    assert (report["intact"], report["signatures"]["valid"]) == (True, 1)
    assert run("export", "--output", str(file)).exit_code == 0
    head = report["head"]
    good = ["verify", "--file", str(file), "--public-key", str(public), "--expect-head", head]
    assert run(*good, "--at-least", "1").exit_code == 0
    cut = run(*good, "--at-least", "2")
    assert (cut.exit_code, "seals are gone" in cut.stdout) == (1, True)
    file.write_text(file.read_text().replace("req-2", "req-x"))
    tampered = run(*good)
    assert tampered.exit_code == 1
    assert f"record_changed: record {record_id(2)} of seal 1 was changed" in tampered.stdout
    file.write_text("nothing of the kind\n")
    assert run(*good).exit_code == 2
    assert run("verify", "--public-key", str(private)).exit_code == 2
    assert run("verify", "--expect-head", "short").exit_code == 2


def test_an_export_of_some_types_and_times_is_verified_too(stores: Stores) -> None:
    seal(stores, 1, 2)
    insert_at(stores, 50, MARCH)
    seal(stores)
    some = Selection(event_types=frozenset({"SHADOW_WRITE_DISCREPANCY"}))
    report = verify_lines(export_lines(stores.primary, some), Expectations())
    assert (report.findings, report.records, report.left_out) == ([], 0, 3)
    late = Selection(since=MARCH)
    report = verify_lines(export_lines(stores.primary, late), Expectations())
    assert (report.findings, report.seals, report.records) == ([], 1, 1)
    assert all(intact_by_the_example(export_lines(stores.primary, chosen)) for chosen in (some, late))


async def test_the_service_seals_what_it_writes_and_shows_it(database_pair: DatabasePair) -> None:
    async with running(database_pair, {"fail_rate": "1"}, evidence_seal_seconds=0.02) as service:
        await service.create()
        await service.settled()
        await until(lambda: service.primary("SELECT * FROM evidence_seals"))

        async def nothing_left() -> bool:
            return await service.metric("evidence_unsealed_records") == 0

        await until(nothing_left)
        assert await service.metric("evidence_last_seal_timestamp_seconds") > 0


async def test_unsealed_records_are_counted(database_pair: DatabasePair) -> None:
    async with running(database_pair, {"fail_rate": "1"}, evidence_seal_seconds=0) as service:
        await service.create()
        await service.settled()
        assert await service.metric("evidence_unsealed_records") == 1
