"""/api/admin/jobs: who may, what there is, and that one run is one run."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from shadowfault_api.jobs import VERIFIER, Jobs
from shadowfault_api.store.schema import job_runs, verifier_parts
from shadowfault_api.store.urls import create_sync_engine
from shadowfault_api.verifier import VerifierOptions, verify_stores
from shadowfault_api.verifier.lock import exclusive
from shadowfault_api.verifier.side import Side
from shadowfault_testing.service import running, until
from shadowfault_testing.stores import listing_row

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shadowfault_testing.service import Service
    from shadowfault_testing.stores import Stores

    Start = Callable[..., Awaitable[Service]]

TOKEN = "a-token-of-some-length"
TRIGGER = f"/api/admin/jobs/{VERIFIER}/trigger"
ADMIN_REQUESTS = [
    ("GET", "/api/admin/jobs"),
    ("POST", TRIGGER),
    ("GET", f"/api/admin/jobs/{VERIFIER}/runs/01890000-0000-7000-8000-000000000000"),
    ("POST", "/api/admin/jobs/nothing/trigger"),
]


async def _status(service: Service, peer: str, method: str, path: str, **headers: str) -> int:
    transport = httpx.ASGITransport(app=service.app, client=(peer, 40000))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.request(
            method,
            path,
            headers={name.replace("_", "-"): value.encode("latin-1") for name, value in headers.items()},
        )
    if answer.status_code >= 400:
        assert answer.headers["content-type"] == "application/problem+json"
    if answer.status_code == 401:
        assert answer.headers["www-authenticate"].startswith("Bearer")
    return answer.status_code


@pytest.mark.parametrize(("method", "path"), ADMIN_REQUESTS)
async def test_without_a_token_only_loopback_is_answered(service: Service, method: str, path: str) -> None:
    for peer in ("10.0.0.7", "192.168.1.5", "2001:db8::1", "::ffff:10.0.0.7", "testclient"):
        assert await _status(service, peer, method, path) == 403
    assert await _status(service, "127.0.0.1", method, path, x_forwarded_for="10.0.0.7") == 403
    assert await _status(service, "127.0.0.1", method, path, authorization=f"Bearer {TOKEN}") != 403
    for peer in ("127.0.0.1", "127.3.4.5", "::1", "::ffff:127.0.0.1"):
        assert await _status(service, peer, method, path) in {200, 202, 404}


async def test_no_admin_path_was_forgotten(service: Service, start: Start) -> None:
    """Whatever is asked for, who asks comes first."""
    paths = service.app.openapi()["paths"]
    requests = [(m.upper(), path) for path in paths if path.startswith("/api/admin") for m in paths[path]]
    assert {path for _, path in requests} >= {"/api/admin/jobs", "/api/admin/repairs"}
    guarded = await start(admin_token=TOKEN)
    for method, path in requests:
        assert await _status(service, "10.0.0.7", method, path) == 403
        assert await _status(guarded, "127.0.0.1", method, path) == 401


@pytest.mark.parametrize(("method", "path"), ADMIN_REQUESTS)
async def test_with_a_token_only_its_bearer_is_answered(start: Start, method: str, path: str) -> None:
    service = await start(admin_token=TOKEN)
    for peer in ("127.0.0.1", "10.0.0.7"):
        assert await _status(service, peer, method, path) == 401
        for wrong in (
            "Bearer",
            "Bearer wrong",
            f"Basic {TOKEN}",
            TOKEN,
            f"Bearer {TOKEN}x",
            "Bearer t\xf6ken",
        ):
            assert await _status(service, peer, method, path, authorization=wrong) == 401
        assert await _status(service, peer, method, path, authorization=f"Bearer {TOKEN}") in {200, 202, 404}


async def test_the_verifier_runs_when_it_is_triggered_and_its_run_can_be_followed(start: Start) -> None:
    service = await start(chaos={"fail_rate": "1", "experiment": "staging/all", "experiment_uid": "uid-1"})
    await service.create()
    await service.settled()
    answer = await service.client.post(TRIGGER)
    assert answer.status_code == 202
    run_path = answer.headers["location"]

    async def finished() -> dict[str, Any] | None:
        run: dict[str, Any] = (await service.client.get(run_path)).json()
        return run if run["state"] != "running" else None

    run = await until(finished)
    assert (run["state"], run["trigger"], run["id"]) == ("succeeded", "admin", answer.json()["runId"])
    assert run["result"]["open"] == 1
    assert run["durationSeconds"] >= 0

    (job,) = (await service.client.get("/api/admin/jobs")).json()
    assert (job["name"], job["running"], job["schedule"]) == (VERIFIER, False, "*/15 * * * *")
    assert [one["id"] for one in job["lastRuns"]] == [run["id"]]
    labels = {"entity_type": "Listing", "discrepancy_type": "missing_in_shadow"}
    assert await service.metric("shadow_discrepancies_total", **labels) == 1
    assert await service.metric("shadow_discrepancies_open", **labels) == 1
    assert await service.metric("shadow_discrepancy_last_check_timestamp", entity_type="Listing") > 0


async def test_while_a_run_goes_on_asking_again_gives_the_same_run(service: Service) -> None:
    go_on = threading.Event()
    calls: list[str] = []

    def verification(run_id: str, _trigger: str, _stopping: threading.Event) -> dict[str, Any]:
        calls.append(run_id)
        assert go_on.wait(20)
        return {"clean": True}

    jobs = Jobs(service.resources.jobs._runs, verification, 0)
    first, *others = await asyncio.gather(*(jobs.trigger(VERIFIER) for _ in range(5)))
    assert {run_id for run_id, _ in others} == {first[0]}
    assert sum(new for _, new in (first, *others)) == 1
    assert (await jobs.describe())["running"] is True
    go_on.set()
    await jobs.stop(20)
    assert calls == [first[0]]
    assert (await jobs.run(VERIFIER, first[0]))["result"] == {"clean": True}
    _, new = await jobs.trigger(VERIFIER)
    assert new is True
    await jobs.stop(20)


async def test_a_run_that_breaks_is_failed_and_says_no_more_than_the_kind_of_error(service: Service) -> None:
    def verification(_run_id: str, _trigger: str, _stopping: threading.Event) -> dict[str, Any]:
        raise RuntimeError("with the row of Jane Doe")

    jobs = Jobs(service.resources.jobs._runs, verification, 0)
    run_id, _ = await jobs.trigger(VERIFIER)
    await jobs.stop(20)
    run = await jobs.run(VERIFIER, run_id)
    assert (run["state"], run["result"]) == ("failed", {"errorClass": "RuntimeError"})


async def test_a_run_ends_with_the_process_and_the_next_one_goes_on(stores: Stores) -> None:
    """Its thread would hold the process up until it is killed."""
    rows = [listing_row(f"id-{number:02}") for number in range(40)]
    stores.put_all(rows)
    stores.shadow_put_all(rows)
    async with running(stores.pair, verifier_rows_per_second=2) as service:
        await service.client.post(f"/api/admin/jobs/{VERIFIER}/trigger")
        await until(lambda: _async(bool(stores.rows(verifier_parts))))
    (run,) = stores.rows(job_runs)
    assert (run.state, run.result) == ("failed", {"error": "StoppedError"})
    report = verify_stores(stores.primary, stores.shadow, options=VerifierOptions(resume=True))
    assert (report.sweep.resumed, report.scanned_primary) == (True, 40)


async def _async(value: bool) -> bool:
    return value


async def test_the_verifier_runs_every_so_often_where_it_is_asked_to(start: Start) -> None:
    service = await start(verifier_interval_seconds=0.05)

    async def ran() -> bool:
        (job,) = (await service.client.get("/api/admin/jobs")).json()
        assert job["nextRunAt"] is not None
        return any(run["state"] == "succeeded" and run["trigger"] == "schedule" for run in job["lastRuns"])

    await until(ran)


async def test_a_stop_waits_for_what_is_about_to_be_started() -> None:
    """Else a statement is left on a connection that is closed, and the loop waits for it without end."""
    asked, forever = asyncio.Event(), asyncio.Event()

    class Slow:
        async def begin(self, _job: str, _trigger: str) -> tuple[str, bool]:
            asked.set()
            try:
                await forever.wait()
            finally:
                await asyncio.sleep(0.05)  # a rollback
            raise AssertionError

    jobs = Jobs(Slow(), lambda *_: {}, 0.001)  # type: ignore[arg-type]
    jobs.start()
    await asked.wait()
    await jobs.stop(5.0)
    assert jobs._ticker is not None
    assert jobs._ticker.done()


async def test_the_list_says_when_the_cronjob_is_due_also_where_it_starts_elsewhere(start: Start) -> None:
    service = await start(verifier_schedule="30 4 * * *")
    before = datetime.now(UTC)
    (job,) = (await service.client.get("/api/admin/jobs")).json()
    due = datetime.fromisoformat(job["nextRunAt"])
    assert (job["schedule"], job["scheduledBy"], due.hour, due.minute) == ("30 4 * * *", "CronJob", 4, 30)
    assert before < due <= before + timedelta(days=1)
    for nothing_known in ("off", "@every 1h"):
        other = await start(verifier_schedule=nothing_known)
        (job,) = (await other.client.get("/api/admin/jobs")).json()
        assert (job["schedule"], job["nextRunAt"]) == (nothing_known, None)


async def test_runs_of_the_command_line_and_of_the_cronjob_are_in_the_list(service: Service) -> None:
    databases = service.databases
    for trigger in ("cli", "schedule"):
        await asyncio.to_thread(verify_stores, databases.primary, databases.shadow, trigger=trigger)
    (job,) = (await service.client.get("/api/admin/jobs")).json()
    assert [(run["trigger"], run["state"]) for run in job["lastRuns"]] == [
        ("schedule", "succeeded"),
        ("cli", "succeeded"),
    ]
    assert all(run["result"]["clean"] and run["durationSeconds"] >= 0 for run in job["lastRuns"])


def _enter(service: Service, run_id: str, age: timedelta) -> None:
    started = datetime.now(UTC) - age
    service.primary(
        "INSERT INTO job_runs (id, job, trigger, state, started_at)"
        " VALUES (:id, :job, 'cli', 'running', :at)",
        id=run_id,
        job=VERIFIER,
        at=started.replace(tzinfo=None).isoformat(" ", "microseconds")
        if service.databases.backend == "sqlite"
        else started,
    )


async def test_a_run_whose_process_died_is_shown_as_failed_and_makes_way(service: Service) -> None:
    dead = "01890000-0000-7000-8000-00000000dead"
    _enter(service, dead, timedelta(minutes=2))
    (job,) = (await service.client.get("/api/admin/jobs")).json()
    (run,) = job["lastRuns"]
    assert (job["running"], run["state"], run["result"]) == (False, "failed", {"error": "Abandoned"})
    answer = await service.client.get(f"/api/admin/jobs/{VERIFIER}/runs/{dead}")
    assert answer.json()["state"] == "failed"
    triggered = (await service.client.post(TRIGGER)).json()
    assert triggered["runId"] != dead
    assert triggered["alreadyRunning"] is False
    (row,) = service.primary("SELECT * FROM job_runs WHERE id = :id", id=dead)
    assert (row["state"], row["finished_at"] is None) == ("failed", False)


async def test_a_run_just_entered_may_not_have_its_lock_yet(service: Service) -> None:
    young = "01890000-0000-7000-8000-00000000aaaa"
    _enter(service, young, timedelta(seconds=5))
    (job,) = (await service.client.get("/api/admin/jobs")).json()
    assert (job["running"], job["lastRuns"][0]["state"]) == (True, "running")
    assert (await service.client.post(TRIGGER)).json() == {"runId": young, "alreadyRunning": True}


async def test_a_run_that_takes_hours_is_running_as_long_as_it_holds_the_lock(service: Service) -> None:
    long = "01890000-0000-7000-8000-0000000010ff"
    _enter(service, long, timedelta(hours=5))
    engine = create_sync_engine(service.databases.primary)
    with exclusive(Side("primary", engine, 5.0)):
        (job,) = (await service.client.get("/api/admin/jobs")).json()
        assert (job["running"], job["lastRuns"][0]["state"]) == (True, "running")
        assert (await service.client.post(TRIGGER)).json() == {"runId": long, "alreadyRunning": True}
    engine.dispose()
    (job,) = (await service.client.get("/api/admin/jobs")).json()
    assert (job["running"], job["lastRuns"][0]["state"]) == (False, "failed")
