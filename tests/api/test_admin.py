"""/api/admin/jobs: who may, what there is, and that one run is one run."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from shadowfault_api.jobs import VERIFIER, Jobs
from shadowfault_testing.service import until

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from shadowfault_testing.service import Service

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
    assert (job["name"], job["running"], job["nextRunAt"]) == (VERIFIER, False, None)
    assert [one["id"] for one in job["lastRuns"]] == [run["id"]]
    labels = {"entity_type": "Listing", "discrepancy_type": "missing_in_shadow"}
    assert await service.metric("shadow_discrepancies_total", **labels) == 1
    assert await service.metric("shadow_discrepancies_open", **labels) == 1
    assert await service.metric("shadow_discrepancy_last_check_timestamp", entity_type="Listing") > 0


async def test_while_a_run_goes_on_asking_again_gives_the_same_run(service: Service) -> None:
    go_on = threading.Event()
    calls: list[str] = []

    def verification(run_id: str) -> dict[str, Any]:
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
    def verification(_run_id: str) -> dict[str, Any]:
        raise RuntimeError("with the row of Jane Doe")

    jobs = Jobs(service.resources.jobs._runs, verification, 0)
    run_id, _ = await jobs.trigger(VERIFIER)
    await jobs.stop(20)
    run = await jobs.run(VERIFIER, run_id)
    assert (run["state"], run["result"]) == ("failed", {"errorClass": "RuntimeError"})


async def test_the_verifier_runs_every_so_often_where_it_is_asked_to(start: Start) -> None:
    service = await start(verifier_interval_seconds=0.05)

    async def ran() -> bool:
        (job,) = (await service.client.get("/api/admin/jobs")).json()
        assert job["nextRunAt"] is not None
        return any(run["state"] == "succeeded" and run["trigger"] == "schedule" for run in job["lastRuns"])

    await until(ran)
