"""The dual write: what reaches the shadow, and what becomes of a write that does not."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select
from sqlalchemy.exc import DBAPIError, StatementError

import shadowfault
from shadowfault_api.entities import Operation, Origin, OutboxEntry, shadow_row
from shadowfault_api.evidence import content_hash
from shadowfault_api.store.outbox import FailedWrite, Failure, Outbox, Settled
from shadowfault_api.store.primary import ListingStore
from shadowfault_api.store.schema import evidence_records
from shadowfault_api.store.urls import create_sync_engine
from shadowfault_api.verifier import verify_stores
from shadowfault_testing.databases import sqlite_pair
from shadowfault_testing.service import running, until
from shadowfault_testing.stores import Stores

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection
    from pathlib import Path

    from shadowfault_testing.service import Service

    Start = Callable[..., Awaitable[Service]]

EVERYTHING_FAILS = {"fail_rate": "1", "seed": "s", "experiment": "staging/all", "experiment_uid": "uid-1"}
NOW = datetime(2026, 1, 2, tzinfo=UTC)
CREATE = {"entity_type": "Listing", "operation": "create"}


async def test_the_shadow_follows_every_write_and_the_outbox_empties(service: Service) -> None:
    kept, changed, deleted = [await service.create(f"Listing {n}", n + 0.25) for n in range(3)]
    await service.client.patch(f"/api/listings/{changed['id']}", json={"title": "Changed"})
    await service.client.delete(f"/api/listings/{deleted['id']}")
    await service.settled()
    assert service.shadow_listings() == {
        kept["id"]: ("Listing 0", Decimal("0.25"), 1),
        changed["id"]: ("Changed", Decimal("1.25"), 2),
        deleted["id"]: (None, None, 2),
    }
    (tombstone,) = service.shadow("SELECT * FROM listings WHERE id = :id", id=deleted["id"])
    assert tombstone["deleted_at"] is not None
    assert service.outbox("failed") == []
    assert await service.metric("shadow_write_successes_total", **CREATE) == 3
    assert await service.metric("shadow_write_duration_seconds_count", **CREATE, success="true") == 3
    assert service.evidence() == []


async def test_any_title_and_price_arrive(service: Service) -> None:
    titles = [
        "plain",
        "q\"uo'te",
        "back\\slash",
        "%(percent)s :colon {brace}",
        "é\U0001f600\u2028",
        "x" * 99,
    ]
    for number, price in enumerate((0, 0.1, 9999999999.99, 5, 1.25, 100)):
        listing = await service.create(titles[number], price)
        path = f"/api/listings/{listing['id']}"
        await service.settled()
        as_sent = Decimal(str(price)).quantize(Decimal("0.01"))
        assert service.shadow_listings()[listing["id"]] == (titles[number], as_sent, 1)
        await service.client.patch(path, json={"title": titles[number][::-1] + "!"})
        await service.settled()
        assert service.shadow_listings()[listing["id"]] == (titles[number][::-1] + "!", as_sent, 2)
        await service.client.delete(path)
        await service.settled()
        assert service.shadow_listings()[listing["id"]] == (None, None, 3)
    assert service.outbox("failed") == []


@pytest.mark.parametrize("traceparent", [None, f"00-{'a' * 32}-{'b' * 16}-01"])
@pytest.mark.parametrize("claim_seconds", [None, 12.5])
@pytest.mark.parametrize("given", [True, False])
async def test_what_the_outbox_holds_of_a_create_is_what_was_handed_on(
    start: Start, traceparent: str | None, claim_seconds: float | None, given: bool
) -> None:
    """On PostgreSQL the payload is made by the server; another replica reads it after a crash."""
    service = await start(shadow_database_url="sqlite:////nonexistent/shadow.db")  # nobody takes it up
    origin = Origin("a request", given, claim_seconds, traceparent)
    listings = ListingStore(service.resources.primary)
    listing, handed_on = await listings.create("q\"uo'te \U0001f600", Decimal("12.30"), origin)
    (row,) = service.primary("SELECT claimed_until FROM outbox")
    assert (row["claimed_until"] is None) == (claim_seconds is None)
    if claim_seconds is not None:
        await Outbox(service.resources.primary, claim_seconds=0).release([handed_on])
    (read_back,) = await Outbox(service.resources.primary, claim_seconds=30).claim(10)
    assert shadow_row(read_back) == shadow_row(handed_on)
    assert replace(read_back, state=None) == replace(handed_on, state=None)
    assert await listings.get(listing.id) == listing


async def test_an_injected_failure_is_invisible_to_the_user_and_on_record_everywhere(start: Start) -> None:
    service = await start(chaos=EVERYTHING_FAILS)
    listing = await service.create("Jane Doe's flat", 1500, x_request_id="req-1")
    await service.settled()

    assert (await service.client.get(f"/api/listings/{listing['id']}")).json() == listing
    assert service.shadow_listings() == {}

    (row,) = service.outbox("failed")
    assert (row["failure_type"], row["experiment"], row["experiment_uid"], row["attempts"]) == (
        "injected",
        "staging/all",
        "uid-1",
        1,
    )
    (evidence,) = service.evidence()
    assert {name: evidence[name] for name in ("control_id", "category", "event_type", "event_outcome")} == {
        "control_id": "CC-7.2",
        "category": "ProcessingIntegrity",
        "event_type": "SHADOW_WRITE_FAILURE",
        "event_outcome": "FAILURE",
    }
    assert (evidence["entity_type"], evidence["entity_id"], evidence["request_id"]) == (
        "Listing",
        listing["id"],
        "req-1",
    )
    assert evidence["details"] == {
        "operation": "create",
        "version": 1,
        "attempt": 0,
        "outboxId": row["id"],
        "failureType": "injected",
        "experiment": "staging/all",
        "experimentUid": "uid-1",
    }
    assert await service.metric("shadow_write_failures_total", **CREATE, failure_type="injected") == 1
    assert await service.metric("chaos_injected_faults_total", **CREATE) == 1
    assert await service.metric("shadow_write_duration_seconds_count", **CREATE, success="false") == 1
    assert await service.metric("shadow_outbox_rows", state="failed") == 1


async def test_evidence_read_back_hashes_to_its_content_hash(start: Start) -> None:
    service = await start(chaos=EVERYTHING_FAILS)
    await service.create()
    await service.settled()
    engine = create_sync_engine(service.databases.primary)
    with engine.connect() as connection:
        (row,) = connection.execute(evidence_records.select()).mappings()
    engine.dispose()
    assert row["content_hash"] == content_hash(row)
    assert row["content_hash"] != content_hash({**row, "entity_id": "another"})


async def test_evidence_has_a_request_id_also_where_the_client_sent_none(start: Start) -> None:
    service = await start(chaos=EVERYTHING_FAILS)
    answer = await service.client.post("/api/listings", json={"title": "Test", "price": 1})
    await service.settled()
    assert [row["request_id"] for row in service.evidence()] == [answer.headers["x-request-id"]]


CHANGES = (
    "UPDATE evidence_records SET event_outcome = 'SUCCESS'",
    "UPDATE evidence_records SET details = details",
    "DELETE FROM evidence_records",
    "DELETE FROM evidence_records WHERE id = 'nobody' OR 1 = 1",
)
CHANGES_BY_BACKEND = {
    "sqlite": (
        "INSERT OR REPLACE INTO evidence_records SELECT * FROM evidence_records",
        "UPDATE OR REPLACE evidence_records SET id = 'another'",
    ),
    "postgresql": (
        "TRUNCATE evidence_records",
        "TRUNCATE evidence_records CASCADE",
        "TRUNCATE evidence_records_default",
        (
            "INSERT INTO evidence_records SELECT * FROM evidence_records"
            " ON CONFLICT (id, occurred_at) DO UPDATE SET event_outcome = 'SUCCESS'"
        ),
    ),
}


async def test_evidence_cannot_be_changed_or_removed(start: Start) -> None:
    service = await start(chaos=EVERYTHING_FAILS)
    await service.create()
    await service.settled()
    before = service.evidence()
    assert before
    for statement in (*CHANGES, *CHANGES_BY_BACKEND[service.databases.backend]):
        with pytest.raises(DBAPIError, match="append-only"):
            service.primary(statement)
        assert service.evidence() == before, statement


@pytest.mark.parametrize("pragma", ["OFF", "ON"])
async def test_sqlite_refuses_a_replacement_also_from_a_client_of_its_own(
    tmp_path: Path, pragma: str
) -> None:
    async with running(sqlite_pair(tmp_path), EVERYTHING_FAILS) as service:
        await service.create()
        await service.settled()
    with closing(sqlite3.connect(tmp_path / "primary.db")) as connection:
        connection.execute(f"PRAGMA recursive_triggers = {pragma}")
        with pytest.raises(sqlite3.DatabaseError, match="append-only"):
            connection.execute("INSERT OR REPLACE INTO evidence_records SELECT * FROM evidence_records")


async def test_a_newer_successful_write_clears_the_older_failures_of_its_key(start: Start) -> None:
    service = await start(chaos={**EVERYTHING_FAILS, "fail_rate": "0.5"})
    failing, passing = _request_ids(0.5)
    listing = await service.create(x_request_id=failing("create"))
    other = await service.create(x_request_id=failing("create"))
    path = f"/api/listings/{listing['id']}"
    await service.client.patch(path, json={"price": 2}, headers={"x-request-id": failing("update")})
    await service.settled()
    assert [row["version"] for row in service.outbox("failed")] == [1, 1, 2]

    await service.client.patch(path, json={"price": 3}, headers={"x-request-id": passing("update")})
    await service.settled()
    assert [row["entity_id"] for row in service.outbox("failed")] == [other["id"]]
    assert service.shadow_listings()[listing["id"]] == ("Test", Decimal("3.00"), 3)
    assert len(service.evidence()) == 3


async def test_a_failure_and_its_evidence_are_recorded_together_or_not_at_all(start: Start) -> None:
    # What could not be recorded is tried again when its claim has run out.
    service = await start(chaos=EVERYTHING_FAILS, shadow_timeout_seconds=0.5, shadow_claim_seconds=1.5)
    if service.databases.backend == "sqlite":
        service.primary(
            "CREATE TRIGGER no_room BEFORE INSERT ON evidence_records BEGIN SELECT RAISE(ABORT, 'full'); END"
        )
        undo = "DROP TRIGGER no_room"
    else:
        service.primary("ALTER TABLE evidence_records ADD CONSTRAINT no_room CHECK (false)")
        undo = "ALTER TABLE evidence_records DROP CONSTRAINT no_room"
    await service.create()
    await until(lambda: service.resources.writer.queue_depth == 0)
    await asyncio.sleep(0.2)  # time for several attempts to record, none of which may leave a trace
    assert [row["state"] for row in service.primary("SELECT state FROM outbox")] == ["pending"]
    assert await service.metric("shadow_write_failures_total") == 0

    service.primary(undo)
    await service.settled()
    assert len(service.outbox("failed")) == len(service.evidence()) == 1
    assert await service.metric("shadow_write_failures_total") == 1


async def test_a_failure_two_replicas_come_upon_is_recorded_once(start: Start) -> None:
    service = await start(chaos=EVERYTHING_FAILS)
    await service.create()
    await service.settled()
    (row,) = service.outbox("failed")
    entry = OutboxEntry(
        row["id"], "Listing", row["entity_id"], Operation.CREATE, 1, {}, "late", False, datetime.now(UTC)
    )
    outbox = Outbox(service.resources.primary, claim_seconds=30)
    assert await outbox.record([], [FailedWrite(entry, Failure("timeout"))]) == Settled([], [])
    assert [row["failure_type"] for row in service.outbox("failed")] == ["injected"]
    assert len(service.evidence()) == 1


async def test_a_row_a_replica_holds_twice_is_counted_once(start: Start) -> None:
    """The clock of the database leapt ahead, and its sweeper claimed what was in its queue already."""
    service = await start(shadow_database_url="sqlite:////nonexistent/shadow.db")
    await service.create()
    await service.create()
    outbox = Outbox(service.resources.primary, claim_seconds=-1)
    one, other = await outbox.claim(10)
    failure = FailedWrite(one, Failure("timeout"))
    settled = await outbox.record([other, other], [failure, failure])
    assert settled == Settled([other], [failure])
    assert len(service.evidence()) == 1


async def test_an_older_success_does_not_clear_a_newer_failure(start: Start) -> None:
    service = await start(chaos=EVERYTHING_FAILS)
    listing = await service.create()
    for price in (2, 3):
        await service.client.patch(f"/api/listings/{listing['id']}", json={"price": price})
    await service.settled()
    late = OutboxEntry(0, "Listing", listing["id"], Operation.UPDATE, 2, {}, None, False, datetime.now(UTC))
    await Outbox(service.resources.primary, claim_seconds=30).record([late], [])
    assert [row["version"] for row in service.outbox("failed")] == [3]


async def test_a_row_another_replica_holds_is_left_to_it(start: Start) -> None:
    # A shadow that never comes up: nobody but the test claims anything.
    service = await start(shadow_database_url="sqlite:////nonexistent/shadow.db")
    await service.create()
    outbox = Outbox(service.resources.primary, claim_seconds=30)
    (claimed,) = await outbox.claim(10)
    assert await outbox.claim(10) == []
    await outbox.release([claimed])
    assert [entry.id for entry in await outbox.claim(10)] == [claimed.id]
    late = Outbox(service.resources.primary, claim_seconds=-1)
    await outbox.release([claimed])
    await late.claim(10)
    assert [entry.id for entry in await outbox.claim(10)] == [claimed.id]


async def test_a_write_older_than_what_the_shadow_holds_changes_nothing_and_says_so(service: Service) -> None:
    """The shadow is ahead of the primary: somebody else wrote to it, or the primary was restored."""
    listing = await service.create()
    await service.settled()
    service.shadow("UPDATE listings SET version = 7, title = 'Newer'")
    await service.client.patch(f"/api/listings/{listing['id']}", json={"title": "Older"})
    await service.settled()
    assert service.shadow_listings()[listing["id"]] == ("Newer", Decimal("1500.00"), 7)
    assert [row["failure_type"] for row in service.outbox("failed")] == ["superseded"]
    assert [row["details"]["failureType"] for row in service.evidence()] == ["superseded"]
    assert await service.metric("shadow_write_failures_total", failure_type="superseded") == 1
    with Stores.opened(service.databases) as stores:
        report = await asyncio.to_thread(verify_stores, stores.primary, stores.shadow)
    # Why this write was not made is on record; where the shadow has its version 7 from is not.
    assert (report.by_type, report.by_cause) == ({"data_mismatch": 1}, {"unexplained": 1})


async def test_a_write_overtaken_at_another_replica_is_settled_once(start: Start) -> None:
    """Replica one holds version 1; replica two writes version 2 and is done first."""
    one = await start(shutdown_grace_seconds=0.2)  # its queue is not worked off
    await _paused(one)
    two = await start()
    listing = await one.create()
    changed = await two.client.patch(f"/api/listings/{listing['id']}", json={"title": "Second"})
    assert changed.status_code == 200
    await until(lambda: two.shadow_listings().get(listing["id"]) == ("Second", Decimal("1500.00"), 2))
    await one.settled()
    assert one.outbox("failed") == []
    (evidence,) = one.evidence()
    assert (evidence["details"]["failureType"], evidence["details"]["version"]) == ("superseded", 1)
    assert await two.metric("shadow_write_failures_total", failure_type="superseded") == 1
    assert await two.metric("shadow_write_successes_total") == 1

    row = _entry(listing["id"], version=1, entry_id=evidence["details"]["outboxId"])
    outbox = Outbox(one.resources.primary, claim_seconds=30)
    late = await outbox.record([row], [])
    assert late == Settled([], [])
    late = await outbox.record([], [FailedWrite(row, Failure("injected"))])
    assert late == Settled([], [])
    assert len(one.evidence()) == 1


async def test_a_failure_is_dated_when_it_happened_and_not_when_it_was_recorded(start: Start) -> None:
    """The primary may be away in between, and a fault is never dated after the deadline it kept."""
    service = await start(chaos=EVERYTHING_FAILS)
    await _paused(service)
    await service.create()
    writer = service.resources.writer
    outcome = await writer._settler.attempt([writer._queue.get_nowait().entry])
    by_then = datetime.now(UTC)
    await writer._settler.record(outcome)
    engine = create_sync_engine(service.databases.primary)
    with engine.connect() as connection:
        assert connection.execute(select(evidence_records.c.occurred_at)).scalar_one() <= by_then
    engine.dispose()


async def test_a_write_made_and_not_recorded_is_no_failure_the_second_time(service: Service) -> None:
    """The process died between the shadow's commit and the primary's: the row is claimed again."""
    listing = await service.create()
    await service.settled()
    again = _entry(listing["id"], version=1, entry_id=0)
    assert await service.resources.reads._path.shadow.apply([again]) == []
    older, newer = _entry(listing["id"], version=0, entry_id=1), _entry(listing["id"], version=1, entry_id=2)
    assert await service.resources.reads._path.shadow.apply([older]) == [older]
    assert await service.resources.reads._path.shadow.apply([older, newer]) == []


async def test_a_write_that_was_made_is_not_overtaken_by_one_that_comes_after_it(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One key of a batch was not behind; before the shadow is asked for it, a replica writes the other."""
    one, other = await service.create(), await service.create()
    await service.settled()
    shadow = service.resources.reads._path.shadow
    versions = shadow._versions

    async def later(keys: Collection[str]) -> dict[str, int]:
        assert await shadow.apply([_entry(other["id"], version=3, entry_id=3)]) == []
        return await versions(keys)

    monkeypatch.setattr(shadow, "_versions", later)
    batch = [_entry(one["id"], version=0, entry_id=1), _entry(other["id"], version=2, entry_id=2)]
    assert await shadow.apply(batch) == batch[:1]


async def test_a_price_is_refused_rather_than_rounded(service: Service) -> None:
    entry = _entry("id", version=1, entry_id=1)
    payload = {**entry.state, "price": "1.005"}  # type: ignore[dict-item]
    with pytest.raises((ValueError, DBAPIError, StatementError), match="decimals"):
        await service.resources.reads._path.shadow.apply([replace(entry, state=payload)])
    assert service.shadow_listings() == {}


async def _paused(service: Service) -> None:
    """Let this replica queue its rows and do nothing about them."""
    await service.resources.writer.stop(0)
    service.resources.writer._stopping.clear()
    service.resources.writer.breaker.succeeded()


def _entry(key: str, *, version: int, entry_id: int) -> OutboxEntry:
    payload = {"title": "T", "price": "1.00", "createdAt": NOW.isoformat(), "updatedAt": NOW.isoformat()}
    return OutboxEntry(entry_id, "Listing", key, Operation.UPDATE, version, payload, None, False, NOW)


async def test_the_same_request_ids_fail_alike_over_any_number_of_replicas(start: Start) -> None:
    chaos = {**EVERYTHING_FAILS, "fail_rate": "0.3", "seed": "replay"}
    replicas = [await start(chaos=chaos) for _ in range(3)]
    ids = [f"replay-{n:03d}" for n in range(40)]
    await asyncio.gather(
        *(replicas[n % 3].create(x_request_id=request_id) for n, request_id in enumerate(ids))
    )
    await replicas[0].settled()
    failed = sorted(row["request_id"] for row in replicas[0].evidence())
    assert failed == [one for one in ids if shadowfault.draw("replay", "Listing", "create", one) < 0.3]
    assert 0 < len(failed) < len(ids)


async def test_without_request_ids_the_plan_tells_which_creates_fail(start: Start) -> None:
    service = await start(chaos={"fail_rate": "0.4", "seed": "test-run-1"})
    created = [(await service.create())["id"] for _ in range(20)]
    await service.settled()
    failed = {row["entity_id"] for row in service.outbox("failed")}
    assert [one in failed for one in created] == list(shadowfault.plan("test-run-1", 0.4, "create", 20))


async def test_under_every_scope_and_rate_1_no_critical_write_fails(start: Start) -> None:
    for scope in shadowfault.Scope:
        service = await start(chaos={"fail_rate": "1", "scope": scope.value})
        listing = await service.create(f"Under {scope}")
        path = f"/api/listings/{listing['id']}"
        assert (await service.client.patch(path, json={"price": 2})).status_code == 200
        assert (await service.client.post(f"{path}/views")).status_code == 202
        (row,) = service.primary("SELECT * FROM listings WHERE id = :id", id=listing["id"])
        assert (row["title"], row["version"]) == (f"Under {scope}", 2)
        assert (await service.client.delete(path)).status_code == 204


async def test_scope_all_writes_loses_views_and_no_user_notices(start: Start) -> None:
    service = await start(chaos={"fail_rate": "1", "scope": "all_writes"})
    listing = await service.create()
    path = f"/api/listings/{listing['id']}/views"
    assert (await service.client.post(path)).status_code == 202
    assert (await service.client.get(path)).json() == {"views": 0}
    missing = await service.client.post("/api/listings/01890000-0000-7000-8000-000000000000/views")
    assert missing.status_code == 404
    view = {"entity_type": "Listing", "operation": "view"}
    assert await service.metric("non_critical_write_failures_total", **view, failure_type="injected") == 2
    assert await service.metric("chaos_injected_faults_total", **view) == 2


async def test_the_default_scope_leaves_views_and_reads_alone(start: Start) -> None:
    service = await start(chaos={"fail_rate": "1"})
    listing = await service.create()
    path = f"/api/listings/{listing['id']}"
    assert (await service.client.post(f"{path}/views")).status_code == 202
    assert (await service.client.get(f"{path}/views")).json() == {"views": 1}
    assert (await service.client.get(path)).status_code == 200


async def test_scope_reads_is_served_from_the_shadow_or_asks_to_come_back(start: Start) -> None:
    calm = await start()
    here, gone = await calm.create("Here"), await calm.create("Gone")
    await calm.client.delete(f"/api/listings/{gone['id']}")
    await calm.settled()
    faulted = await start(chaos={"fail_rate": "1", "scope": "reads"})
    unshadowed = await faulted.create("Not in the shadow")

    assert (await faulted.client.get(f"/api/listings/{here['id']}")).json() == here
    assert (await faulted.client.get(f"/api/listings/{gone['id']}")).status_code == 404
    assert (await faulted.client.get("/api/listings")).json()["items"] == [here]
    absent = await faulted.client.get(f"/api/listings/{unshadowed['id']}")
    assert (absent.status_code, absent.headers["content-type"]) == (503, "application/problem+json")
    assert int(absent.headers["retry-after"]) > 0
    read = {"entity_type": "Listing", "operation": "read"}
    assert await faulted.metric("chaos_injected_faults_total", **read) == 3
    assert await faulted.metric("shadow_reads_total", **read, outcome="served") == 2
    assert await faulted.metric("shadow_reads_total", **read, outcome="unavailable") == 1


async def test_disarmed_by_its_experiment_a_service_injects_nothing_more(start: Start) -> None:
    service = await start(chaos=EVERYTHING_FAILS)
    await service.create()
    await service.settled()
    health = (await service.client.get("/health")).json()["chaos"]
    assert (health["enabled"], health["active"], health["experiment"]) == (True, True, "staging/all")

    other = await service.client.post("/chaos/disarm", json={"experimentUid": "uid-2"})
    assert (other.status_code, other.headers["content-type"]) == (409, "application/problem+json")
    assert (await service.client.get("/health")).json()["chaos"]["active"] is True

    for _ in range(2):
        ours = await service.client.post("/chaos/disarm", json={"experimentUid": "uid-1"})
        assert (ours.status_code, ours.json()) == (200, {"disarmed": True})
    health = (await service.client.get("/health")).json()["chaos"]
    assert (health["active"], health["disarmed"]) == (False, True)
    after = await service.create()
    await service.settled()
    assert list(service.shadow_listings()) == [after["id"]]
    assert await service.metric("chaos_injected_faults_total") == 1


async def test_without_chaos_there_is_nothing_to_disarm(service: Service) -> None:
    answer = await service.client.post("/chaos/disarm", json={"experimentUid": "uid-1"})
    assert (answer.status_code, answer.json()) == (200, {"disarmed": False})
    assert (await service.client.get("/health")).json()["chaos"]["enabled"] is False
    assert (await service.client.post("/chaos/disarm", json={})).status_code == 422


def _request_ids(rate: float) -> tuple[Callable[[str], str], Callable[[str], str]]:
    """Two sources of fresh request ids: of those the seed "s" makes fail at this rate, and of the others."""
    numbers = iter(range(10_000))

    def source(fails: bool) -> Callable[[str], str]:
        def next_id(operation: str) -> str:
            candidates: Any = (f"id-{n}" for n in numbers)
            return next(
                one
                for one in candidates
                if (shadowfault.draw("s", "Listing", operation, one) < rate) is fails
            )

        return next_id

    return source(True), source(False)
