"""Repairs: what is written to the shadow, what never is, and what stays on record."""

from __future__ import annotations

import json
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import update

from shadowfault_api.evidence import EventType
from shadowfault_api.repair import (
    Outcome,
    RepairOptions,
    RepairReport,
    Selection,
    UnknownSelectionError,
    repair_stores,
)
from shadowfault_api.repair import run as repair_run
from shadowfault_api.store.schema import (
    discrepancies,
    evidence_records,
    job_runs,
    outbox,
    shadow_listings,
)
from shadowfault_api.verifier import VerificationError, verify_stores
from shadowfault_api.verifier.examine import Examiner
from shadowfault_api.verifier.model import DiscrepancyType
from shadowfault_api.verifier.recorder import Recorder
from shadowfault_testing.commandline import shadowfault

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from sqlalchemy import Row

    from shadowfault_api.verifier.examine import Judged
    from shadowfault_testing.databases import DatabasePair
    from shadowfault_testing.service import Service
    from shadowfault_testing.stores import Stores

    Start = Callable[..., Awaitable[Service]]

INJECTED = {"state": "failed", "failure_type": "injected", "experiment": "staging/ten"}
NOBODY = "01890000-0000-7000-8000-000000000000"


def repair(stores: Stores, *, apply: bool = True, **chosen: Any) -> RepairReport:
    options = RepairOptions(apply=apply, **{k: chosen.pop(k) for k in tuple(chosen) if k in OPTIONS})
    return repair_stores(stores.primary, stores.shadow, Selection(**chosen), options=options)


OPTIONS = {"delete_unexplained", "limit", "batch_size", "stopping"}


def verify(stores: Stores) -> Any:
    return verify_stores(stores.primary, stores.shadow)


def outcomes(report: RepairReport) -> dict[str, Outcome]:
    return {item.key: item.outcome for item in report.items}


def in_shadow(stores: Stores) -> dict[str, Row[Any]]:
    return {row.id: row for row in stores.rows(shadow_listings, stores.shadow)}


def repairs(stores: Stores) -> Sequence[Row[Any]]:
    return stores.evidence(EventType.SHADOW_WRITE_REPAIR)


def three_discrepancies(stores: Stores) -> None:
    """A create, an update and a delete whose shadow writes were made to fail, and one that is well."""
    stores.put("new", title="New")
    stores.entry("new", "create", 1, **INJECTED)
    stores.put("changed", title="Changed", version=2)
    stores.shadow_put("changed", title="Before", version=1)
    stores.entry("changed", "update", 2, **INJECTED)
    stores.shadow_put("deleted", title="Deleted", version=1)
    stores.entry("deleted", "delete", 2, **INJECTED)
    stores.put_both("well")
    assert verify(stores).open == 3


def test_every_type_is_repaired_with_evidence_and_the_record_is_closed(stores: Stores) -> None:
    three_discrepancies(stores)
    known = {row.entity_id: row.id for row in stores.rows(discrepancies)}
    report = repair(stores, discrepancies=tuple(known.values()))
    assert outcomes(report) == dict.fromkeys(("changed", "deleted", "new"), Outcome.REPAIRED)
    assert report.settled
    held = in_shadow(stores)
    assert (held["new"].title, held["new"].version, held["new"].price) == ("New", 1, Decimal("10.00"))
    assert (held["changed"].title, held["changed"].version) == ("Changed", 2)
    assert (held["deleted"].title, held["deleted"].version) == (None, 2)
    assert held["deleted"].deleted_at is not None

    records = {row.entity_id: row for row in repairs(stores)}
    assert {key: row.details["discrepancyId"] for key, row in records.items()} == known
    changed = records["changed"]
    assert changed.event_outcome == "REPAIRED"
    assert changed.details == {
        "operation": "update",
        "version": 2,
        "discrepancyId": known["changed"],
        "discrepancyType": "data_mismatch",
        "cause": "injected",
        "experiment": "staging/ten",
        "fields": ["title", "version"],
        "primaryVersion": 2,
        "shadowVersion": 1,
        "runId": report.repair_id,
    }
    assert stores.open_discrepancies() == {}
    assert len(stores.evidence(EventType.SHADOW_WRITE_DISCREPANCY_RESOLVED)) == 3
    assert stores.rows(outbox) == []
    after = verify(stores)
    assert (after.open, after.new, after.resolved) == (0, 0, 0)


def test_a_dry_run_is_the_default_and_writes_nothing_anywhere(stores: Stores) -> None:
    three_discrepancies(stores)
    before = (stores.rows(evidence_records), stores.rows(discrepancies), stores.rows(outbox))
    shadow = in_shadow(stores)
    report = repair_stores(
        stores.primary, stores.shadow, Selection(keys=("changed", "deleted", "new", "well"))
    )
    assert outcomes(report) == {
        "changed": Outcome.WOULD_REPAIR,
        "deleted": Outcome.WOULD_REPAIR,
        "new": Outcome.WOULD_REPAIR,
        "well": Outcome.EQUAL,
    }
    assert report.applied is False
    assert (stores.rows(evidence_records), stores.rows(discrepancies), stores.rows(outbox)) == before
    assert in_shadow(stores) == shadow


def test_a_failure_that_was_made_good_explains_no_later_loss(stores: Stores) -> None:
    stores.put("new")
    stores.entry("new", "create", 1, **INJECTED)
    stores.failure_evidence("new", operation="create", version=1, failureType="injected")
    verify(stores)
    assert stores.open_discrepancies()["new"][1] == "injected"
    repair(stores, keys=("new",))
    stores.shadow_remove("new")
    verify(stores)
    assert stores.open_discrepancies()["new"][1] == "unexplained"
    stores.change("new", version=2)
    stores.failure_evidence("new", operation="update", version=2, failureType="timeout")
    verify(stores)
    assert stores.open_discrepancies()["new"][1] == "timeout"


def repair_cut_off(stores: Stores, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    """Repair one, and die between the shadow's commit and the record."""

    def cut_off(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(repair_run.Recorded, "enter", cut_off)
        with pytest.raises(KeyboardInterrupt):
            repair(stores, keys=(key,))


def test_a_failure_that_landed_late_explains_no_later_loss(stores: Stores) -> None:
    """Given up at its deadline, and made all the same; the verifier has seen it there."""
    stores.put("new")
    stores.entry("new", "create", 1, **{**INJECTED, "failure_type": "timeout"})
    stores.failure_evidence("new", operation="create", version=1, failureType="timeout")
    verify(stores)
    assert stores.open_discrepancies()["new"][1] == "timeout"
    stores.shadow_put("new")
    assert verify(stores).resolved == 1
    assert stores.rows(outbox) == []
    stores.shadow_remove("new")
    verify(stores)
    assert stores.open_discrepancies()["new"][1] == "unexplained"


def test_nor_does_one_whose_repair_was_cut_off_before_its_record(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores.put("new")
    stores.entry("new", "create", 1, **INJECTED)
    stores.failure_evidence("new", operation="create", version=1, failureType="injected")
    verify(stores)
    repair_cut_off(stores, monkeypatch, "new")
    assert outcomes(repair(stores, keys=("new",))) == {"new": Outcome.EQUAL}
    stores.shadow_remove("new")
    verify(stores)
    assert stores.open_discrepancies()["new"][1] == "unexplained"


def test_a_failure_newer_than_what_the_shadow_holds_still_explains(stores: Stores) -> None:
    stores.put_both("changed")
    stores.entry("changed", "create", 1, **INJECTED)
    verify(stores)  # equal at version 1
    stores.change("changed", version=2, title="After")
    stores.entry("changed", "update", 2, **INJECTED)
    verify(stores)
    assert stores.open_discrepancies()["changed"][1] == "injected"


@contextmanager
def between(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> Iterator[None]:
    """Have something happen once, after a look and before what it is judged by is recorded."""
    record = Recorder.record
    done: list[bool] = []

    def then(self: Recorder, *judged: Any) -> Any:
        if not done:
            done.append(True)
            happens()
        return record(self, *judged)

    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "record", then)
        yield


def test_what_a_repair_closed_since_the_look_is_not_entered_again(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    three_discrepancies(stores)
    entered = len(stores.evidence(EventType.SHADOW_WRITE_DISCREPANCY))
    with between(monkeypatch, lambda: repair(stores, keys=("new", "changed"))):
        report = verify(stores)
    assert report.new == 0
    assert not {"new", "changed"} & set(stores.open_discrepancies())
    assert len(stores.evidence(EventType.SHADOW_WRITE_DISCREPANCY)) == entered
    assert verify(stores).open == 1


def test_what_a_verifier_entered_since_the_look_is_not_closed_by_a_repair(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores.put_both("changed")

    def happens() -> None:
        stores.change("changed", version=2, title="After")
        stores.entry("changed", "update", 2, **INJECTED)
        assert verify(stores).open == 1

    with between(monkeypatch, happens):
        assert outcomes(repair(stores, keys=("changed",))) == {"changed": Outcome.EQUAL}
    assert stores.open_discrepancies()["changed"][1] == "injected"


def test_a_run_is_found_though_its_machine_has_another_clock_than_the_primary(stores: Stores) -> None:
    three_discrepancies(stores)
    (run,) = stores.rows(job_runs)
    ahead = run.started_at + timedelta(minutes=10)
    with stores.primary.begin() as connection:
        connection.execute(update(job_runs).values(started_at=ahead))
    assert len(outcomes(repair(stores, run=run.id))) == 3


@pytest.mark.postgres
@pytest.mark.parametrize("database_pair", ["postgresql"], indirect=True)
@pytest.mark.parametrize("odd", ["updated_at = 'infinity'", "created_at = '12000-01-01'", "price = 'NaN'"])
def test_a_value_that_cannot_be_copied_is_said_and_stops_nothing(stores: Stores, odd: str) -> None:
    three_discrepancies(stores)
    with stores.primary.begin() as connection:
        connection.exec_driver_sql(f"UPDATE listings SET {odd} WHERE id = 'new'")
    report = repair(stores, keys=("new", "changed"))
    assert outcomes(report) == {"new": Outcome.UNREADABLE, "changed": Outcome.REPAIRED}


def test_again_it_says_that_nothing_differs_and_leaves_no_second_evidence(stores: Stores) -> None:
    three_discrepancies(stores)
    ids = tuple(row.id for row in stores.rows(discrepancies))
    repair(stores, discrepancies=ids)
    shadow = in_shadow(stores)
    again = repair(stores, discrepancies=ids)
    assert set(outcomes(again).values()) == {Outcome.EQUAL}
    assert again.settled
    assert len(repairs(stores)) == 3
    assert in_shadow(stores) == shadow


def test_what_can_be_chosen(stores: Stores) -> None:
    three_discrepancies(stores)
    stores.put("later")
    run = verify(stores)
    found = {row.entity_id: row.id for row in stores.evidence(EventType.SHADOW_WRITE_DISCREPANCY)}
    stores.failure_evidence("well")
    (failure,) = stores.evidence(EventType.SHADOW_WRITE_FAILURE)
    for chosen, expected in (
        ({"run": run.run_id}, {"later"}),
        ({"evidence": (found["new"], found["deleted"])}, {"new", "deleted"}),
        ({"evidence": (failure.id,)}, {"well"}),
        ({"discrepancy_type": DiscrepancyType.MISSING_IN_SHADOW}, {"new", "later"}),
        ({"discrepancy_type": DiscrepancyType.DATA_MISMATCH, "keys": ("new", "changed")}, {"new", "changed"}),
    ):
        assert set(outcomes(repair(stores, apply=False, **chosen))) == expected


def test_an_unknown_id_is_named_and_nothing_is_repaired(stores: Stores) -> None:
    three_discrepancies(stores)
    (first, *_) = stores.rows(discrepancies)
    resolved = stores.evidence(EventType.SHADOW_WRITE_DISCREPANCY)[0].id
    for chosen in (
        {"discrepancies": (first.id, NOBODY)},
        {"evidence": (resolved, NOBODY)},
        {"run": NOBODY, "keys": ("new",)},
    ):
        with pytest.raises(UnknownSelectionError, match=NOBODY):
            repair(stores, **chosen)
    assert repairs(stores) == []
    assert "new" not in in_shadow(stores)


def test_a_shadow_that_is_ahead_is_left_alone(stores: Stores) -> None:
    stores.put("row", version=2)
    stores.shadow_put("row", version=7, title="Newer")
    stores.put("gone", version=2)
    stores.tombstone("gone", 3)
    shadow = in_shadow(stores)
    report = repair(stores, keys=("row", "gone"))
    assert set(outcomes(report).values()) == {Outcome.SHADOW_NEWER}
    assert not report.settled
    assert in_shadow(stores) == shadow
    assert repairs(stores) == []


def test_a_row_changed_by_hand_at_its_version_is_put_right(stores: Stores) -> None:
    stores.put_both("row", version=3)
    stores.shadow_change("row", title="By hand")
    assert outcomes(repair(stores, keys=("row",))) == {"row": Outcome.REPAIRED}
    assert in_shadow(stores)["row"].title == "a title"


def test_a_row_whose_delete_nobody_recorded_is_kept_unless_it_is_asked_for(stores: Stores) -> None:
    stores.shadow_put("last-copy", version=4)
    assert outcomes(repair(stores, keys=("last-copy",))) == {"last-copy": Outcome.NO_DELETE_ON_RECORD}
    assert in_shadow(stores)["last-copy"].deleted_at is None
    report = repair(stores, keys=("last-copy",), delete_unexplained=True)
    assert outcomes(report) == {"last-copy": Outcome.REPAIRED}
    assert in_shadow(stores)["last-copy"].version == 5


def test_what_is_in_flight_is_left_to_the_service(stores: Stores) -> None:
    stores.put("row")
    stores.entry("row", "create", 1)
    assert outcomes(repair(stores, keys=("row",))) == {"row": Outcome.IN_FLIGHT}
    assert in_shadow(stores) == {}
    assert len(stores.rows(outbox)) == 1


@pytest.mark.parametrize("key", ["new", "changed", "deleted"])
def test_a_newer_write_between_look_and_write_is_not_written_over(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    three_discrepancies(stores)
    real = repair_run.write_shadow

    def late(*arguments: Any) -> dict[str, Outcome]:
        if key == "new":
            stores.shadow_put(key, title="Newest", version=9)
        else:
            stores.shadow_change(key, title="Newest", version=9)
        return real(*arguments)

    monkeypatch.setattr(repair_run, "write_shadow", late)
    assert outcomes(repair(stores, keys=(key,))) == {key: Outcome.IN_FLIGHT}
    assert (in_shadow(stores)[key].title, in_shadow(stores)[key].version) == ("Newest", 9)
    assert repairs(stores) == []
    assert key in {row.entity_id for row in stores.rows(outbox)}


def test_a_write_of_the_primary_after_the_look_is_left_to_its_own_shadow_write(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    three_discrepancies(stores)
    look = Examiner.judge

    def late(examiner: Examiner, keys: Sequence[str]) -> Judged:
        judged = look(examiner, keys)
        stores.change("changed", title="Newest", version=3)
        stores.remove("new")
        return judged

    monkeypatch.setattr(Examiner, "judge", late)
    report = repair(stores, keys=("changed", "new"))
    assert set(outcomes(report).values()) == {Outcome.IN_FLIGHT}
    assert in_shadow(stores)["changed"].title == "Before"
    assert "new" not in in_shadow(stores)


@pytest.mark.parametrize("database_pair", ["sqlite"], indirect=True)
@pytest.mark.parametrize("price", ["a lot", "1.234"])
def test_a_value_no_column_takes_is_said_and_stops_nothing(stores: Stores, price: str) -> None:
    three_discrepancies(stores)
    with stores.primary.begin() as connection:
        connection.exec_driver_sql("UPDATE listings SET price = ? WHERE id = 'new'", (price,))
    report = repair(stores, keys=("new", "changed"))
    assert outcomes(report) == {"new": Outcome.UNREADABLE, "changed": Outcome.REPAIRED}
    assert "new" in stores.open_discrepancies()


def test_a_row_the_shadow_refuses_harms_no_other(stores: Stores) -> None:
    three_discrepancies(stores)
    with stores.shadow.begin() as connection:
        if stores.shadow.dialect.name == "sqlite":
            connection.exec_driver_sql(
                "CREATE TRIGGER picky BEFORE INSERT ON listings WHEN NEW.title = 'New'"
                " BEGIN SELECT RAISE(ABORT, 'CHECK constraint failed: New'); END"
            )
        else:
            connection.exec_driver_sql("ALTER TABLE listings ADD CONSTRAINT picky CHECK (title <> 'New')")
    report = repair(stores, keys=("new", "changed", "deleted"))
    assert outcomes(report) == {
        "changed": Outcome.REPAIRED,
        "deleted": Outcome.REPAIRED,
        "new": Outcome.REFUSED,
    }
    assert not report.settled
    assert set(stores.open_discrepancies()) == {"new"}


def test_a_repair_cut_off_between_shadow_and_record_is_completed_by_the_next(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    three_discrepancies(stores)
    repair_cut_off(stores, monkeypatch, "changed")
    assert in_shadow(stores)["changed"].version == 2
    assert "changed" in stores.open_discrepancies()
    assert outcomes(repair(stores, keys=("changed",))) == {"changed": Outcome.EQUAL}
    assert "changed" not in stores.open_discrepancies()
    assert [row.entity_id for row in stores.evidence(EventType.SHADOW_WRITE_DISCREPANCY_RESOLVED)] == [
        "changed"
    ]


def test_batches_cover_everything_and_the_limit_says_that_there_is_more(stores: Stores) -> None:
    keys = [f"row-{n:02d}" for n in range(12)]
    for key in keys:
        stores.put(key)
    assert verify(stores).open == 12
    chosen = {"discrepancy_type": DiscrepancyType.MISSING_IN_SHADOW, "batch_size": 5}
    first = repair(stores, **chosen, limit=7)
    assert (sorted(outcomes(first)), first.more, first.settled) == (keys[:7], True, False)
    rest = repair(stores, **chosen)
    assert (sorted(outcomes(rest)), rest.more, rest.settled) == (keys[7:], False, True)
    assert sorted(in_shadow(stores)) == keys
    assert len(repairs(stores)) == 12


def test_what_cannot_be_repaired_keeps_no_other_from_its_turn(stores: Stores) -> None:
    """Only the shadow has these, and no delete is on record: they are chosen again each time."""
    for number in range(3):
        stores.shadow_put(f"a-{number}")
    stores.shadow_put("z")
    stores.entry("z", "delete", 2, **INJECTED)
    assert verify(stores).open == 4
    chosen = {"discrepancy_type": DiscrepancyType.MISSING_IN_PRIMARY, "limit": 2}
    first = repair(stores, **chosen)
    assert (sorted(outcomes(first)), first.more, first.last) == (["a-0", "a-1"], True, "a-1")
    rest = repair(stores, **chosen, after=first.last)
    assert outcomes(rest) == {"a-2": Outcome.NO_DELETE_ON_RECORD, "z": Outcome.REPAIRED}
    assert (rest.more, rest.last) == (False, None)


def test_a_shadow_that_is_away_ends_it_with_a_reason(stores: Stores, database_pair: DatabasePair) -> None:
    stores.put("row")
    with stores.shadow.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE listings RENAME TO away")
    with pytest.raises(VerificationError, match="shadow database"):
        repair_stores(database_pair.primary, database_pair.shadow, Selection(keys=("row",)))


async def test_over_http_a_dry_run_and_then_the_repair(start: Start) -> None:
    service = await start(chaos={"fail_rate": "1", "experiment": "staging/all", "experiment_uid": "uid-1"})
    listing = await service.create("Jane Doe's flat")
    await service.settled()
    body: dict[str, Any] = {"keys": [listing["id"]]}
    dry = await service.client.post("/api/admin/repairs", json=body)
    assert (dry.status_code, dry.json()["counts"]) == (200, {"would_repair": 1})
    assert service.shadow_listings() == {}
    made = await service.client.post(
        "/api/admin/repairs", json={**body, "apply": True}, headers={"x-request-id": "repair-1"}
    )
    assert made.json()["counts"] == {"repaired": 1}
    assert service.shadow_listings()[listing["id"]][0] == "Jane Doe's flat"
    assert service.outbox("failed") == []
    evidence = service.evidence()[-1]
    assert (evidence["event_type"], evidence["request_id"]) == ("SHADOW_WRITE_REPAIR", "repair-1")
    assert "Jane" not in made.text + str(evidence)
    again = await service.client.post("/api/admin/repairs", json={**body, "apply": True})
    assert again.json()["counts"] == {"equal": 1}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({}, 422),
        ({"apply": True}, 422),
        ({"discrepancies": []}, 422),
        ({"discrepancies": ["nonsense"]}, 422),
        ({"keys": ["jane.doe@example.com"]}, 422),
        ({"type": "everything"}, 422),
        ({"type": "missing_in_shadow", "apply": "yes"}, 422),
        ({"discrepancies": [NOBODY]}, 404),
        ({"evidence": [NOBODY]}, 404),
        ({"run": NOBODY}, 404),
        ({"keys": [NOBODY]}, 200),
        ({"type": "missing_in_shadow"}, 200),
    ],
)
async def test_over_http_what_cannot_be_is_said(service: Service, body: dict[str, Any], status: int) -> None:
    answer = await service.client.post("/api/admin/repairs", json=body)
    assert answer.status_code == status, answer.text
    if status == 404:
        assert NOBODY in answer.json()["detail"]


async def test_over_http_a_shadow_that_is_away_is_a_503(service: Service) -> None:
    service.shadow("ALTER TABLE listings RENAME TO away")
    answer = await service.client.post("/api/admin/repairs", json={"keys": [NOBODY], "apply": True})
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    service.shadow("ALTER TABLE away RENAME TO listings")


def test_the_command_line_says_what_it_would_do_and_does_it(stores: Stores) -> None:
    three_discrepancies(stores)
    stores.shadow_put("last-copy")
    environment = stores.pair.environment()
    dry = shadowfault("repair", "--type", "missing_in_shadow", **environment)
    assert dry.returncode == 0, dry.stderr
    assert "dry run: nothing was written" in dry.stdout
    assert "new" not in in_shadow(stores)

    made = shadowfault(
        "repair",
        *("--key", "new", "--key", "changed", "--key", "last-copy", "--apply", "-o", "json"),
        **environment,
    )
    assert made.returncode == 1, made.stderr
    (line,) = made.stdout.splitlines()
    report = json.loads(line)
    assert report["counts"] == {"no_delete_on_record": 1, "repaired": 2}
    logged = [json.loads(entry) for entry in made.stderr.splitlines()]
    assert [entry["entity_id"] for entry in logged] == ["changed", "new"]
    assert "Changed" not in made.stdout + made.stderr


@pytest.mark.parametrize("database_pair", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "choose something"),
        (("--key", "Jane Doe"), "--key"),
        (("--discrepancy", NOBODY), NOBODY),
        (("--run", NOBODY, "--apply"), NOBODY),
        (("--type", "all"), "--type"),
    ],
)
def test_the_command_line_exits_2_where_nothing_can_be_done(
    stores: Stores, arguments: tuple[str, ...], words: str
) -> None:
    result = shadowfault("repair", *arguments, **stores.pair.environment())
    assert result.returncode == 2
    assert words in result.stderr
    assert "Traceback" not in result.stderr
