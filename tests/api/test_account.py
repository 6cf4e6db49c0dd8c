"""POST /chaos/account: after one pass of the verifier, from the database, the same for ever."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import pytest

from shadowfault.account import parse_account
from shadowfault_api.accounts.accounting import Accounting
from shadowfault_api.accounts.store import AccountStore
from shadowfault_api.accounts.tally import Tally
from shadowfault_api.jobs import VERIFIER, Jobs
from shadowfault_api.store.job_runs import JobRuns
from shadowfault_api.store.urls import create_sync_engine
from shadowfault_api.verifier.lock import exclusive
from shadowfault_api.verifier.side import Side
from shadowfault_testing.service import Service, until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Start = Callable[..., Awaitable[Service]]

UID = "7b1c9d3e-0f7a-4c5e-9d0e-2f1a5b6c7d8e"
CHAOS = {"fail_rate": "1", "seed": "s", "experiment": "staging/all", "experiment_uid": UID}


async def ask(service: Service, uid: str = UID) -> tuple[int, dict[str, Any]]:
    answer = await service.client.post("/chaos/account", json={"experimentUid": uid})
    return answer.status_code, answer.json()


async def test_who_asks_while_it_is_counted_shares_the_count(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shadowfault_api.accounts.accounting._PATIENCE_SECONDS", 0.05)
    counting, counts = asyncio.Event(), 0
    accounting = service.resources.accounting

    async def slow(_uid: str) -> dict[str, Any]:
        nonlocal counts
        counts += 1
        await counting.wait()
        return {"state": "complete"}

    monkeypatch.setattr(accounting, "_make", slow)
    assert await asyncio.gather(*(accounting.account(UID) for _ in range(3))) == [None] * 3
    counting.set()
    assert await accounting.account(UID) == {"state": "complete"}
    assert counts == 1
    await asyncio.sleep(0)
    assert accounting._making == {}


async def disarmed(service: Service, uid: str = UID) -> None:
    answer = await service.client.post("/chaos/disarm", json={"experimentUid": uid})
    assert answer.json() == {"disarmed": True}


async def complete(service: Service, uid: str = UID) -> dict[str, Any]:
    async def given() -> dict[str, Any] | None:
        status, document = await ask(service, uid)
        assert status in {200, 202}, document
        assert (status == 202) == (document == {"state": "verifying"})
        return document if status == 200 else None

    found: dict[str, Any] = await until(given)
    assert parse_account(found, uid) is not None
    return found


async def test_an_experiment_is_accounted_for_from_its_evidence(start: Start) -> None:
    service = await start(chaos=CHAOS)
    for _ in range(3):
        await service.create()
    await service.settled()
    await disarmed(service)
    await service.create()
    assert await complete(service) == {
        "state": "complete",
        "experimentUid": UID,
        "injected": 3,
        "shadowFailures": 3,
        "discrepancies": {"missing_in_shadow": 3},
        "explained": 3,
        "unexplained": 0,
        "primaryErrors": 0,
        "primaryRequests": 3,
    }


async def test_a_difference_nobody_injected_is_unexplained(start: Start) -> None:
    before = await start()
    kept = [await before.create() for _ in range(2)]
    await before.settled()
    before.shadow("DELETE FROM listings WHERE id = :id", id=kept[0]["id"])
    await before.client.post(f"/api/admin/jobs/{VERIFIER}/trigger")
    await until(lambda: before.primary("SELECT id FROM discrepancies"))
    service = await start(chaos=CHAOS | {"fail_rate": "0"})
    service.shadow("DELETE FROM listings WHERE id = :id", id=kept[1]["id"])
    await disarmed(service)
    account = await complete(service)
    # The first one is older than the experiment.
    assert account["discrepancies"] == {"missing_in_shadow": 1}
    assert (account["injected"], account["explained"], account["unexplained"]) == (0, 0, 1)


async def test_real_failures_meanwhile_are_shadow_failures_and_explain(start: Start) -> None:
    service = await start(chaos=CHAOS | {"fail_rate": "0"})
    await service.create()
    await service.settled()
    service.shadow("ALTER TABLE listings RENAME TO away")
    await service.create()
    await service.settled()
    service.shadow("ALTER TABLE away RENAME TO listings")
    await disarmed(service)
    account = await complete(service)
    assert (account["injected"], account["shadowFailures"]) == (0, 1)
    assert (account["explained"], account["unexplained"]) == (1, 0)


async def test_it_is_the_same_from_every_replica_and_after_every_restart(start: Start) -> None:
    first, second = await start(chaos=CHAOS), await start(chaos=CHAOS)
    for service in (first, second, second):
        await service.create()
    await first.settled()
    await disarmed(first)
    # The other replica is still under it, and lives.
    assert await ask(first) == (202, {"state": "verifying"})
    assert first.primary("SELECT * FROM experiment_accounts") == []
    await disarmed(second)
    account = await complete(first)
    assert (account["injected"], account["primaryRequests"]) == (3, 3)
    assert await complete(second) == account
    later = await start()
    later.shadow("DELETE FROM listings")
    later.primary("UPDATE discrepancies SET cause = 'unexplained'")
    assert await ask(later) == (200, account)
    runs = later.primary("SELECT id FROM job_runs")
    assert len(runs) == 1


async def test_a_process_that_comes_under_it_later_makes_a_new_account(start: Start) -> None:
    service = await start(chaos=CHAOS)
    await service.create()
    await service.settled()
    await disarmed(service)
    assert (await complete(service))["injected"] == 1
    again = await start(chaos=CHAOS)
    await again.create()
    await again.settled()
    assert await ask(service) == (202, {"state": "verifying"})
    await disarmed(again)
    assert (await complete(service))["injected"] == 2


async def test_an_experiment_in_which_nothing_happened_is_not_an_unknown_one(start: Start) -> None:
    service = await start(chaos=CHAOS)
    status, problem = await ask(service, "another")
    assert (status, problem["status"]) == (404, 404)
    await disarmed(service)
    account = await complete(service)
    assert (account["injected"], account["discrepancies"], account["primaryRequests"]) == (0, {}, 0)
    assert service.primary("SELECT * FROM experiment_accounts WHERE experiment_uid = 'another'") == []


async def test_evidence_of_an_older_service_is_enough(start: Start) -> None:
    service = await start(chaos=CHAOS)
    await service.create()
    await service.settled()
    await disarmed(service)
    await until(lambda: service.primary("SELECT * FROM experiment_processes WHERE closed_at IS NOT NULL"))
    service.primary("DELETE FROM experiment_processes")
    account = await complete(service)
    assert (account["injected"], account["primaryErrors"], account["primaryRequests"]) == (1, None, None)


async def test_writes_in_flight_are_waited_for(start: Start) -> None:
    service = await start(chaos=CHAOS)
    await service.create()
    await service.settled()
    service.primary("UPDATE outbox SET state = 'pending', claimed_until = '2999-01-01 00:00:00+00'")
    await disarmed(service)
    closed = "SELECT * FROM experiment_processes WHERE closed_at IS NOT NULL"
    await until(lambda: service.primary(closed))
    assert await ask(service) == (202, {"state": "verifying"})
    assert service.primary("SELECT * FROM experiment_accounts") == []
    service.primary("UPDATE outbox SET state = 'failed'")
    assert (await complete(service))["injected"] == 1


@pytest.mark.parametrize(
    "body",
    [
        None,
        [],
        {},
        {"experimentUid": ""},
        {"experimentUid": 3},
        {"experimentUid": "a\x00"},
        {"experimentUid": "a" * 129},
    ],
)
async def test_a_body_that_names_no_experiment_is_a_problem(service: Service, body: object) -> None:
    answer = await service.client.post("/chaos/account", json=body)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


# What a process served


async def test_errors_are_counted_until_the_end_and_written_down(start: Start) -> None:
    service = await start(chaos=CHAOS)
    tally = Tally(AccountStore(service.resources.primary), service.resources.injector, every_seconds=0.01)
    await tally.start()
    for method, route, status in (
        ("POST", "/api/listings", 201),
        ("DELETE", "/api/listings/{listing_id}", 503),
        ("PATCH", "/api/listings/{listing_id}", 404),
        ("GET", "/api/listings", 500),
        ("POST", "/chaos/disarm", 500),
    ):
        tally.note(method, route, status)
    figures = "SELECT requests, errors FROM experiment_processes WHERE closed_at IS {} ORDER BY requests"
    await until(lambda: {"requests": 3, "errors": 1} in service.primary(figures.format("NULL")))
    await disarmed(service)
    tally.note("POST", "/api/listings", 500)
    await until(lambda: {"requests": 3, "errors": 1} in service.primary(figures.format("NOT NULL")))
    await tally.stop(5)
    account = await complete(service)
    assert (account["primaryErrors"], account["primaryRequests"]) == (1, 3)


async def test_the_last_word_comes_at_the_end_of_a_process_too(start: Start) -> None:
    service = await start()
    armed = await start(chaos=CHAOS)
    tally = Tally(AccountStore(service.resources.primary), armed.resources.injector, every_seconds=3600)
    await tally.start()
    tally.note("POST", "/api/listings", 201)
    await tally.stop(5)
    figures = "SELECT requests FROM experiment_processes WHERE closed_at IS NOT NULL"
    assert service.primary(figures) == [{"requests": 1}]


async def test_a_disarm_is_written_down_at_once(start: Start) -> None:
    service = await start(chaos=CHAOS)
    figures = "SELECT closed_at FROM experiment_processes WHERE counted_at > opened_at"
    # From its next look on it would not look again by itself.
    service.resources.tally._every_seconds = 3600
    await until(lambda: service.primary(figures) == [{"closed_at": None}])
    await disarmed(service)
    await until(lambda: service.primary(figures)[0]["closed_at"] is not None)


async def test_a_database_that_is_away_stops_no_process(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = await start(chaos=CHAOS)
    store = AccountStore(service.resources.primary)
    calls = 0

    async def refuse(*_args: object, **_options: object) -> None:
        nonlocal calls
        calls += 1
        raise OSError("away")

    with monkeypatch.context() as patch:
        patch.setattr(store, "count", refuse)
        tally = Tally(store, service.resources.injector, every_seconds=0.01)
        await tally.start()
        await disarmed(service)
        await until(lambda: calls > 2)
    mine = "SELECT * FROM experiment_processes WHERE process_id = :id AND closed_at IS NOT NULL"
    await until(lambda: service.primary(mine, id=tally._process_id))
    await tally.stop(5)


# The pass of the verifier


async def test_a_pass_that_began_before_is_not_taken_for_ours(start: Start) -> None:
    service = await start(chaos=CHAOS)
    await disarmed(service)
    await until(lambda: service.primary("SELECT * FROM experiment_processes WHERE closed_at IS NOT NULL"))
    go_on, calls = threading.Event(), []

    def verification(run_id: str, _trigger: str, _stopping: threading.Event) -> dict[str, Any]:
        calls.append(run_id)
        assert go_on.wait(20)
        return {}

    runs, store = JobRuns(service.resources.primary), AccountStore(service.resources.primary)
    jobs = Jobs(runs, verification, 0)
    accounting = Accounting(store, jobs, runs)
    earlier, _ = await jobs.trigger(VERIFIER)
    assert await accounting.account(UID) is None
    assert service.primary("SELECT * FROM experiment_accounts") == []
    go_on.set()
    await jobs.wait(20)
    go_on.clear()
    assert await accounting.account(UID) is None
    (row,) = service.primary("SELECT run_id FROM experiment_accounts")
    assert row["run_id"] != earlier
    # Asked again, by anyone, it is the run that goes on.
    assert await asyncio.gather(*(accounting.account(UID) for _ in range(3))) == [None, None, None]
    go_on.set()
    await jobs.wait(20)
    assert calls == [earlier, row["run_id"]]
    assert (await accounting.account(UID) or {})["state"] == "complete"


async def test_a_pass_whose_process_died_is_made_again(start: Start) -> None:
    service = await start(chaos=CHAOS)
    await disarmed(service)
    await until(lambda: service.primary("SELECT * FROM experiment_processes WHERE closed_at IS NOT NULL"))
    jobs = service.resources.jobs
    runs, store = JobRuns(service.resources.primary), AccountStore(service.resources.primary)
    accounting = Accounting(store, jobs, runs)
    assert await accounting.account(UID) is None
    await jobs.wait(20)
    asked = "SELECT run_id FROM experiment_accounts"
    first = service.primary(asked)
    # As a process leaves it that was killed in the middle.
    service.primary("UPDATE job_runs SET state = 'running', finished_at = NULL")
    assert await accounting.account(UID) is None
    assert service.primary(asked) == first, "it may not have the lock yet"
    service.primary("UPDATE job_runs SET started_at = '2026-01-01 00:00:00+00'")
    engine = create_sync_engine(service.databases.primary)
    with exclusive(Side("primary", engine, 5.0)):
        assert await accounting.account(UID) is None
    engine.dispose()
    assert service.primary(asked) == first, "it is slow, and lives"
    assert await accounting.account(UID) is None
    assert service.primary(asked) != first
    assert await until_complete(accounting) == "complete"


async def until_complete(accounting: Accounting) -> str:
    document = await until(lambda: accounting.account(UID))
    return str(document["state"])
